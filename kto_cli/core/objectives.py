"""Objectives: the loss of an effective batch as a function of its log-probs, by the name of the loss.

What is not differentiated, the reference point above all, is estimated first, once, over the whole batch (`context`);
the loss is then a sum over units that any micro-batch can take its part of (`part_of_loss`). A unit is a row or a pair.
Where a pair lies in two micro-batches, or a loss couples all rows, the gradient with respect to each row's log-prob is
computed from all log-probs at once (`coefficients`), and a micro-batch backpropagates its rows' share of it: exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.custom_loss import custom_loss
from kto_cli.core.loss_kinds import LossSettings, is_custom
from kto_cli.core.losses import reference_point
from kto_cli.core.pair_losses import PAIR_LOSSES, Pairs
from kto_cli.core.value_functions import VALUE_FUNCTIONS, slope_shares


class Values(NamedTuple):
    """Rows of an effective batch, or some of them; each [rows], nats."""

    logps: Tensor
    """Summed log-probs of the completions."""
    references: Tensor
    """The reference's."""
    signs: Tensor
    """+1 desirable, -1 undesirable."""
    weights: Tensor
    """lambda_D or lambda_U."""
    lengths: Tensor
    """Completion tokens."""
    winners: Tensor
    losers: Tensor
    """[pairs] indices of each pair's desirable and undesirable row; of pair losses alone."""

    @property
    def log_ratios(self) -> Tensor:
        """log pi(y|x) - log pi_ref(y|x)."""
        return self.logps - self.references

    def take(self, rows: Tensor, pairs: tuple[Tensor, Tensor]) -> Values:
        """Some rows; `pairs` are indices among these."""
        logps, references, signs, weights, lengths = (part[rows] for part in self[:5])
        return Values(logps, references, signs, weights, lengths, *pairs)

    def ratios(self, settings: LossSettings) -> Tensor:
        """What the loss compares with its reference point: log-ratios; without a reference log-probs a token."""
        return self.log_ratios if settings.reference else self.logps / self.lengths


class RunningMean(NamedTuple):
    """The mean log-ratio of all rows of all steps so far, for `mean-reward`: part of a run's state."""

    total: float = 0.0
    rows: int = 0


class Context(NamedTuple):
    """What a batch's loss takes as given."""

    point: Tensor
    """z, nats; [] for all rows or [rows]; no gradient."""
    mean: float
    """Before the clamp."""
    units: int
    tokens: float
    """Completion tokens of the rows that a likelihood is of: the desirable ones, of csft all."""
    running: RunningMean
    """This batch included."""

    def of(self, rows: Tensor) -> Context:
        """For some rows."""
        return self if self.point.dim() == 0 else self._replace(point=self.point[rows])


def needs_mismatched(settings: LossSettings) -> bool:
    """Whether the loss reads mismatched completions."""
    return settings.kind.is_unpaired and settings.point == "mismatched"


def needs_own_first(settings: LossSettings) -> bool:
    """Whether the reference point is estimated from the rows' own log-probs."""
    return settings.kind.is_unpaired and settings.point in ("mean-reward", "opposite-class")


def context(
    settings: LossSettings, values: Values, mismatched: Tensor | None = None, running: RunningMean | None = None
) -> Context:
    """The reference point of a whole batch, and its counts.

    Args:
        values: of all rows. Their log-probs are read only where `needs_own_first`.
        mismatched: [pairs] log-ratios of mismatched completions; without a reference, log-probs a token.
        running: of the steps before.
    """
    kind, before = settings.kind, running or RunningMean()
    units = len(values.winners) if kind.unit == "pair" else len(values.signs)
    desirable = values.signs > 0
    point, mean, after = torch.zeros((), dtype=values.logps.dtype), 0.0, before
    if kind.is_unpaired and settings.point == "mismatched":
        assert mismatched is not None
        found = reference_point(mismatched)
        point, mean = (found.value if settings.reference else mismatched.detach().mean()), found.mean
    elif needs_own_first(settings):
        ratios = values.ratios(settings).detach()
        if settings.point == "mean-reward":
            after = RunningMean(before.total + ratios.double().sum().item(), before.rows + len(ratios))
            mean = after.total / after.rows
            point = torch.tensor(mean, dtype=ratios.dtype)
        else:
            point, mean = opposite_points(ratios, desirable), ratios.mean().item()
    tokens = float((values.lengths if kind.control else values.lengths[desirable]).sum())
    return Context(point, mean, units, tokens, after)


def opposite_points(ratios: Tensor, desirable: Tensor) -> Tensor:
    """[rows] the mean log-ratio of the other class, not below 0; 0 where it has no row."""
    up, down = (ratios[side].sum() / max(1, int(side.sum())) for side in (~desirable, desirable))
    return torch.where(desirable, up, down).clamp(min=0)


def unit_losses(settings: LossSettings, values: Values, given: Context) -> Tensor:
    """The loss of each unit, [rows] or [pairs]; of `sft` and `csft` a row's negative log-likelihood."""
    if settings.kind.is_unpaired:
        margins = settings.beta * values.signs * (values.ratios(settings) - given.point)
        return values.weights * VALUE_FUNCTIONS[settings.value](margins)
    if is_custom(settings.loss):
        return custom_loss(settings.loss)(values, settings)
    if settings.loss == "csft":
        return -values.logps
    if settings.loss == "sft":
        return torch.where(values.signs > 0, -values.logps, 0.0)
    ratios = values.logps - values.references
    up, down = values.winners, values.losers
    pairs = Pairs(*(part[side] for part in (values.logps, ratios, values.lengths) for side in (up, down)))
    return PAIR_LOSSES[settings.loss](pairs, settings)


def part_of_loss(settings: LossSettings, values: Values, given: Context, *, scale: float = 1.0) -> Tensor:
    """What some rows contribute to the loss of the batch that `given` is of, times `scale`; over all rows, the loss."""
    losses = unit_losses(settings, values, given)
    divisor = given.tokens if settings.kind.tokens else losses.numel() if is_custom(settings.loss) else given.units
    part = losses.sum() * (scale / max(1, divisor))
    if settings.sft_weight:
        likelihood = values.logps[values.signs > 0].sum()
        part = part - likelihood * (scale * settings.sft_weight / max(1.0, given.tokens))
    return part


def batch_loss(settings: LossSettings, values: Values, given: Context) -> Tensor:
    """The loss of a whole batch, []; where it is a plain mean over units, computed as one."""
    if settings.kind.tokens or settings.sft_weight:
        return part_of_loss(settings, values, given)
    return unit_losses(settings, values, given).mean()


def coefficients(settings: LossSettings, values: Values, given: Context) -> Tensor:
    """[rows] d loss / d log-prob of the whole batch, the reference point held."""
    logps = values.logps.detach().requires_grad_()
    with torch.enable_grad():
        loss = part_of_loss(settings, values._replace(logps=logps), given)
        return torch.autograd.grad(loss, logps)[0]


def gradient_shares(settings: LossSettings, values: Values, given: Context) -> Tensor | None:
    """[units] each unit's gradient as a share of the largest it can have (Prop. 4.1 for KTO's 4 v (1 - v)); None for
    losses whose gradient has no bound, or never varies."""
    if settings.kind.is_unpaired:
        return slope_shares(settings.value, settings.beta * values.signs * (values.ratios(settings) - given.point))
    if settings.loss == "dpo" and not settings.label_smoothing:
        ratios = values.logps - values.references
        return torch.sigmoid(-settings.beta * (ratios[values.winners] - ratios[values.losers])).detach()
    return None
