"""Raw records to parsed rows: texts in Arrow, numbers in arrays. Pure functions, so that any process may run them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy
from numpy.typing import NDArray

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.arrow_chats import to_arrow
from kto_cli.data.audit.facets import NO_FACETS, Facets, facets_of
from kto_cli.data.audit.text_checks import fix
from kto_cli.data.columns import NO_LABEL
from kto_cli.data.formats.counts import Counts, count, counting
from kto_cli.data.formats.records import (
    VALIDATION,
    Dropped,
    Message,
    Output,
    Pair,
    Ranked,
    Reject,
    Result,
    Scored,
    Text,
)
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.pipeline.parsed_row import ParsedRow, numbers_of
from kto_cli.data.pipeline.rankings import paired
from kto_cli.data.pipeline.scrub_rows import scrubbed_results, scrubbed_rows
from kto_cli.data.readers.any_file import parsed
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.reasoning import has_reasoning, without_reasoning
from kto_cli.data.texts import TOOLS, contents

if TYPE_CHECKING:
    import pyarrow as pa

REASONING_KEPT = "records whose answer has reasoning, kept (--reasoning drop leaves it out)"
REASONING_DROPPED = "records whose answer has reasoning, left out (--reasoning drop)"


class Block(NamedTuple):
    """Records of one file, enough of them to be worth sending to another process."""

    records: list[Record]
    source: Source
    number: int
    """Index of the source on the command line."""
    file: RawFile
    config: BinarizeConfig
    """Options as resolved for the file."""


@dataclass
class ParsedRows:
    """Rows of a block."""

    texts: pa.RecordBatch
    """Columns origin, remark, prompt and completion (and tools)."""
    has_more: bool
    """Some have tools or reasoning."""
    numbers: dict[str, NDArray[Any]]
    """The fields of `Columns` that depend on one row alone; keys [rows, 2], `pairs` counted from 0 in the block."""
    unused: list[Reject | Dropped]
    """Input that gave no row."""
    pairs: int
    """Number of pairs."""
    counts: Counts
    """Decisions of parsing."""


def parse_block(block: Block) -> ParsedRows:
    """Parsed rows of a block, and its unused input."""
    rows = _BlockRows(block.config)
    with counting() as counts:
        for record in block.records:
            before = len(rows.rows)
            read = parsed(record, block.source.wanted)
            results = [*block.source.parse(read, block.file, block.config)]
            if block.config.scrub:
                results = scrubbed_results(results, read, block.source, block.file, block.config)
            is_used = rows.add(results)
            if is_used and (facets := facets_of(read.values)) is not NO_FACETS:
                rows.give_facets(before, facets)
            counts.end_record(is_used=is_used)
    return rows.finish(block.number, counts)


def rows_of(result: Pair | Scored | Output, pair: int) -> list[ParsedRow]:
    """Rows of one result; the two rows of a pair share the number `pair`, the desirable one first."""
    official = result.split == VALIDATION
    if isinstance(result, Pair):
        rejected_origin = result.rejected_origin or result.origin
        prompt, group = result.prompt, result.group
        return [
            ParsedRow(prompt, result.chosen, 1, numpy.nan, False, pair, result.origin, group, official),
            ParsedRow(prompt, result.rejected, 0, numpy.nan, False, pair, rejected_origin, group, official),
        ]
    if isinstance(result, Output):
        label = (int(result.label), numpy.nan, False)
    else:
        label = (NO_LABEL, result.score, result.by_label)
    row = ParsedRow(result.prompt, result.completion, *label, -1, result.origin, result.group, official)
    return [row._replace(remark=result.remark)]


class _BlockRows:
    """Rows of a block while they are collected."""

    def __init__(self, config: BinarizeConfig) -> None:
        self.config = config
        self.rows: list[ParsedRow] = []
        self.unused: list[Reject | Dropped] = []
        self.pairs = 0

    def give_facets(self, start: int, facets: Facets) -> None:
        """Gives facets to the rows from `start`, those of one record; of several answers the model is not known."""
        added = self.rows[start:]
        known = facets if len(added) == 1 else facets._replace(model=0)
        self.rows[start:] = [row._replace(facets=known) for row in added]

    def add(self, results: Iterable[Result]) -> bool:
        """Adds the results of a record; whether one of them is a row."""
        before = len(self.rows)
        for result in results:
            if isinstance(result, (Reject, Dropped)):
                self.unused.append(result)
            elif isinstance(result, Ranked):
                self.add(paired(result, self.config.ranked, both_labels=self.config.both_labels))
            else:
                rows = rows_of(result, self.pairs)
                if any(has_reasoning(row.completion) for row in rows):
                    count(REASONING_KEPT if self.config.reasoning == "keep" else REASONING_DROPPED)
                if self.config.reasoning == "drop":
                    rows = self._without_reasoning(rows)
                self.rows += rows
                self.pairs += isinstance(result, Pair)
        return len(self.rows) > before

    def _without_reasoning(self, rows: list[ParsedRow]) -> list[ParsedRow]:
        """Rows of one result without reasoning; none if an answer is empty without it, or a pair's two are the same."""
        kept = []
        for row in rows:
            prompt = row.prompt if isinstance(row.prompt, str) else without_reasoning(row.prompt)
            kept.append(row._replace(prompt=prompt, completion=without_reasoning(row.completion)))
        answers = [row.completion for row in kept]
        empty = any(map(is_empty, answers))
        if not empty and (len(answers) == 1 or answers[0] != answers[1]):
            return kept
        reason = "empty_answer" if empty else "answers_identical"
        self.unused.append(Reject(rows[0].origin, reason, "without the reasoning", len(rows), ""))
        return []

    def finish(self, source: int, counts: Counts) -> ParsedRows:
        """Collected rows as columns."""
        rows = self._fixed() if "encoding" in self.config.fixes else self.rows
        if self.config.scrub:
            rows, rejects = scrubbed_rows(rows, counts)
            self.unused += rejects
        texts, has_more = texts_in_arrow(rows, self.config.text)
        return ParsedRows(texts, has_more, numbers_of(rows, source), self.unused, self.pairs, counts)

    def _fixed(self) -> list[ParsedRow]:
        """Rows with their encoding fixed; those with an empty text afterwards are rejected."""
        rows = []
        for row in self.rows:
            new = row._replace(prompt=fixed(row.prompt), completion=fixed(row.completion))
            reason = "empty_prompt" if is_empty(new.prompt) else "empty_answer" if is_empty(new.completion) else ""
            if reason:
                self.unused.append(Reject(row.origin, reason, "it is empty after its encoding is fixed", 1, ""))
            else:
                rows.append(new)
        return rows


def fixed(text: Text) -> Text:
    """Text or chat with its encoding fixed."""
    if isinstance(text, str):
        return fix(text)
    return tuple({**turn, "content": fix(turn["content"])} for turn in text)


def is_empty(text: Text) -> bool:
    """Whether a text or chat has only white space."""
    return not any(part.strip() for part in contents(text))


def texts_in_arrow(rows: Sequence[ParsedRow], as_text: bool) -> tuple[pa.RecordBatch, bool]:
    """Columns origin, remark, prompt and completion (and tools), and whether they hold more than texts."""
    import pyarrow as pa

    columns = {name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in ("origin", "remark")}
    prompts, completions = [row.prompt for row in rows], [row.completion for row in rows]
    if as_text:
        columns |= {"prompt": pa.array(prompts, pa.string()), "completion": pa.array(completions, pa.string())}
        return pa.RecordBatch.from_pydict(columns), False
    columns["prompt"], columns[TOOLS], asked_more = to_arrow(cast("list[tuple[Message, ...]]", prompts))
    columns["completion"], _, answered_more = to_arrow(cast("list[tuple[Message, ...]]", completions))
    return pa.RecordBatch.from_pydict(columns), asked_more or answered_more
