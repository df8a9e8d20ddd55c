"""Losses as their papers write them, one number after the other; apart from the product."""

from __future__ import annotations

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings


def naive_loss(
    settings: LossSettings, l: Tensor, reference: Tensor, others: Tensor, labels: list[bool], lengths: list[int],  # noqa: E741
    pairs: list[tuple[int, int]],
) -> Tensor:  # fmt: skip
    """The loss of a batch from its log-probs l [rows], with gradient.

    Args:
        others: [rows] log-ratios of mismatched completions. pairs: (desirable, undesirable) indices.
    """
    q = l - reference
    one = torch.ones((), dtype=l.dtype)
    beta = settings.beta
    total = 0 * l.sum()
    if settings.loss == "csft":
        return -sum(l) / sum(lengths)
    if settings.loss == "sft":
        for row, label in enumerate(labels):
            total = total - (l[row] if label else 0)
        return total / sum(length for length, label in zip(lengths, labels, strict=True) if label)
    if settings.value:
        z = naive_point(settings, q.detach(), others, labels)
        for row, label in enumerate(labels):
            u = beta * (q[row] - z[row]) * (1 if label else -1)
            powers = u * (u * u + 1e-6) ** ((0.88 - 1) / 2)
            value = {
                "logistic": 1 / (1 + (u).exp()),
                "concave": (one + (-u).exp()).log(),
                "linear": -u,
                "kahneman-tversky": -powers if u >= 0 else -2.25 * powers,
            }[settings.value]
            total = total + (settings.lambda_d if label else settings.lambda_u) * value
        total = total / len(labels)
    else:
        for w, lose in pairs:
            total = total + naive_pair(settings, l[w], l[lose], q[w], q[lose], lengths[w], lengths[lose])
        total = total / len(pairs)
    if settings.sft_weight:
        good = [row for row, label in enumerate(labels) if label]
        total = total - settings.sft_weight * sum(l[row] for row in good) / sum(lengths[row] for row in good)
    return total


def naive_point(settings: LossSettings, q: Tensor, others: Tensor, labels: list[bool]) -> list[float]:
    """The reference point of each row; nothing came before this batch."""
    up = [value for value, label in zip(q.tolist(), labels, strict=True) if label]
    down = [value for value, label in zip(q.tolist(), labels, strict=True) if not label]
    if settings.point == "opposite-class":
        return [max(0.0, sum(other) / len(other)) for label in labels for other in [down if label else up]]
    mean = others.mean().item()
    found = {"mismatched": max(0.0, mean), "zero": 0.0, "mean-reward": sum(up + down) / len(labels)}[settings.point]
    return [found] * len(labels)


def naive_pair(settings: LossSettings, lw: Tensor, ll: Tensor, qw: Tensor, ql: Tensor, tw: int, tl: int) -> Tensor:
    """The loss of one pair."""
    b = settings.beta

    def sigma(x: Tensor) -> Tensor:
        return 1 / (1 + (-x).exp())

    def odds(x: Tensor) -> Tensor:
        return x.exp() / (1 - x.exp())

    name, e = settings.loss, settings.label_smoothing
    if name == "dpo":
        return -(1 - e) * sigma(b * (qw - ql)).log() - e * sigma(b * (ql - qw)).log()
    if name == "ipo":
        return (qw / tw - ql / tl - 1 / (2 * settings.ipo_tau)) ** 2
    if name == "slic":
        hinge = settings.slic_delta - lw + ll
        return (hinge if hinge > 0 else 0 * hinge) - settings.slic_lambda * lw
    if name == "simpo":
        return -sigma(b * (lw / tw - ll / tl) - settings.simpo_gamma).log()
    if name == "orpo":
        return -lw / tw - settings.orpo_lambda * sigma((odds(lw / tw) / odds(ll / tl)).log()).log()
    if name == "apo-zero":
        return 1 - sigma(b * qw) + sigma(b * ql)
    if name == "apo-down":
        return sigma(b * qw) + 1 - sigma(b * (qw - ql))
    assert name == "nca"
    return -sigma(b * qw).log() - 0.5 * sigma(-b * qw).log() - 0.5 * sigma(-b * ql).log()
