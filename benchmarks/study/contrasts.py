"""Differences of two conditions on the same prompts and seeds, with intervals, and Holm's correction over a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from kto_cli.core.statistics.shares import student

Rewards = Sequence[Sequence[float]]
"""[seeds][prompts]."""


class Difference(NamedTuple):
    """A mean difference with its 90 % interval and two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def difference(one: Rewards, other: Rewards) -> Difference:
    """Mean of `one` minus `other` for new seeds and new prompts.

    The variance of the mean is that between seeds over their number, plus that between prompts over theirs (each
    contains the noise of single answers, so the sum errs to the safe side); the degrees of freedom are Satterthwaite's.
    From one seed nothing is known of others: the interval is then of prompts alone.
    """
    gaps = [[a - b for a, b in zip(*both, strict=True)] for both in zip(one, other, strict=True)]
    seeds = [statistics.mean(gap) for gap in gaps]
    prompts = [statistics.mean(column) for column in zip(*gaps, strict=True)]
    parts = [(statistics.variance(some) / len(some), len(some) - 1) for some in (seeds, prompts) if len(some) > 1]
    mean, variance = statistics.mean(seeds), sum(part for part, _ in parts)
    if not variance > 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    freedom = max(1, int(variance**2 / sum(part**2 / free for part, free in parts if part)))
    error = math.sqrt(variance)
    reach = student(freedom) * error
    return Difference(mean, mean - reach, mean + reach, two_sided(mean / error, freedom))


def two_sided(t: float, freedom: int) -> float:
    """p of Student's t with a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for power in range(1, freedom - 1, 2):
            total += term
            term *= cosine**2 * (power + 1) / (power + 2)
        return 1 - 2 / math.pi * (angle + sine * total)
    term, total = 1.0, 0.0
    for power in range(0, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 1 - sine * total


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the given order."""
    order = sorted(range(len(ps)), key=lambda index: ps[index])
    found, largest = [1.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        found[index] = largest
    return found
