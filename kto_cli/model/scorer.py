"""Summed completion log-probs of sequences, from a causal language model."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kto_cli.common.errors import BadModel, first_line
from kto_cli.core.batches import Batch, continuation, pack, pad
from kto_cli.core.logps import Head, sequence_logps, token_logps
from kto_cli.core.prefix_tree import PackedLayout
from kto_cli.core.rows import TokenSequence
from kto_cli.model.attention import PackedAttention
from kto_cli.model.layer_attention import BY_SEGMENT, CannotPack
from kto_cli.model.packed_pass import PackedPass, Past
from kto_cli.model.text_part import refuse_no_text_model
from kto_cli.model.value_head import ValueHead
from kto_cli.model.varlen_attention import KERNELS


class ScorerCheck(NamedTuple):
    """Result of a scorer's start-up check."""

    difference: float
    """Largest difference between fast and plain log-probs, nats per token."""
    unpacked: str | None
    """Why batches are padded and not packed; None if they are packed."""
    attention: str = ""
    """How layers attend in packed batches on a GPU, in words."""


class CompletionScorer(nn.Module):
    """Module that maps a batch of sequences to summed completion log-probs.

    The body runs on all tokens, the head only where a completion token is predicted (core.logps). Batches are packed
    (core.batches) where the model's attention allows it. `trust_or_fall_back` first compares both with simpler
    computations: a model that cannot be packed reads padded batches, and a model without a plain linear head computes
    its own logits, one sequence at a time.
    """

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.plain = find_head(model) is None or model.base_model is model
        body = model if self.plain else model.base_model
        accepted = inspect.signature(body.forward).parameters
        self._takes_more = any(parameter.kind == parameter.VAR_KEYWORD for parameter in accepted.values())
        self._options: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
        self._takes_positions = "position_ids" in accepted
        self.packing: PackedAttention | None = None
        self.narrow = False
        """Weights that are float32 at rest are gathered in `dtype` for each pass (FSDP2)."""
        self.value_head: ValueHead | None = None

    @property
    def packs(self) -> bool:
        """Whether batches are packed."""
        return self.packing is not None and not self.plain

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        output_positions: Tensor,
        rows: Tensor,
        targets: Tensor,
        size: int,
        layout: PackedLayout | None = None,
        past: Past | None = None,
        per_token: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Fields of a `Batch` -> [size] summed log-probs in nats, float64.

        Args:
            past: written by a packed batch and read by its continuation.
            per_token: gives ([predicted] log-probs of single tokens, [predicted] the value head's values or None).

        Raises:
            BadModel: `per_token`, and the model's head is not a plain linear one.
        """
        if per_token and self.plain:
            raise BadModel(
                "--loss ppo-offline and --humanline read single tokens, and this model's output head is not one that "
                "kto can use directly.",
                "Leave them out, or use another model.",
            )
        batch = Batch(input_ids, position_ids, output_positions, rows, targets, size, layout)
        with self._autocast(input_ids.device):
            if self.plain:
                return self._plain(batch)
            hidden = self._body(batch, past)
        hidden = hidden if self.dtype == torch.float32 else hidden.to(self.dtype)
        head = find_head(self.model)
        assert head is not None
        logps = token_logps(hidden, targets, head)
        if per_token:
            return logps, None if self.value_head is None else self.value_head(hidden)
        return sequence_logps(logps, rows, size)

    def _body(self, batch: Batch, past: Past | None) -> Tensor:
        """[predicted, hidden] outputs of the body at the batch's output positions."""
        attention: contextlib.AbstractContextManager[PackedPass | None] = contextlib.nullcontext()
        if batch.layout is not None:
            assert self.packing is not None
            attention = self.packing(batch.layout, past, batch.input_ids.device)
        inputs = self._inputs(batch.input_ids, batch.position_ids)
        with attention as packed:
            if packed is not None and self._takes_more:
                inputs["packed"] = packed
            output = self.model.base_model(**inputs)
        hidden = output.last_hidden_state.flatten(0, 1)
        if past is not None and batch.layout is not None and batch.layout.continues:
            assert past.outputs is not None
            hidden = torch.cat([past.outputs, hidden])
        elif past is not None:
            past.outputs = hidden.detach()[past.prompt_ends]
        return hidden.index_select(0, batch.output_positions)

    def score(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """[sequences] summed completion log-probs of a few sequences in one batch, without gradient."""
        batch = pack(sequences)[0] if self.packs else pad(sequences)
        with torch.no_grad():
            logps: Tensor = self(*batch.to(next(self.parameters()).device))
        return logps

    def trust_or_fall_back(self, sequences: Sequence[TokenSequence]) -> ScorerCheck:
        """Compares fast head and packed batches with simpler computations, and falls back where results differ.

        Sets `plain` and `packs`.

        Args:
            sequences: the first two are short, some share a prompt, and the longest of the data is among them.

        Raises:
            BadModel: the model does not number positions from 0.
        """
        self.packing = None
        dtype = self.dtype
        if not self.narrow and all(parameter.dtype != dtype for parameter in self.parameters()):
            self.dtype = torch.float32  # rounding of a lower precision would hide what is compared
        try:
            with self._autocast(next(self.parameters()).device):
                refuse_no_text_model(self.model, (*sequences[0].prompt, *sequences[0].completion))
            self._refuse_other_positions(sequences[:1])
            if self.plain:
                return ScorerCheck(0.0, "its head is not a plain linear layer")
            head = self._compare_heads(sequences[:2])
            if self.plain:
                return ScorerCheck(head, "its head is not the linear one its config describes")
            return ScorerCheck(head, *self._try_packing(sequences, dtype))
        finally:
            self.dtype = dtype

    def _refuse_other_positions(self, sequences: Sequence[TokenSequence]) -> None:
        """Compares the model's own logits with positions numbered from 0 and with those it chooses itself."""
        if not self._takes_positions:
            return
        plain, self.plain = self.plain, True
        given = self.score(sequences)
        self._takes_positions = False
        own = self.score(sequences)
        self._takes_positions, self.plain = True, plain
        if own.isfinite().all() and not self._agree(given, own, sequences):  # later checks name a model without numbers
            raise BadModel(
                f"{type(self.model).__name__} does not number positions from 0 (as RoBERTa, which starts behind its "
                "padding token); kto would compute other log-probs than the model's own.",
                "Use another model.",
            )

    def _compare_heads(self, sequences: Sequence[TokenSequence]) -> float:
        fast = self.score(sequences)
        self.plain = True
        slow = torch.cat([self.score([sequence]) for sequence in sequences])
        self.plain = not self._agree(fast, slow, sequences)
        return self._per_token(fast - slow, sequences)

    def _try_packing(self, sequences: Sequence[TokenSequence], compute: torch.dtype) -> tuple[str | None, str]:
        """Turns packing on, or off where it cannot be used: (why it is off, how layers attend).

        Args:
            compute: dtype of later passes. On a GPU it decides the attention kernel, so it is tried as well.
        """
        packing = PackedAttention(self.model)
        reason = packing.refusal() or (None if self._takes_positions else "it takes no position ids")
        if reason is not None:
            return reason, ""
        padded = torch.cat([self.score([sequence]) for sequence in sequences])
        self.packing = packing
        faults: list[str] = []
        for packing.fast in (True, False):
            try:
                fault = self._fault(packing, sequences, padded, compute)
            except CannotPack as error:
                fault, faults = str(error), []
                break
            if fault is None:
                return None, packing.described(faults)
            faults.append(fault)
            if packing.ways and packing.ways.keys() <= {BY_SEGMENT}:
                break
        self.packing = None
        return fault, ""

    def _fault(
        self, packing: PackedAttention, sequences: Sequence[TokenSequence], padded: Tensor, compute: torch.dtype
    ) -> str | None:
        """What is wrong with packed batches, or None."""
        exact = self.dtype
        try:
            for self.dtype in [exact, compute] if padded.device.type in KERNELS else [exact]:
                packed = self._score_packed(sequences)
                if not packing.reaches_all_layers:
                    return "some of its layers do not use transformers' attention interface"
                if not all(self._agree(logps, padded, sequences) for logps in packed):
                    differences = [self._per_token(logps - padded, sequences) for logps in packed]
                    return f"its log-probs then differ by {max(differences):.1e} nats a token"
        except RuntimeError as error:
            if not packing.fast or isinstance(error, torch.OutOfMemoryError):
                raise
            return f"it fails: {first_line(error)}"
        finally:
            self.dtype = exact
        return None

    def _score_packed(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        """[sequences] log-probs as one packed batch, and as the continuation of that batch."""
        device = next(self.parameters()).device
        batch, prompts = pack(sequences)
        past = Past.of(prompts, device)
        with torch.no_grad():
            first = self(*batch.to(device), past)
            second = self(*continuation(sequences, prompts).to(device), past)
        return first, second

    def _agree(self, some: Tensor, others: Tensor, sequences: Sequence[TokenSequence]) -> bool:
        """Whether two computations of log-probs differ by no more than rounding.

        In float32 by 0.001 nats a token. bfloat16 weights round each token by some hundredths of a nat, in either
        direction, so a sum of n tokens may differ by 0.25 sqrt(n); a wrong mask or position grows with n.
        """
        tokens = torch.tensor([len(sequence.completion) for sequence in sequences], device=some.device)
        allowed = 1e-3 * tokens if self.dtype != torch.bfloat16 else 0.25 * tokens.sqrt()
        return bool(((some - others).abs() <= allowed).all())

    def _per_token(self, difference: Tensor, sequences: Sequence[TokenSequence]) -> float:
        tokens = torch.tensor([len(sequence.completion) for sequence in sequences], device=difference.device)
        largest = (difference.abs() / tokens).max().item()
        return largest if largest == largest else float("inf")

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        # bfloat16 weights need no casts, and must not be cast to float32 either.
        if self.dtype == torch.float32 or self.model.get_input_embeddings().weight.dtype == self.dtype:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def _inputs(self, input_ids: Tensor, position_ids: Tensor) -> dict[str, Any]:
        positions = {"position_ids": position_ids} if self._takes_positions else {}
        return {"input_ids": input_ids, **positions, **self._options}

    def _plain(self, batch: Batch) -> Tensor:
        """[size] log-probs from the model's own logits, one sequence at a time."""
        values = []
        for index in range(batch.size):
            chosen = batch.rows == index
            times = batch.output_positions[chosen] - index * batch.input_ids.shape[1]
            time = int(times.max()) + 1
            inputs = self._inputs(batch.input_ids[index : index + 1, :time], batch.position_ids[:, :time])
            logits = self.model(**inputs).logits[0, times]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            logps = logits.log_softmax(-1).gather(-1, batch.targets[chosen, None])[:, 0]
            values.append(sequence_logps(logps, torch.zeros_like(times), 1))
        return torch.cat(values)


def find_head(model: Any) -> Head | None:
    """The model's linear head with the scale and soft cap of its config; None for another head."""
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        return None
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    scale /= getattr(config, "logits_scaling", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, layer.bias, float(scale), softcap)
