"""A check of a loss of the user's (`custom_loss.py`) on random batches, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.custom_loss import Function
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.objectives import Values

PAIRS = 6
STEP = 1e-5
"""Nats, of central differences."""


class Findings(NamedTuple):
    """What holds of a loss, the mean over its units."""

    gradient: float
    """Largest difference between autograd's gradient and central differences."""
    order: float
    """Change of the loss when rows change places."""
    shift: float
    """Change when policy and reference log-probs shift alike: 0 for losses of log-ratios alone."""
    raised: float
    """Share of desirable rows that a step makes likelier, or leaves."""
    lowered: float
    """Share of undesirable rows that a step makes less likely, or leaves. A human-aware loss has 1 for both."""


def random_values(source: torch.Generator) -> Values:
    """A batch of pairs, rows of a pair side by side."""

    def normal(scale: float, center: float) -> Tensor:
        return center + scale * torch.randn(2 * PAIRS, generator=source, dtype=torch.float64)

    references = normal(8, -40)
    signs = torch.tensor([1.0, -1.0] * PAIRS, dtype=torch.float64)
    lengths = torch.randint(1, 30, (2 * PAIRS,), generator=source).double()
    rows = torch.arange(0, 2 * PAIRS, 2)
    return Values(references + normal(4, 0), references, signs, torch.ones_like(signs), lengths, rows, rows + 1)


def examine(function: Function, settings: LossSettings, *, batches: int = 20, seed: int = 0) -> Findings:
    """Examines a loss; the numbers are the worst over the batches, the shares are over all rows."""
    source = torch.Generator().manual_seed(seed)
    gradient = order = shift = 0.0
    slopes = []
    for _ in range(batches):
        values = random_values(source)
        loss = _loss(function, settings, values)
        found = _gradient(function, settings, values)
        slopes.append(found * values.signs)
        gradient = max(gradient, (found - _differences(function, settings, values)).abs().max().item())
        rows = torch.randperm(2 * PAIRS, generator=source)
        moved = values.take(rows, (rows.argsort()[values.winners], rows.argsort()[values.losers]))
        order = max(order, abs(_loss(function, settings, moved) - loss))
        shifts = torch.randn(2 * PAIRS, generator=source, dtype=torch.float64)
        shifted = values._replace(logps=values.logps + shifts, references=values.references + shifts)
        shift = max(shift, abs(_loss(function, settings, shifted) - loss))
    right = (torch.stack(slopes) <= 0).double().reshape(-1, 2).mean(0)
    return Findings(gradient, order, shift, right[0].item(), right[1].item())


def _loss(function: Function, settings: LossSettings, values: Values) -> float:
    return function(values, settings).mean().item()


def _gradient(function: Function, settings: LossSettings, values: Values) -> Tensor:
    logps = values.logps.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(values._replace(logps=logps), settings).mean(), logps)
    return found


def _differences(function: Function, settings: LossSettings, values: Values) -> Tensor:
    steps = STEP * torch.eye(2 * PAIRS, dtype=torch.float64)
    ends = [
        [_loss(function, settings, values._replace(logps=values.logps + sign * step)) for sign in (1, -1)]
        for step in steps
    ]
    return torch.tensor([(above - below) / (2 * STEP) for above, below in ends], dtype=torch.float64)
