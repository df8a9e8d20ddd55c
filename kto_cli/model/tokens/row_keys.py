"""First pass over the rows of a token store: ids, labels and hashes, without texts or tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.core.mismatch import ring_key
from kto_cli.data.texts import spelled

Batch = dict[str, list[Any]]
"""Columns of some rows, by name."""
KEYS = ("id", "prompt_id", "pair_id", "label", "completion")
"""Columns that are read."""


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


def read_keys(batches: Iterable[Batch]) -> RowKeys:
    """The first pass: everything about the rows that needs no tokens."""
    parts = [_keys_of(batch) for batch in batches]
    columns = joined(parts)
    ring = numpy.argsort(columns.pop("ring"), kind="stable")
    completions = numpy.unique(columns.pop("completion"), return_inverse=True)[1]
    prompts = numpy.unique(columns["prompt_id"], return_inverse=True)[1]
    return RowKeys(columns, prompts, completions, ring)


def joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Concatenates the parts' columns and empties the parts meanwhile, so that only one column is in memory twice."""
    return {name: numpy.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}


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
