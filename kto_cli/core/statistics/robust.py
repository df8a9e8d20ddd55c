"""Means without the outliers: trimmed over rows, pooled over tokens, of many resamples at once."""

from __future__ import annotations

import torch
from torch import Tensor

TRIMMED = 0.1
"""Share of the rows left out at either end; at least one row from three rows on. Of 20 rows of which each is an outlier
with a chance of 2 %, three or more are outliers once in 140 times."""


class Trimmed:
    """Ratio of two sums over rows, sum(values) / sum(sizes), without the rows at either end of values / sizes.

    With tokens as sizes it is a change per token, in which a long row counts for more than a short one. One row in ten
    cannot move it far, whatever its value. Rows are sorted once, for all resamples.
    """

    def __init__(self, values: Tensor, sizes: Tensor | None = None) -> None:
        """`values`, `sizes` (above 0; None: all 1): [rows]."""
        values = values.double()
        sizes = torch.ones_like(values) if sizes is None else sizes.double()
        self.order = (values / sizes).argsort(stable=True)
        self.values, self.sizes = values[self.order], sizes[self.order]
        rows = len(values)
        self.share = 0.0 if rows < 3 else max(TRIMMED, 1 / rows)

    def ratio(self, weights: Tensor) -> Tensor:
        """[resamples], from [resamples, rows] how often each contains a row; NaN where it contains none."""
        drawn = weights[:, self.order].double()
        upto = drawn.cumsum(1)
        total = drawn.sum(1, keepdim=True)
        low, high = self.share * total, (1 - self.share) * total
        # in place: of [resamples, rows] two at a time, not five
        before = torch.maximum(torch.sub(upto, drawn, out=drawn), low, out=drawn)
        kept = torch.minimum(upto, high, out=upto).sub_(before).clamp_(min=0)
        return (kept @ self.values) / (kept @ self.sizes)


def within_fences(values: Tensor) -> Tensor:
    """[rows] values with outliers moved in to Tukey's outer fences, three quartile distances beyond the quartiles.

    Unchanged where the quartiles are equal.
    """
    low, high = torch.quantile(values.double(), torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    reach = 3 * (high - low)
    return values if not reach else values.clamp(low - reach, high + reach)
