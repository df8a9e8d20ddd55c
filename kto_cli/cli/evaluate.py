"""`kto eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import REQUIRED, Data, ModelFlags, answering, screen_of, takes, values
from kto_cli.common.eval_config import ENGINES, JUDGED, SAMPLES, EvalConfig

ANSWERS, JUDGE, TASKS = "Answers to validation prompts", "Win rate", "Benchmarks (needs the extra: tasks)"


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
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Make report.html anew from the results that are there.")
    ]

    samples: Annotated[
        int | None,
        typer.Option(
            help=f"Validation prompts to answer; 0: none. Default: {SAMPLES}, with a judge {JUDGED}.",
            rich_help_panel=ANSWERS,
        ),
    ]
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.", rich_help_panel=ANSWERS)]
    temperature: Annotated[
        float, typer.Option(help="Of sampling; 0 takes the likeliest token.", rich_help_panel=ANSWERS)
    ]
    top_p: Annotated[
        float, typer.Option(help="Sample among the likeliest tokens of this share.", rich_help_panel=ANSWERS)
    ]
    seed: Annotated[int, typer.Option(help="Of sampling.", rich_help_panel=ANSWERS)]
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help=f"{', '.join(ENGINES)}, or the URL of an OpenAI-compatible server that serves the models (its key: "
            "$KTO_ENGINE_KEY).",
            rich_help_panel=ANSWERS,
        ),
    ]
    against: Annotated[
        str | None,
        typer.Option(
            help="The other side: target (the data's desirable completions), reference, another checkpoint, or a JSON "
            "file of answers in AlpacaEval's format. Default: target.",
            rich_help_panel=ANSWERS,
        ),
    ]

    judge_url: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible server to ask which answer is better. Its key is read from $KTO_JUDGE_KEY (for "
            "api.openai.com also $OPENAI_API_KEY) and kept nowhere.",
            rich_help_panel=JUDGE,
        ),
    ]
    judge_model: Annotated[
        str | None,
        typer.Option(
            help="The judge: its name on that server; without --judge-url the folder or Hub id of a reward or "
            "classifier model.",
            rich_help_panel=JUDGE,
        ),
    ]
    judge_for: Annotated[str, typer.Option(help="What makes an answer better.", rich_help_panel=JUDGE)]
    judge_calls: Annotated[
        int, typer.Option(help="Most requests to the judge, repeated ones counted.", rich_help_panel=JUDGE)
    ]
    judge_workers: Annotated[int, typer.Option(help="Requests under way at once.", rich_help_panel=JUDGE)]

    tasks: Annotated[
        str | None,
        typer.Option(
            help="With commas: mmlu, gsm8k, humaneval, bbh with the paper's shots, or any task of lm-eval.",
            rich_help_panel=TASKS,
        ),
    ]
    task_folder: Annotated[str | None, typer.Option(help="A folder with lm-eval tasks.", rich_help_panel=TASKS)]
    task_limit: Annotated[int | None, typer.Option(help="Questions of each task. Default: all.", rich_help_panel=TASKS)]
    allow_code_execution: Annotated[
        bool,
        typer.Option(
            "--allow-code-execution",
            help="Run the code that the model writes, on this machine (humaneval).",
            rich_help_panel=TASKS,
        ),
    ]


@takes(EvalFlags, EvalConfig)
@answering
def evaluate(context: typer.Context) -> None:
    """Show what a checkpoint learned, how it answers, and whether anything broke."""
    settings = values(context)
    model, checkpoints = settings.pop("reference"), settings.pop("checkpoint")
    for checkpoint in checkpoints:  # a wrong flag is reported before anything heavy is loaded
        EvalConfig(checkpoint=checkpoint, model=model, **settings)
    from kto_cli.workflows import api

    screen = screen_of(context)
    screen.json(api.evaluate(checkpoints, reference=model, screen=screen, **settings))
