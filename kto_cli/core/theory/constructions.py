"""Constructions of the known losses in the sense of Definition 3.4, those that fail included.

Each has the loss by its own formula on one side and t(v(r - z)) on the other. Of the paper's three (Proposition 3.5)
PPO-Clip's fails: its v is a rising exponential before the clip, convex for A > 0, and falls for A < 0. With the ratio
itself as the reward, signed, it passes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kto_cli.core.halos import Construction, Units
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.losses import kto_losses
from kto_cli.core.pair_losses import PAIR_LOSSES, Pairs
from kto_cli.core.value_functions import VALUE_FUNCTIONS

BETA = 0.1
DELTA, GAMMA, SIMPO_BETA, TAU = 1.0, 1.0, 2.0, 0.1
"""Of slic, simpo (two) and ipo: the defaults of the sources."""
CLIP = 0.2
"""PPO's epsilon, as drawn in the paper."""
WEIGHT = 1.33
"""Any weight of a row: an affine slope."""
SETTINGS = LossSettings(beta=BETA, ipo_tau=TAU, slic_delta=DELTA, slic_lambda=0.0, simpo_gamma=GAMMA)
"""Of the pair losses; of slic the calibration term alone."""


def pair_loss(name: str, *, beta: float = BETA) -> Callable[[Units], Tensor]:
    """A pair loss as it is trained, of a unit and its rival."""

    def loss(units: Units) -> Tensor:
        pairs = Pairs(
            units.logps, units.rival_logps, units.ratios, units.rival_ratios, units.lengths, units.rival_lengths
        )
        return PAIR_LOSSES[name](pairs, SETTINGS._replace(beta=beta))

    return loss


def nca_desirable(units: Units) -> Tensor:
    """-log sigmoid(r_w) - 0.5 log sigmoid(-r_w): what nca's loss of a pair has of its desirable completion."""
    return -logsigmoid(BETA * units.ratios) - 0.5 * logsigmoid(-BETA * units.ratios)


def ppo_clip(units: Units, advantage: float) -> Tensor:
    """-min(p A, clip(p, 1 - e, 1 + e) A), p the probability ratio."""
    ratio = units.ratios.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)


def ppo_value(advantage: float) -> Callable[[Tensor], Tensor]:
    """v1's: A min(e^z, 1 + e) for A > 0, A max(e^z, 1 - e) for A < 0."""
    if advantage > 0:
        return lambda z: advantage * z.exp().clamp(max=1 + CLIP)
    return lambda z: advantage * z.exp().clamp(min=1 - CLIP)


def signed_ppo_value(z: Tensor) -> Tensor:
    """|A| min(z, e), here with |A| = 1."""
    return z.clamp(max=CLIP)


def kto(units: Units, sign: float) -> Tensor:
    """w (1 - sigmoid(beta s (q - z)))."""
    ones = torch.ones_like(units.ratios)
    return kto_losses(units.ratios, sign * ones, WEIGHT * ones, units.points, beta=BETA).losses


def value_of(name: str) -> Callable[[Tensor], Tensor]:
    """v(z) = -L(beta z) of a value function."""
    return lambda z: -VALUE_FUNCTIONS[name](BETA * z)


def _zero(units: Units) -> Tensor:
    return torch.zeros_like(units.logps)


def _unpaired(loss: str, value: str) -> Construction:
    """A desirable row of a loss w L(beta (q - z))."""
    return Construction(
        loss,
        "desirable",
        "v = -L(beta z); r = q",
        lambda units: WEIGHT * VALUE_FUNCTIONS[value](BETA * (units.ratios - units.points)),
        lambda units: units.ratios,
        lambda units: units.points,
        value_of(value),
        -WEIGHT,
    )


def _undesirable(*, signed: bool) -> Construction:
    """An undesirable row of kto: with the reward -q the loss falls in it, with q it rises."""
    sign = -1.0 if signed else 1.0
    return Construction(
        "kto",
        "undesirable, r = -q" if signed else "undesirable, r = q",
        "v = sigmoid(beta z)",
        lambda units: kto(units, -1.0),
        lambda units: sign * units.ratios,
        lambda units: sign * units.points,
        value_of("logistic"),
        -WEIGHT if signed else WEIGHT,
    )


def _ppo(advantage: float, *, signed: bool) -> Construction:
    case = f"A = {advantage:+.0f}, " + ("signed ratio" if signed else "the paper's")
    if not signed:
        value = ppo_value(advantage)
        formula = "v = A min(e^z, 1 + e)" if advantage > 0 else "v = A max(e^z, 1 - e)"
        return Construction(
            "ppo-clip", case, formula, lambda units: ppo_clip(units, advantage), lambda u: u.ratios, _zero, value
        )
    return Construction(
        "ppo-clip",
        case,
        "v = |A| min(z, e)",
        lambda units: ppo_clip(units, advantage),
        lambda units: advantage * units.ratios.exp(),
        lambda units: torch.full_like(units.logps, advantage),
        signed_ppo_value,
    )


CONSTRUCTIONS = (
    _unpaired("kto", "logistic"),
    _undesirable(signed=True),
    _undesirable(signed=False),
    _unpaired("concave", "concave"),
    _unpaired("linear", "linear"),
    _unpaired("kahneman-tversky", "kahneman-tversky"),
    Construction(
        "dpo", "pair", "v = log sigmoid(z); r = beta q", pair_loss("dpo"),
        lambda units: BETA * units.ratios, lambda units: BETA * units.rival_ratios, logsigmoid,
    ),
    Construction(
        "slic", "pair, calibration", "v = min(0, z - delta); r = l", pair_loss("slic"),
        lambda units: units.logps, lambda units: units.rival_logps, lambda z: (z - DELTA).clamp(max=0),
    ),
    Construction(
        "simpo", "pair", "v = log sigmoid(z - gamma); r = beta l / T", pair_loss("simpo", beta=SIMPO_BETA),
        lambda units: SIMPO_BETA * units.logps / units.lengths,
        lambda units: SIMPO_BETA * units.rival_logps / units.rival_lengths, lambda z: logsigmoid(z - GAMMA),
    ),
    Construction(
        "ipo", "pair", "v = -(z - 1 / (2 tau))^2; r = q / T", pair_loss("ipo"),
        lambda units: units.ratios / units.lengths, lambda units: units.rival_ratios / units.rival_lengths,
        lambda z: -(z - 1 / (2 * TAU)).square(),
    ),
    Construction(
        "nca", "desirable", "v = log sigmoid(z) + 0.5 log sigmoid(-z); r = beta q", nca_desirable,
        lambda units: BETA * units.ratios, _zero, lambda z: logsigmoid(z) + 0.5 * logsigmoid(-z),
    ),
    _ppo(1.0, signed=False),
    _ppo(-1.0, signed=False),
    _ppo(1.0, signed=True),
    _ppo(-1.0, signed=True),
)  # fmt: skip
"""In the order of the table."""
ALIKE = {
    "apo-zero-unpaired": "kto with z = 0",
    "apo-zero": "kto with z = 0, of each completion",
    "bco": "concave with another z",
    "ppo-offline": "ppo-clip, its policy term of each token",
}
"""Losses whose construction is that of another one."""
WITHOUT = ("sft", "csft", "orpo", "apo-down")
"""Losses without a construction here. That none exists for sft is quoted from the paper, not shown."""
