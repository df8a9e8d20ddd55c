"""Writing the folder that `data_dir.py` describes: a batch of rows at a time, and whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kto_cli.common.files import file_sha256, finite, replacing_folder, write_json
from kto_cli.data.dataset import (
    FILES,
    FINDINGS,
    FORMAT,
    MANIFEST,
    REJECTS,
    TRAIN,
    VALIDATION,
    VERSION,
    Row,
    check_out,
    schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 8192
"""Rows written at once; bounds memory, and is part of the files' bytes, which depend on nothing but the rows."""


class DataWriter:
    """The files of one dataset, in a folder that is not in its place yet."""

    def __init__(self, folder: Path, chat: bool) -> None:
        from pyarrow import parquet

        self.folder = folder
        self.schema = schema(chat)
        self._tables = {
            name: parquet.ParquetWriter(folder / name, self.schema, compression="zstd") for name in (TRAIN, VALIDATION)
        }
        self._waiting: dict[str, list[pa.Table]] = {TRAIN: [], VALIDATION: []}
        self._lines: dict[str, IO[bytes]] = {name: (folder / name).open("wb") for name in (REJECTS, FINDINGS)}

    def add(self, file: str, rows: pa.Table) -> None:
        """More rows of train.parquet or validation.parquet, in the columns of `schema`."""
        self._waiting[file].append(rows)
        if sum(part.num_rows for part in self._waiting[file]) >= ROWS_PER_GROUP:
            self._write(file, ROWS_PER_GROUP)

    def line(self, file: str, value: dict[str, Any]) -> None:
        """One more line of rejects.jsonl or findings.jsonl."""
        self._lines[file].write(json_line(value))

    def close_tables(self) -> None:
        """Writes the rows that are waiting; the Parquet files are whole then."""
        for file, writer in self._tables.items():
            self._write(file, 1)
            writer.close()

    def close(self) -> None:
        """Writes what is waiting."""
        self.close_tables()
        for lines in self._lines.values():
            lines.close()

    def let_go(self) -> None:
        """Closes the files that still are open: something went wrong, and what is in them is of no use."""
        for file in (*self._tables.values(), *self._lines.values()):
            with suppress(Exception):
                file.close()

    def _write(self, file: str, least: int) -> None:
        """Writes whole groups, and a smaller last one if `least` says so."""
        import pyarrow as pa

        waiting = pa.concat_tables([self.schema.empty_table(), *self._waiting[file]])
        done = 0
        while waiting.num_rows - done >= least:
            part = waiting.slice(done, ROWS_PER_GROUP)
            self._tables[file].write_table(part.combine_chunks(), row_group_size=ROWS_PER_GROUP)
            done += part.num_rows
        self._waiting[file] = [waiting.slice(done)] if waiting.num_rows > done else []


@contextmanager
def writing_data_dir(folder: Path, *, overwrite: bool, chat: bool) -> Iterator[DataWriter]:
    """A writer whose files take the folder's place in one step at the end; `finish` has to be called before.

    Raises:
        BadInput: the folder may not be replaced (see `check_out`).
        DiskFull: no space left; an earlier dataset is as it was.
    """
    check_out(folder, overwrite=overwrite)
    with replacing_folder(folder.resolve()) as temporary:
        writer = DataWriter(temporary, chat)
        try:
            yield writer
        finally:
            writer.let_go()


def finish(writer: DataWriter, manifest: dict[str, Any]) -> dict[str, Any]:
    """Closes the files and writes the manifest; returns it with format, version and file hashes added."""
    writer.close()
    hashes = {name: file_sha256(writer.folder / name) for name in FILES}
    whole = {"format": FORMAT, "version": VERSION, **manifest, "files": hashes}
    write_json(writer.folder / MANIFEST, whole)
    return whole


def write_data_dir(
    folder: Path,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    rejects: Iterable[dict[str, Any]],
    manifest: dict[str, Any],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes a whole folder of rows that are in memory; returns the manifest.

    Raises:
        as `writing_data_dir`
    """
    chat = not any(isinstance(row.prompt, str) for row in (*train_rows, *validation_rows))
    with writing_data_dir(folder, overwrite=overwrite, chat=chat) as writer:
        for file, rows in ((TRAIN, train_rows), (VALIDATION, validation_rows)):
            for start in range(0, len(rows), ROWS_PER_GROUP):
                writer.add(file, table_of(rows[start : start + ROWS_PER_GROUP], writer.schema))
        for reject in rejects:
            writer.line(REJECTS, reject)
        return finish(writer, manifest)


def table_of(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """Rows as a table."""
    import pyarrow as pa

    arrays = [pa.array([getattr(row, column.name) for row in rows], type=column.type) for column in columns]
    return pa.Table.from_arrays(arrays, schema=columns)


def json_line(value: dict[str, Any]) -> bytes:
    """One JSON line; a lone surrogate, which UTF-8 cannot hold, becomes the JSON escape of itself."""
    return (json.dumps(finite(value), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
