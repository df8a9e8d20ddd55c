"""Numbers of rows of unequal length, one row after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """Numbers of each row, such as one for each of its tokens."""

    values: Tensor
    """[numbers]."""
    starts: Tensor
    """[rows + 1] int64 index of the first number of each row, and the end."""

    @staticmethod
    def of(values: Tensor, lengths: Tensor) -> Ragged:
        """Rows of [rows] lengths."""
        return Ragged(values, torch.nn.functional.pad(lengths.to(torch.int64).cumsum(0), (1, 0)))

    @property
    def lengths(self) -> Tensor:
        """[rows]."""
        return self.starts.diff()

    def take(self, rows: Sequence[int] | slice) -> Ragged:
        """Some rows, in this order."""
        chosen = torch.arange(len(self.starts) - 1)[rows]
        lengths = self.lengths[chosen]
        return Ragged.of(self.values[spans(self.starts[chosen], lengths)], lengths)

    def sums(self) -> Tensor:
        """[rows] float64."""
        rows = torch.arange(len(self.starts) - 1).repeat_interleave(self.lengths)
        return torch.zeros(len(self.starts) - 1, dtype=torch.float64).index_add(0, rows, self.values.double())

    def padded(self) -> tuple[Tensor, Tensor]:
        """([rows, longest], zeros behind each row; which of them are the row's)."""
        lengths = self.lengths
        longest = int(lengths.max()) if len(lengths) else 0
        own = torch.arange(longest) < lengths[:, None]
        table = torch.zeros(own.shape, dtype=self.values.dtype)
        table[own] = self.values
        return table, own


def spans(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... of each span of so many indices, one span after the other; starts, lengths: [spans]."""
    before = lengths.cumsum(0) - lengths
    total = int(lengths.sum())
    return (starts - before).repeat_interleave(lengths) + torch.arange(total, device=starts.device)
