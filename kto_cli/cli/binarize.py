"""Flags of `kto binarize`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from kto_cli.cli.log_flags import LogFlags
from kto_cli.cli.shared import OTHER, Json, takes, values
from kto_cli.common.binarize_config import FIXES, FORMATS, RANKED, THRESHOLDS, BinarizeConfig, Purpose, Reasoning, Way
from kto_cli.common.errors import BadFlag
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import EXAMPLE, read_template_kwargs

_files = partial(typer.Option, rich_help_panel="Sources and output")
_labels = partial(typer.Option, rich_help_panel="Scores and rankings")
_rows = partial(typer.Option, rich_help_panel="Split and sample")
_doctor = partial(typer.Option, rich_help_panel="Doctor")


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise BadFlag(f"--weights {text} are not numbers.", "Give one for each source, such as 2,1.") from None


def _completer(*names: str) -> Callable[[str], list[str]]:
    """Shell completion of a repeatable flag, for which Typer has no choices."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


class SourceFlags:
    """Flags of `kto binarize`: what is read and what is written."""

    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="A name (see --list) to download from the Hub, NAME:PATH for local raw files, a JSONL, CSV or Parquet "
            "file, or the Hub id of a dataset. Several sources are mixed.",
        ),
    ] = None
    list_sources: Annotated[
        bool, _files("--list", help="List all sources with their options, licences and Hub ids.")
    ] = False
    from_path: Annotated[
        str | None, _files("--from", metavar="PATH", help="Local file or folder with the raw data of the source.")
    ]
    subset: Annotated[
        list[str] | None,
        _files(metavar="NAME", help="Part of the source, such as askhr of shp. Default: all. Repeatable."),
    ] = None
    out: Annotated[
        str | None, _files(metavar="DIR", help="Output folder. Default: data/SOURCE, or data/mix for several.")
    ]
    overwrite: Annotated[bool, _files("--overwrite", help="Replace an earlier dataset in the output folder.")]
    format: Annotated[
        list[str] | None,
        _files(
            metavar="TOOL",
            autocompletion=_completer(*FORMATS),
            help=f"Also write files for {', '.join(FORMATS)}. Repeatable.",
        ),
    ] = None
    text: Annotated[
        bool, _files("--text", help="Keep text prompts as plain text. Default: each is one user turn of a chat.")
    ]

    purpose: Annotated[
        Purpose,
        _files("--for", metavar="kto|sft", help="What the rows are for: sft needs desirable rows alone, kto both."),
    ]

    reasoning: Annotated[
        Reasoning,
        _files(metavar="keep|drop", help="Reasoning in answers (reasoning_content, <think>): keep it or drop it."),
    ]


class RowFlags:
    """Flags of `kto binarize`: labels from scores, the split, samples and the doctor."""

    threshold: Annotated[
        str | None,
        _labels(
            metavar="NUMBER|NAME",
            help=f"Which scores are desirable: a number (it and above), {', '.join(THRESHOLDS[:-1])} (above it), or "
            "bernoulli (drawn, with a logistic probability).",
        ),
    ]
    margin: Annotated[
        float, _labels(help="Drop scores within this distance of the threshold; for alpaca-eval, of a tie.")
    ]
    score: Annotated[
        str | None,
        _labels(
            metavar="NAME", help="Which score: for ultrafeedback overall, fine-grained or an aspect; for oasst thumbs."
        ),
    ]
    min_ratio: Annotated[float | None, _labels(help="Minimum ratio of the two scores of a pair (shp). Default: 2.")]
    ranked: Annotated[Way, _labels(metavar="WAY", help=f"Pairs from a ranked list: {', '.join(RANKED)}.")]
    both_labels: Annotated[
        bool,
        _labels(
            "--both-labels", help="With --ranked adjacent: overlapping pairs, with answers in between in both classes."
        ),
    ]
    logistic_mid: Annotated[
        float | None, _labels(help="With bernoulli: the score with probability 1/2. Default: the mean.")
    ]
    logistic_scale: Annotated[
        float | None,
        _labels(help="With bernoulli: width of the logistic curve, in score units. Default: the standard deviation."),
    ]

    validation: Annotated[float, _rows(help="Share of the rows in the validation split.")]
    keep_split: Annotated[
        str | None,
        _rows(
            metavar="DIR",
            help="Earlier dataset whose prompts and conversations stay in their split; a hash splits new ones.",
        ),
    ]
    limit: Annotated[int | None, _rows(help="Maximum of training rows.")]
    balance: Annotated[bool, _rows("--balance", help="Keep equal numbers of rows of both classes.")]
    weights: Annotated[
        str | None, _rows(metavar="2,1,...", help="Shares of several sources, in their order. Default: all rows.")
    ] = None
    max_per_prompt: Annotated[int | None, _rows(help="Maximum of rows per prompt.")]
    max_pairs: Annotated[int | None, _rows(help="Maximum of pairs per prompt. Default for shp: 5.")]
    pair_within_prompts: Annotated[
        int | None,
        _rows(metavar="N", help="Make up to N pairs per prompt of its desirable and undesirable rows in no pair."),
    ]
    one_y_per_x: Annotated[bool, _rows("--one-y-per-x", help="Keep one row per prompt.")]
    keep_desirable: Annotated[float, _rows(help="Keep only this share of the desirable rows.")]
    keep_undesirable: Annotated[float, _rows(help="Keep only this share of the undesirable rows.")]
    seed: Annotated[int, _rows(help="Random seed of the split, of samples and of bernoulli.")]

    check: Annotated[bool, _doctor("--check", help="Report only, write nothing.")]
    fix: Annotated[
        list[str] | None,
        _doctor(
            metavar="FINDING",
            autocompletion=_completer(*FIXES, "all"),
            help=f"Fix a finding: {', '.join(FIXES)}, or all. Repeatable.",
        ),
    ] = None
    scrub: Annotated[
        bool, _doctor("--scrub", help="Replace personal data and keys by their kind, such as <EMAIL>, in all files.")
    ]
    scrub_model: Annotated[
        str | None,
        _doctor(
            metavar="DIR|presidio",
            help="With --scrub, also names and more: a token classification model such as openai/privacy-filter, or "
            "Presidio.",
        ),
    ]
    model: Annotated[str | None, _doctor(help="Model folder or Hub id, to find rows that are too long for it.")]
    max_length: Annotated[int | None, _doctor(help="With --model: maximum tokens of prompt and completion.")]
    chat_template_kwargs: Annotated[
        dict[str, Any] | None,
        _doctor(
            parser=read_template_kwargs,
            metavar="JSON",
            help=f"With --model: arguments of its chat template, such as {EXAMPLE}.",
        ),
    ]

    workers: Annotated[int, typer.Option(help="Parsing processes; does not change results.", rich_help_panel=OTHER)]
    json: Json = False


class BinarizeFlags(SourceFlags, LogFlags, RowFlags):
    """Flags of `kto binarize`, in the order of its --help."""


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
