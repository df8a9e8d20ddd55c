"""Ratings beside the texts of a record (traces, annotation tasks) as columns of one row, which the rules of a log read.

A product's module says what the texts of a record are and what ratings it has, by name. One rating is the label by
itself, with a note; of several, --label-column, --score-column or rules name one.

Dropped     no_label, no_score, matches_neither
Rejected    raters_disagree (two people gave different values), and the reasons of log/format.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.counts import count_ratings
from kto_cli.data.formats.fields import need_columns
from kto_cli.data.formats.labels import is_missing, spell_cell
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.source import RawFile, Source, records_of
from kto_cli.data.log import columns as log_columns
from kto_cli.data.log import format as log_format
from kto_cli.data.products.remarks import with_remark
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.texts import TOOLS

SAMPLE = 1000
"""Records whose ratings are the columns of a file."""


class Parts(NamedTuple):
    """What a record is about, and how it was rated."""

    texts: dict[str, Any]
    """Prompt, completion, conversation_id and others, by the names that a log finds by itself."""
    ratings: Mapping[str, Sequence[Any]]
    """Values that raters gave, by the name of the rating."""
    remark: str | None = None
    """JSON of what they wrote (remarks.py)."""


UNRATED = Parts({"prompt": "", "completion": ""}, {})
"""Of a record that nobody rated, whatever it holds: it is dropped for want of a label."""


PartsOf = Callable[[dict[str, Any]], Parts]
"""Parts of the values of a record; may raise RowFault. A module-level function."""


def source(
    name: str,
    parts: PartsOf,
    *,
    needed: Sequence[str],
    step: str,
    **more: Any,
) -> Source:
    """Source whose records have ratings beside their texts.

    Args:
        needed: columns of its raw files. step: what to do without them.
    """
    about_file = _File(name, parts, tuple(needed), step)
    return Source(
        name=name,
        gives="labels or scores, by rules or columns",
        read=partial(read, parts),
        licence="yours",
        options=(
            "--label-column",
            "--score-column",
            "--desirable",
            "--undesirable",
            "--threshold",
            "--margin",
            "--text",
        ),
        check=partial(check, about_file),
        resolve_options=partial(resolve, about_file),
        **more,
    )


class _File(NamedTuple):
    """What the columns of a product's file are checked by."""

    source: str
    parts: PartsOf
    needed: tuple[str, ...]
    step: str


def agreed(values: Iterable[Any], name: str) -> Any:
    """The one value that all raters gave; None if nobody did.

    Raises:
        RowFault: `raters_disagree`.
    """
    found = [value for value in values if not is_missing(value)]
    if any(value != found[0] for value in found):
        told = ", ".join(spell_cell(value) for value in found[:6])
        raise RowFault("raters_disagree", f"{name} is {told} by different raters")
    return found[0] if found else None


def of_people(given: Sequence[tuple[bool, Any]]) -> list[Any]:
    """Values that people gave; where no person did, those of models. Each comes with whether a person gave it."""
    people = [value for by_person, value in given if by_person and not is_missing(value)]
    return people or [value for _, value in given]


def row(parts: Parts) -> dict[str, Any]:
    """Texts and ratings as the columns of a row.

    Raises:
        RowFault: `raters_disagree`.
    """
    for name, found in parts.ratings.items():
        if len(found) > 1:
            count_ratings(name, [spell_cell(value) for value in found if not is_missing(value)])
    return {**parts.texts, **{column_of(name, parts): agreed(found, name) for name, found in parts.ratings.items()}}


def column_of(rating: str, parts: Parts) -> str:
    """Column of a rating; `rating.NAME` of one that is named as a text."""
    return f"rating.{rating}" if rating in parts.texts else rating


def read(parts: PartsOf, record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Feedback of one record."""
    found = parts(record.values or {})
    results = log_format.read(replace(record, values=row(found)), raw_file, config)
    return [with_remark(each, found.remark) for each in results]


def check(file: _File, columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Notes on the columns that texts and ratings become.

    Raises:
        BadInput: the file is not one of this source, has no rating, or has several and none is named.
    """
    need_columns(raw_file.name, columns, file.needed, file.source, file.step)
    texts, ratings = names(file, raw_file)
    told = log_columns.notes([*texts, *ratings], raw_file, with_rating(texts, ratings, raw_file, config))
    if not is_told(config):
        told.insert(0, f"The label is {printable(ratings[0])}, the only rating.")
    return told


def resolve(file: _File, columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> BinarizeConfig:
    """Options for one file, with the columns of its texts and its rating."""
    texts, ratings = names(file, raw_file)
    return log_columns.resolve_columns([*texts, *ratings], raw_file, with_rating(texts, ratings, raw_file, config))


def is_told(config: BinarizeConfig) -> bool:
    """Whether the user says what the label is."""
    return any(given is not None for given in (config.desirable, config.label_column, config.score_column))


def with_rating(
    texts: Sequence[str], ratings: Sequence[str], raw_file: RawFile, config: BinarizeConfig
) -> BinarizeConfig:
    """Options with the tools of the texts, and the only rating as label column, unless the user names one.

    Raises:
        BadInput: there is none, or there are several.
    """
    if TOOLS in texts and not config.text:
        config = replace(config, tools_column=TOOLS)
    if is_told(config):
        return config
    shown = printable(str(raw_file.path))
    if not ratings:
        step = f"Export it with its feedback, or name a column with --label-column. {log_columns.it_has(texts)}"
        raise BadInput(f"{shown} has no ratings.", step)
    if len(ratings) > 1:
        all_names = ", ".join(printable(name) for name in ratings)
        raise BadInput(f"{shown} has several ratings: {all_names}.", "Name one: --label-column or --score-column.")
    return replace(config, label_column=ratings[0])


def names(file: _File, raw_file: RawFile) -> tuple[list[str], list[str]]:
    """(columns of texts, columns of ratings) in the first SAMPLE records of a file."""
    texts: dict[str, None] = {}
    ratings: dict[str, None] = {}
    for record in islice(records_of(raw_file), SAMPLE):
        values = any_file.parsed(record).values
        try:
            found = file.parts(values or {})
        except RowFault:
            continue
        texts.update(dict.fromkeys(found.texts))
        ratings.update(dict.fromkeys(column_of(name, found) for name in found.ratings))
    return list(texts), list(ratings)
