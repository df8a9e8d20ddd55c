"""Flags of `kto label`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import REQUIRED, RUN, Json, takes, values
from kto_cli.common.label_config import LabelConfig
from kto_cli.common.screen import Screen

SHOWN, PAGE = "What is shown", "Page"


class LabelFlags:
    """Flags of `kto label`, in the order of its --help."""

    sources: Annotated[
        list[str],
        typer.Argument(
            help="A file with prompts and answers, or a checkpoint that kto eval has evaluated. Two checkpoints, or "
            "one and reference or target (as with --against): their answers to the same prompts side by side."
        ),
    ] = REQUIRED
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The file of labels, gone on with. Default: NAME.labels.jsonl.", rich_help_panel=RUN
        ),
    ]
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The dataset of that evaluation, if it has moved.", rich_help_panel=RUN),
    ]
    rows: Annotated[
        bool,
        typer.Option(
            "--rows",
            help="The validation rows of a checkpoint's data instead of its answers: check their labels.",
            rich_help_panel=SHOWN,
        ),
    ]
    one_at_a_time: Annotated[
        bool,
        typer.Option(
            "--one-at-a-time", help="Two answers one after the other, not side by side.", rich_help_panel=SHOWN
        ),
    ]
    seed: Annotated[
        int, typer.Option(help="Random seed; each person has an order of their own.", rich_help_panel=SHOWN)
    ]
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="An address of this machine. Another than 127.0.0.1 lets a phone in the same network open the page.",
            rich_help_panel=PAGE,
        ),
    ]
    port: Annotated[int, typer.Option(help="Port of the page; 0: any that is free.", rich_help_panel=PAGE)]
    json: Json = False


@takes(LabelFlags, LabelConfig)
def label(context: typer.Context) -> None:
    """Label answers on a page in the browser: one key each, several people, kept at every key."""
    settings = values(context)
    config = LabelConfig(**{**settings, "sources": tuple(settings["sources"])})
    from kto_cli.workflows import label as workflow

    screen = Screen(as_json=context.params["json"])
    screen.json(workflow.run(config, screen))
