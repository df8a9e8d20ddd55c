"""Cohen's kappa: by hand, against scikit-learn, and how often its interval covers."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from kto_cli.core.statistics.kappa import cohen


def test_by_hand():
    """20 items both call good, 15 both bad, 5 only the first calls good, 10 only the second.

    Po = 35 / 50 = 0.7. The first calls 25 good, the second 30: Pe = (25 * 30 + 25 * 20) / 2500 = 0.5, so kappa is
    (0.7 - 0.5) / 0.5 = 0.4. Variance (Fleiss, Cohen and Everitt 1969), times 50 * 0.5^4:

        same       0.4 (0.5 - 1.1 * 0.3)^2 + 0.3 (0.5 - 0.9 * 0.3)^2      = 0.01156 + 0.01587 = 0.02743
        different  0.3^2 (0.1 (0.6 + 0.5)^2 + 0.2 (0.4 + 0.5)^2)          = 0.02547
        less       (0.7 * 0.5 - 2 * 0.5 + 0.7)^2                          = 0.0025

    sums to 0.0504, the variance of kappa is 0.0504 / (50 * 0.0625) = 0.016128 and that of Po 0.5^2 of it, 0.004032, or
    0.96 of 0.7 * 0.3 / 50. Mixed with ten items' worth of 1 (see `share_of`; 4 * 0.7 * 0.3 * 50 = 42): 0.967692. The
    score interval of Po solves (0.7 - x)^2 = 2.7055 * 0.967692 * x (1 - x) / 50.
    """
    found = cohen({("g", "g"): 20, ("b", "b"): 15, ("g", "b"): 5, ("b", "g"): 10})
    assert (found.items, found.agree) == (50, 35)
    assert found.kappa == pytest.approx(0.4)
    ratio = (42 * 0.96 + 10) / 52
    for edge in found.interval:
        share = 0.5 + 0.5 * edge
        assert (0.7 - share) ** 2 == pytest.approx(2.70554 * ratio * share * (1 - share) / 50, rel=1e-4)
    assert found.interval[0] < 0.4 < found.interval[1]


def test_all_agree_has_an_interval_with_a_width():
    found = cohen({("g", "g"): 4, ("b", "b"): 4})
    assert found.kappa == 1
    assert found.interval[1] == 1
    assert 0.2 < found.interval[0] < 0.6


@pytest.mark.parametrize("pairs", [{}, {("g", "g"): 9}])
def test_without_items_or_with_one_value_it_is_not_defined(pairs):
    found = cohen(pairs)
    assert math.isnan(found.kappa)
    assert all(map(math.isnan, found.interval))


@pytest.mark.parametrize("values", [2, 3, 5])
def test_as_scikit_learn(values):
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(values)
    for _ in range(20):
        one = [draw.randrange(values) for _ in range(draw.randint(5, 80))]
        other = [each if draw.random() < 0.5 else draw.randrange(values) for each in one]
        found = cohen(Counter(zip(one, other, strict=True)))
        assert found.kappa == pytest.approx(metrics.cohen_kappa_score(one, other), abs=1e-12)


@pytest.mark.parametrize(("items", "good", "sure"), [(20, 0.5, 0.9), (50, 0.8, 0.85), (200, 0.5, 0.7)])
def test_the_interval_covers(items, good, sure):
    """Two people who see the truth (`good` of the items) with probability `sure` each, independently; 600 studies have
    a standard error of 1.2 %."""
    shares = {
        (one, other): sum(
            share * (sure if one == truth else 1 - sure) * (sure if other == truth else 1 - sure)
            for truth, share in ((1, good), (0, 1 - good))
        )
        for one in (0, 1)
        for other in (0, 1)
    }
    called = shares[1, 0] + shares[1, 1]
    chance = called**2 + (1 - called) ** 2
    truth = (shares[0, 0] + shares[1, 1] - chance) / (1 - chance)
    draw, covered = random.Random(items), 0
    for _ in range(600):
        found = cohen(Counter(draw.choices(list(shares), list(shares.values()), k=items)))
        covered += found.interval[0] <= truth <= found.interval[1]
    assert 0.87 <= covered / 600 <= 0.945
