"""Win rate corrected for the errors of a judge, which people's preferences show (arXiv 2511.21140); without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from kto_cli.core.statistics.shares import FEWEST_COMPARED, NORMAL

UNKNOWN = {
    "few": "fewer than ten comparisons, or pairs of people",
    "guessing": "the judge is not shown to do better than guessing",
    "unlike": "a judge with these errors gives no such win rate, so the pairs are unlike the comparisons",
}
"""Why there is no corrected win rate."""


class Mean(NamedTuple):
    """A mean of outcomes between 0 and 1, and its variance."""

    value: float
    variance: float
    trials: int


class JudgeErrors(NamedTuple):
    """How often a judge is for the answer that people prefer, by which side that is of."""

    on_wins: Mean
    """People prefer the model's answer: true positives, q1."""
    on_losses: Mean
    """People prefer the baseline's: true negatives, q0."""
    covariance: float = 0.0
    """Of the two rates; where both are one estimate, its variance."""

    @property
    def skill(self) -> float:
        """q0 + q1 - 1: 1 for a judge that never errs, 0 for one that guesses."""
        return self.on_wins.value + self.on_losses.value - 1


def mean(outcomes: Sequence[float]) -> Mean:
    """Mean of outcomes (1, 0, or 0.5 for a tie); NaN without any.

    The variance is that with half of 1.645^2 wins and as many losses added (Agresti and Coull 1998, The American
    Statistician 52), so that it is no 0 where all outcomes agree.
    """
    count, more = len(outcomes), NORMAL**2
    if not count:
        return Mean(math.nan, math.nan, 0)
    total = count + more
    middle = (math.fsum(outcomes) + more / 2) / total
    squares = (math.fsum(each * each for each in outcomes) + more / 2) / total
    return Mean(math.fsum(outcomes) / count, (squares - middle**2) / total, count)


def one_rate(right: Sequence[float]) -> JudgeErrors:
    """Errors of a judge that are the same whichever side is better.

    Args:
        right: for each pair 1 if the judge is for the answer that people prefer, 0.5 for a tie, else 0.
    """
    found = mean(right)
    return JudgeErrors(found, found, found.variance)


def two_rates(on_wins: Sequence[float], on_losses: Sequence[float]) -> JudgeErrors:
    """Errors of a judge that may favour a side, from comparisons of that very kind; arguments as of `one_rate`."""
    return JudgeErrors(mean(on_wins), mean(on_losses))


def corrected(outcomes: Sequence[float], errors: JudgeErrors) -> dict[str, Any]:
    """The win rate that people would give.

    A judge gives p = theta q1 + (1 - theta) (1 - q0), so theta = (p + q0 - 1) / (q0 + q1 - 1). The interval has all
    theta in [0, 1] that the three estimates do not refute (Fieller 1954, Journal of the Royal Statistical Society B
    16), so it counts both samples:

        (p + q0 - 1 - theta (q0 + q1 - 1))^2 <= 1.645^2 V
        V = var p + (1 - theta)^2 var q0 + theta^2 var q1 - 2 theta (1 - theta) cov(q0, q1)

    The delta method, which the paper takes, divides by the skill instead as if it were known: it covers too often where
    that is small.

    Args:
        outcomes: the judge's: 1 for the model, 0.5 for a tie, 0 for the baseline.

    Returns:
        win_rate, interval (90 %), known: True; where it is not known, NaN, [0, 1], and why as one of `UNKNOWN`.
    """
    found = mean(outcomes)
    first, second, common = errors.on_wins.variance, errors.on_losses.variance, errors.covariance
    if min(found.trials, errors.on_wins.trials, errors.on_losses.trials) < FEWEST_COMPARED:
        return _unknown("few")
    square = errors.skill**2 - NORMAL**2 * (first + second + 2 * common)
    if errors.skill <= 0 or square <= 0:
        return _unknown("guessing")
    above = found.value + errors.on_losses.value - 1
    half = above * errors.skill - NORMAL**2 * (second + common)
    rest = above**2 - NORMAL**2 * (found.variance + second)
    reach = math.sqrt(max(0.0, half**2 - square * rest))
    low, high = (half - reach) / square, (half + reach) / square
    if low >= 1 or high <= 0:
        return _unknown("unlike")
    rate, low, high = (min(1.0, max(0.0, each)) for each in (above / errors.skill, low, high))
    return {"win_rate": rate, "interval": [low, high], "known": True}


def _unknown(why: str) -> dict[str, Any]:
    return {"win_rate": math.nan, "interval": [0.0, 1.0], "known": False, "why": why}
