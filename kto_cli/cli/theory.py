"""`kto theory`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import Json
from kto_cli.common.screen import Screen


def theory(
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Write theory.json and value_functions.svg (Figure 2 of the paper) there."),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Check a loss of your own instead: gradient, invariances, which way it moves rows. Runs its code.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check the KTO paper's definitions and theorems by computing them (no model, under a minute)."""
    screen = Screen(as_json=json)
    if loss is not None:
        from kto_cli.workflows import theory_loss

        screen.json(theory_loss.run(loss, out, screen))
        return
    from kto_cli.workflows import theory as workflow

    screen.json(workflow.run(out, screen))
