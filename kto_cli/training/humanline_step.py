"""One optimizer step with log-ratios of single tokens within bounds (core/humanline.py); the rest is step.py's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.batches import Batch
from kto_cli.core.humanline import Bounds
from kto_cli.core.logps import sequence_logps
from kto_cli.core.ragged import Ragged
from kto_cli.core.statistics.metrics import logps_per_token
from kto_cli.core.transfer import to_device
from kto_cli.model.packed_pass import Past
from kto_cli.training.step import StepInput, StepOutput, TrainingEngine, values_of


class HumanlineEngine(TrainingEngine):
    """An engine that sums bounded log-ratios; it reads the reference's log-probs of single tokens."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._own: Bounds | None = None
        self._mismatched: Bounds | None = None
        self._now = self._seen = self.zeros(0)
        """[2, rows] log-prob without bounds and tokens outside them, of a micro-batch and of the step so far."""

    def passes(self, asked: StepInput) -> tuple[StepOutput, bool]:
        """As `TrainingEngine.passes`; also measured are `clamp_fraction`, the share of completion tokens outside the
        bounds, and log-probs of a token without bounds."""
        rows, references, settings = asked.rows, asked.references, asked.settings
        assert references.tokens is not None
        self._own, self._mismatched = (
            None if tokens is None else Bounds.of(settings, self._on_device(tokens))
            for tokens in (references.tokens, references.mismatched_tokens)
        )
        self._seen = self.zeros(2 * len(rows)).view(2, -1)
        references = references.summed_from_tokens()
        output, finite = super().passes(asked._replace(references=references))
        logps, outside = self.sum(self._seen)
        values = values_of(rows, references, settings, dtype=self.dtype)._replace(logps=logps)
        share = outside.sum().item() / values.lengths.sum().item()
        return output._replace(measured={"clamp_fraction": share, **logps_per_token(values)}), finite

    def score_own(self, batch: Batch, positions: Sequence[int], past: Past | None = None) -> Tensor:
        """[rows] log-probs whose log-ratios are bounded."""
        assert self._own is not None
        logps, places = self._tokens(self._own, batch, positions, past)
        without, outside = logps.detach(), self._own.outside(logps, places)
        self._now = torch.stack([sequence_logps(part, batch.rows, batch.size) for part in (without, outside)])
        return self._own.sums(logps, places, batch.rows, batch.size)

    def score_mismatched(self, batch: Batch, positions: Sequence[int], past: Past | None = None) -> Tensor:
        """The same of mismatched completions."""
        assert self._mismatched is not None
        logps, places = self._tokens(self._mismatched, batch, positions, past)
        return self._mismatched.sums(logps, places, batch.rows, batch.size)

    def note_micro_batch(self, index: Tensor) -> None:
        """Keeps what was measured of the last micro-batch."""
        self._seen[:, index] = self._now

    def _tokens(
        self, bounds: Bounds, batch: Batch, positions: Sequence[int], past: Past | None
    ) -> tuple[Tensor, Tensor]:
        """([predicted] log-probs of single tokens, where each is among those of all rows)."""
        logps, _ = self.scorer(*batch, past, per_token=True)
        return logps, self.token_places(batch, positions, bounds.references.starts)

    def _on_device(self, tokens: Ragged) -> Ragged:
        values = to_device(tokens.values.to(self.dtype), self.accelerator.device)
        return tokens._replace(values=values)
