"""Rows of a Parquet file, a batch at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, first_line
from kto_cli.data.readers.jsonl import Record, as_record
from kto_cli.data.readers.open_file import (
    BUFFER,
    Reached,
    compression_of,
    decompressed,
    named_faults,
    printable,
    refuse_empty,
)

BATCH = 1024
MAGIC = b"PAR1"
"""First and last bytes of a file (parquet.apache.org/docs/file-format)."""


@contextmanager
def opened(path: Path, reached: Reached) -> Iterator[Any]:
    """Open `pyarrow.parquet.ParquetFile`; a compressed file is decompressed to disk, as its end is read first.

    Raises:
        BadInput: missing, empty, or not a complete Parquet file.
    """
    import pyarrow
    from pyarrow import parquet

    compression = ""
    with named_faults(path, compression, reached):
        compression = compression_of(path)
    with named_faults(path, compression, reached), tempfile.TemporaryFile() as copy:
        source: Any = path
        with decompressed(path, compression) as file:
            head = file.read(len(MAGIC))
            if not head:
                refuse_empty(printable(path))
            # checked before decompression: a small compressed file may be huge
            if head != MAGIC:
                refuse(path, reached, "it does not start as Parquet does")
            if compression:
                copy.write(head)
                shutil.copyfileobj(file, copy)
                source = copy
        try:
            # buffered: otherwise a whole column of a row group is in memory
            with parquet.ParquetFile(source, buffer_size=BUFFER, page_checksum_verification=True) as table:
                yield table
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            refuse(path, reached, first_line(error), error)


def refuse(path: Path, reached: Reached, why: str, cause: BaseException | None = None) -> None:
    """Rejects a file that is not complete Parquet.

    Raises:
        BadInput: always.
    """
    raise BadInput(
        f"{printable(path)} cannot be read as Parquet{reached} ({why}).", "Fetch or write it again."
    ) from cause


def names_of(path: Path, schema: Any) -> list[str]:
    """Column names.

    Raises:
        BadInput: a name occurs twice.
    """
    names = list(schema.names)
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise BadInput(
            f"{printable(path)} has more than one column {printable(', '.join(twice))}.", "Rename or remove one."
        )
    return names


def parquet_columns(path: Path) -> list[str]:
    """Names in the schema.

    Raises:
        BadInput: see `opened`.
    """
    with opened(path, Reached("row")) as table:
        return names_of(path, table.schema_arrow)


def parquet_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """One record per row, with the origin NAME:row N and the wanted columns.

    Raises:
        BadInput: see `opened`.
    """
    reached = Reached("row")
    with opened(path, reached) as table:
        names = [column for column in names_of(path, table.schema_arrow) if wanted is None or column in wanted]
        for batch in table.iter_batches(batch_size=BATCH, columns=names):
            for index, (values, fault) in enumerate(batch_rows(batch), start=reached.count + 1):
                origin = f"{name}:row {index}"
                yield as_record(origin, values, "") if fault is None else Record(origin, None, "", *fault)
            reached.count += batch.num_rows


def batch_rows(batch: Any) -> Iterator[tuple[dict[str, Any] | None, tuple[str, str] | None]]:
    """(values, None) or (None, (reason, detail)) of each row of a record batch."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            yield one_row(batch, index)
        return
    for row in rows:
        yield row, None


def one_row(batch: Any, index: int) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
    """(values, None) or (None, (reason, detail)) of one row of a batch with an invalid value: a text that is not UTF-8,
    or a time that Python cannot represent."""
    values = {}
    for column in batch.schema.names:
        try:
            values[column] = batch.column(column)[index].as_py()
        except UnicodeDecodeError as error:
            return None, ("bad_text", f"{column} has bytes that are not UTF-8 ({error.reason})")
        except (ValueError, OverflowError) as error:
            return None, ("bad_value", f"{column} has a value that cannot be read ({first_line(error)})")
    return values, None
