"""Log-ratios of a set of rows, and what their statistics need besides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """Log-ratios of a set of rows, with what their statistics need besides."""

    log_ratios: Tensor
    """[rows] nats: own completions."""
    mismatched_log_ratios: Tensor
    """[rows] nats: mismatched completions."""
    desirable: Tensor
    """[rows] bool."""
    lengths: Tensor
    """[rows] completion tokens."""
    prompt_ids: Sequence[str]
    pair_ids: Sequence[str | None]
    logps: Tensor | None = None
    """[rows] log-probs of own completions, nats, as the loss reads them (of csft behind the row's own control text)."""

    def take(self, rows: Sequence[int]) -> Scores:
        """Some of the rows, in this order."""
        chosen = torch.tensor(rows, dtype=torch.int64)
        return Scores(
            self.log_ratios[chosen],
            self.mismatched_log_ratios[chosen],
            self.desirable[chosen],
            self.lengths[chosen],
            [self.prompt_ids[row] for row in rows],
            [self.pair_ids[row] for row in rows],
            None if self.logps is None else self.logps[chosen],
        )


def class_means(values: Tensor, desirable: Tensor) -> tuple[float, float]:
    """Mean over desirable rows and over undesirable rows; NaN for a class with no rows."""
    return values[desirable].mean().item(), values[~desirable].mean().item()
