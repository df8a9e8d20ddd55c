"""`kto eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.commands.shared import REQUIRED, Data, ModelFlags, answering, screen_of, takes, values
from kto_cli.config import EvalConfig


class EvalFlags(ModelFlags):
    """In the order of `kto eval --help`."""

    checkpoint: Annotated[
        list[str],
        typer.Argument(
            help="A run directory, a step of one, or a model folder or Hub id. Several are compared with the first."
        ),
    ] = REQUIRED
    data: Data
    reference: Annotated[str | None, typer.Option(help="The model it was trained from. Default: the run's own.")] = (
        EvalConfig.model
    )
    beta: Annotated[float | None, typer.Option(help="Default: the run's own, else 0.1.")]
    samples: Annotated[int, typer.Option(help="Held-out prompts to answer side by side.")]
    max_new_tokens: Annotated[int, typer.Option(help="Longest sampled answer.")]
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make report.html anew from the results that are there.")
    ]


@takes(EvalFlags, EvalConfig)
@answering
def evaluate(context: typer.Context) -> None:
    """Show what a checkpoint learned, on held-out rows."""
    settings = values(context)
    model, checkpoints = settings.pop("reference"), settings.pop("checkpoint")
    configs = [EvalConfig(checkpoint=checkpoint, model=model, **settings) for checkpoint in checkpoints]
    from kto_cli.workflows import compare, report
    from kto_cli.workflows import evaluate as workflow

    screen = screen_of(context)
    if settings["report_only"]:
        reports = [report.run(config, screen) for config in configs]
        screen.json(reports[0] if len(reports) == 1 else {"checkpoints": reports})
        return
    screen.json(workflow.run(configs[0], screen) if len(configs) == 1 else compare.run(configs, screen))
