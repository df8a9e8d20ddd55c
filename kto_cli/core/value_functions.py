"""Value functions of the unpaired losses: a loss L(u) of the margin u = beta * sign * (log-ratio - reference point).

Each takes and returns a tensor of any shape and floating dtype; loss and gradient are finite for every |u| up to 1e4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

EXPONENT, LOSS_AVERSION = 0.88, 2.25
"""Medians of Tversky and Kahneman's subjects (1992), as in arXiv 2402.01306v1, Eq. 4."""
ROUNDING = 1e-3
"""In units of u: rounds the kink at u = 0, where every row starts and the bare power has an infinite slope."""


def logistic(margins: Tensor) -> Tensor:
    """1 - sigmoid(u), KTO's (arXiv 2402.01306v1, Eq. 7), as exp(logsigmoid(-u)).

    In float32 `1 - sigmoid(u)` has an exactly zero gradient from u of about 17 on, and `sigmoid(-u)` below about -17;
    this form only where the gradient itself underflows.
    """
    return logsigmoid(-margins).exp()


def concave(margins: Tensor) -> Tensor:
    """-log sigmoid(u): never saturates on the wrong side, so noisy labels dominate."""
    return -logsigmoid(margins)


def linear(margins: Tensor) -> Tensor:
    """-u, risk-neutral: unbounded below; the reference point leaves no gradient."""
    return -margins


def kahneman_tversky(margins: Tensor) -> Tensor:
    """-v(u), v(u) = u * (u^2 + e^2)^((a - 1) / 2), times the loss aversion below 0: the power u^a, rounded at 0."""
    rounding = torch.full_like(margins, ROUNDING, requires_grad=False)
    powers = margins * torch.hypot(margins, rounding) ** (EXPONENT - 1)  # hypot: a square overflows in float16
    return -powers.where(margins >= 0, LOSS_AVERSION * powers)


VALUE_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": logistic,
    "concave": concave,
    "linear": linear,
    "kahneman-tversky": kahneman_tversky,
}
"""Name -> L(u), to be minimised."""
STEEPEST = {"logistic": 0.25, "concave": 1.0}
"""The largest |dL/du|; linear has the same everywhere, kahneman-tversky its largest within the rounding of the kink."""


def slope_shares(value: str, margins: Tensor) -> Tensor | None:
    """|dL/du| as a share of the largest it can be, of the margins' shape: 4 v (1 - v) of the logistic one (Prop. 4.1).
    None where it has no largest value, or is the same everywhere."""
    if value not in STEEPEST:
        return None
    held = margins.detach().requires_grad_()
    with torch.enable_grad():
        slopes = torch.autograd.grad(VALUE_FUNCTIONS[value](held).sum(), held)[0]
    return slopes.abs() / STEEPEST[value]
