"""Tokenized rows on disk: a folder that is written once (store_files.py), checked whenever it is opened, and read
a row at a time.

    tokens.bin     the token ids of every distinct prompt and completion, uint32, one after the other
    starts.npy     where each of them begins in tokens.bin, and where the last one ends
    COLUMN.npy     one number or name a row (`COLUMNS`); memory-mapped, so that only what is looked at is loaded
    store.json     what was cut or left out, the files' hashes, and a hash of itself

A row points at its prompt, its completion and the completion it borrows, with the length each completion is cut
to; so tokens are stored once however many rows and mismatched pairs share them, and none of them is in memory
before a row is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy
from numpy.typing import NDArray

from kto_cli.core.batches import SequenceLengths
from kto_cli.core.rows import EncodedRow, TokenSequence

VERSION = 3
"""Changes with the format and with what decides a token."""
TOKENS, STARTS, MANIFEST = "tokens.bin", "starts.npy", "store.json"
COLUMNS = {
    "id": "names the row",
    "prompt_id": "names its prompt in the dataset",
    "pair_id": "names its pair",
    "paired": "whether it is one of a pair",
    "label": "true is desirable",
    "prompt": "the text that is its prompt, as much of it as fits",
    "own": "the text that is its completion",
    "borrowed": "the text that is its mismatched completion",
    "prompt_tokens": "tokens of the prompt",
    "own_tokens": "tokens that are kept of its completion",
    "borrowed_tokens": "tokens that are kept of the mismatched one",
    "own_key": "16 bytes that name prompt and completion: a digest of both their digests",
    "borrowed_key": "likewise with the mismatched completion",
}


class Texts:
    """The distinct prompts and completions of a store."""

    def __init__(self, folder: Path) -> None:
        self._starts = numpy.load(folder / STARTS, mmap_mode="r")
        # Read, not memory-mapped: pages of a map count as this process's memory until somebody needs them.
        self._file = (folder / TOKENS).open("rb", buffering=0)

    def tokens(self, text: int, most: int | None = None) -> NDArray[numpy.uint32]:
        """The first `most` token ids of one text."""
        start, end = int(self._starts[text]), int(self._starts[text + 1])
        count = end - start if most is None else min(most, end - start)
        self._file.seek(4 * start)
        return numpy.frombuffer(self._file.read(4 * count), "<u4")


class TokenStore:
    """An opened store."""

    def __init__(self, folder: Path) -> None:
        self.columns = {name: numpy.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        self.texts = Texts(folder)

    def __len__(self) -> int:
        return len(self.columns["label"])

    def sequence(self, row: int, which: str) -> TokenSequence:
        """`which`: "own" or "borrowed"."""
        return TokenSequence(self._prompt(row), self._completion(row, which))

    def row(self, row: int) -> EncodedRow:
        """One row with its mismatched pair."""
        prompt, value = self._prompt(row), {name: self.columns[name][row] for name in ("id", "prompt_id", "pair_id")}
        return EncodedRow(
            id=value["id"].decode(),
            label=bool(self.columns["label"][row]),
            own=TokenSequence(prompt, self._completion(row, "own")),
            mismatched=TokenSequence(prompt, self._completion(row, "borrowed")),
            prompt_id=value["prompt_id"].decode(),
            pair_id=value["pair_id"].decode() if self.columns["paired"][row] else None,
        )

    def _prompt(self, row: int) -> tuple[int, ...]:
        return tuple(self.texts.tokens(self.columns["prompt"][row]).tolist())

    def _completion(self, row: int, which: str) -> tuple[int, ...]:
        kept = int(self.columns[f"{which}_tokens"][row])
        return tuple(self.texts.tokens(self.columns[which][row], kept).tolist())


class EncodedRows(Sequence[EncodedRow]):
    """Rows of one or more stores: tokens are read when a row is asked for, numbers of all rows are cheap.

    `rows + others` and `rows[a:b]` give the like, without reading anything.
    """

    def __init__(
        self, stores: Sequence[TokenStore] = (), chosen: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> None:
        """`chosen`: for each row the store it is in, and its place there; left out, all rows of all stores."""
        self._stores = tuple(stores)
        self._store, self._place = chosen or (
            numpy.repeat(numpy.arange(len(stores), dtype="u1"), [len(store) for store in stores]),
            numpy.concatenate([numpy.arange(0), *(numpy.arange(len(store), dtype="u4") for store in stores)]),
        )
        self.own = Sequences(self, "own")
        self.mismatched = Sequences(self, "borrowed")
        self.sequences = Sequences(self, "own", "borrowed")

    def __len__(self) -> int:
        return len(self._place)

    @overload
    def __getitem__(self, index: int) -> EncodedRow: ...
    @overload
    def __getitem__(self, index: slice) -> EncodedRows: ...
    def __getitem__(self, index: int | slice) -> EncodedRow | EncodedRows:
        if isinstance(index, slice):
            return EncodedRows(self._stores, (self._store[index], self._place[index]))
        return self._stores[self._store[index]].row(int(self._place[index]))

    def take(self, indices: Sequence[int]) -> EncodedRows:
        """Some of the rows, in this order."""
        wanted = numpy.asarray(indices, "i8")
        return EncodedRows(self._stores, (self._store[wanted], self._place[wanted]))

    def __add__(self, others: EncodedRows) -> EncodedRows:
        return EncodedRows(
            self._stores + others._stores,
            (
                numpy.concatenate([self._store, (others._store + len(self._stores)).astype("u1")]),
                numpy.concatenate([self._place, others._place]),
            ),
        )

    def __iter__(self) -> Iterator[EncodedRow]:
        return (self[index] for index in range(len(self)))

    def sequence(self, index: int, which: str) -> TokenSequence:
        """The row's own sequence or the one with the borrowed completion."""
        return self._stores[self._store[index]].sequence(int(self._place[index]), which)

    def column(self, name: str) -> NDArray[Any]:
        """One of `COLUMNS` of all rows; [rows]."""
        parts = [store.columns[name][self._place[self._store == number]] for number, store in enumerate(self._stores)]
        values = numpy.empty(len(self), numpy.result_type(*parts) if parts else "V16" if name.endswith("key") else "u4")
        for number, part in enumerate(parts):
            values[self._store == number] = part
        return values

    @property
    def labels(self) -> NDArray[numpy.bool_]:
        """[rows] true is desirable."""
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
        """[rows] a number that two rows share where their prompts' tokens are the same stored ones."""
        return self._store.astype("i8") << 32 | self.column("prompt").astype("i8")


class Sequences(Sequence[TokenSequence]):
    """The rows' own sequences, those of their mismatched pairs, or one after the other; read when one is asked for."""

    def __init__(self, rows: EncodedRows, *which: str, places: NDArray[Any] | None = None) -> None:
        """`places`: some of them, in this order; left out, all."""
        self._rows, self._which = rows, which
        self._places = numpy.arange(len(rows) * len(which)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenSequence]: ...
    def __getitem__(self, index: int | slice) -> TokenSequence | list[TokenSequence]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        which, row = divmod(int(self._places[index]), len(self._rows))
        return self._rows.sequence(row, self._which[which])

    def take(self, places: NDArray[Any]) -> Sequences:
        """Some of the sequences, in this order."""
        return Sequences(self._rows, *self._which, places=self._places[places])

    def _columns(self, *names: str) -> NDArray[Any]:
        return numpy.concatenate([self._rows.column(name) for name in names])[self._places]

    @property
    def prompt_lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of the prompt."""
        return self._columns(*("prompt_tokens" for _ in self._which)).astype("i8")

    @property
    def completion_lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of the completion, as it is cut."""
        return self._columns(*(f"{which}_tokens" for which in self._which)).astype("i8")

    @property
    def lengths(self) -> NDArray[numpy.int64]:
        """[sequences] tokens of both."""
        return self.prompt_lengths + self.completion_lengths

    @property
    def keys(self) -> NDArray[numpy.void]:
        """[sequences] the name of each, 16 bytes: of its prompt and its completion."""
        return self._columns(*(f"{which}_key" for which in self._which))

    @property
    def sequence_lengths(self) -> SequenceLengths:
        """For `core.batches.cut`, without reading a token."""
        prompts = numpy.tile(self._rows.prompts, len(self._which))[self._places]
        return SequenceLengths(prompts.tolist(), self.prompt_lengths.tolist(), self.completion_lengths.tolist())
