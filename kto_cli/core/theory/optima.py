"""Policies that losses lead to in tabular worlds: all worlds at once, by Adam on the logits, from the reference on.

Losses are expectations over the world's comparisons, the reference point is exact and held while the gradient is taken.
DPO's optimum on finite data often lies at infinity; the policy converges all the same, to answers of which it keeps
none. How far a policy still moves is reported beside its utility.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kto_cli.core.theory.worlds import Worlds
from kto_cli.core.value_functions import VALUE_FUNCTIONS

BETA, TAU = 0.1, 0.1
STEPS = 500
RATE = 1.0
"""Against 6,000 steps at a tenth of the rate no mean share of a condition differs by more than 0.002, bco's by 0.02."""
LATE = 0.9
"""From this share of the steps on the moves are counted."""


class Optimum(NamedTuple):
    """Where a loss leads."""

    logps: Tensor
    """[worlds, answers]."""
    moved: Tensor
    """[worlds] total variation distance that the policy moved in the last tenth of the steps."""


Loss = Callable[[Tensor, Tensor, Worlds], Tensor]
"""[worlds] from log-ratios [worlds, answers], log-probs [worlds, answers] and the worlds."""


def dpo(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    """-log sigmoid(beta (q_w - q_l))."""
    return -(worlds.wins * logsigmoid(BETA * (ratios[:, :, None] - ratios[:, None, :]))).sum((1, 2))


def ipo(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    """(q_w - q_l - 1 / (2 tau))^2; an answer is one token."""
    return (worlds.wins * (ratios[:, :, None] - ratios[:, None, :] - 1 / (2 * TAU)).square()).sum((1, 2))


def sft(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    """-l of the preferred answers."""
    return -(worlds.wins.sum(2) * logps).sum(1)


def _unpaired(value: str, point: Callable[[Tensor, Tensor, Worlds], Tensor]) -> Loss:
    def loss(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
        margins = BETA * (ratios - point(ratios, logps, worlds).detach()[:, None])
        up, down = worlds.wins.sum(2), worlds.wins.sum(1)
        return (up * VALUE_FUNCTIONS[value](margins) + down * VALUE_FUNCTIONS[value](-margins)).sum(1) / 2

    return loss


def divergence(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    """KL(policy || reference), which the mismatched completions estimate."""
    return (logps.exp() * ratios).sum(1)


def _nothing(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    return torch.zeros_like(ratios[:, 0])


def mean_reward(ratios: Tensor, logps: Tensor, worlds: Worlds) -> Tensor:
    """The mean log-ratio of all rows, bco's."""
    return ((worlds.wins.sum(2) + worlds.wins.sum(1)) * ratios).sum(1) / 2


LOSSES: dict[str, Loss] = {
    "kto": _unpaired("logistic", divergence),
    "dpo": dpo,
    "ipo": ipo,
    "apo-zero-unpaired": _unpaired("logistic", _nothing),
    "bco": _unpaired("concave", mean_reward),
    "sft": sft,
}


def optimum(loss: Loss, worlds: Worlds, *, steps: int = STEPS) -> Optimum:
    """The policy after `steps` steps of Adam whose rate falls linearly to a hundredth."""
    logits = worlds.references.clone().requires_grad_()
    adam = torch.optim.Adam([logits], lr=RATE)
    late = worlds.references
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * max(0.01, 1 - step / steps)
        logps = logits.log_softmax(1)
        late = logps.detach() if step == round(LATE * steps) else late
        adam.zero_grad()
        loss(logps - worlds.references, logps, worlds).sum().backward()
        adam.step()
    found = logits.detach().log_softmax(1)
    return Optimum(found, (found.exp() - late.exp()).abs().sum(1) / 2)
