"""The KTO loss against an independent oracle, against Prop. 4.1, and where float32 makes it hard."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.losses import kto_loss, kto_losses, reference_point, saturation, signs_and_weights

FLOATS = st.floats(-300, 300)
CASES = 23
"""The cases in the oracle file; listed by number so that collecting tests needs no file."""


def doubles(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor | float, expected: object) -> None:
    found = torch.as_tensor(found, dtype=torch.float64).detach()
    torch.testing.assert_close(found, doubles(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("number", range(CASES))
def test_oracle_case(number: int):
    cases = json.loads(shared("oracle", "kto_loss.json").read_text())["cases"]
    assert len(cases) == CASES
    given_values, expected = cases[number]["input"], cases[number]["expected"]
    policy = doubles(given_values["policy_logps"]).requires_grad_()
    mismatched = doubles(given_values["policy_kl_logps"]).requires_grad_()
    loss, point, parts = kto_loss(
        policy,
        doubles(given_values["ref_logps"]),
        torch.tensor(given_values["label"]),
        mismatched,
        doubles(given_values["ref_kl_logps"]),
        beta=given_values["beta"],
        lambda_d=given_values["desirable_weight"],
        lambda_u=given_values["undesirable_weight"],
    )
    loss.backward()
    assert policy.grad is not None
    close(loss, expected["loss"])
    close(parts.losses, expected["losses"])
    close(parts.rewards, expected["rewards"])
    close(point.value, expected["kl"])
    close(point.mean, expected["kl_mean_raw"])
    close(policy.grad, expected["grad_policy_logps"])
    assert mismatched.grad is None or not mismatched.grad.any()
    assert not parts.rewards.requires_grad


def test_value_worked_out_by_hand():
    """beta = 0.5, lambda_D = 1, lambda_U = 2.

    Log-ratios: row 1 (desirable) -10 - -12 = 2, row 2 (undesirable) -7 - -4 = -3.
    Mismatched: -5 - -6 = 1 and -8 - -11 = 3, mean 2, so z_ref = 2; their standard deviation is
    sqrt(((1 - 2)^2 + (3 - 2)^2) / (2 - 1)) = sqrt(2), the standard error sqrt(2) / sqrt(2) = 1.
    u1 = 0.5 * (2 - 2) = 0: loss 1 * (1 - 1/2) = 0.5.
    u2 = 0.5 * -1 * (-3 - 2) = 2.5: loss 2 * (1 - 1 / (1 + e^-2.5)) = 2 / (1 + e^2.5).
    Mean: 0.25 + 1 / (1 + e^2.5) = 0.3258581800212436.
    """
    loss, point, parts = kto_loss(
        doubles([-10, -7]),
        doubles([-12, -4]),
        torch.tensor([True, False]),
        doubles([-5, -8]),
        doubles([-6, -11]),
        beta=0.5,
        lambda_u=2.0,
    )
    assert loss.item() == pytest.approx(0.3258581800212436, abs=1e-15)
    assert parts.rewards.tolist() == [1.0, -1.5]
    assert (point.value.item(), point.mean, point.pairs) == (2.0, 2.0, 2)


@settings(deadline=None)
@given(
    ratio=FLOATS,
    z_ref=st.floats(0, 100),
    desirable=st.booleans(),
    weight=st.floats(0.001, 10),
    beta=st.floats(0.001, 1),
)
def test_gradient_is_that_of_proposition_4_1(ratio: float, z_ref: float, desirable: bool, weight: float, beta: float):
    """d loss / d log_ratio = -w * s * beta * sigmoid(u) * sigmoid(-u), u = beta * s * (log_ratio - z_ref).

    sigmoid(u) * sigmoid(-u) = e^-|u| / (1 + e^-|u|)^2, where nothing cancels.
    """
    sign = 1.0 if desirable else -1.0
    ratios = doubles([ratio]).requires_grad_()
    kto_losses(ratios, doubles([sign]), doubles([weight]), z_ref, beta=beta).losses.sum().backward()
    decay = math.exp(-abs(beta * sign * (ratio - z_ref)))
    assert ratios.grad is not None
    expected = -weight * sign * beta * decay / (1 + decay) ** 2
    assert ratios.grad.item() == pytest.approx(expected, rel=1e-9, abs=1e-15 * weight * beta)


def test_float32_gradient_lives_where_one_minus_sigmoid_is_flat():
    """At u = 20 the true gradient of the loss is -sigmoid(20) * sigmoid(-20) = -2.06e-9.

    float32 holds it, but sigmoid(20) rounds to 1 (the next number below 1 is 1 - 6e-8), so the gradient
    of `1 - sigmoid(u)`, computed from its output as v * (1 - v), is exactly 0.
    """
    ours, naive = torch.tensor([20.0], requires_grad=True), torch.tensor([20.0], requires_grad=True)
    kto_losses(ours, torch.ones(1), torch.ones(1), 0.0, beta=1.0).losses.sum().backward()
    (1 - torch.sigmoid(naive)).sum().backward()
    assert ours.grad is not None
    assert naive.grad is not None
    assert naive.grad.item() == 0.0
    assert ours.grad.item() == pytest.approx(-2.0611536e-9, rel=1e-5)


def test_float32_gradient_lives_on_the_wrong_side_too():
    """At u = -20 (a row ranked badly wrong) the gradient is as large as at u = 20, by symmetry; it must not be 0."""
    ratios = torch.tensor([-20.0], requires_grad=True)
    kto_losses(ratios, torch.ones(1), torch.ones(1), 0.0, beta=1.0).losses.sum().backward()
    assert ratios.grad is not None
    assert ratios.grad.item() == pytest.approx(-2.0611536e-9, rel=1e-5)


def test_float32_loss_of_a_saturated_row_is_not_rounded_away():
    parts = kto_losses(torch.tensor([30.0]), torch.ones(1), torch.ones(1), 0.0, beta=1.0)
    assert parts.losses.item() == pytest.approx(math.exp(-30), rel=1e-5)


# --- the reference point -------------------------------------------------------------------------


def test_reference_point_clamps_the_mean_and_not_its_parts():
    """Mean of (-3, 1) is -1, clamped 0; clamping first would give 0.5."""
    point = reference_point(doubles([-3, 1]))
    assert (point.value.item(), point.mean) == (0.0, -1.0)


def test_reference_point_is_over_everything_and_not_per_part():
    """Parts (-4, 0) and (2, 6): one clamp of the mean gives 1; clamping each part's mean gives (0 + 4) / 2 = 2."""
    assert reference_point(doubles([-4, 0, 2, 6])).value.item() == 1.0


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_reference_point_by_its_formula(values: list[float]):
    mean = sum(values) / len(values)
    point = reference_point(doubles(values))
    assert point.value.item() == pytest.approx(max(0.0, mean), rel=1e-9, abs=1e-9)
    assert point.pairs == len(values)


def test_reference_point_has_no_gradient():
    assert not reference_point(doubles([1, 2]).requires_grad_()).value.requires_grad


# --- weights, saturation, invariance ---------------------------------------------------------------


def test_weight_zero_stays_zero():
    """A class of weight 0 has loss and gradient exactly 0, not a default of 1."""
    policy = doubles([-1, -2, -3]).requires_grad_()
    loss, _, parts = kto_loss(
        policy,
        doubles([-2, -2, -2]),
        torch.tensor([True, False, False]),
        doubles([0.0]),
        doubles([0.0]),
        beta=0.1,
        lambda_u=0.0,
    )
    loss.backward()
    assert policy.grad is not None
    assert parts.losses[1:].tolist() == [0.0, 0.0]
    assert parts.losses[0] > 0
    assert policy.grad[1:].tolist() == [0.0, 0.0]


def test_signs_and_weights_follow_the_label():
    signs, weights = signs_and_weights(torch.tensor([True, False, True]), LossSettings(0.1, 0.5, 3.0))
    assert signs.tolist() == [1, -1, 1]
    assert weights.tolist() == [0.5, 3.0, 0.5]


@settings(deadline=None)
@given(ratio=FLOATS, sign=st.sampled_from([1.0, -1.0]), beta=st.floats(0.01, 1))
def test_saturation_is_the_gradient_over_its_maximum(ratio: float, sign: float, beta: float):
    """The gradient's size is w * beta * v * (1 - v), at most w * beta / 4 (v = 1/2)."""
    ratios = doubles([ratio]).requires_grad_()
    kto_losses(ratios, doubles([sign]), doubles([2.0]), 1.0, beta=beta).losses.sum().backward()
    assert ratios.grad is not None
    share = saturation(doubles([ratio]), doubles([sign]), 1.0, beta=beta).item()
    assert share == pytest.approx(abs(ratios.grad.item()) / (2.0 * beta / 4), rel=1e-9, abs=1e-14)


def test_saturation_is_one_at_the_reference_point():
    assert saturation(doubles([3.0]), doubles([-1.0]), 3.0, beta=0.7).item() == 1.0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_row_order_and_micro_batches_change_nothing(data: st.DataObject):
    """With z_ref from the whole batch, the sums over any cut of the shuffled rows give the same loss and gradient."""
    count = data.draw(st.integers(2, 12))
    policy, reference, far, near = (
        doubles(data.draw(st.lists(FLOATS, min_size=count, max_size=count))) for _ in range(4)
    )
    desirable = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    order = torch.tensor(data.draw(st.permutations(range(count))))
    size = data.draw(st.integers(1, count))
    whole = policy.clone().requires_grad_()
    loss, point, _ = kto_loss(whole, reference, desirable, far, near, beta=0.1, lambda_u=1.5)
    loss.backward()

    cut = policy.clone().requires_grad_()
    shuffled_point = reference_point((far - near)[order])
    total = doubles(0.0)
    for rows in order.split(size):
        signs, weights = signs_and_weights(desirable[rows], LossSettings(0.1, 1.0, 1.5), dtype=torch.float64)
        part = kto_losses((cut - reference)[rows], signs, weights, shuffled_point.value, beta=0.1)
        share = part.losses.sum() / count
        share.backward()
        total += share.detach()
    torch.testing.assert_close(total, loss.detach(), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(cut.grad, whole.grad, rtol=1e-9, atol=1e-15)
    assert shuffled_point.mean == pytest.approx(point.mean, rel=1e-9, abs=1e-9)
