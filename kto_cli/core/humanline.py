"""Humanline (arXiv 2509.24207): log-ratios of single tokens kept within bounds before they are summed.

    q = sum_t clamp(l_t - l_ref_t, low, high)

A token outside the bounds has no gradient. Losses stay what they are: they read a log-ratio of a row.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from kto_cli.core.logps import sequence_logps
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.ragged import Ragged


class Bounds(NamedTuple):
    """The reference's log-probs of all completion tokens of some sequences, and the bounds around them."""

    references: Ragged
    low: float
    high: float

    @classmethod
    def of(cls, settings: LossSettings, references: Ragged) -> Bounds:
        """Those of a loss."""
        return cls(references, settings.humanline_low, settings.humanline_high)

    def sums(self, logps: Tensor, places: Tensor, rows: Tensor, size: int) -> Tensor:
        """[size] log-probs of sequences: the reference's plus the bounded log-ratio, which has the gradient.

        Args:
            logps: [predicted] of single tokens. places: [predicted] where each is among `references`.
            rows: [predicted] the sequence it is of.
        """
        ratios, references = self._ratios(logps, places)
        return sequence_logps(references + ratios.clamp(self.low, self.high), rows, size)

    def outside(self, logps: Tensor, places: Tensor) -> Tensor:
        """[predicted] 1 where a token is outside the bounds, else 0."""
        ratios, _ = self._ratios(logps.detach(), places)
        return ((ratios < self.low) | (ratios > self.high)).to(ratios.dtype)

    def _ratios(self, logps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        references = self.references.values[places]
        return logps.to(references.dtype) - references, references
