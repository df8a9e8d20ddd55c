"""Scoring completions with a causal language model: the body on all tokens, the head where it is needed."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kto_cli.core.logps import Head, sequence_logps, token_logps
from kto_cli.core.rows import PaddedBatch, TokenSequence, pad


class CompletionScorer(nn.Module):
    """A causal language model as a function from sequences to summed completion log-probs.

    The body runs on all tokens, the head only where a completion token is predicted (core.logps). A
    model whose head is not the plain linear one is noticed by `trust_or_fall_back` and then read
    through its own logits, one sequence at a time.
    """

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.head = find_head(model)
        self.plain = self.head is None or model.base_model is model
        body = model if self.plain else model.base_model
        accepted = inspect.signature(body.forward).parameters
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
        self._takes_positions = "position_ids" in accepted

    def forward(self, input_ids: Tensor, position_ids: Tensor, rows: Tensor, times: Tensor, targets: Tensor) -> Tensor:
        """Fields of a `PaddedBatch` -> [batch] summed log-probs, nats, float32 (float64 for a float64 model)."""
        batch = PaddedBatch(input_ids, position_ids, rows, times, targets)
        with self._autocast(input_ids.device):
            if self.plain:
                return self._plain(batch)
            hidden = self.model.base_model(**self._inputs(input_ids, position_ids)).last_hidden_state[rows, times]
        hidden = hidden if self.dtype == torch.float32 else hidden.to(self.dtype)
        head = find_head(self.model)
        assert head is not None
        return sequence_logps(token_logps(hidden, targets, head), rows, len(input_ids))

    def score(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """Summed completion log-probs of a few sequences, padded together; [sequences], no gradient."""
        with torch.no_grad():
            return self(*pad(sequences).to(next(self.parameters()).device))

    def trust_or_fall_back(self, sequences: Sequence[TokenSequence]) -> float:
        """Compares the fast path with the model's own logits and falls back to those where they differ.

        Returns:
            The largest difference seen, nats per token. `plain` is True afterwards if it was too large.
        """
        if self.plain:
            return 0.0
        fast = self.score(sequences)
        self.plain = True
        try:
            slow = torch.cat([self.score([sequence]) for sequence in sequences])
        finally:
            self.plain = False
        tokens = torch.tensor([len(sequence.completion) for sequence in sequences], device=fast.device)
        difference = ((fast - slow).abs() / tokens).max().item()
        allowed = 1e-3 if self.dtype == torch.float32 else 5e-2
        self.plain = not difference <= allowed
        return difference

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        # Weights that are bfloat16 themselves need no casts (and must not be cast up to float32 either).
        if self.dtype == torch.float32 or next(self.parameters()).dtype == self.dtype:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def _inputs(self, input_ids: Tensor, position_ids: Tensor) -> dict[str, Any]:
        positions = {"position_ids": position_ids} if self._takes_positions else {}
        return {"input_ids": input_ids, **positions, **self._options}

    def _plain(self, batch: PaddedBatch) -> Tensor:
        """One sequence at a time through the model's own logits."""
        values = []
        for index in range(len(batch.input_ids)):
            mine = batch.rows == index
            times = batch.times[mine]
            time = int(times.max()) + 1
            inputs = self._inputs(batch.input_ids[index : index + 1, :time], batch.position_ids[:, :time])
            logits = self.model(**inputs).logits[0, times]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            values.append(logits.log_softmax(-1).gather(-1, batch.targets[mine, None]).sum())
        return torch.stack(values)


def find_head(model: Any) -> Head | None:
    """The model's head where it is a linear one, with the scale and soft cap its config names; else None."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        return None
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, layer.bias, float(scale), softcap)
