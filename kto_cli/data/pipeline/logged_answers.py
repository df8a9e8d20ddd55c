"""Answers of a log with their labels, unrated ones too, and the cells that stand beside them: for `kto outcome`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import plural
from kto_cli.data.formats.counts import Counts, counting
from kto_cli.data.formats.fields import json_text
from kto_cli.data.formats.labels import is_missing, spell_cell
from kto_cli.data.formats.records import Dropped, Output, Pair, Reject, Scored
from kto_cli.data.log.cell_path import NotApplicable, cell_of, starts_of_parts
from kto_cli.data.log.format import conversation
from kto_cli.data.pipeline.parse import blocks
from kto_cli.data.pipeline.thresholds import binary_labels
from kto_cli.data.pipeline.to_rows import Block
from kto_cli.data.readers.any_file import parsed
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.select import Chosen


class LoggedAnswer(NamedTuple):
    """A logged answer; its label may still be a score."""

    origin: str
    label: bool | None
    """None: not rated, or `score` says."""
    score: float | None
    by_label: bool
    """The score comes from a label column."""
    conversation: str
    cells: dict[str, Any]
    """Cells by their flag (`BinarizeConfig.beside`); None: empty."""


@dataclass
class ReadAnswers:
    """All answers of the sources, and what was not used."""

    answers: list[LoggedAnswer] = field(default_factory=list)
    unrated: Counter[str] = field(default_factory=Counter)
    """Reason -> answers without a label."""
    rejected: Counter[str] = field(default_factory=Counter)
    first: Reject | None = None
    decisions: dict[int, Counts] = field(default_factory=dict)


def read_answers(
    chosen: Sequence[Chosen], config: BinarizeConfig, note: Callable[[str], None], tick: Callable[[int], None]
) -> ReadAnswers:
    """Reads all answers.

    Raises:
        BadInput: a file cannot be read, lacks a column, or holds pairs or rankings.
    """
    found = ReadAnswers()
    for block in blocks([_with_columns(one, config) for one in chosen], config, note):
        with counting() as counts:
            for record in block.records:
                before = len(found.answers)
                _add(found, block, parsed(record, block.source.wanted))
                counts.end_record(is_used=len(found.answers) > before)
        found.decisions.setdefault(block.number, Counts()).add(counts)
        tick(len(block.records))
    return found


def _with_columns(one: Chosen, config: BinarizeConfig) -> Chosen:
    """A source that also reads the columns beside."""
    if one.source.wanted is None:
        return one
    more = {name[:end] for _, name in config.beside for end in (len(name), *starts_of_parts(name))}
    return replace(one, source=replace(one.source, wanted=(*one.source.wanted, *sorted(more))))


def _add(found: ReadAnswers, block: Block, record: Record) -> None:
    """Adds the answers of a record."""
    values = record.values or {}
    cells = {flag: _cell(cell_of(values, name)) for flag, name in block.config.beside}
    for result in block.source.parse(record, block.file, block.config):
        if isinstance(result, Reject):
            found.rejected[result.reason] += result.rows
            found.first = found.first or result
        elif isinstance(result, Dropped):
            found.unrated[result.reason] += result.rows
            group = conversation(values, block.config) or f"alone {result.origin}"
            found.answers += [LoggedAnswer(result.origin, None, None, False, group, cells)] * result.rows
        elif isinstance(result, Output):
            found.answers.append(LoggedAnswer(result.origin, result.label, None, False, result.group, cells))
        elif isinstance(result, Scored):
            scored = LoggedAnswer(result.origin, None, result.score, result.by_label, result.group, cells)
            found.answers.append(scored)
        else:
            origin = result.origin if isinstance(result, Pair) else result.origins[0]
            what = f"{origin} has answers that are compared with each other, of which one is always desirable."
            raise BadInput(what, "Give a log of answers that are rated one by one.")


def _cell(cell: Any) -> Any:
    """A cell; None if it is empty or has no such part."""
    return None if isinstance(cell, NotApplicable) or is_missing(cell) else cell


def spelled(cell: Any) -> str:
    """A cell as the name of a version, a user or a kind of prompt, in full: paths may differ at their end; 2.0 is 2."""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return json_text(cell) if isinstance(cell, (dict, list)) else spell_cell(cell)


def labelled(answers: Sequence[LoggedAnswer], config: BinarizeConfig) -> list[LoggedAnswer]:
    """Answers with the labels that their scores give: by --threshold, or 1 and 0 of a label column.

    Raises:
        BadInput: scores without a threshold.
    """
    scored = [answer for answer in answers if answer.score is not None]
    scores = numpy.array([answer.score for answer in scored], "f8")
    is_binary = all(answer.by_label for answer in scored) and not binary_labels(scores).others
    if config.threshold is None and not is_binary:
        span = f"from {scores.min():.6g} to {scores.max():.6g}"
        what = f"The log has {plural(len(scored), 'score')} {span}, but no labels."
        raise BadInput(what, "Add --threshold NUMBER: that score and above are desirable.")
    threshold = 1.0 if config.threshold is None else float(config.threshold)
    return [
        answer if answer.score is None else answer._replace(label=answer.score >= threshold, score=None)
        for answer in answers
    ]
