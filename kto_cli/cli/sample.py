"""Flags of `kto sample`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.answer_flags import AnswerFlags
from kto_cli.cli.shared import REQUIRED, RUN, screen_of, takes, values
from kto_cli.common.sample_config import SPLITS, SampleConfig


class SampleFlags(AnswerFlags):
    """Flags of `kto sample`, in the order of its --help."""

    checkpoint: Annotated[str, typer.Argument(help="A run directory, a step of one, a model folder or a Hub id.")] = (
        REQUIRED
    )
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Answer the prompts of this dataset. Default: the run's own, else the only one in data/.",
            rich_help_panel=RUN,
        ),
    ]
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Which rows of it: {' or '.join(SPLITS)}.", rich_help_panel=RUN),
    ]
    prompt_file: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Answer the column prompt of a file; target: what is better.",
            rich_help_panel=RUN,
        ),
    ]
    n: Annotated[int, typer.Option(metavar="COUNT", help="Answers a prompt.", rich_help_panel=RUN)]
    limit: Annotated[int | None, typer.Option(help="Most prompts. Default: all.", rich_help_panel=RUN)]
    out: Annotated[str, typer.Option(metavar="FILE", help="The file of answers, gone on with.", rich_help_panel=RUN)]


@takes(SampleFlags, SampleConfig)
def sample(context: typer.Context) -> None:
    """Draw several answers to each prompt from a checkpoint, for people or a judge to label."""
    config = SampleConfig(**values(context))
    from kto_cli.workflows import sample as workflow

    screen = screen_of(context)
    screen.json(workflow.run(config, screen))
