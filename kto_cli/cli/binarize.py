"""Flags of `kto binarize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from kto_cli.cli.shared import OTHER, Json, takes, values
from kto_cli.common.binarize_config import FIXES, FORMATS, RANKED, THRESHOLDS, BinarizeConfig, Way
from kto_cli.common.errors import BadFlag
from kto_cli.common.screen import Screen

FILES, LOG, LABELS, ROWS, DOCTOR = (
    "Sources and output",
    "Your own log",
    "Scores and rankings",
    "Split and sample",
    "Doctor",
)
"""Panels of --help."""


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise BadFlag(f"--weights {text} are not numbers.", "Give one for each source, such as 2,1.") from None


def _completer(*names: str) -> Callable[[str], list[str]]:
    """Shell completion of a repeatable flag, for which Typer has no choices."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


class BinarizeFlags:
    """Flags of `kto binarize`, in the order of its --help."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="A name (see --list) to download from the Hub, NAME:PATH for local raw files, a JSONL, CSV or Parquet "
            "file, or the Hub id of a dataset. Several sources are mixed.",
        ),
    ] = None
    list_sources: Annotated[
        bool,
        typer.Option(
            "--list", help="List all sources with their options, licences and Hub ids.", rich_help_panel=FILES
        ),
    ] = False
    from_path: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Local file or folder with the raw data of the source.",
            rich_help_panel=FILES,
        ),
    ]
    subset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Part of the source, such as askhr of shp. Default: all. Repeatable.",
            rich_help_panel=FILES,
        ),
    ] = None
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Output folder. Default: data/SOURCE, or data/mix for several.", rich_help_panel=FILES
        ),
    ]
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace an earlier dataset in the output folder.", rich_help_panel=FILES),
    ]
    format: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOOL",
            autocompletion=_completer(*FORMATS),
            help=f"Also write files for {', '.join(FORMATS)}. Repeatable.",
            rich_help_panel=FILES,
        ),
    ] = None
    text: Annotated[
        bool,
        typer.Option(
            "--text",
            help="Keep text prompts as plain text. Default: each is one user turn of a chat.",
            rich_help_panel=FILES,
        ),
    ]

    desirable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Rule for desirable rows, such as 'resolved == true' or 'stars >= 4'.",
            rich_help_panel=LOG,
        ),
    ]
    undesirable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Rule such as 'stars <= 2', or else: all rows for which the other rule is false.",
            rich_help_panel=LOG,
        ),
    ]
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with true / false or 1 / 0, instead of rules.", rich_help_panel=LOG
        ),
    ]
    score_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with numbers, instead of rules; needs --threshold.", rich_help_panel=LOG
        ),
    ]
    prompt_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with the prompt. Default: found by common names.", rich_help_panel=LOG
        ),
    ]
    completion_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with the answer. Default: found by common names.", rich_help_panel=LOG
        ),
    ]
    messages_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column with a whole chat, whose last message is the answer.", rich_help_panel=LOG
        ),
    ]
    conversation_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Column whose rows with the same value stay in one split.", rich_help_panel=LOG
        ),
    ]
    other_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column with a second answer; the rules decide whether the first is better.",
            rich_help_panel=LOG,
        ),
    ]

    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|NAME",
            help=f"Which scores are desirable: a number (it and above), {', '.join(THRESHOLDS[:-1])} (above it), or "
            "bernoulli (drawn, with a logistic probability).",
            rich_help_panel=LABELS,
        ),
    ]
    margin: Annotated[
        float,
        typer.Option(
            help="Drop scores within this distance of the threshold; for alpaca-eval, of a tie.", rich_help_panel=LABELS
        ),
    ]
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which score: for ultrafeedback overall, fine-grained or an aspect; for oasst thumbs.",
            rich_help_panel=LABELS,
        ),
    ]
    min_ratio: Annotated[
        float | None,
        typer.Option(help="Minimum ratio of the two scores of a pair (shp). Default: 2.", rich_help_panel=LABELS),
    ]
    ranked: Annotated[
        Way, typer.Option(metavar="WAY", help=f"Pairs from a ranked list: {', '.join(RANKED)}.", rich_help_panel=LABELS)
    ]
    both_labels: Annotated[
        bool,
        typer.Option(
            "--both-labels",
            help="With --ranked adjacent: overlapping pairs, with answers in between in both classes.",
            rich_help_panel=LABELS,
        ),
    ]
    logistic_mid: Annotated[
        float | None,
        typer.Option(help="With bernoulli: the score with probability 1/2. Default: the mean.", rich_help_panel=LABELS),
    ]
    logistic_scale: Annotated[
        float | None,
        typer.Option(
            help="With bernoulli: width of the logistic curve, in score units. Default: the standard deviation.",
            rich_help_panel=LABELS,
        ),
    ]

    validation: Annotated[
        float, typer.Option(help="Share of the prompts in the validation split.", rich_help_panel=ROWS)
    ]
    limit: Annotated[int | None, typer.Option(help="Maximum of training rows.", rich_help_panel=ROWS)]
    balance: Annotated[
        bool, typer.Option("--balance", help="Keep equal numbers of rows of both classes.", rich_help_panel=ROWS)
    ]
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="2,1,...",
            help="Shares of several sources, in their order. Default: all rows.",
            rich_help_panel=ROWS,
        ),
    ] = None
    max_per_prompt: Annotated[int | None, typer.Option(help="Maximum of rows per prompt.", rich_help_panel=ROWS)]
    max_pairs: Annotated[
        int | None, typer.Option(help="Maximum of pairs per prompt. Default for shp: 5.", rich_help_panel=ROWS)
    ]
    one_y_per_x: Annotated[bool, typer.Option("--one-y-per-x", help="Keep one row per prompt.", rich_help_panel=ROWS)]
    keep_desirable: Annotated[
        float, typer.Option(help="Keep only this share of the desirable rows.", rich_help_panel=ROWS)
    ]
    keep_undesirable: Annotated[
        float, typer.Option(help="Keep only this share of the undesirable rows.", rich_help_panel=ROWS)
    ]
    seed: Annotated[
        int, typer.Option(help="Random seed of the split, of samples and of bernoulli.", rich_help_panel=ROWS)
    ]

    check: Annotated[bool, typer.Option("--check", help="Report only, write nothing.", rich_help_panel=DOCTOR)]
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FINDING",
            autocompletion=_completer(*FIXES, "all"),
            help=f"Fix a finding: {', '.join(FIXES)}, or all. Repeatable.",
            rich_help_panel=DOCTOR,
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(help="Model folder or Hub id, to find rows that are too long for it.", rich_help_panel=DOCTOR),
    ]
    max_length: Annotated[
        int | None, typer.Option(help="With --model: maximum tokens of prompt and completion.", rich_help_panel=DOCTOR)
    ]

    workers: Annotated[int, typer.Option(help="Parsing processes; does not change results.", rich_help_panel=OTHER)]
    json: Json = False


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
