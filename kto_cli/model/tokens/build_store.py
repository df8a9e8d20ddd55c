"""Writes the rows of a Parquet file to a token store, in batches; memory grows by a few numbers a row only.

The rows are read twice. The first pass keeps hashes of the texts: which rows share a prompt or a completion, and each
row's mismatched completion. The second pass tokenizes and writes each distinct text.
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
from kto_cli.common.words import plural
from kto_cli.core.mismatch import mismatched_partners, ring_key
from kto_cli.data.dataset import Text, spelled
from kto_cli.model.tokens.encoder import LEAST_COMPLETION, Encoder, EncodingReport
from kto_cli.model.tokens.store_files import TextWriter, seal

Batch = dict[str, list[Any]]
"""Columns of some rows, by name."""
Read = Callable[[Sequence[str]], Iterable[Batch]]
"""Reads the named columns of all rows from the start, in batches."""
KEYS, TEXTS = ("id", "prompt_id", "pair_id", "label", "completion"), ("prompt", "completion")
"""Columns read in the first and in the second pass."""
NO_PARTNER = "no row with another prompt has another completion, so z_ref cannot use them"
"""Reason in the report."""


@dataclass
class RowKeys:
    """Ids, labels and hashes of the rows, without their texts; every field [rows]."""

    columns: dict[str, NDArray[Any]]
    """id, prompt_id, pair_id, paired, label."""
    prompts: NDArray[numpy.int64]
    """Number of the row's prompt among the distinct prompts."""
    completions: NDArray[numpy.int64]
    """Number of the row's completion among the distinct completion texts."""
    ring: NDArray[numpy.int64]
    """Row indices in the order of the ring (core/mismatch.py)."""


def write_store(folder: Path, read: Read, encoder: Encoder, *, tick: Callable[[int], None] = lambda _: None) -> None:
    """Encodes rows and their mismatched pairs into a store; counts and drops rows that do not fit even when truncated.

    Args:
        folder: an empty folder. tick: called with the number of rows encoded since the last call.

    Raises:
        BadData: all rows share one prompt, or no row fits.
    """
    keys = read_keys(read(KEYS))
    try:
        partners = mismatched_partners(*map(_integers, (keys.ring, keys.prompts, keys.completions)))
    except ValueError as error:
        raise BadData(f"KTO cannot learn from these rows: {error}.", "Add rows with other prompts.") from error
    writer = TextWriter(folder)
    columns, named = _write_texts(writer, read(TEXTS), encoder, keys, tick)
    partner = numpy.asarray(partners)
    paired = partner >= 0
    columns |= {"mismatched": columns["own"][partner], "mismatched_tokens": columns["own_tokens"][partner]}
    columns = {name: values[paired] for name, values in (keys.columns | columns).items()}
    report, kept = _truncate(columns, encoder.max_length)
    report.rows, report.special_text = len(paired), int(named.sum())
    if not paired.all():
        report.dropped[NO_PARTNER] = int((~paired).sum())
    if not kept.any():
        raise BadData(
            f"None of the {plural(len(kept), 'row')} fits into {encoder.max_length} tokens.",
            "Raise --max-length, or use a model with a longer context.",
        )
    columns = {name: values[kept] for name, values in columns.items()}
    writer.add_keys(columns)
    seal(folder, columns, report)


def read_keys(batches: Iterable[Batch]) -> RowKeys:
    """The first pass: everything about the rows that needs no tokens."""
    parts = [_keys_of(batch) for batch in batches]
    columns = _joined(parts)
    ring = numpy.argsort(columns.pop("ring"), kind="stable")
    completions = numpy.unique(columns.pop("completion"), return_inverse=True)[1]
    prompts = numpy.unique(columns["prompt_id"], return_inverse=True)[1]
    return RowKeys(columns, prompts, completions, ring)


def _joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Concatenates the parts' columns and empties the parts meanwhile, so that only one column is in memory twice."""
    return {name: numpy.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


def _integers(values: NDArray[Any]) -> array[int]:
    """Integers as `core` takes them, 8 bytes each."""
    return array("q", values.astype("i8").tobytes())


def _keys_of(batch: Batch) -> dict[str, NDArray[Any]]:
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
        "ring": numpy.array(
            [ring_key(prompt, text) for prompt, text in zip(batch["prompt_id"], completions, strict=True)], "S16"
        ),
    }


def _texts(values: Sequence[str]) -> NDArray[numpy.bytes_]:
    return numpy.array([value.encode("utf-8", "surrogatepass") for value in values], "S")


def _write_texts(
    writer: TextWriter, batches: Iterable[Batch], encoder: Encoder, keys: RowKeys, tick: Callable[[int], None]
) -> tuple[dict[str, NDArray[Any]], NDArray[numpy.bool_]]:
    """Writes every distinct prompt and completion once.

    Returns:
        columns prompt, own (numbers of texts), prompt_tokens, own_tokens (not truncated) and dropped (turns), each
        [rows]; and [rows] whether the completion contains the name of a special token.
    """
    completions, prompts = _Completions(encoder, writer, keys), _Prompts(encoder, writer, keys)
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
    """Tokenized completions, each distinct text once."""

    def __init__(self, encoder: Encoder, writer: TextWriter, keys: RowKeys) -> None:
        count = int(keys.completions.max()) + 1
        self._encoder, self._writer, self._numbers = encoder, writer, keys.completions
        self._known = {
            "own": numpy.full(count, -1),
            "own_tokens": numpy.zeros(count, "u4"),
            "named": numpy.zeros(count, bool),
        }

    def add(self, span: slice, completions: Sequence[Text]) -> dict[str, NDArray[Any]]:
        """Columns own, own_tokens and named of the rows in `span`."""
        numbers = self._numbers[span]
        new, first = numpy.unique(numbers, return_index=True)
        is_new = self._known["own"][new] < 0
        new, first = new[is_new], first[is_new]
        found = self._encoder.completion_ids([completions[index] for index in first])
        self._known["own"][new] = self._writer.add([ids for ids, _ in found])
        self._known["own_tokens"][new] = [len(ids) for ids, _ in found]
        self._known["named"][new] = [named for _, named in found]
        return {name: values[numbers] for name, values in self._known.items()}


class _Prompts:
    """Tokenized prompts, each distinct one once: full prompts by number, shortened ones by number and dropped turns."""

    def __init__(self, encoder: Encoder, writer: TextWriter, keys: RowKeys) -> None:
        self._encoder, self._writer, self._numbers = encoder, writer, keys.prompts
        self._full = numpy.full(int(keys.prompts.max()) + 1, -1)
        self._shortened: dict[tuple[int, int], int] = {}

    def add(self, span: slice, prompts: Sequence[Text], completion_tokens: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Columns prompt, prompt_tokens and dropped of the rows in `span`."""
        numbers = self._numbers[span].tolist()
        fitted = self._encoder.fit_prompts(prompts, completion_tokens, numbers)
        asked = [(number, prompt.dropped) for number, prompt in zip(numbers, fitted, strict=True)]
        new = {key: prompt.ids for key, prompt in zip(asked, fitted, strict=True) if self._text(*key) < 0}
        for (number, dropped), text in zip(new, self._writer.add(list(new.values())).tolist(), strict=True):
            if dropped:
                self._shortened[number, dropped] = text
            else:
                self._full[number] = text
        return {
            "prompt": numpy.array([self._text(*key) for key in asked], "u4"),
            "prompt_tokens": numpy.array([len(prompt.ids) for prompt in fitted], "u4"),
            "dropped": numpy.array([prompt.dropped for prompt in fitted], "u4"),
        }

    def _text(self, number: int, dropped: int) -> int:
        """Number of a prompt's text; -1: not written yet."""
        return self._shortened.get((number, dropped), -1) if dropped else int(self._full[number])


def unfit(
    prompt: NDArray[Any], own: NDArray[Any], max_length: int
) -> tuple[NDArray[numpy.bool_], NDArray[numpy.bool_]]:
    """[rows] whether a row is dropped because its prompt has no tokens; because the prompt leaves too little room.

    Args:
        prompt, own: [rows] tokens of the shortened prompt and of the completion, not truncated.
    """
    empty = prompt == 0
    return empty, ~empty & (max_length - prompt < numpy.minimum(LEAST_COMPLETION, own))


def _truncate(columns: dict[str, NDArray[Any]], max_length: int) -> tuple[EncodingReport, NDArray[numpy.bool_]]:
    """Truncates completions to the room that their prompts leave, in place.

    Returns:
        the report, and [rows] which rows fit.
    """
    names = ("prompt_tokens", "own_tokens", "mismatched_tokens")
    prompt, own, mismatched = (columns[name].astype("i8") for name in names)
    room = max_length - prompt
    empty, no_room = unfit(prompt, own, max_length)
    kept = ~(empty | no_room)
    report = EncodingReport(
        rows=len(kept),
        shortened_prompts=int((kept & (columns.pop("dropped") > 0)).sum()),
        truncated_completions=int((kept & (own > room)).sum()),
        truncated_mismatched=int((kept & (mismatched > room)).sum()),
    )
    reasons = {"the prompt leaves no room for the completion": no_room, "the prompt has no tokens": empty}
    report.dropped.update({reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()})
    columns["own_tokens"] = numpy.minimum(own, room.clip(0)).astype("u4")
    columns["mismatched_tokens"] = numpy.minimum(mismatched, room.clip(0)).astype("u4")
    return report, kept
