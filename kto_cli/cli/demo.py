"""`kto demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import Json
from kto_cli.common.screen import Screen


def demo(
    keep: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Work in this new folder and keep it. Default: a temporary one."),
    ] = None,
    json: Json = False,
) -> None:
    """Run all of it on built-in data with a built-in tiny model (under three minutes)."""
    from kto_cli.workflows import demo as workflow

    screen = Screen(as_json=json, curves=not json)
    screen.json(workflow.run(keep, screen))
