"""From raw records to rows: their texts in Arrow, all else in arrays. Pure, so that any process may do it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy
from numpy.typing import NDArray

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.audit.minhash import WIDTH, sketch
from kto_cli.data.audit.text_checks import about_answer, about_prompt, fix
from kto_cli.data.columns import NO_LABEL
from kto_cli.data.dataset import spelled
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
    message,
)
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.pipeline.rankings import paired
from kto_cli.data.readers.any_file import parsed
from kto_cli.data.readers.jsonl import Record

if TYPE_CHECKING:
    import pyarrow as pa


class Block(NamedTuple):
    """Records of one file, enough to be worth handing to another process."""

    records: list[Record]
    source: Source
    number: int
    """Of the source, in the order they were named."""
    file: RawFile
    config: BinarizeConfig
    """As it is settled for the file."""


@dataclass
class Drafts:
    """The rows of a block."""

    texts: pa.RecordBatch
    """Columns origin, prompt and completion."""
    numbers: dict[str, NDArray[Any]]
    """The columns of `Columns` that depend on a row alone; keys [rows, 2], `pairs` counted from 0 in the block."""
    lost: list[Reject | Dropped]
    pairs: int
    """How many pairs there are."""


class Draft(NamedTuple):
    """One row before its label is settled."""

    prompt: Text
    completion: Text
    label: int
    score: float
    by_label: bool
    pair: int
    origin: str
    group: str
    official: bool


def key(spelling: str) -> bytes:
    """16 bytes that name a text."""
    return hashlib.blake2b(spelling.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def drafts(block: Block) -> Drafts:
    """All that the records of a block give."""
    maker = _Maker(block.config)
    for record in block.records:
        maker.add(block.source.parse(parsed(record, block.source.wanted), block.file, block.config))
    return maker.finish(block.number)


def rows_of(result: Pair | Scored | Output, pair: int) -> list[Draft]:
    """The rows of one result; the two of a pair share the number `pair`, the desirable one comes first."""
    official = result.split == VALIDATION
    if isinstance(result, Pair):
        rejected_origin = result.rejected_origin or result.origin
        prompt, group = result.prompt, result.group
        return [
            Draft(prompt, result.chosen, 1, numpy.nan, False, pair, result.origin, group, official),
            Draft(prompt, result.rejected, 0, numpy.nan, False, pair, rejected_origin, group, official),
        ]
    if isinstance(result, Output):
        label = (int(result.label), numpy.nan, False)
    else:
        label = (NO_LABEL, result.score, result.by_label)
    return [Draft(result.prompt, result.completion, *label, -1, result.origin, result.group, official)]


class _Maker:
    """Gathers the rows of a block."""

    def __init__(self, config: BinarizeConfig) -> None:
        self.config = config
        self.fixing = "encoding" in config.fixes
        self.rows: list[Draft] = []
        self.lost: list[Reject | Dropped] = []
        self.pairs = 0

    def add(self, results: Iterable[Result]) -> None:
        """Takes what a record gave."""
        for result in results:
            if isinstance(result, (Reject, Dropped)):
                self.lost.append(result)
            elif isinstance(result, Ranked):
                self.add(paired(result, self.config.ranked, both_labels=self.config.both_labels))
            else:
                self.rows += rows_of(result, self.pairs)
                self.pairs += isinstance(result, Pair)

    def finish(self, source: int) -> Drafts:
        """The rows gathered, as columns."""
        if not self.fixing:
            return Drafts(
                texts_in_arrow(self.rows, self.config.text), numbers_of(self.rows, source), self.lost, self.pairs
            )
        rows = []
        for row in self.rows:
            whole = row._replace(prompt=fixed(row.prompt), completion=fixed(row.completion))
            reason = "empty_prompt" if is_empty(whole.prompt) else "empty_answer" if is_empty(whole.completion) else ""
            if reason:
                detail = "nothing is left of it once its encoding is fixed"
                self.lost.append(Reject(row.origin, reason, detail, 1, ""))
            else:
                rows.append(whole)
        return self._drafts(rows, source)

    def _drafts(self, rows: list[Draft], source: int) -> Drafts:
        return Drafts(texts_in_arrow(rows, self.config.text), numbers_of(rows, source), self.lost, self.pairs)


def numbers_of(rows: Sequence[Draft], source: int) -> dict[str, NDArray[Any]]:
    """The columns of `Columns` that depend on a row alone; rows of one prompt that follow each other share the work."""
    starts = [
        place
        for place, row in enumerate(rows)
        if not place or (row.prompt is not rows[place - 1].prompt and row.prompt != rows[place - 1].prompt)
    ]
    prompts = [rows[place].prompt for place in starts]
    times = numpy.diff([*starts, len(rows)])
    bits, asked = zip(*map(about_prompt, prompts), strict=True) if prompts else ((), ())
    last_asked = [text for text, count in zip(asked, times.tolist(), strict=True) for _ in range(count)]
    answers = [about_answer(text, row.completion) for text, row in zip(last_asked, rows, strict=True)]
    sketches = numpy.array([sketch(prompt) for prompt in prompts], "u8").reshape(len(prompts), WIDTH)
    return {
        "labels": numpy.array([row.label for row in rows], "i1"),
        "scores": numpy.array([row.score for row in rows], "f8"),
        "by_label": numpy.array([row.by_label for row in rows], bool),
        "pairs": numpy.array([row.pair for row in rows], "i8"),
        "official": numpy.array([row.official for row in rows], bool),
        "sources": numpy.full(len(rows), source, "i2"),
        "group_keys": keys([row.group for row in rows]),
        "prompt_keys": keys(map(spelled, prompts)).repeat(times, 0),
        "prompt_chars": numpy.array(list(map(characters, prompts)), "i4").repeat(times),
        "sketches": sketches.repeat(times, 0),
        "completion_keys": keys([spelled(row.completion) for row in rows]),
        "completion_chars": numpy.array([characters(row.completion) for row in rows], "i4"),
        "findings": numpy.array(answers, "u4") | numpy.array(bits, "u4").repeat(times),
    }


def keys(spellings: Iterable[str]) -> NDArray[numpy.uint64]:
    """[texts, 2] their names."""
    return numpy.frombuffer(b"".join(map(key, spellings)), "<u8").reshape(-1, 2)


def characters(text: Text) -> int:
    """How long a text or a chat is."""
    return len(text) if isinstance(text, str) else sum(len(turn["content"]) for turn in text)


def fixed(text: Text) -> Text:
    """The text with its encoding fixed."""
    if isinstance(text, str):
        return fix(text)
    return tuple(message(turn["role"], fix(turn["content"])) for turn in text)


def is_empty(text: Text) -> bool:
    """Whether nothing is in it that can be seen."""
    return not any(part.strip() for part in ([text] if isinstance(text, str) else [turn["content"] for turn in text]))


def texts_in_arrow(rows: Sequence[Draft], as_text: bool) -> pa.RecordBatch:
    """Columns origin, prompt and completion as the dataset's files have them."""
    import pyarrow as pa

    columns = {
        "origin": pa.array([row.origin for row in rows], pa.string()),
        "prompt": _arrow([row.prompt for row in rows], as_text),
        "completion": _arrow([row.completion for row in rows], as_text),
    }
    return pa.RecordBatch.from_pydict(columns)


def _arrow(texts: Sequence[Text], as_text: bool) -> pa.Array:
    """Texts, or chats as lists of {role, content}: built from flat columns, several times faster than from objects."""
    import pyarrow as pa

    if as_text:
        return pa.array(texts, pa.string())
    turns = [turn for text in texts for turn in cast("tuple[Message, ...]", text)]
    offsets = numpy.cumsum([0, *map(len, texts)], dtype="i4")
    roles = pa.array([turn["role"] for turn in turns], pa.string())
    contents = pa.array([turn["content"] for turn in turns], pa.string())
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays([roles, contents], ["role", "content"])
    )
