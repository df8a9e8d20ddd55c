"""Outcome of each row: train, validation, or removed with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import Flags

TRAIN, VALIDATION, FIRST_REASON = 0, 1, 2
REJECTED, DROPPED = "rejected", "dropped"


@dataclass
class Outcomes:
    """Outcome of each row. Rows start as TRAIN; the first reason to remove a row sticks."""

    codes: NDArray[numpy.int16]
    """[rows] TRAIN, VALIDATION, or FIRST_REASON + an index into `reasons`."""
    reasons: list[tuple[str, str, str]] = field(default_factory=list)
    """(REJECTED or DROPPED, reason, detail)"""

    @classmethod
    def all_train(cls, count: int) -> Outcomes:
        """`count` rows for training."""
        return cls(numpy.zeros(count, "i2"))

    @property
    def train(self) -> Flags:
        """[rows] the row is for training."""
        return self.codes == TRAIN

    @property
    def validation(self) -> Flags:
        """[rows] the row is for validation."""
        return self.codes == VALIDATION

    @property
    def kept(self) -> Flags:
        """[rows] the row is for training or validation."""
        return self.codes < FIRST_REASON

    def remove(self, rows: Flags, kind: str, reason: str, detail: str) -> None:
        """Removes rows from train and validation; rows that are removed already keep their reason."""
        rows = rows & self.kept
        if rows.any():
            self.codes[rows] = FIRST_REASON + len(self.reasons)
            self.reasons.append((kind, reason, detail))

    def validate_on(self, rows: Flags) -> None:
        """Moves rows from train to validation."""
        self.codes[rows & self.train] = VALIDATION

    def counts(self, kind: str) -> dict[str, int]:
        """Number of rows by reason, of one kind."""
        totals: dict[str, int] = {}
        for code, (each, reason, _) in enumerate(self.reasons, start=FIRST_REASON):
            if each == kind:
                totals[reason] = totals.get(reason, 0) + int((self.codes == code).sum())
        return totals
