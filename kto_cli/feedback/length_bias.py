"""Whether the length of an answer alone tells its label: what a model then learns first."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.feedback.columns import I8, Columns, Flags

NORMAL_90 = 1.6448536269514722
"""A normal variable is within this many standard deviations 90 % of the time."""


class Area(NamedTuple):
    """An AUC with its 90 % interval; NaN where a class is missing (or, for the interval, all rows have one prompt)."""

    auc: float
    low: float
    high: float


def length_auc(lengths: NDArray[Any], desirable: Flags, prompts: I8) -> Area:
    """How often a desirable answer is longer than an undesirable one, ties counted half (the Mann-Whitney statistic).

    The interval is for rows that come in prompts: those of one prompt are drawn together (Obuchowski 1997,
    "Nonparametric analysis of clustered ROC curve data", Biometrics 53; DeLong's where each prompt has one row).

    Args:
        lengths, desirable, prompts: [rows]; prompts are any numbers from 0.
    """
    good, bad = numpy.sort(lengths[desirable]), numpy.sort(lengths[~desirable])
    if not len(good) or not len(bad):
        return Area(math.nan, math.nan, math.nan)
    beaten = numpy.empty(len(lengths))
    for own, others in ((desirable, bad), (~desirable, good)):
        mine = lengths[own]
        shorter = numpy.searchsorted(others, mine, "left") + numpy.searchsorted(others, mine, "right")
        beaten[own] = shorter / (2 * len(others))
    beaten[~desirable] = 1 - beaten[~desirable]
    auc = float(beaten[desirable].mean())
    weights = (beaten - auc) / numpy.where(desirable, len(good), len(bad))
    _, clusters = numpy.unique(prompts, return_inverse=True)
    shares = numpy.bincount(clusters, weights)
    if len(shares) < 2:
        return Area(auc, math.nan, math.nan)
    reach = NORMAL_90 * math.sqrt(len(shares) / (len(shares) - 1) * float(shares @ shares))
    return Area(auc, max(0.0, auc - reach), min(1.0, auc + reach))


def longer_in_pairs(columns: Columns, at: I8) -> tuple[int, float]:
    """(pairs with both labels, in what share of them the desirable answer is the longer one, ties counted half)."""
    at = at[columns.pairs[at] >= 0]
    if not len(at):
        return 0, math.nan
    _, which = numpy.unique(columns.pairs[at], return_inverse=True)
    signs = numpy.where(columns.labels[at] == 1, 1, -1)
    whole = numpy.bincount(which, signs) == 0  # one row of each label: a pair has two rows at most
    lead = numpy.bincount(which, signs * columns.completion_chars[at])[whole]
    pairs = int(whole.sum())
    return pairs, float(((lead > 0) + 0.5 * (lead == 0)).mean()) if pairs else math.nan
