"""What becomes of each row: training, validation, or dropped and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import Flags

TRAIN, VALIDATION, FIRST_REASON = 0, 1, 2
REJECTED, DROPPED = "rejected", "dropped"


@dataclass
class Fates:
    """One fate for each row; all rows are learned from until something else is said, and the first word counts."""

    of: NDArray[numpy.int16]
    """[rows] TRAIN, VALIDATION, or FIRST_REASON + the place of a reason in `reasons`."""
    reasons: list[tuple[str, str, str]] = field(default_factory=list)
    """(REJECTED or DROPPED, reason, detail)"""

    @classmethod
    def for_rows(cls, count: int) -> Fates:
        """All of `count` rows are learned from."""
        return cls(numpy.zeros(count, "i2"))

    @property
    def train(self) -> Flags:
        """[rows] is learned from."""
        return self.of == TRAIN

    @property
    def validation(self) -> Flags:
        """[rows] is for validation."""
        return self.of == VALIDATION

    @property
    def kept(self) -> Flags:
        """[rows] either of these."""
        return self.of < FIRST_REASON

    def take_out(self, rows: Flags, kind: str, reason: str, detail: str) -> int:
        """Takes rows out of train and validation, those that still are in; returns how many."""
        rows = rows & self.kept
        count = int(rows.sum())
        if count:
            self.of[rows] = FIRST_REASON + len(self.reasons)
            self.reasons.append((kind, reason, detail))
        return count

    def hold_out(self, rows: Flags) -> None:
        """Moves rows from train to validation."""
        self.of[rows & self.train] = VALIDATION

    def counts(self, kind: str) -> dict[str, int]:
        """Rows by reason of one kind."""
        totals: dict[str, int] = {}
        for number, (each, reason, _) in enumerate(self.reasons, start=FIRST_REASON):
            if each == kind:
                totals[reason] = totals.get(reason, 0) + int((self.of == number).sum())
        return totals
