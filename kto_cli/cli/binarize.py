"""`kto binarize`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import Json, takes, values
from kto_cli.common.binarize_config import CUTS, FIXES, FORMATS, RANKED, BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen

LABELS, LOG, SHAPE, DOCTOR = "From feedback to labels", "Columns of a log", "Which rows to keep", "Doctor"


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise BadInput(f"--weights {text} are no numbers.", "Give one for each source, such as 2,1.") from None


class BinarizeFlags:
    """In the order of `kto binarize --help`."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="A name (kto binarize --list), NAME:PATH for its raw files here, a JSONL / Parquet / CSV file, or the "
            "Hub id of a dataset. Several are mixed.",
        ),
    ] = None
    list_sources: Annotated[
        bool, typer.Option("--list", help="Show the sources, with their options, licences and Hub ids.")
    ] = False
    from_path: Annotated[str | None, typer.Option("--from", help="A local file or folder with the source's raw data.")]
    out: Annotated[str | None, typer.Option(help="The folder to write. Default: data/SOURCE, data/mix for several.")]
    subset: Annotated[
        list[str] | None,
        typer.Option(help="A part of the source (kto binarize --list); may be given several times. Default: all."),
    ] = None
    text: Annotated[
        bool,
        typer.Option("--text", help="Keep text prompts as plain text instead of reading each as one user turn."),
    ]
    format: Annotated[
        list[str] | None, typer.Option(help=f"Also write files for {', '.join(FORMATS)}; may be given several times.")
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier dataset in the output folder.")]
    workers: Annotated[int, typer.Option(help="Processes that parse; the rows are the same.")]
    json: Json = False

    ranked: Annotated[
        str,
        typer.Option(
            metavar="WAY",
            help=f"Which answers of a ranked list become rows: {', '.join(RANKED)}.",
            rich_help_panel=LABELS,
        ),
    ]
    both_labels: Annotated[
        bool,
        typer.Option(
            "--both-labels",
            help="With --ranked adjacent: overlapping pairs, so that answers in between are in both classes.",
            rich_help_panel=LABELS,
        ),
    ]
    cut: Annotated[
        str | None,
        typer.Option(
            metavar="CUT",
            help=f"Scores to labels: a number (that score and above are desirable), {', '.join(CUTS[:-1])} (above it) "
            "or bernoulli (drawn, with a probability logistic in the score).",
            rich_help_panel=LABELS,
        ),
    ]
    margin: Annotated[
        float,
        typer.Option(
            help="Leave out scores nearer than this to the cut; for alpaca-eval, to a draw.", rich_help_panel=LABELS
        ),
    ]
    logistic_mid: Annotated[
        float | None,
        typer.Option(help="With bernoulli: the score of probability 1/2. Default: the mean.", rich_help_panel=LABELS),
    ]
    logistic_scale: Annotated[
        float | None,
        typer.Option(
            help="With bernoulli: how much score is a unit of log-odds. Default: the standard deviation.",
            rich_help_panel=LABELS,
        ),
    ]
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which of several scores: for ultrafeedback overall, fine-grained or an aspect; for oasst thumbs.",
            rich_help_panel=LABELS,
        ),
    ]
    min_ratio: Annotated[
        float | None,
        typer.Option(help="Least ratio of the two scores of a pair (shp). Default: 2.", rich_help_panel=LABELS),
    ]

    desirable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="Which rows: such as 'resolved == true' or 'stars >= 4'.", rich_help_panel=LOG
        ),
    ]
    undesirable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="Such as 'stars <= 2', or else: where the other rule is false.", rich_help_panel=LOG
        ),
    ]
    prompt_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What was asked. Default: found by well-known names.", rich_help_panel=LOG),
    ]
    completion_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What was answered. Default: likewise.", rich_help_panel=LOG),
    ]
    other_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="A second answer; the rules say whether the first is the better one.",
            rich_help_panel=LOG,
        ),
    ]
    messages_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="A whole chat, the answer last.", rich_help_panel=LOG)
    ]
    label_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With true / false or 1 / 0.", rich_help_panel=LOG)
    ]
    score_column: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With numbers, for --cut.", rich_help_panel=LOG)
    ]
    conversation_column: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Rows that share it stay on one side of the split.", rich_help_panel=LOG),
    ]

    validation: Annotated[float, typer.Option(help="Share of the prompts kept for validation.", rich_help_panel=SHAPE)]
    seed: Annotated[
        int, typer.Option(help="Seed of the split, of samples and of Bernoulli labels.", rich_help_panel=SHAPE)
    ]
    one_y_per_x: Annotated[bool, typer.Option("--one-y-per-x", help="One row of each prompt.", rich_help_panel=SHAPE)]
    max_per_prompt: Annotated[int | None, typer.Option(help="Most rows of one prompt.", rich_help_panel=SHAPE)]
    max_pairs: Annotated[
        int | None, typer.Option(help="Most pairs of one prompt. Default for shp: 5.", rich_help_panel=SHAPE)
    ]
    keep_desirable: Annotated[
        float, typer.Option(help="Share of the desirable rows, exact to one row.", rich_help_panel=SHAPE)
    ]
    keep_undesirable: Annotated[
        float, typer.Option(help="Share of the undesirable rows, exact to one row.", rich_help_panel=SHAPE)
    ]
    balance: Annotated[bool, typer.Option("--balance", help="As many rows of each class.", rich_help_panel=SHAPE)]
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="2,1,...",
            help="Shares of several sources, in their order. Default: all rows of each.",
            rich_help_panel=SHAPE,
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(help="Most training rows (validation rows are not counted).", rich_help_panel=SHAPE),
    ]

    check: Annotated[bool, typer.Option("--check", help="Report only, write nothing.", rich_help_panel=DOCTOR)]
    fix: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Act on a finding: {', '.join(FIXES)} or all. May be given several times.", rich_help_panel=DOCTOR
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            help="A model folder or Hub id: its tokenizer tells which rows will not fit.", rich_help_panel=DOCTOR
        ),
    ]
    max_length: Annotated[
        int | None, typer.Option(help="With --model: most tokens of prompt and completion.", rich_help_panel=DOCTOR)
    ]


@takes(BinarizeFlags, BinarizeConfig)
def binarize(context: typer.Context) -> None:
    """Turn any feedback into desirable / undesirable rows."""
    screen = Screen(as_json=context.params["json"])
    settings = values(context)
    if settings.pop("list_sources"):
        from kto_cli.workflows import list_sources

        screen.json(list_sources.run(screen))
        return
    for flag, field in {"sources": "sources", "subset": "subsets", "format": "formats", "fix": "fix"}.items():
        settings[field] = tuple(settings.pop(flag) or ())
    settings["weights"] = _numbers(settings["weights"])
    from kto_cli.workflows import api

    screen.json(api.binarize(settings.pop("sources"), screen=screen, **settings))
