"""`kto theory --loss MODULE:FUNCTION`: a check of a loss of the user's."""

from __future__ import annotations

from typing import Any

from kto_cli.common.errors import BadFlag, BadInput, first_line
from kto_cli.common.screen import Screen
from kto_cli.core.custom_loss import custom_loss
from kto_cli.core.loss_kinds import BETA, LossSettings, is_custom
from kto_cli.core.theory.own_loss import examine
from kto_cli.training.custom import announce_custom_loss

CLOSE = 1e-6
"""Central differences in float64 are good to about 1e-9; a kink within a step is not."""


def run(name: str, out: str | None, screen: Screen) -> dict[str, Any]:
    """Checks a loss of the user's, MODULE:FUNCTION, and prints what holds of it.

    Returns:
        `loss` and the fields of `own_loss.Findings`.

    Raises:
        BadFlag: no such form, or with --out. BadInput: it cannot be imported, or fails.
    """
    if not is_custom(name):
        raise BadFlag(
            f"--loss {name} is no function.", "Give MODULE:FUNCTION; kto theory alone checks the known losses."
        )
    if out is not None:
        raise BadFlag("--out does nothing with --loss.", "Leave one of them out.")
    settings = LossSettings(beta=BETA, loss=name)
    announce_custom_loss(settings, screen)
    try:
        found = examine(custom_loss(name), settings)
    except Exception as error:  # whatever the user's function raises
        raise BadInput(f"--loss {name} fails on 12 random rows: {first_line(error)}.", "See docs/losses.md.") from error
    screen.table(
        f"{name}, beta {BETA:g}, on random batches of 6 pairs",
        ["", "found", "holds"],
        [
            ["gradient against central differences", f"{found.gradient:.1g}", found.gradient < CLOSE],
            ["change when rows change places", f"{found.order:.1g}", found.order < CLOSE],
            ["change when policy and reference shift alike", f"{found.shift:.1g}", found.shift < CLOSE],
            ["desirable rows that a step does not push down", f"{found.raised:.0%}", found.raised == 1],
            ["undesirable rows that a step does not push up", f"{found.lowered:.0%}", found.lowered == 1],
        ],
    )
    screen.say(
        "The first two must hold for training to be right. The third does not for losses without a reference. A "
        "human-aware loss (Definition 3.4) needs the last two; whether its value function is concave in gains: "
        "core/halos.py:check."
    )
    return {"loss": name, **found._asdict()}
