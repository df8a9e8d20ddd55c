"""Pairs among rows: a desirable and an undesirable row with one pair id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

NO_ID, ALONE, ONE_CLASS, CROWDED = (
    "without a pair_id",
    "whose partner is missing",
    "whose partner has the same label",
    "whose pair_id is held by more than two rows",
)
"""Why a row is in no pair."""


class Pairing(NamedTuple):
    """Which rows make a pair, and how many make none."""

    partners: Tensor
    """[rows] int64: index of the other row of the pair, -1 for a row of no pair."""
    left_out: dict[str, int]
    """Rows of no pair by reason; reasons without rows are absent."""

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return int((self.partners >= 0).sum()) // 2

    def indices(self, labels: Sequence[bool]) -> tuple[Tensor, Tensor]:
        """[pairs] the desirable and the undesirable row of each pair, in the order of the desirable rows."""
        up = (torch.tensor(labels, dtype=torch.bool) & (self.partners >= 0)).nonzero()[:, 0]
        return up, self.partners[up]

    def sentence(self) -> str:
        """Sentence on the rows of no pair; empty if there are none."""
        if not self.left_out:
            return ""
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in self.left_out.items())
        left_out = f"{sum(self.left_out.values()):,} of {len(self.partners):,} rows"
        return f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}; left out: {left_out} ({reasons})."


def pairing_of(names: Sequence[str | None], labels: Iterable[bool]) -> Pairing:
    """The pairs among rows. A pair id with two rows of one class or with more than two rows makes no pair.

    Args:
        names: [rows] pair ids; None: of no pair. labels: [rows] True is desirable.
    """
    desirable = [bool(label) for label in labels]
    held: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if name is not None:
            held.setdefault(name, []).append(row)
    partners = torch.full((len(names),), -1, dtype=torch.int64)
    counts = {NO_ID: len(names) - sum(map(len, held.values())), ALONE: 0, ONE_CLASS: 0, CROWDED: 0}
    whole = []
    for rows in held.values():
        if len(rows) == 2 and desirable[rows[0]] != desirable[rows[1]]:
            whole.append(rows)
        else:
            counts[ALONE if len(rows) == 1 else ONE_CLASS if len(rows) == 2 else CROWDED] += len(rows)
    if whole:
        both = torch.tensor(whole)
        partners[both] = both.flip(1)
    return Pairing(partners, {reason: rows for reason, rows in counts.items() if rows})
