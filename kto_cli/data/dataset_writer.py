"""Writer of the data folder (`dataset.py`): batch by batch, and atomically."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kto_cli.common.files import file_sha256, finite, replacing_folder
from kto_cli.common.owner import beside, owning
from kto_cli.common.seals import write_sealed
from kto_cli.common.words import plural
from kto_cli.data.dataset import (
    CARD,
    COLUMNS,
    FILES,
    FINDINGS,
    FORMAT,
    MANIFEST,
    REJECTS,
    REMARKS,
    TRAIN,
    VALIDATION,
    VERSION,
    Row,
    count_rows,
    schema,
)
from kto_cli.data.dataset_folder import check_out
from kto_cli.data.texts import TOOLS, has_more, tools_of, without_tools

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

ROWS_PER_GROUP = 8192
"""Rows per row group; bounds memory. Fixed, so that the files' bytes depend on the rows only."""

CARD_TEXT = f"""\
---
configs:
- config_name: default
  data_files:
{{files}}
---

# Feedback for KTO

Prompts and completions with a label (true: desirable), written by `kto binarize`: {{rows}}.

prompt, completion and label are the columns of an unpaired preference dataset in TRL. `{MANIFEST}` has the sources,
options and counts, `{REJECTS}` the rows that were not used, with the reasons, and `{FINDINGS}` the rows with a finding.
"""
"""Content of README.md."""


class DataWriter:
    """Open files of one dataset, in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tables: dict[str, parquet.ParquetWriter] = {}
        self._buffers: dict[str, list[pa.Table]] = {TRAIN: [], VALIDATION: []}
        self._lines: dict[str, IO[bytes]] = {name: (folder / name).open("wb") for name in (REJECTS, FINDINGS)}

    def open_tables(self, *, chat: bool, has_more: bool = False) -> None:
        """Opens the Parquet files, for chats (`has_more`: with tools or reasoning) or for texts."""
        from pyarrow import parquet

        self.schema = schema(chat=chat, has_more=has_more)
        for name in (TRAIN, VALIDATION):
            self._tables[name] = parquet.ParquetWriter(self.folder / name, self.schema, compression="zstd")

    def add(self, file: str, rows: pa.Table) -> None:
        """Adds rows to train.parquet or validation.parquet, with the columns of `schema`."""
        self._buffers[file].append(rows)
        if sum(part.num_rows for part in self._buffers[file]) >= ROWS_PER_GROUP:
            self._write(file, ROWS_PER_GROUP)

    def line(self, file: str, value: dict[str, Any]) -> None:
        """Adds a line to rejects.jsonl, findings.jsonl or remarks.jsonl, which is written if it has one."""
        if file not in self._lines:
            self._lines[file] = (self.folder / file).open("wb")
        self._lines[file].write(json_line(value))

    def close_tables(self) -> None:
        """Completes the Parquet files."""
        for file, writer in self._tables.items():
            self._write(file, 1)
            writer.close()

    def close(self) -> None:
        """Completes all files."""
        self.close_tables()
        for lines in self._lines.values():
            lines.close()

    def abandon(self) -> None:
        """Closes files that are still open, whatever their state; a no-op after `close`."""
        for file in (*self._tables.values(), *self._lines.values()):
            with suppress(Exception):
                file.close()

    def _write(self, file: str, least: int) -> None:
        """Writes buffered rows in full row groups, and the rest too if it has at least `least` rows."""
        import pyarrow as pa

        rows = pa.concat_tables([self.schema.empty_table(), *self._buffers[file]])
        done = 0
        while rows.num_rows - done >= least:
            part = rows.slice(done, ROWS_PER_GROUP)
            self._tables[file].write_table(part.combine_chunks(), row_group_size=ROWS_PER_GROUP)
            done += part.num_rows
        self._buffers[file] = [rows.slice(done)] if rows.num_rows > done else []


@contextmanager
def writing_data_dir(folder: Path, *, overwrite: bool) -> Iterator[DataWriter]:
    """Writer of a temporary folder that replaces `folder` at the end; call `finish` first.

    Raises:
        BadInput: the folder may not be replaced (see `check_out`).
        DiskFull: no space left; an earlier dataset is unchanged.
    """
    check_out(folder, overwrite=overwrite)
    place = folder.resolve()
    with owning(beside(place), folder, "writing"):
        check_out(folder, overwrite=overwrite)  # once more: another process may have written it until now
        with replacing_folder(place) as temporary:
            writer = DataWriter(temporary)
            try:
                yield writer
            finally:
                writer.abandon()


def finish(writer: DataWriter, manifest: dict[str, Any]) -> dict[str, Any]:
    """Closes the files, writes the card and the manifest; returns it with format, version and file hashes added."""
    writer.close()
    (writer.folder / CARD).write_text(card(writer.folder), encoding="utf-8")
    names = [*FILES, *([REMARKS] if (writer.folder / REMARKS).exists() else [])]
    hashes = {name: file_sha256(writer.folder / name) for name in names}
    complete = {"format": FORMAT, "version": VERSION, **manifest, "files": hashes}
    write_sealed(writer.folder / MANIFEST, complete)
    return complete


def card(folder: Path) -> str:
    """Dataset card (README.md): its header names the files of the splits that have rows, as `datasets` needs it.

    Without it, `datasets` fails on an empty validation.parquet, and mixes in the files of `--format`.
    """
    splits = {Path(file).stem: (file, rows) for file in (TRAIN, VALIDATION) if (rows := count_rows(folder / file))}
    return CARD_TEXT.format(
        files="\n".join(f"  - split: {name}\n    path: {file}" for name, (file, _) in splits.items()),
        rows=", ".join(f"{name} {plural(rows, 'row')}" for name, (_, rows) in splits.items()),
    )


def write_data_dir(
    folder: Path,
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    rejects: Iterable[dict[str, Any]],
    manifest: dict[str, Any],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """Writes a data folder from rows in memory; returns the manifest.

    Raises:
        as `writing_data_dir`
    """
    rows = (*train_rows, *validation_rows)
    chat = not any(isinstance(row.prompt, str) for row in rows)
    with writing_data_dir(folder, overwrite=overwrite) as writer:
        writer.open_tables(chat=chat, has_more=chat and any(has_more(row.prompt, row.completion) for row in rows))
        for file, some in ((TRAIN, train_rows), (VALIDATION, validation_rows)):
            for start in range(0, len(some), ROWS_PER_GROUP):
                writer.add(file, table_of(some[start : start + ROWS_PER_GROUP], writer.schema))
        for reject in rejects:
            writer.line(REJECTS, reject)
        return finish(writer, manifest)


def table_of(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """Rows as an Arrow table."""
    import pyarrow as pa

    values = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    if TOOLS in columns.names:
        values[TOOLS] = [tools_of(prompt) or None for prompt in values["prompt"]]
        values["prompt"] = [without_tools(prompt) for prompt in values["prompt"]]
    return pa.Table.from_arrays([pa.array(values[column.name], type=column.type) for column in columns], schema=columns)


def json_line(value: dict[str, Any]) -> bytes:
    """One JSON line; a lone surrogate, which UTF-8 cannot encode, is written as a JSON escape."""
    return (json.dumps(finite(value), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
