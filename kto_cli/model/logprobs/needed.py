"""What of the reference a loss reads, so that nothing else is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.objectives import needs_mismatched
from kto_cli.model.tokens.store import EncodedRows, Sequences


class Needed(NamedTuple):
    """What is needed besides the log-probs of rows and of the mismatched completions of validation rows.

    Those estimate the KL, whatever the loss.
    """

    mismatched: bool = True
    """Log-probs of the mismatched completions of training rows."""
    tokens: bool = False
    """Log-probs of single tokens of training rows: of own completions and, where they are needed, mismatched ones."""

    @classmethod
    def by(cls, settings: LossSettings) -> Needed:
        """What a loss needs."""
        return cls(needs_mismatched(settings), settings.reads_tokens)

    @property
    def words(self) -> str:
        """All that is needed, in words."""
        whose = "mismatched completions" if self.mismatched else "mismatched completions of validation rows"
        return f"rows and {whose}{'; tokens of training rows' * self.tokens}"

    def read_by_tokens(self, trained: EncodedRows) -> Sequences:
        """Sequences of the training rows of which single tokens are read; own completions first."""
        return trained.sequences if self.mismatched else trained.own

    def sequences(self, rows: EncodedRows, trained: int) -> Sequences:
        """Own completions of `rows`, of which the first `trained` are trained on, then the mismatched completions."""
        if self.mismatched:
            return rows.sequences
        count = len(rows)
        return rows.sequences.take(numpy.concatenate([numpy.arange(count), count + numpy.arange(trained, count)]))


EVERYTHING = Needed()
"""All that losses of sums of log-probs read."""
