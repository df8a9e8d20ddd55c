"""Score intervals of shares and AUCs: numbers in, numbers out, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

LEVEL = 0.90
"""Coverage of all intervals; they are central."""
NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half-width of an interval in standard errors of a normal estimate: 1.645."""
FEW_PROMPTS = 10
"""Prompts whose rows say as much about how alike the rows of a prompt are as the assumption that they are copies."""
FEWEST_COMPARED = 10
"""Prompts of a comparison that may show a difference: of fewer, all resamples agree too often by chance."""


class Share(NamedTuple):
    """A share or an AUC, and what is known of its variance."""

    value: float
    variance: Callable[[float], float]
    """Of the estimate for independent rows, if the true value is x."""
    ratio: float
    """The variance of the estimate over that; takes in that rows of one prompt are alike."""

    def interval(self) -> list[float]:
        """90 % score interval: all x with |value - x| <= 1.645 sqrt(ratio * variance(x)); NaN where the value is.

        It has a width where all resamples agree, as the variance is that of x, not of what was observed (Wilson 1927;
        Newcombe 2006, Statistics in Medicine 25, method 5, for AUCs).
        """
        if math.isnan(self.value):
            return [math.nan, math.nan]
        return [self._edge(0.0), self._edge(1.0)]

    def _edge(self, end: float) -> float:
        inside, outside = self.value, end
        for _ in range(50):
            middle = (inside + outside) / 2
            if (self.value - middle) ** 2 <= NORMAL**2 * self.ratio * self.variance(middle):
                inside = middle
            else:
                outside = middle
        return inside

    def chance(self) -> float:
        """One-sided p of a value this high if the true one is 0.5, by the same normal approximation."""
        return 1 - NormalDist().cdf((self.value - 0.5) / math.sqrt(self.ratio * self.variance(0.5)))


def share_of(
    value: float,
    found: float,
    variance: Callable[[float], float],
    *,
    prompts: int,
    copies: float,
    few: float = FEW_PROMPTS,
) -> Share:
    """A share whose estimate has the variance `found`; NaN: not known.

    Near 0 and 1 and for few prompts a variance that was estimated says little: the ratio is a mean of the one it gives
    and of `copies`, what it is if all rows of a prompt are copies.

    Args:
        variance: see `Share`. copies: rows for each independent one, if so. few: prompts that the assumption is worth.
    """
    knows = 4 * value * (1 - value) * prompts
    if math.isnan(found) or not knows > 0 or not variance(value) > 0:
        return Share(value, variance, copies)
    ratio = found / variance(value)
    return Share(value, variance, (knows * ratio + few * copies) / (knows + few))


def student(freedom: int) -> float:
    """Half-width of an interval in standard errors that were themselves estimated with so many degrees of freedom.

    Student's t; an expansion in 1 / freedom from 3 on (Abramowitz and Stegun 26.7.5): 2.353 at 3, 1.812 at 10.
    """
    if freedom < 1:
        return math.nan
    if freedom == 1:
        return math.tan(math.pi * LEVEL / 2)
    if freedom == 2:
        return LEVEL * math.sqrt(2 / (1 - LEVEL**2))
    z = NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom**power for power, term in enumerate(terms, start=1)))


def share_variance(share: float, trials: int) -> float:
    """Of the share of successes of independent trials."""
    return share * (1 - share) / trials


class PairCounts(NamedTuple):
    """Pairs of a desirable and an undesirable row that an AUC compares."""

    pairs: float
    shared: float
    """Ordered couples of different pairs that have a row in common."""


def all_pairs(desirable: int, undesirable: int) -> PairCounts:
    """Every desirable row with every undesirable one."""
    pairs = desirable * undesirable
    return PairCounts(pairs, pairs * (desirable + undesirable - 2))


def auc_variance(area: float, counts: PairCounts) -> float:
    """Variance of an AUC whose true value is `area`, for independent rows and exponential scores (Hanley and McNeil
    1982, Radiology 143, symmetric as in Newcombe 2006): the covariance of two pairs with a row in common is the mean of
    area / (2 - area) and 2 area^2 / (1 + area), less area^2.

    At 0.5 with m and n rows: (m + n + 1) / (12 m n), that of the Mann-Whitney statistic.
    """
    common = (area / (2 - area) + 2 * area**2 / (1 + area)) / 2 - area**2
    return (counts.pairs * area * (1 - area) + counts.shared * common) / counts.pairs**2
