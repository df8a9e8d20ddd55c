"""Rows of an Arrow file (as `datasets.save_to_disk` writes) or Feather file, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, first_line
from kto_cli.common.words import printable
from kto_cli.data.readers.jsonl import Record, as_record
from kto_cli.data.readers.open_file import Reached, named_faults
from kto_cli.data.readers.parquet import BATCH, batch_rows, names_of

MAGIC = b"ARROW1"
"""First bytes of Arrow's file format; its stream format has none."""


@contextmanager
def _opened(path: Path, reached: Reached) -> Iterator[Any]:
    """Reader of record batches.

    Raises:
        BadInput: missing, or not a complete Arrow file.
    """
    import pyarrow

    with named_faults(path, "", reached):
        with path.open("rb") as start:
            head = start.read(len(MAGIC))
        try:
            with pyarrow.memory_map(str(path)) as file:
                yield (pyarrow.ipc.open_file if head == MAGIC else pyarrow.ipc.open_stream)(file)
        except pyarrow.ArrowException as error:
            what = f"{printable(path)} cannot be read as Arrow{reached} ({first_line(error)})."
            raise BadInput(what, "Fetch or write it again.") from error


def arrow_columns(path: Path) -> list[str]:
    """Names in the schema.

    Raises:
        BadInput: see `_opened`.
    """
    with _opened(path, Reached("row")) as reader:
        return names_of(path, reader.schema)


def arrow_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """One record per row, with the origin NAME:row N and the wanted columns.

    Raises:
        BadInput: see `_opened`.
    """
    reached = Reached("row")
    with _opened(path, reached) as reader:
        names = [column for column in names_of(path, reader.schema) if wanted is None or column in wanted]
        for batch in _batches(reader):
            for start in range(0, batch.num_rows, BATCH):
                part = batch.select(names).slice(start, BATCH)
                for index, (values, fault) in enumerate(batch_rows(part), start=reached.count + 1):
                    origin = f"{name}:row {index}"
                    yield as_record(origin, values, "") if fault is None else Record(origin, None, "", *fault)
                reached.count += part.num_rows


def _batches(reader: Any) -> Iterator[Any]:
    """Record batches of either format."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)
