"""Shares of desirable answers by version, and what became of them: values in, values out, without torch.

Every share and every difference has a 90 % interval that takes in that answers of one user, and of one conversation,
are alike (clustered.py). The standardised difference compares the versions at one mix of prompts: the shares of each
stratum, weighted by the stratum's part of both versions' ratings together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from kto_cli.core.statistics.clustered import ClusteredRow, Difference, Shares, difference, shares
from kto_cli.core.statistics.shares import FEWEST_COMPARED, NORMAL

POWER = 0.8
"""Chance with which as many ratings as are asked for settle a difference of the size seen."""
NEEDED = NORMAL + NormalDist().inv_cdf(POWER)
"""A difference in standard errors that is settled with this chance: 2.49."""


class Answer(NamedTuple):
    """A logged answer."""

    version: int
    label: bool | None
    """None: not rated."""
    stratum: str
    clusters: tuple[str, ...]
    """Its conversation; and its user, if users are known."""


def version_counts(answers: Sequence[Answer], version: int) -> dict[str, Any]:
    """Counts and shares of one version.

    Returns:
        answers, rated, desirable, undesirable (counts), clusters (of its ratings, by the way with the fewest),
        share and interval (of desirable among rated), design_effect (variance over that of independent ratings),
        rated_share and rated_interval (of rated among all); a share of nothing is None.
    """
    own = [answer for answer in answers if answer.version == version]
    labels = [answer.label for answer in own if answer.label is not None]
    counts = {"answers": len(own), "rated": len(labels), "desirable": sum(labels)}
    counts["undesirable"] = counts["rated"] - counts["desirable"]
    found = plain_shares(_rated(own), [version]) if labels else None
    ratings = plain_shares(_whether_rated(own), [version])
    return {
        **counts,
        "clusters": found.clusters[0] if found else 0,
        "share": found.shares[0].value if found else None,
        "interval": found.shares[0].interval() if found else None,
        "design_effect": found.shares[0].ratio if found else None,
        "rated_share": ratings.shares[0].value,
        "rated_interval": ratings.shares[0].interval(),
    }


def compare_versions(answers: Sequence[Answer], first: int, second: int, *, is_mixed: bool) -> dict[str, Any]:
    """Differences of two rated versions, second less first.

    Args:
        is_mixed: strata are known.

    Returns:
        difference and interval of the share of desirable answers, verdict ("rose", "fell", "not settled", "too few
        ratings"), more_ratings (see `more_ratings`), rated (difference and interval of the share of answers rated), and
        with `is_mixed` mix (see `standardised`).
    """
    pair = [answer for answer in answers if answer.version in (first, second)]
    rated = _rated(pair)
    found = plain_shares(rated, [first, second])
    raw, ratings = difference(found), difference(plain_shares(_whether_rated(pair), [first, second]))
    counts = [sum(row.version == version for row in rated) for version in (first, second)]
    return {
        **spelled(raw),
        "verdict": verdict(raw, found),
        "more_ratings": more_ratings(raw, counts[0], counts[1]),
        "rated": spelled(ratings),
        **({"mix": standardised(rated, first, second)} if is_mixed else {}),
    }


def plain_shares(rows: Sequence[ClusteredRow], versions: Sequence[int]) -> Shares:
    """Shares of versions whatever the strata."""
    return shares([row._replace(stratum="") for row in rows], versions, {"": 1.0})


def standardised(rated: Sequence[ClusteredRow], first: int, second: int) -> dict[str, Any]:
    """Difference at the mix of both versions together, over strata in which each version has two clusters or more.

    Returns:
        difference, interval and verdict (None without such strata), covered: share of the ratings in them,
        strata: their names, not_compared: the names of the others.
    """
    clusters: dict[tuple[str, int], list[set[str]]] = defaultdict(lambda: [set() for _ in rated[0].clusters])
    sizes: dict[str, int] = defaultdict(int)
    for row in rated:
        sizes[row.stratum] += 1
        for names, name in zip(clusters[row.stratum, row.version], row.clusters, strict=True):
            names.add(name)
    compared = [
        name for name in sizes if all(min(map(len, clusters[name, version])) > 1 for version in (first, second))
    ]
    total = sum(sizes[name] for name in compared)
    empty: dict[str, Any] = {"difference": None, "interval": None, "verdict": None}
    if compared:
        found = shares(rated, [first, second], {name: sizes[name] / total for name in compared})
        empty = {**spelled(difference(found)), "verdict": verdict(difference(found), found)}
    others = [name for name in sizes if name not in compared]
    return {**empty, "covered": total / len(rated), "strata": compared, "not_compared": others}


def verdict(found: Difference, of: Shares) -> str:
    """Verdict on a difference in words."""
    if min(of.clusters) < FEWEST_COMPARED:
        return "too few ratings"
    low, high = found.interval
    return "rose" if low > 0 else "fell" if high < 0 else "not settled"


def more_ratings(found: Difference, first: int, second: int) -> dict[str, Any]:
    """Ratings that would settle a difference of the size seen with a chance of POWER, if they cluster as those at hand.

    With `rated` ratings the variance is V1 + V2 - 2 C; it must be (difference / NEEDED)^2. More of both in the present
    proportion divide all of it; more of the second version, from new users, V2 - 2 C alone.

    Returns:
        both, second (None: no number is enough), detectable: the difference that the present ratings settle with this
        chance.
    """
    variance = sum(found.variances) - 2 * found.covariance
    goal = (found.value / NEEDED) ** 2
    grows = found.variances[1] - 2 * found.covariance
    part = (goal - found.variances[0]) / grows if grows > 0 else -1.0
    return {
        "both": max(0, math.ceil((first + second) * (variance / goal - 1))) if goal > 0 else None,
        "second": max(0, math.ceil(second * (1 / part - 1))) if part > 0 else None,
        "detectable": NEEDED * math.sqrt(max(0.0, variance)),
    }


def spelled(found: Difference) -> dict[str, Any]:
    """A difference for JSON."""
    return {"difference": found.value, "interval": found.interval}


def _rated(answers: Sequence[Answer]) -> list[ClusteredRow]:
    return [
        ClusteredRow(answer.version, answer.stratum, answer.label, answer.clusters)
        for answer in answers
        if answer.label is not None
    ]


def _whether_rated(answers: Sequence[Answer]) -> list[ClusteredRow]:
    return [ClusteredRow(answer.version, "", answer.label is not None, answer.clusters) for answer in answers]
