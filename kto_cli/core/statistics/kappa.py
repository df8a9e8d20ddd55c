"""Cohen's kappa of two people who rated the same items, with its interval; without torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from kto_cli.core.statistics.shares import share_of, share_variance


class Kappa(NamedTuple):
    """Agreement of two people, chance taken out."""

    items: int
    """Items that both rated."""
    agree: int
    """Those of them to which both gave the same."""
    kappa: float
    """NaN without items, or if both gave one and the same to all: then chance alone agrees everywhere."""
    interval: list[float]
    """Of 90 %."""


def cohen(pairs: Mapping[tuple[Hashable, Hashable], int]) -> Kappa:
    """(Po - Pe) / (1 - Pe) (Cohen 1960, Educational and Psychological Measurement 20).

    Po is the share of items to which both gave the same; Pe what it would be if each rated at random, with their own
    shares of each value. The interval is the score interval of Po with Pe as it is, as wide as the variance of kappa
    (Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72, equation 13) is larger or smaller than that of Po
    alone: it has a width where all items agree.

    Args:
        pairs: (what one gave, what the other gave) -> number of items.
    """
    count = sum(pairs.values())
    agree = sum(items for (one, other), items in pairs.items() if one == other)
    first, second = Counter[Hashable](), Counter[Hashable]()
    for (one, other), items in pairs.items():
        first[one] += items
        second[other] += items
    chance = sum(first[value] * second[value] for value in first) / count**2 if count else 1.0
    if chance == 1.0:
        return Kappa(count, agree, math.nan, [math.nan, math.nan])
    share = agree / count
    found = _variance(pairs, first, second, share, chance) / count * (1 - chance) ** 2
    agreeing = share_of(share, found, lambda x: share_variance(x, count), prompts=count, copies=1.0)
    low, high = agreeing.interval()
    return Kappa(
        count, agree, (share - chance) / (1 - chance), [(edge - chance) / (1 - chance) for edge in (low, high)]
    )


def _variance(
    pairs: Mapping[tuple[Hashable, Hashable], int],
    first: Mapping[Any, int],
    second: Mapping[Any, int],
    share: float,
    chance: float,
) -> float:
    """Variance of kappa for large numbers of items, times their number."""
    count = sum(pairs.values())
    total = 0.0
    for (one, other), items in pairs.items():
        if one == other:
            total += items / count * ((1 - chance) - (first[one] + second[one]) / count * (1 - share)) ** 2
        else:
            total += items / count * ((second[one] + first[other]) / count * (1 - share)) ** 2
    return (total - (share * chance - 2 * chance + share) ** 2) / (1 - chance) ** 4
