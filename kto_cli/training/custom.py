"""A loss of the user's, announced and tried before a run starts."""

from __future__ import annotations

import torch

from kto_cli.common.errors import BadInput, first_line
from kto_cli.common.screen import Screen
from kto_cli.core.custom_loss import custom_loss, file_of
from kto_cli.core.loss_kinds import LossSettings, is_custom
from kto_cli.core.objectives import Values, context, part_of_loss


def announce_custom_loss(settings: LossSettings, screen: Screen) -> None:
    """Says whose code will run, and runs it once, on four made-up rows in two pairs.

    Raises:
        BadInput: it cannot be imported, fails, or gives no losses with a finite gradient.
    """
    name = settings.loss
    if not is_custom(name):
        return
    hint = "It is a function of (values, settings) that returns [units]: see docs/losses.md."
    try:
        custom_loss(name)
    except Exception as error:  # whatever the user's module raises
        raise BadInput(f"--loss {name} cannot be imported: {first_line(error)}.", hint) from error
    screen.note(f"Running code of {file_of(name)}: {name}")
    logps = torch.tensor([-31.0, -24.5, -40.25, -12.0], dtype=torch.float64, requires_grad=True)
    references = torch.tensor([-30.0, -26.0, -40.0, -12.5], dtype=torch.float64)
    signs, lengths = torch.tensor([1.0, -1.0, 1.0, -1.0]).double(), torch.tensor([9.0, 7.0, 12.0, 4.0]).double()
    weights = torch.ones_like(signs)
    values = Values(logps, references, signs, weights, lengths, torch.tensor([0, 2]), torch.tensor([1, 3]))
    try:
        losses = custom_loss(name)(values, settings)
        loss = part_of_loss(settings, values, context(settings, values))
        (gradient,) = torch.autograd.grad(loss, logps)
    except Exception as error:  # likewise
        raise BadInput(f"--loss {name} fails on four rows: {first_line(error)}.", hint) from error
    if losses.dim() != 1 or not losses.isfinite().all() or not gradient.isfinite().all():
        raise BadInput(
            f"--loss {name} gives {list(losses.shape)} losses for four rows, or numbers that are not finite.",
            hint,
        )
