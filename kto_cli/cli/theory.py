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
    json: Json = False,
) -> None:
    """Check the KTO paper's definitions and theorems by computing them (no model, under a minute)."""
    from kto_cli.workflows import theory as workflow

    screen = Screen(as_json=json)
    screen.json(workflow.run(out, screen))
