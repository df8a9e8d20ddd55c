"""Flags of answers and their judge: of eval and sample."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import ModelFlags
from kto_cli.common.eval_config import ENGINES

ANSWERS, JUDGE = "Answers", "Judge"


class AnswerFlags(ModelFlags):
    """Flags that decide an answer and what a judge says of it."""

    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", rich_help_panel=ANSWERS)]
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0 = greedy.", rich_help_panel=ANSWERS)]
    top_p: Annotated[
        float, typer.Option(help="Nucleus sampling: probability mass of the tokens.", rich_help_panel=ANSWERS)
    ]
    seed: Annotated[int, typer.Option(help="Random seed for sampling.", rich_help_panel=ANSWERS)]
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME|URL",
            help=f"{', '.join(ENGINES)}, or the address of an OpenAI-compatible server that serves the models "
            "(its key: $KTO_ENGINE_KEY).",
            rich_help_panel=ANSWERS,
        ),
    ]
    judge_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible server as judge. Its key is read from $KTO_JUDGE_KEY (for api.openai.com also "
            "$OPENAI_API_KEY) and never stored.",
            rich_help_panel=JUDGE,
        ),
    ]
    judge_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The judge: its name on that server; without --judge-url, a folder or Hub id of a reward model.",
            rich_help_panel=JUDGE,
        ),
    ]
    judge_for: Annotated[str, typer.Option(help="Criterion for the better answer.", rich_help_panel=JUDGE)]
    judge_calls: Annotated[
        int, typer.Option(help="Most requests to the judge, retries included.", rich_help_panel=JUDGE)
    ]
    judge_workers: Annotated[int, typer.Option(help="Concurrent requests.", rich_help_panel=JUDGE)]
