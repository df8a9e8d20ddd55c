"""KTO loss and its reference point as free functions on summed log-probabilities (arXiv 2402.01306, Eq. 7 and 8).

A row's log-ratio is log pi(y|x) - log pi_ref(y|x) in nats, summed over its completion. All functions
take and return tensors of shape [rows]; the caller takes the mean over the effective batch, because only
the caller knows it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import sigmoid

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.value_functions import logistic


class ReferencePoint(NamedTuple):
    """z_ref, the estimate of KL(policy || reference) from one batch, in nats."""

    value: Tensor
    """max(0, mean): what the loss uses; no gradient."""
    mean: float
    """The mean before the clamp."""
    pairs: int


class KTOLoss(NamedTuple):
    """Per row, shape [rows]."""

    losses: Tensor
    """weight * (1 - v), v = sigmoid(beta * sign * (log_ratio - z_ref))."""
    rewards: Tensor
    """beta * log_ratio, detached, for the log."""


def reference_point(mismatched_log_ratios: Tensor) -> ReferencePoint:
    """z_ref = max(0, mean log-ratio of the mismatched completions of the whole effective batch).

    Clamped once, after the mean over everything: clamping per process or micro-batch biases it upwards.

    Args:
        mismatched_log_ratios: [pairs], over all processes and micro-batches of one optimizer step.
    """
    ratios = mismatched_log_ratios.detach()
    mean = ratios.mean()
    return ReferencePoint(mean.clamp(min=0), mean.item(), ratios.numel())


def kto_losses(log_ratios: Tensor, signs: Tensor, weights: Tensor, z_ref: Tensor | float, *, beta: float) -> KTOLoss:
    """KTO loss per row, Eq. 7: w * (1 - sigmoid(beta * s * (log_ratio - z_ref))).

    Its gradient with respect to a log-ratio is -w * s * beta * sigmoid(u) * sigmoid(-u)
    (Prop. 4.1).

    Args:
        log_ratios: [rows], with gradient. signs: [rows], +1 desirable, -1 undesirable.
        weights: [rows], lambda_D or lambda_U. z_ref: scalar, no gradient. beta: 1 / nats.
    """
    margins = beta * signs * (log_ratios - z_ref)
    return KTOLoss(weights * logistic(margins), (beta * log_ratios).detach())


def saturation(log_ratios: Tensor, signs: Tensor, z_ref: Tensor | float, *, beta: float) -> Tensor:
    """Gradient weight of each row as a share of its maximum, 4 * v * (1 - v) in [0, 1] (Prop. 4.1)."""
    margins = beta * signs * (log_ratios - z_ref)
    return 4 * sigmoid(margins) * sigmoid(-margins)


def kto_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    desirable: Tensor,
    policy_mismatched_logps: Tensor,
    reference_mismatched_logps: Tensor,
    *,
    beta: float,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
) -> tuple[Tensor, ReferencePoint, KTOLoss]:
    """The whole of Eq. 7 and 8 for one effective batch: (mean loss, reference point, per-row parts).

    Args:
        policy_logps, reference_logps: [rows] summed completion log-probs, nats.
        desirable: [rows] bool.
        policy_mismatched_logps, reference_mismatched_logps: [pairs] of the mismatched completions, nats.
    """
    point = reference_point(policy_mismatched_logps - reference_mismatched_logps)
    settings = LossSettings(beta, lambda_d, lambda_u)
    signs, weights = signs_and_weights(desirable, settings, dtype=policy_logps.dtype)
    parts = kto_losses(policy_logps - reference_logps, signs, weights, point.value, beta=beta)
    return parts.losses.mean(), point, parts


def label_signs(desirable: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """[rows] +1 for a desirable row, -1 for an undesirable one."""
    ones = torch.ones(desirable.shape, dtype=dtype, device=desirable.device)
    return torch.where(desirable, ones, -ones)


def signs_and_weights(
    desirable: Tensor, settings: LossSettings, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Labels as data: ([rows] of +1 / -1, [rows] of lambda_D / lambda_U)."""
    signs = label_signs(desirable, dtype=dtype)
    ones = signs.abs()
    return signs, torch.where(desirable, settings.lambda_d * ones, settings.lambda_u * ones)
