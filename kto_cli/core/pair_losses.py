"""Pair losses: [pairs] from the log-probs of each pair's desirable and undesirable completion.

l is a summed log-prob, q a log-ratio to the reference, in nats; T a number of completion tokens; w the desirable
completion (winner), l the undesirable one (loser). Sources: `loss_kinds.LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kto_cli.core.loss_kinds import LossSettings


class Pairs(NamedTuple):
    """Of each pair, [pairs]: log-probs, log-ratios and lengths of its two completions."""

    l_w: Tensor
    l_l: Tensor
    q_w: Tensor
    q_l: Tensor
    t_w: Tensor
    t_l: Tensor


def dpo(pairs: Pairs, settings: LossSettings) -> Tensor:
    """-log sigmoid of the reward margin; with label smoothing e, (1 - e) of it and e of its mirror image."""
    margins, smoothing = settings.beta * (pairs.q_w - pairs.q_l), settings.label_smoothing
    return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)


def ipo(pairs: Pairs, settings: LossSettings) -> Tensor:
    """Squared distance of the log-ratio difference a token from 1 / (2 tau)."""
    return (pairs.q_w / pairs.t_w - pairs.q_l / pairs.t_l - 1 / (2 * settings.ipo_tau)).square()


def slic(pairs: Pairs, settings: LossSettings) -> Tensor:
    """Hinge on the log-prob difference, and the likelihood of the desirable completion."""
    return (settings.slic_delta - pairs.l_w + pairs.l_l).clamp(min=0) - settings.slic_lambda * pairs.l_w


def simpo(pairs: Pairs, settings: LossSettings) -> Tensor:
    """-log sigmoid of the difference of log-probs a token, less a margin."""
    return -logsigmoid(settings.beta * (pairs.l_w / pairs.t_w - pairs.l_l / pairs.t_l) - settings.simpo_gamma)


def orpo(pairs: Pairs, settings: LossSettings) -> Tensor:
    """Negative log-likelihood a token of the desirable completion, and -log sigmoid of the log odds ratio."""
    w, l = pairs.l_w / pairs.t_w, pairs.l_l / pairs.t_l  # noqa: E741
    return -w - settings.orpo_lambda * logsigmoid(_log_odds(w) - _log_odds(l))


def apo_zero(pairs: Pairs, settings: LossSettings) -> Tensor:
    """1 - sigmoid of the desirable reward, plus sigmoid of the undesirable one."""
    return _sigmoid(-settings.beta * pairs.q_w) + _sigmoid(settings.beta * pairs.q_l)


def apo_down(pairs: Pairs, settings: LossSettings) -> Tensor:
    """Sigmoid of the desirable reward, plus 1 - sigmoid of the margin: both fall, the undesirable one more."""
    return _sigmoid(settings.beta * pairs.q_w) + _sigmoid(-settings.beta * (pairs.q_w - pairs.q_l))


def nca(pairs: Pairs, settings: LossSettings) -> Tensor:
    """Noise-contrastive alignment of one desirable and one undesirable completion."""
    up, down = settings.beta * pairs.q_w, settings.beta * pairs.q_l
    return -logsigmoid(up) - 0.5 * logsigmoid(-up) - 0.5 * logsigmoid(-down)


PAIR_LOSSES: dict[str, Callable[[Pairs, LossSettings], Tensor]] = {
    "dpo": dpo,
    "ipo": ipo,
    "slic": slic,
    "simpo": simpo,
    "orpo": orpo,
    "apo-zero": apo_zero,
    "apo-down": apo_down,
    "nca": nca,
}


def _sigmoid(rewards: Tensor) -> Tensor:
    """Sigmoid by its logarithm: torch's own has an exactly zero gradient in float32 from about 17 on."""
    return logsigmoid(rewards).exp()


def _log_odds(logps: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(logps), logps below 0: log(1 - e^x) by the form that is exact on its side of log 2
    (Maechler 2012). A log-prob of 0, certainty, counts as the largest number below it."""
    below = torch.finfo(logps.dtype).tiny
    x = logps.clamp(max=-below)
    near = x > -0.6931471805599453
    small, large = torch.where(near, x, -1.0), torch.where(near, -1.0, x)  # each branch finite, for its gradient
    return x - torch.where(near, (-torch.expm1(small)).log(), torch.log1p(-large.exp()))
