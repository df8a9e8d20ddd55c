"""What of the reference a loss reads, so that nothing else is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.common.words import plural
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

    read: NDArray[numpy.int64] | None = None
    """Training rows that are read, ascending; None: all."""

    @classmethod
    def by(cls, settings: LossSettings, read: NDArray[numpy.int64] | None = None) -> Needed:
        """What a loss needs."""
        return cls(needs_mismatched(settings), settings.reads_tokens, read)

    @property
    def words(self) -> str:
        """All that is needed, in words."""
        whose = "mismatched completions" if self.mismatched else "mismatched completions of validation rows"
        rows = "rows" if self.read is None else f"{plural(len(self.read), 'training row')}, validation rows"
        return f"{rows} and {whose}{'; tokens of training rows' * self.tokens}"

    def trained(self, count: int) -> NDArray[numpy.int64]:
        """The training rows that are read, of so many."""
        return numpy.arange(count) if self.read is None else self.read

    def read_by_tokens(self, trained: EncodedRows) -> Sequences:
        """Sequences of the training rows of which single tokens are read; own completions first."""
        if self.read is None:
            return trained.sequences if self.mismatched else trained.own
        rows = self.read
        return trained.sequences.take(numpy.concatenate([rows, len(trained) + rows]) if self.mismatched else rows)

    def places(self, count: int, trained: int) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
        """(rows whose own completions are needed, rows whose mismatched ones are), of `count` of which the first
        `trained` are trained on."""
        rows, others = self.trained(trained), numpy.arange(trained, count)
        return numpy.concatenate([rows, others]), numpy.concatenate([rows, others]) if self.mismatched else others

    def sequences(self, rows: EncodedRows, trained: int) -> Sequences:
        """Own completions of `rows`, of which the first `trained` are trained on, then the mismatched completions."""
        if self.read is None and self.mismatched:
            return rows.sequences
        own, mismatched = self.places(len(rows), trained)
        return rows.sequences.take(numpy.concatenate([own, len(rows) + mismatched]))


EVERYTHING = Needed()
"""All that losses of sums of log-probs read."""
