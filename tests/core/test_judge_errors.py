"""The win rate corrected for a judge's errors: by hand, at its limits, and how often its interval covers."""

from __future__ import annotations

import math
import random

import pytest

from kto_cli.core.statistics.intervals import wilson
from kto_cli.core.statistics.judge_errors import UNKNOWN, corrected, mean, one_rate, two_rates


def outcomes(wins: int, losses: int, ties: int = 0) -> list[float]:
    return [1.0] * wins + [0.0] * losses + [0.5] * ties


def test_by_hand():
    """p = 0.6, q1 = 0.9, q0 = 0.8: theta = (0.6 + 0.8 - 1) / (0.9 + 0.8 - 1) = 0.4 / 0.7 = 0.5714."""
    found = corrected(outcomes(60, 40), two_rates(outcomes(45, 5), outcomes(40, 10)))
    assert found["win_rate"] == pytest.approx(4 / 7)
    variances = [mean(each).variance for each in (outcomes(60, 40), outcomes(40, 10), outcomes(45, 5))]
    for edge in found["interval"]:
        spread = variances[0] + (1 - edge) ** 2 * variances[1] + edge**2 * variances[2]
        assert (0.4 - 0.7 * edge) ** 2 == pytest.approx(1.644854**2 * spread, rel=1e-5)
    assert found["interval"][0] < 4 / 7 < found["interval"][1]


def test_one_rate_by_hand():
    """q = 0.8 for both: theta = (0.65 - 0.2) / 0.6 = 0.75. The two errors are one, so their variance counts
    (1 - 2 theta)^2 times, and at theta = 0.5 not at all."""
    errors = one_rate(outcomes(80, 20))
    found = corrected(outcomes(65, 35), errors)
    assert found["win_rate"] == pytest.approx(0.75)
    for edge in found["interval"]:
        spread = mean(outcomes(65, 35)).variance + (1 - 2 * edge) ** 2 * errors.on_wins.variance
        assert (0.45 - 0.6 * edge) ** 2 == pytest.approx(1.644854**2 * spread, rel=1e-5)


def test_variance_of_a_mean_has_a_share_of_both_outcomes():
    """10 wins of 10 with 1.3528 wins and losses more: 0.8935 (1 - 0.8935) / 12.7055."""
    found = mean(outcomes(10, 0))
    more = 1.644854**2
    share = (10 + more / 2) / (10 + more)
    assert (found.value, found.trials) == (1.0, 10)
    assert found.variance == pytest.approx(share * (1 - share) / (10 + more), rel=1e-5)
    assert mean(outcomes(0, 0, ties=30)).variance < mean(outcomes(15, 15)).variance / 5


def test_a_judge_that_never_errs_changes_little():
    found = corrected(outcomes(130, 70), one_rate(outcomes(1000, 0)))
    assert found["win_rate"] == pytest.approx(0.65)
    assert found["interval"] == pytest.approx(wilson(130, 200), abs=0.005)


def test_swapping_the_sides_mirrors_everything():
    one = corrected(outcomes(60, 30, 10), two_rates(outcomes(40, 10), outcomes(30, 5)))
    other = corrected(outcomes(30, 60, 10), two_rates(outcomes(30, 5), outcomes(40, 10)))
    assert other["win_rate"] == pytest.approx(1 - one["win_rate"])
    assert other["interval"] == pytest.approx([1 - edge for edge in reversed(one["interval"])])


def test_rates_are_clipped():
    found = corrected(outcomes(82, 18), one_rate(outcomes(80, 20)))
    assert found["win_rate"] == 1
    assert found["interval"][1] == 1
    assert 0.7 < found["interval"][0] < 0.95


@pytest.mark.parametrize(
    ("compared", "pairs", "why"),
    [
        ((90, 10), (50, 50), "guessing"),
        ((90, 10), (0, 100), "guessing"),
        ((90, 10), (11, 9), "guessing"),
        ((9, 0), (80, 20), "few"),
        ((80, 20), (9, 0), "few"),
        ((0, 0), (0, 0), "few"),
        ((98, 2), (80, 20), "unlike"),  # a judge that errs in 20 % gives no more than 80 %
        ((2, 98), (80, 20), "unlike"),
    ],
)
def test_where_there_is_no_corrected_rate_nothing_is_claimed(compared, pairs, why):
    found = corrected(outcomes(*compared), one_rate(outcomes(*pairs)))
    assert math.isnan(found["win_rate"])
    assert (found["interval"], found["known"], found["why"]) == ([0, 1], False, why)
    assert why in UNKNOWN


STUDIES = 2000


@pytest.mark.parametrize(("on_wins", "on_losses"), [(0.9, 0.95), (0.8, 0.85), (0.65, 0.7)])
def test_the_interval_covers_at_three_judge_qualities_and_the_naive_one_does_not(on_wins, on_losses):
    """2,000 studies of 200 comparisons at a true rate of 0.65, and 100 pairs of people for each side: 90 % +- 3; the
    standard error is 0.7 %. The naive interval is Wilson's of the judge's win rate, taken at its word. With one rate
    for both sides the judge is one that errs on both alike."""
    truth, draw = 0.65, random.Random(int(1000 * on_wins))

    def drawn(count: int, share: float) -> list[float]:
        wins = sum(draw.random() < share for _ in range(count))
        return outcomes(wins, count - wins)

    alike = (on_wins + on_losses) / 2
    covered = [0, 0, 0]
    for _ in range(STUDIES):
        said = drawn(200, truth * on_wins + (1 - truth) * (1 - on_losses))
        same = drawn(200, truth * alike + (1 - truth) * (1 - alike))
        for index, (low, high) in enumerate(
            (
                corrected(said, two_rates(drawn(100, on_wins), drawn(100, on_losses)))["interval"],
                corrected(same, one_rate(drawn(200, alike)))["interval"],
                wilson(sum(said), len(said)),
            )
        ):
            covered[index] += low <= truth <= high
    two, one, naive = (each / STUDIES for each in covered)
    assert 0.87 <= two <= 0.93
    assert 0.87 <= one <= 0.93
    assert naive < 0.8
