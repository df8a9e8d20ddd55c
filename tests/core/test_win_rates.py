"""Win rates: the arithmetic of both orders, what cancels, and agreement with SciPy and scikit-learn."""

from __future__ import annotations

import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from kto_cli.core.statistics.win_rates import (
    JudgedComparison,
    compare_rates,
    judged,
    length_controlled,
    relation,
    win_rates,
)

BALLOTS = st.sampled_from([1.0, 0.5, 0.0])
WORDS = st.integers(0, 60)
JUDGED_ANSWERS = st.lists(st.tuples(BALLOTS | st.none(), BALLOTS | st.none(), WORDS, WORDS), min_size=1, max_size=25)


def comparison(
    model_first: float | None, baseline_first: float | None, model: int = 10, baseline: int = 10, id: str = "d"
):
    return JudgedComparison(id, model_first, baseline_first, model, baseline, 5 * model, 5 * baseline)


def numbered(rows):
    return [comparison(*row, id=f"{place}") for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ((1, 1), 1.0),
        ((0, 0), 0.0),
        ((1, 0), 0.5),
        ((0, 1), 0.5),
        ((0.5, 0.5), 0.5),
        ((1, 0.5), 1.0),
        ((0.5, 0), 0.0),
        ((None, 1), None),
        ((1, None), None),
    ],
)
def test_the_outcome_of_two_vote(votes, outcome):
    assert comparison(*votes).outcome == outcome


def test_a_comparison_is_measured_in_words_and_characters():
    assert judged("x", (1.0, None), "a bc\nd", "hello") == JudgedComparison("x", 1.0, None, 3, 1, 6, 5)


def test_by_hand():
    """Wins 2, tie 1, loss 1 of 4 readable: (2 + 0.5) / 4 = 0.625; orders agree in 3 of 4. The tie is a judge's for what
    is shown first both times, the others give each place its half: first = (1 + 3 * 0.5) / 4 = 0.625."""
    found = win_rates(
        [
            comparison(1, 1, 10, 20),
            comparison(1, 1, 9, 10),
            comparison(1, 0, 20, 10),
            comparison(0, 0, 30, 10),
            comparison(None, 1, 500, 1),
        ]
    )
    counts = [
        found[name] for name in ("win_rate", "comparisons", "wins", "ties", "losses", "unreadable", "consistency")
    ]
    assert counts == [0.625, 4, 2, 1, 1, 1, 0.75]
    assert found["position_bias"]["first"] == 0.625
    assert found["length"] == {
        "model_words": 17.25,
        "baseline_words": 12.5,
        "model_characters": 86.25,
        "baseline_characters": 62.5,
    }
    assert {name: (group["comparisons"], group["win_rate"]) for name, group in found["by_length"].items()} == {
        "shorter": (1, 1.0),
        "like": (1, 1.0),
        "longer": (2, 0.25),
    }


@given(st.lists(st.sampled_from([1.0, 0.0]), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_the_interval_is_scipys(outcomes):
    found = win_rates(
        [comparison(outcome, outcome, id=str(place)) for place, outcome in enumerate(outcomes)], resamples=10
    )
    exact = binomtest(int(sum(outcomes)), len(outcomes)).proportion_ci(0.90, method="wilson")
    assert found["interval"] == pytest.approx([exact.low, exact.high], abs=1e-12)


def test_half_counts_lie_between_whole_ones():
    """7.5 of 20: the score interval solves |share - p| = z sqrt(p (1 - p) / n); both ends are put in."""
    found = win_rates([comparison(1, 1)] * 7 + [comparison(1, 0)] + [comparison(0, 0)] * 12, resamples=10)
    assert found["win_rate"] == 0.375
    for end in found["interval"]:
        assert abs(0.375 - end) == pytest.approx(1.6448536269514722 * math.sqrt(end * (1 - end) / 20), abs=1e-12)


@given(JUDGED_ANSWERS)
@settings(max_examples=60, deadline=None)
def test_always_first_is_a_half_and_all_ties(rows):
    """Whatever the answers are: a judge that names the first shown says nothing about who is better."""
    found = win_rates([comparison(1.0, 0.0, *row[2:], id=f"{place}") for place, row in enumerate(rows)], resamples=20)
    assert (found["win_rate"], found["ties"], found["comparisons"]) == (0.5, len(rows), len(rows))
    assert found["position_bias"]["first"] == 1.0
    assert found["consistency"] == 0.0
    assert found["length_controlled"]["win_rate"] == pytest.approx(0.5, abs=1e-9)


@given(JUDGED_ANSWERS)
@settings(max_examples=60, deadline=None)
def test_swapping_the_sides_mirrors_everything(rows):
    """Ours and theirs swapped: the answer first in one order was first in the other; each vote is turned around."""

    def turned(vote):
        return None if vote is None else 1 - vote

    here = win_rates(numbered(rows), resamples=40)
    there = win_rates(numbered([(turned(b), turned(a), y, x) for a, b, x, y in rows]), resamples=40)
    assert here["unreadable"] == there["unreadable"]
    if not here["comparisons"]:
        assert math.isnan(here["win_rate"])
        return
    assert here["win_rate"] == pytest.approx(1 - there["win_rate"])
    assert (here["wins"], here["losses"], here["ties"]) == (there["losses"], there["wins"], there["ties"])
    assert here["interval"] == pytest.approx([1 - end for end in reversed(there["interval"])])
    assert here["position_bias"]["first"] == pytest.approx(there["position_bias"]["first"])
    assert here["by_length"]["shorter"]["comparisons"] == there["by_length"]["longer"]["comparisons"]
    ours, theirs = here["length_controlled"], there["length_controlled"]
    assert ours["win_rate"] == pytest.approx(1 - theirs["win_rate"], abs=1e-6)
    assert ours["interval"] == pytest.approx([1 - end for end in reversed(theirs["interval"])], abs=1e-6)


@given(JUDGED_ANSWERS)
@settings(max_examples=60, deadline=None)
def test_a_naive_count_agrees(rows):
    wins = losses = ties = unreadable = 0
    for first, second, _, _ in rows:
        if first is None or second is None:
            unreadable += 1
        elif first + second > 1:
            wins += 1
        elif first + second < 1:
            losses += 1
        else:
            ties += 1
    found = win_rates(numbered(rows), resamples=10)
    assert [found[name] for name in ("wins", "losses", "ties", "unreadable")] == [wins, losses, ties, unreadable]
    if wins + losses + ties:
        assert found["win_rate"] == pytest.approx((wins + ties / 2) / (wins + losses + ties))


@pytest.mark.parametrize(
    ("model", "baseline", "name"),
    [(8, 10, "like"), (10, 8, "like"), (7, 10, "shorter"), (10, 7, "longer"), (0, 0, "like"), (0, 1, "shorter")],
)
def test_of_similar_length_is_within_a_fifth(model, baseline, name):
    assert relation(comparison(1, 1, model, baseline)) == name


def made(count: int, *, worth: float, likes_length: float, seed: int = 0) -> list[JudgedComparison]:
    """The model's answer is longer by 30 words on average; logit P(win) = worth + likes_length * tanh(d / 50)."""
    generator = numpy.random.default_rng(seed)
    found = []
    for place in range(count):
        difference = int(generator.normal(30, 40))
        chance = 1 / (1 + math.exp(-worth - likes_length * math.tanh(difference / 50)))
        score = float(generator.random() < chance)
        found.append(comparison(score, score, 200 + difference, 200, id=str(place)))
    return found


def test_length_control_agrees_with_scikit_learn():
    """A tie is half a win and half a loss; scikit-learn's C = 1 is the same standard normal prior on the slope."""
    comparisons = made(150, worth=0.4, likes_length=1.5)
    comparisons[::10] = [one._replace(model_first=1.0, baseline_first=0.0) for one in comparisons[::10]]
    outcomes = numpy.array([one.outcome for one in comparisons])
    differences = numpy.array([one.model_words - one.baseline_words for one in comparisons], dtype=float)
    inputs = numpy.tanh(differences / numpy.sqrt((differences**2).mean()))[:, None]
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000)
    labels = numpy.repeat([1, 0], len(comparisons))
    model.fit(numpy.concatenate([inputs, inputs]), labels, sample_weight=numpy.concatenate([outcomes, 1 - outcomes]))
    found = length_controlled(comparisons, resamples=50)
    assert found["win_rate"] == pytest.approx(1 / (1 + math.exp(-model.intercept_[0])), abs=1e-5)
    assert found["slope"] == pytest.approx(model.coef_[0, 0], abs=1e-4)


def test_length_control_takes_away_what_length_alone_won():
    """No worth at all, a judge that likes length, ours longer: the plain rate is high, the controlled one near a half
    and a half is inside its interval."""
    found = win_rates(made(600, worth=0.0, likes_length=2.5))
    controlled = found["length_controlled"]
    assert found["win_rate"] > 0.65
    assert controlled["win_rate"] == pytest.approx(0.5, abs=0.08)
    assert controlled["interval"][0] < 0.5 < controlled["interval"][1]
    assert controlled["slope"] > 1


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_length_control_stays_finite_where_all_agree(outcome):
    found = length_controlled([comparison(outcome, outcome, 10 + place, 10) for place in range(30)], resamples=20)
    assert found["win_rate"] == pytest.approx(outcome, abs=1e-3)
    assert all(math.isfinite(end) for end in found["interval"])


def test_length_control_stays_finite_where_length_tells_all():
    comparisons = [comparison(float(place % 2), float(place % 2), 10 + 20 * (place % 2), 20) for place in range(40)]
    found = length_controlled(comparisons, resamples=100)
    assert found["win_rate"] == pytest.approx(0.5, abs=1e-6)
    assert found["slope"] < 10


def test_comparing_two_checkpoints():
    """Paired: where the second wins all that the first wins and ten more of 40, the difference is 0.25 and sure. What
    could not be read for one of them is left out for both, and the order of the comparisons does not matter."""
    first = [comparison(float(place < 15), float(place < 15), id=str(place)) for place in range(40)]
    second = [comparison(float(place < 25), float(place < 25), id=str(place)) for place in range(40)]
    found = compare_rates([*first, comparison(1, None, id="torn")], [comparison(0, 0, id="torn"), *second[::-1]])
    assert [found[name] for name in ("comparisons", "first", "second", "difference")] == [40, 0.375, 0.625, 0.25]
    assert found["verdict"] == "second"
    # The change is 1 in 10 of 40 comparisons: a bootstrap mean has a standard error of sqrt(0.25 * 0.75 / 40) = 0.068.
    assert found["interval"] == pytest.approx([0.25 - 1.645 * 0.0685, 0.25 + 1.645 * 0.0685], abs=0.03)
    assert compare_rates(second, first)["verdict"] == "first"
    assert compare_rates(first, first)["verdict"] == "unclear"
    assert compare_rates(first, [])["comparisons"] == 0
    few = compare_rates(first[15:24], second[15:24])
    assert (few["difference"], few["verdict"]) == (1, "unclear"), "9 comparisons show nothing, however they agree"
