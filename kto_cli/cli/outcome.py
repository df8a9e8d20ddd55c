"""Flags of `kto outcome`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from kto_cli.cli.log_flags import LogFlags
from kto_cli.cli.shared import OTHER, Json, takes, values
from kto_cli.common.outcome_config import OutcomeConfig
from kto_cli.common.screen import Screen

_compared = partial(typer.Option, rich_help_panel="What is compared")


class ComparedFlags:
    """Flags of `kto outcome`: what is compared with what."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOG", help="A JSONL, CSV or Parquet file, or NAME:PATH as of kto binarize. Several: joined."
        ),
    ] = None
    by: Annotated[str | None, _compared(metavar="COLUMN", help="Column with the version of the model.")]
    before_after: Annotated[
        str | None, _compared(metavar="YYYY-MM-DD", help="Compare answers before this day with those from it on.")
    ]
    time_column: Annotated[
        str | None, _compared(metavar="COLUMN", help="With --before-after: column with the time of an answer.")
    ]
    baseline: Annotated[
        str | None, _compared(metavar="VERSION", help="Version that others are compared with. Default: the first.")
    ]
    user: Annotated[str | None, _compared(metavar="COLUMN", help="Column with the user who rated.")]
    mix: Annotated[
        str | None,
        _compared(
            metavar="COLUMN",
            help="Column with the kind of prompt: versions are compared at one mix of them too.",
        ),
    ]
    out: Annotated[str | None, _compared(metavar="DIR", help="Write outcome.json there.")]


class ScoreFlags:
    """Flags of `kto outcome`: labels from scores, output."""

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER", help="With --score-column: this score and above are desirable.", rich_help_panel=OTHER
        ),
    ]
    json: Json = False


class OutcomeFlags(ComparedFlags, LogFlags, ScoreFlags):
    """Flags of `kto outcome`, in the order of its --help."""


@takes(OutcomeFlags, OutcomeConfig)
def outcome(context: typer.Context) -> None:
    """Did thumbs rise? Compare a log's desirable answers by version, or before and after a day."""
    screen = Screen(as_json=context.params["json"])
    settings = values(context)
    settings["sources"] = tuple(settings["sources"] or ())
    config = OutcomeConfig(**settings)
    from kto_cli.workflows import outcome as workflow

    screen.json(workflow.run(config, screen))
