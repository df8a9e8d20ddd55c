"""Token store: tokenized rows in a folder that is written once (store_files.py), checked when opened, read row by row.

    tokens.bin     token ids of every distinct prompt and completion, uint32, one after the other
    starts.npy     where each of them begins in tokens.bin, and the end of the last one
    COLUMN.npy     one value per row (`COLUMNS`); memory-mapped, so that only the pages in use are loaded
    store.json     counts of truncated and dropped rows, the files' hashes, and a hash of itself

A row refers to its prompt, its completion and its mismatched completion, with the truncated length of both completions.
Tokens are thus stored once, however many rows and mismatched pairs share them, and read only when a row is requested.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy
from numpy.typing import NDArray

from kto_cli.common.read import map_integers, open_binary, read_array
from kto_cli.core.prefix_order import PrefixOrder
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.tokens.lexicographic import lexicographic_order

VERSION = 7
"""Increases when the format or the tokenization changes."""
TOKENS, STARTS, MANIFEST = "tokens.bin", "starts.npy", "store.json"
WHAT = "tokenized rows"
COLUMNS = {
    "id": "id of the row",
    "prompt_id": "id of its prompt in the dataset",
    "pair_id": "id of its pair",
    "paired": "whether the row is one of a pair",
    "label": "true: desirable",
    "prompt": "number of the text that is its prompt, as much of it as fits",
    "prompt_rank": "place of its prompt among all of them in lexicographic order; equal where their tokens are",
    "conversation": "number that is equal where chats begin with the same turns, the first of the user's the last",
    "own": "number of the text that is its completion",
    "mismatched": "number of the text that is its mismatched completion",
    "prompt_tokens": "tokens of the prompt",
    "own_tokens": "tokens of its completion, truncated",
    "mismatched_tokens": "tokens of the mismatched completion, truncated",
    "own_key": "16-byte digest of the digests of prompt and completion",
    "mismatched_key": "16-byte digest of the digests of prompt and mismatched completion",
}


def integers(values: NDArray[Any]) -> array[int]:
    """Integers as `core` takes them, 8 bytes each."""
    return array("q", values.astype("i8").tobytes())


class StoredTexts:
    """The distinct prompts and completions of a store."""

    def __init__(self, folder: Path) -> None:
        self.starts: NDArray[numpy.uint64] = read_array(folder / STARTS, WHAT)
        """[texts + 1] index of the first token of each text among the tokens of all, and of the end."""
        # Read, not memory-mapped: the pages of a map count as memory of this process until others need them.
        self._path = folder / TOKENS
        self._file = open_binary(self._path, WHAT)

    def tokens(self, text: int, count: int | None = None) -> NDArray[numpy.uint32]:
        """The first `count` token ids of a text; None: all."""
        start, end = int(self.starts[text]), int(self.starts[text + 1])
        length = end - start if count is None else min(count, end - start)
        self._file.seek(4 * start)  # 4 bytes a token
        return numpy.frombuffer(self._file.read(4 * length), "<u4")

    def mapped(self) -> NDArray[numpy.uint32]:
        """The tokens of all texts, memory-mapped, for a short use."""
        mapped: NDArray[numpy.uint32] = map_integers(self._file, self._path, WHAT)
        return mapped


class TokenStore:
    """An opened store."""

    def __init__(self, folder: Path) -> None:
        self.columns = {name: read_array(folder / f"{name}.npy", WHAT) for name in COLUMNS}
        self.texts = StoredTexts(folder)

    def __len__(self) -> int:
        return len(self.columns["label"])

    def column(self, name: str, index: NDArray[Any]) -> NDArray[Any]:
        """Some rows of one of `COLUMNS`, in memory."""
        mapped: Any = self.columns[name]
        values = numpy.asarray(mapped[index])
        if name.endswith("key") and hasattr(mmap, "MADV_DONTNEED"):  # read once in a run, a third of a row's bytes
            mapped._mmap.madvise(mmap.MADV_DONTNEED)
        return values

    def sequence(self, row: int, which: str) -> TokenSequence:
        """The row's prompt with its "own" or its "mismatched" completion."""
        return TokenSequence(self._prompt(row), self._completion(row, which))

    def row(self, row: int) -> EncodedRow:
        """One row with its mismatched completion."""
        prompt, value = self._prompt(row), {name: self.columns[name][row] for name in ("id", "prompt_id", "pair_id")}
        return EncodedRow(
            id=value["id"].decode(),
            label=bool(self.columns["label"][row]),
            own=TokenSequence(prompt, self._completion(row, "own")),
            mismatched=TokenSequence(prompt, self._completion(row, "mismatched")),
            prompt_id=value["prompt_id"].decode(),
            pair_id=value["pair_id"].decode() if self.columns["paired"][row] else None,
        )

    def _prompt(self, row: int) -> tuple[int, ...]:
        return tuple(self.texts.tokens(self.columns["prompt"][row]).tolist())

    def _completion(self, row: int, which: str) -> tuple[int, ...]:
        length = int(self.columns[f"{which}_tokens"][row])
        return tuple(self.texts.tokens(self.columns[which][row], length).tolist())


class EncodedRows(Sequence[EncodedRow]):
    """Rows of one or more stores. Tokens are read when a row is requested; the columns of all rows are in memory.

    `rows + others` and `rows[a:b]` are `EncodedRows` too and read nothing.
    """

    def __init__(
        self, stores: Sequence[TokenStore] = (), chosen: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> None:
        """`chosen`: for each row the index of its store, and its index there; default: all rows of all stores."""
        self._stores = tuple(stores)
        self._store, self._index = chosen or (
            numpy.repeat(numpy.arange(len(stores), dtype="u1"), [len(store) for store in stores]),
            numpy.concatenate([numpy.arange(0), *(numpy.arange(len(store), dtype="u4") for store in stores)]),
        )
        self.own = Sequences(self, "own")
        self.mismatched = Sequences(self, "mismatched")
        self.sequences = Sequences(self, "own", "mismatched")

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedRows: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | EncodedRows:
        if isinstance(index, slice):
            return EncodedRows(self._stores, (self._store[index], self._index[index]))
        return self._stores[self._store[index]].row(int(self._index[index]))

    def take(self, indices: Sequence[int]) -> EncodedRows:
        """Some of the rows, in this order."""
        wanted = numpy.asarray(indices, "i8")
        return EncodedRows(self._stores, (self._store[wanted], self._index[wanted]))

    def __add__(self, others: EncodedRows) -> EncodedRows:
        return EncodedRows(
            self._stores + others._stores,
            (
                numpy.concatenate([self._store, (others._store + len(self._stores)).astype("u1")]),
                numpy.concatenate([self._index, others._index]),
            ),
        )

    def __iter__(self) -> Iterator[EncodedRow]:
        return (self[index] for index in range(len(self)))

    def sequence(self, index: int, which: str) -> TokenSequence:
        """The row's prompt with its "own" or its "mismatched" completion."""
        return self._stores[self._store[index]].sequence(int(self._index[index]), which)

    def column(self, name: str) -> NDArray[Any]:
        """[rows] one of `COLUMNS`."""
        if len(self._stores) == 1:
            return self._stores[0].column(name, self._index)
        parts = [store.column(name, self._index[self._store == number]) for number, store in enumerate(self._stores)]
        values = numpy.empty(len(self), numpy.result_type(*parts) if parts else "V16" if name.endswith("key") else "u4")
        for number, part in enumerate(parts):
            values[self._store == number] = part
        return values

    @property
    def labels(self) -> NDArray[numpy.bool_]:
        """[rows] true: desirable."""
        return self.column("label").astype(bool)

    @property
    def ids(self) -> list[str]:
        """[rows] as `EncodedRow.id`."""
        return [value.decode() for value in self.column("id").tolist()]

    @property
    def prompt_ids(self) -> list[str]:
        """[rows] as `EncodedRow.prompt_id`."""
        return [value.decode() for value in self.column("prompt_id").tolist()]

    @property
    def pair_ids(self) -> list[str | None]:
        """[rows] as `EncodedRow.pair_id`."""
        names, paired = self.column("pair_id").tolist(), self.column("paired").tolist()
        return [name.decode() if is_paired else None for name, is_paired in zip(names, paired, strict=True)]

    @property
    def prompts(self) -> NDArray[numpy.int64]:
        """[rows] numbers that are equal where rows of one file share their prompts' tokens, in lexicographic order."""
        return self._store.astype("i8") << 32 | self.column("prompt_rank").astype("i8")

    @property
    def conversations(self) -> NDArray[numpy.int64]:
        """[rows] numbers that are equal where rows of one file are turns of one conversation."""
        return self._store.astype("i8") << 32 | self.column("conversation").astype("i8")

    def starts(self, name: str) -> NDArray[numpy.int64]:
        """[rows] in its file, index of the first token of a text: that of the column `name`."""
        texts, starts = self.column(name), numpy.empty(len(self), "i8")
        for number, store in enumerate(self._stores):
            its = self._store == number
            starts[its] = store.texts.starts[texts[its]]
        return starts

    @property
    def files(self) -> tuple[list[NDArray[numpy.uint32]], NDArray[Any]]:
        """The tokens of each file, and [rows] the index of each row's."""
        return [store.texts.mapped() for store in self._stores], self._store


class Sequences(Sequence[TokenSequence]):
    """Sequences of rows: own, mismatched, or both one after the other. Tokens are read when a sequence is requested."""

    def __init__(self, rows: EncodedRows, *which: str, indices: NDArray[Any] | None = None) -> None:
        """`indices`: some of the sequences, in this order; default: all."""
        self._rows, self._which = rows, which
        self._indices = indices

    def __len__(self) -> int:
        return len(self._rows) * len(self._which) if self._indices is None else len(self._indices)

    @overload
    def __getitem__(self, index: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenSequence]: ...
    def __getitem__(self, index: int | slice) -> TokenSequence | list[TokenSequence]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        which, row = divmod(index if self._indices is None else int(self._indices[index]), len(self._rows))
        return self._rows.sequence(row, self._which[which])

    def take(self, indices: NDArray[Any]) -> Sequences:
        """Some of the sequences, in this order."""
        chosen = indices if self._indices is None else self._indices[indices]
        return Sequences(self._rows, *self._which, indices=chosen)

    def _columns(self, *names: str) -> NDArray[Any]:
        return self._chosen([self._rows.column(name) for name in names])

    def _chosen(self, columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """[sequences] of [rows] for each of `self._which`."""
        values = columns[0] if len(columns) == 1 else numpy.concatenate(columns)
        return values if self._indices is None else values[self._indices]

    @property
    def prompt_lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of the prompt."""
        return self._columns(*("prompt_tokens" for _ in self._which)).astype("i8")

    @property
    def completion_lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of the completion, truncated."""
        return self._columns(*(f"{which}_tokens" for which in self._which)).astype("i8")

    @property
    def lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of prompt and completion."""
        return self.prompt_lengths + self.completion_lengths

    @property
    def keys(self) -> NDArray[numpy.void]:
        """[sequences] 16-byte digest of prompt and completion."""
        return self._columns(*(f"{which}_key" for which in self._which))

    @property
    def prefix_order(self) -> PrefixOrder:
        """For `core.prefix_order`, read piece by piece."""
        files, file = self._rows.files
        prompts, completions = ["prompt"] * len(self._which), self._which
        order, common = lexicographic_order(
            files,
            self._chosen([file for _ in self._which]),
            [self._chosen([self._rows.starts(name) for name in names]) for names in (prompts, completions)],
            [self.prompt_lengths, self.completion_lengths - 1],
        )
        return PrefixOrder(*map(integers, (order, (self.lengths - 1)[order], common)))
