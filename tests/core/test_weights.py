"""Loss weights: Eq. 8's interval and the choice of what was left open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.weights import choose_weights, lambda_interval

COUNTS = st.integers(1, 10**6)


@pytest.mark.parametrize(
    ("desirable", "undesirable", "lambda_d", "lambda_u"),
    [
        (1000, 100, [0.1, 4 / 30], [7.5, 10.0]),
        (100, 1000, [10.0, 40 / 3], [0.075, 0.1]),
        (50, 50, [1.0, 4 / 3], [0.75, 1.0]),
    ],
)
def test_interval_by_hand(desirable: int, undesirable: int, lambda_d: list[float], lambda_u: list[float]):
    """1 <= lambda_D * n_D / (lambda_U * n_U) <= 4/3. 1000 : 100 with lambda_U = 1: lambda_D from 0.1 to 0.1333;
    with lambda_D = 1: 10 / lambda_U within [1, 4/3], so lambda_U from 7.5 to 10."""
    interval = lambda_interval(desirable, undesirable)
    assert interval["lambda_d"] == pytest.approx(lambda_d)
    assert interval["lambda_u"] == pytest.approx(lambda_u)


@pytest.mark.parametrize(("desirable", "undesirable"), [(0, 5), (5, 0)])
def test_interval_needs_both_classes(desirable: int, undesirable: int):
    with pytest.raises(ValueError, match="both classes"):
        lambda_interval(desirable, undesirable)


@settings(deadline=None)
@given(desirable=COUNTS, undesirable=COUNTS)
def test_chosen_weights_are_inside(desirable: int, undesirable: int):
    weights = choose_weights(desirable, undesirable)
    assert weights.inside
    ratio = weights.lambda_d * desirable / (weights.lambda_u * undesirable)
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    assert weights.ratio == ratio


@settings(deadline=None)
@given(desirable=COUNTS, undesirable=COUNTS)
def test_chosen_weights_are_the_least_raise(desirable: int, undesirable: int):
    """1 and 1 where that is inside; else one is 1 and the other just enters the interval: any less is outside."""
    lambda_d, lambda_u, ratio = choose_weights(desirable, undesirable)
    assert min(lambda_d, lambda_u) == 1
    if undesirable <= desirable <= 4 / 3 * undesirable:
        assert (lambda_d, lambda_u) == (1, 1)
    elif desirable < undesirable:
        assert lambda_u == 1
        assert lambda_d == pytest.approx(undesirable / desirable)
        assert ratio == pytest.approx(1)
    else:
        assert lambda_d == 1
        assert lambda_u == pytest.approx(0.75 * desirable / undesirable)
        assert ratio == pytest.approx(4 / 3)


def test_one_given_leaves_the_other_at_one():
    """1000 : 100 with lambda_U = 8 has ratio 10 / 8 = 1.25, inside; with lambda_U = 5 it is 2, outside and kept."""
    assert choose_weights(1000, 100, lambda_u=8.0) == (1.0, 8.0, 1.25)
    assert choose_weights(1000, 100, lambda_u=8.0).inside
    assert choose_weights(1000, 100, lambda_u=5.0) == (1.0, 5.0, 2.0)
    assert not choose_weights(1000, 100, lambda_u=5.0).inside
    assert choose_weights(1000, 100, lambda_d=0.12) == (0.12, 1.0, pytest.approx(1.2))


def test_both_given_are_kept():
    weights = choose_weights(100, 100, lambda_d=0.5, lambda_u=2.0)
    assert weights == (0.5, 2.0, 0.25)
    assert not weights.inside


def test_weight_zero_given_is_kept():
    """lambda_U = 0 (learn from desirable rows alone) is no request for the default."""
    weights = choose_weights(10, 10, lambda_u=0.0)
    assert (weights.lambda_d, weights.lambda_u) == (1.0, 0.0)
    assert not weights.inside
