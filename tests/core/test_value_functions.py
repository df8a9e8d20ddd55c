"""The value functions against float64 NumPy, against central differences, and at the ends of every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.losses import kto_losses
from kto_cli.core.value_functions import STEEPEST, VALUE_FUNCTIONS, kahneman_tversky

GRID = np.concatenate([-np.geomspace(1e-6, 1e4, 41)[::-1], [0.0], np.geomspace(1e-6, 1e4, 41)])
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BY_FORMULA = {
    "logistic": lambda u: np.where(u < 0, 1 / (1 + np.exp(-abs(u))), np.exp(-abs(u)) / (1 + np.exp(-abs(u)))),
    "concave": lambda u: np.log1p(np.exp(-abs(u))) + np.maximum(-u, 0),
    "linear": lambda u: -u,
    "kahneman-tversky": lambda u: -np.where(u < 0, 2.25, 1) * u * (u * u + 1e-6) ** (-0.06),
}


def value_and_slope(name: str, u: object, dtype: torch.dtype = torch.float64) -> tuple[np.ndarray, np.ndarray]:
    margins = torch.as_tensor(u, dtype=dtype).requires_grad_()
    losses = VALUE_FUNCTIONS[name](margins)
    assert losses.dtype == dtype
    losses.sum().backward()
    assert margins.grad is not None
    return losses.detach().double().numpy(), margins.grad.double().numpy()


def test_every_value_function_has_its_formula():
    assert list(VALUE_FUNCTIONS) == list(BY_FORMULA)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_values_by_formula(name: str):
    np.testing.assert_allclose(value_and_slope(name, GRID)[0], BY_FORMULA[name](GRID), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
@settings(deadline=None)
@given(u=st.floats(-30, 30))
def test_slopes_by_central_differences(name: str, u: float):
    """Off the kink of kahneman-tversky at 0, where the sides differ by the loss aversion; within its rounding the third
    derivative is too large for the step."""
    if name == "kahneman-tversky" and abs(u) < 1e-2:
        u += 0.02
    step = 1e-5
    formula = BY_FORMULA[name]
    expected = (formula(np.float64(u + step)) - formula(np.float64(u - step))) / (2 * step)
    assert value_and_slope(name, [u])[1][0] == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_finite_in_every_dtype(name: str, dtype: torch.dtype):
    """Right to the dtype's own rounding of u and of the result, so a silent overflow to 0 is noticed."""
    u = torch.as_tensor(GRID, dtype=dtype)
    losses, slopes = value_and_slope(name, GRID, dtype)
    assert np.isfinite(losses).all()
    assert np.isfinite(slopes).all()
    eps = torch.finfo(dtype).eps
    np.testing.assert_allclose(losses, BY_FORMULA[name](u.double().numpy()), rtol=30 * eps, atol=eps)


@pytest.mark.parametrize("name", VALUE_FUNCTIONS)
def test_a_higher_margin_is_never_worse(name: str):
    losses, slopes = value_and_slope(name, GRID)
    assert (np.diff(losses) <= 0).all()
    assert (slopes <= 0).all()


def test_the_slope_of_kahneman_tversky_where_every_row_starts():
    """At u = 0 it is that of gains, e^(a - 1) = 0.001^-0.12 = 2.29; just below, 2.25 times as much."""
    _, slopes = value_and_slope("kahneman-tversky", [0.0, -1e-9])
    assert -slopes == pytest.approx([1e-3**-0.12, 2.25 * 1e-3**-0.12], rel=1e-6)
    assert -slopes[0] == pytest.approx(2.29, abs=5e-3)
    assert kahneman_tversky(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([-1.0, 2.25], rel=1e-6)


@pytest.mark.parametrize("name", STEEPEST)
def test_the_steepest_slope_is_reached_and_not_passed(name: str):
    _, slopes = value_and_slope(name, GRID)
    assert abs(slopes).max() == pytest.approx(STEEPEST[name], rel=1e-9)


def test_logistic_is_the_loss_of_kto_bit_for_bit():
    ratios, signs = torch.randn(1000) * 30, torch.randn(1000).sign()
    weights = torch.rand(1000)
    losses = weights * VALUE_FUNCTIONS["logistic"](0.1 * signs * (ratios - 1.5))
    assert torch.equal(losses, kto_losses(ratios, signs, weights, 1.5, beta=0.1).losses)


def test_float32_gradient_lives_at_both_ends():
    """sigmoid(20) * sigmoid(-20) = 2.06e-9, which a naive 1 - sigmoid(u) rounds to 0."""
    _, slopes = value_and_slope("logistic", [20.0, -20.0], torch.float32)
    assert -slopes == pytest.approx([2.0611536e-9] * 2, rel=1e-5)
