"""Flat exports of products, read as a log whose columns and rules are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.fields import need_columns
from kto_cli.data.formats.records import Result
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.log import columns as log_columns
from kto_cli.data.log import format as log_format
from kto_cli.data.products.remarks import remark, with_remark
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record


class Preset(NamedTuple):
    """What is known of a product's file."""

    name: str
    options: tuple[tuple[str, str], ...]
    """Settings of `kto binarize log` and their values."""
    needed: tuple[str, ...]
    """Columns."""
    step: str
    """What to do without them."""
    csv_note: str = ""
    """Said of a CSV file."""
    refuse: Callable[[dict[str, Any]], None] | None = None
    """Raises RowFault for values that cannot be used. A module-level function."""
    comment: str = ""
    """Column of what raters wrote."""


def source(preset: Preset, **more: Any) -> Source:
    """Source of a preset."""
    return Source(
        name=preset.name,
        gives="labels",
        read=partial(read, preset),
        licence="yours",
        patterns=("*.json", "*.json.gz", "*.jsonl*", "*.csv*", "*.xls[xm]"),
        check=partial(check, preset),
        resolve_options=partial(resolve, preset),
        **more,
    )


def with_options(preset: Preset, config: BinarizeConfig) -> BinarizeConfig:
    """The user's settings with those of the product."""
    return replace(config, **dict(preset.options))  # type: ignore[arg-type]


def check(preset: Preset, columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Notes on the columns that are not read.

    Raises:
        BadInput: the file is not one of this product.
    """
    need_columns(raw_file.name, columns, preset.needed, preset.name, preset.step)
    notes = log_columns.notes(columns, raw_file, with_options(preset, config))
    is_table = any_file.suffix(raw_file.path.name) in (".csv", ".tsv")
    return [*notes, preset.csv_note] if preset.csv_note and is_table else notes


def resolve(preset: Preset, columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> BinarizeConfig:
    """Settings for one file."""
    return log_columns.resolve_columns(columns, raw_file, with_options(preset, config))


def read(preset: Preset, record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Feedback of one record; the settings may not be resolved where records come without a file."""
    if preset.refuse is not None:
        preset.refuse(record.values or {})
    said = remark(comment=(record.values or {}).get(preset.comment))
    results = log_format.read(record, raw_file, with_options(preset, config))
    return [with_remark(each, said) for each in results]
