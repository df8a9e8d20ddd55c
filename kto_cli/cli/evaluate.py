"""Flags of `kto eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.answer_flags import ANSWERS, JUDGE, AnswerFlags
from kto_cli.cli.shared import REQUIRED, RUN, Data, screen_of, takes, values
from kto_cli.common.eval_config import JUDGED, PAIRS, SAMPLES, EvalConfig

TASKS = "Benchmarks (extra: tasks)"


class EvalFlags(AnswerFlags):
    """Flags of `kto eval`, in the order of its --help."""

    checkpoint: Annotated[
        list[str],
        typer.Argument(
            help="A run directory, a step of one, a model folder or a Hub id. Several: compared with the first."
        ),
    ] = REQUIRED
    data: Data
    reference: Annotated[
        str | None,
        typer.Option(help="The reference model. Default: the one the run started from.", rich_help_panel=RUN),
    ] = EvalConfig.model
    beta: Annotated[
        float | None,
        typer.Option(help="KTO beta for the rewards. Default: the run's, else 0.1.", rich_help_panel=RUN),
    ]
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Only make report.html again from existing results.", rich_help_panel=RUN),
    ]

    samples: Annotated[
        int | None,
        typer.Option(
            help=f"Validation prompts to answer. Default: {SAMPLES}, with a judge {JUDGED}.",
            rich_help_panel=ANSWERS,
        ),
    ]
    against: Annotated[
        str | None,
        typer.Option(
            metavar="BASELINE",
            help="What answers are compared with: target (the data's desirable completions, default), reference, "
            "another checkpoint, or a JSON file of answers (AlpacaEval's format).",
            rich_help_panel=ANSWERS,
        ),
    ]

    judge_pairs: Annotated[
        int | None,
        typer.Option(
            help="Validation prompts with answers of both labels on which the judge is compared with people; the win "
            f"rate is corrected for its errors. Default: {PAIRS}; with --judge-url 0, as each is two requests.",
            rich_help_panel=JUDGE,
        ),
    ]
    judge_labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare the judge with the people who labelled pairs with kto label, instead.",
            rich_help_panel=JUDGE,
        ),
    ]

    tasks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="With commas: mmlu, gsm8k, humaneval, bbh (the paper's shots), or any task of lm-eval.",
            rich_help_panel=TASKS,
        ),
    ]
    task_folder: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder with lm-eval tasks.", rich_help_panel=TASKS)
    ]
    task_limit: Annotated[int | None, typer.Option(help="Questions of each task. Default: all.", rich_help_panel=TASKS)]
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution",
            help="Run code written by the model (humaneval).",
            rich_help_panel=TASKS,
        ),
    ]


@takes(EvalFlags, EvalConfig)
def evaluate(context: typer.Context) -> None:
    """Show what a checkpoint learned, how it answers, and whether anything broke."""
    settings = values(context)
    model, checkpoints = settings.pop("reference"), settings.pop("checkpoint")
    for checkpoint in checkpoints:  # a wrong flag is reported before anything heavy is loaded
        EvalConfig(checkpoint=checkpoint, model=model, **settings)
    from kto_cli.workflows import api

    screen = screen_of(context)
    screen.json(api.evaluate(checkpoints, reference=model, screen=screen, **settings))
