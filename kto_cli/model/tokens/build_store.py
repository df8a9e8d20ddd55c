"""From the rows of a Parquet file to a token store: in batches, with memory flat but for a few numbers a row.

The rows' text is read twice. The first time only hashes of it are kept: which rows share a prompt or a
completion, and who lends whom its completion. The second time each distinct text is tokenized and written.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.errors import BadData
from kto_cli.core.mismatch import mismatched_partners, ring_key
from kto_cli.data.dataset import Text, spelled
from kto_cli.model.tokens.encoder import LEAST_COMPLETION, Encoder, EncodingReport
from kto_cli.model.tokens.store_files import TextWriter, seal

Batch = dict[str, list[Any]]
"""Columns of some rows, by name."""
Read = Callable[[Sequence[str]], Iterable[Batch]]
"""Reads the named columns of all rows anew, a batch at a time."""
NAMES, TEXTS = ("id", "prompt_id", "pair_id", "label", "completion"), ("prompt", "completion")
"""What is read the first time, and the second."""


@dataclass
class Names:
    """What is kept of the rows' text; every field [rows]."""

    columns: dict[str, NDArray[Any]]
    """id, prompt_id, pair_id, paired, label."""
    prompts: NDArray[numpy.int64]
    """A number for each distinct prompt."""
    completions: NDArray[numpy.int64]
    """A number for each distinct completion text."""
    ring: NDArray[numpy.int64]
    """Row indices in the order of the ring that mismatched partners are found on."""


def write_store(folder: Path, read: Read, encoder: Encoder, *, tick: Callable[[int], None] = lambda _: None) -> None:
    """Encodes rows and their mismatched pairs into a store; what does not fit even when cut is left out and counted.

    Args:
        folder: an empty one. tick: is told how many more rows are encoded.

    Raises:
        BadData: all rows share one prompt, or no row fits.
    """
    names = read_names(read(NAMES))
    try:
        partners = mismatched_partners(
            *(_integers(values) for values in (names.ring, names.prompts, names.completions))
        )
    except ValueError as error:
        raise BadData(f"KTO cannot learn from these rows: {error}.", "Add rows with other prompts.") from error
    writer = TextWriter(folder)
    columns, named = _write_texts(writer, read(TEXTS), encoder, names, tick)
    borrowed = numpy.asarray(partners)
    columns |= {"borrowed": columns["own"][borrowed], "borrowed_tokens": columns["own_tokens"][borrowed]}
    report, kept = _cut(columns, encoder.max_length)
    report.special_text = int(named.sum())
    if not kept.any():
        raise BadData(
            f"None of the {len(kept):,} rows fits into {encoder.max_length} tokens.",
            "Raise --max-length, or use a model with a longer context.",
        )
    columns = {name: values[kept] for name, values in (names.columns | columns).items()}
    writer.add_keys(columns)
    seal(folder, columns, report)


def read_names(batches: Iterable[Batch]) -> Names:
    """Everything about the rows that does not need their tokens."""
    parts = [_names_of(batch) for batch in batches]
    columns = _joined(parts)
    ring = numpy.argsort(columns.pop("place"), kind="stable")
    completions = numpy.unique(columns.pop("completion"), return_inverse=True)[1]
    prompts = numpy.unique(columns["prompt_id"], return_inverse=True)[1]
    return Names(columns, prompts, completions, ring)


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The parts' columns end to end; the parts are emptied on the way, so that a column is held twice, not all."""
    return {name: numpy.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def _integers(values: NDArray[Any]) -> array[int]:
    """Whole numbers as core takes them, 8 bytes each."""
    return array("q", values.astype("i8").tobytes())


def _names_of(batch: Batch) -> dict[str, NDArray[Any]]:
    completions = [spelled(completion) for completion in batch["completion"]]
    return {
        "id": _texts(batch["id"]),
        "prompt_id": _texts(batch["prompt_id"]),
        "pair_id": _texts([pair or "" for pair in batch["pair_id"]]),
        "paired": numpy.array([pair is not None for pair in batch["pair_id"]]),
        "label": numpy.array(batch["label"]),
        "completion": numpy.array(
            [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in completions], "S16"
        ),
        "place": numpy.array(
            [ring_key(prompt, text) for prompt, text in zip(batch["prompt_id"], completions, strict=True)], "S16"
        ),
    }


def _texts(values: Sequence[str]) -> NDArray[numpy.bytes_]:
    return numpy.array([value.encode("utf-8", "surrogatepass") for value in values], "S")


def _write_texts(
    writer: TextWriter, batches: Iterable[Batch], encoder: Encoder, names: Names, tick: Callable[[int], None]
) -> tuple[dict[str, NDArray[Any]], NDArray[numpy.bool_]]:
    """Writes every distinct prompt and completion once.

    Returns:
        columns prompt, own (numbers of texts), prompt_tokens, own_tokens (uncut) and dropped (turns), each [rows];
        and whether each row's completion holds the name of a special token.
    """
    completions, prompts = _Completions(encoder, writer, names), _Prompts(encoder, writer, names)
    parts, done = [], 0
    for batch in batches:
        span = slice(done, done + len(batch["prompt"]))
        part = completions.add(span, batch["completion"])
        part |= prompts.add(span, batch["prompt"], part["own_tokens"].tolist())
        parts.append(part)
        done = span.stop
        tick(len(batch["prompt"]))
    writer.close()
    columns = _joined(parts)
    return columns, columns.pop("named")


class _Completions:
    """Completions in tokens, each distinct text once."""

    def __init__(self, encoder: Encoder, writer: TextWriter, names: Names) -> None:
        count = int(names.completions.max()) + 1
        self._encoder, self._writer, self._numbers = encoder, writer, names.completions
        self._known = {
            "own": numpy.full(count, -1),
            "own_tokens": numpy.zeros(count, "u4"),
            "named": numpy.zeros(count, bool),
        }

    def add(self, span: slice, completions: Sequence[Text]) -> dict[str, NDArray[Any]]:
        """Columns own, own_tokens and named of the rows in `span`."""
        numbers = self._numbers[span]
        new, places = numpy.unique(numbers, return_index=True)
        is_new = self._known["own"][new] < 0
        new, places = new[is_new], places[is_new]
        found = self._encoder.completion_ids([completions[place] for place in places])
        self._known["own"][new] = self._writer.add([ids for ids, _ in found])
        self._known["own_tokens"][new] = [len(ids) for ids, _ in found]
        self._known["named"][new] = [named for _, named in found]
        return {name: values[numbers] for name, values in self._known.items()}


class _Prompts:
    """Prompts in tokens, each distinct one once: whole by its number, shortened ones by number and dropped turns."""

    def __init__(self, encoder: Encoder, writer: TextWriter, names: Names) -> None:
        self._encoder, self._writer, self._numbers = encoder, writer, names.prompts
        self._whole = numpy.full(int(names.prompts.max()) + 1, -1)
        self._shortened: dict[tuple[int, int], int] = {}

    def add(self, span: slice, prompts: Sequence[Text], completion_tokens: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Columns prompt, prompt_tokens and dropped of the rows in `span`."""
        numbers = self._numbers[span].tolist()
        fitted = self._encoder.fit(prompts, completion_tokens, numbers)
        asked = [(number, prompt.dropped) for number, prompt in zip(numbers, fitted, strict=True)]
        new = {key: prompt.ids for key, prompt in zip(asked, fitted, strict=True) if self._text(*key) < 0}
        for (number, dropped), text in zip(new, self._writer.add(list(new.values())).tolist(), strict=True):
            if dropped:
                self._shortened[number, dropped] = text
            else:
                self._whole[number] = text
        return {
            "prompt": numpy.array([self._text(*key) for key in asked], "u4"),
            "prompt_tokens": numpy.array([len(prompt.ids) for prompt in fitted], "u4"),
            "dropped": numpy.array([prompt.dropped for prompt in fitted], "u4"),
        }

    def _text(self, number: int, dropped: int) -> int:
        """The number of a prompt's text; -1: not written yet."""
        return self._shortened.get((number, dropped), -1) if dropped else int(self._whole[number])


def unfit(
    prompt: NDArray[Any], own: NDArray[Any], max_length: int
) -> tuple[NDArray[numpy.bool_], NDArray[numpy.bool_]]:
    """[rows] whether a row is dropped because its prompt has no tokens, or because it leaves too little room.

    Args:
        prompt, own: [rows] tokens of the prompt, as much of it as is kept, and of the completion, uncut.
    """
    empty = prompt == 0
    return empty, ~empty & (max_length - prompt < numpy.minimum(LEAST_COMPLETION, own))


def _cut(columns: dict[str, NDArray[Any]], max_length: int) -> tuple[EncodingReport, NDArray[numpy.bool_]]:
    """Cuts completions to the room their prompts leave, in place.

    Returns:
        the report, and [rows] which rows stay.
    """
    prompt, own, borrowed = (columns[name].astype("i8") for name in ("prompt_tokens", "own_tokens", "borrowed_tokens"))
    room = max_length - prompt
    empty, no_room = unfit(prompt, own, max_length)
    kept = ~(empty | no_room)
    report = EncodingReport(
        rows=len(kept),
        shortened_prompts=int((kept & (columns.pop("dropped") > 0)).sum()),
        cut_completions=int((kept & (own > room)).sum()),
        cut_mismatched=int((kept & (borrowed > room)).sum()),
    )
    reasons = {"the prompt leaves no room for the completion": no_room, "the prompt has no tokens": empty}
    report.dropped.update({reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()})
    columns["own_tokens"] = numpy.minimum(own, room.clip(0)).astype("u4")
    columns["borrowed_tokens"] = numpy.minimum(borrowed, room.clip(0)).astype("u4")
    return report, kept
