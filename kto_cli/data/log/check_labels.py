"""Checks that a label column means what its values would be taken for, and that paths lead to cells."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.column_names import is_negative, opposite_of
from kto_cli.data.formats.labels import WORDS, as_number, fold, is_missing, spell_value
from kto_cli.data.formats.source import RawFile, records_of
from kto_cli.data.log.cell_path import NotApplicable, cell_of, dead_end
from kto_cli.data.log.rule_ast import spell_column
from kto_cli.data.readers.any_file import parsed

SAMPLE = 1000
"""Records whose values tell how a column writes yes: 1, true."""


def check_meaning(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> None:
    """Rejects a label or score column that means the opposite by its name, and one half of two label columns.

    Raises:
        BadInput: with two rules that say what is meant.
    """
    name, shown = config.label_column, printable(str(raw_file.path))
    if name is not None and (other := opposite_of(name, columns)) is not None:
        good, bad = (other, name) if is_negative(name) else (name, other)
        rules = rules_for(
            f"{spell_column(good)} {yes(good, raw_file)[0]}", f"{spell_column(bad)} {yes(bad, raw_file)[0]}"
        )
        what = f"{shown} has two columns of feedback, {good} and {bad}; a row with neither has no feedback."
        raise BadInput(what, f"Give two rules instead of one label column: {rules}")
    if name is not None and is_negative(name):
        is_bad, is_good = (f"{spell_column(name)} {comparison}" for comparison in yes(name, raw_file))
        what = f"A label column is true or 1 for good answers; {name}, by its name, is so for bad ones."
        raise BadInput(what, f"Say it by rules: {rules_for(is_good, is_bad)}")
    score = config.score_column
    if score is not None and is_negative(score):
        number = config.threshold if as_number(config.threshold) is not None else "NUMBER"
        rules = rules_for(f"{spell_column(score)} < {number}", f"{spell_column(score)} >= {number}")
        what = f"High scores are desirable, and a high {score}, by its name, is bad."
        raise BadInput(what, f"Say it by rules: {rules}")


def rules_for(desirable: str, undesirable: str) -> str:
    """The two options, quoted for a shell."""
    return f"--desirable {shlex.quote(desirable)} --undesirable {shlex.quote(undesirable)}"


def yes(column: str, raw_file: RawFile) -> tuple[str, str]:
    """(comparison that is true for yes, for no) in the values of a column."""
    values = sample(column, raw_file)
    if any(isinstance(value, bool) or (isinstance(value, str) and fold(value) in WORDS) for value in values):
        return "== true", "== false"
    texts = {fold(value): value for value in values if isinstance(value, str) and as_number(value) is None}
    for good, bad in (("yes", "no"), ("y", "n"), ("t", "f")):
        if texts and set(texts) <= {good, bad}:
            return f"== {spell_value(good)}", f"== {spell_value(bad)}"
    if len(texts) == 1:  # a mark such as x where it holds
        mark = spell_value(*texts.values())
        return f"== {mark}", f"!= {mark}"
    many = any((as_number(value) or 0) > 1 for value in values)
    return (">= 1", "== 0") if many else ("== 1", "== 0")


def sample(column: str, raw_file: RawFile) -> list[Any]:
    """Values of a column in the first records of a file; none for a file that is not there."""
    cells = [cell_of(values, column) for values in first_rows(raw_file)]
    return [cell for cell in cells if not isinstance(cell, NotApplicable) and not is_missing(cell)]


def first_rows(raw_file: RawFile) -> list[Mapping[str, Any]]:
    """Values of the first records of a file; none for a file that is not there."""
    if not raw_file.path.exists():
        return []
    first = map(parsed, islice(records_of(raw_file), SAMPLE))
    return [record.values for record in first if record.values is not None]


def empty_paths(names: Sequence[str], raw_file: RawFile) -> list[str]:
    """Notes on paths into columns that lead to nothing, with what is there."""
    rows = first_rows(raw_file) if names else []
    span = f"the first {len(rows):,} rows" if len(rows) >= SAMPLE else "all rows"
    found = [(name, there) for name in dict.fromkeys(names) if (there := dead_end(rows, name))]
    return [f"{printable(name)} is empty in {span}: {there}." for name, there in found]
