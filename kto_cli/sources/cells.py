"""Rows of a JSONL, JSON, CSV, TSV or Parquet file: values by column name, with an origin people can find."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kto_cli.errors import BadInput
from kto_cli.sources.lines import Record, json_array_records, json_line_records, open_bytes
from kto_cli.sources.records import refuse_useless


@dataclass(frozen=True)
class Rows:
    """All rows of a file and all its column names (unknown ones too)."""

    columns: list[str]
    records: list[Record]


def csv_delimiter(path: Path, wanted: Sequence[str]) -> str:
    """The delimiter that finds most wanted columns in the header; half the world's spreadsheets write `;`."""
    with open_bytes(path) as file:
        header = file.readline().decode("utf-8-sig", "surrogateescape")

    def found(delimiter: str) -> int:
        cells = next(csv.reader([header], delimiter=delimiter), [])
        return len({cell.strip() for cell in cells} & set(wanted))

    return max((",", "\t", ";"), key=found)


def csv_records(path: Path, name: str, delimiter: str) -> Iterator[Record]:
    """One record per row, called by the line it starts on; the first holds the header's names.

    Raises:
        BadInput: a quote that is never closed, or twice the same column.
    """
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        with open_bytes(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            # strict: else a quote left open swallows the rest of the file as one cell
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            header: list[str] = []
            while True:
                start = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    if "unexpected end" in str(error):
                        fault = f"{path}: the quote opened in the row of line {start} is never closed."
                        raise BadInput(fault, "Mend the file.") from error
                    yield Record(f"{name}:{start}", None, "", "bad_csv", str(error))
                    continue
                if not any(cell.strip() for cell in cells):
                    continue
                if not header:
                    header = csv_header(path, cells)
                    yield Record(f"{name}:{start}", dict.fromkeys(header))
                else:
                    yield csv_row(f"{name}:{start}", header, cells)
    finally:
        csv.field_size_limit(limit)


def csv_header(path: Path, cells: list[str]) -> list[str]:
    """The column names.

    Raises:
        BadInput: twice the same.
    """
    names = [cell.strip() for cell in cells]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BadInput(f"{path} has more than one column {', '.join(twice)}.", "Rename or remove one.")
    return names


def csv_row(origin: str, header: list[str], cells: list[str]) -> Record:
    """One row; an empty cell is a missing value, as CSV cannot tell the two apart."""
    if len(cells) != len(header):
        detail = f"{len(cells)} cells where the header has {len(header)}"
        return Record(origin, None, json.dumps(cells, ensure_ascii=False), "wrong_cell_count", detail)
    values = {name: cell if cell else None for name, cell in zip(header, cells, strict=True)}
    return Record(origin, values)


def read_csv(path: Path, wanted: Sequence[str]) -> Rows:
    """All rows of a CSV or TSV file."""
    header, *records = [*csv_records(path, path.name, csv_delimiter(path, wanted))] or [Record("", None)]
    if header.values is None:
        refuse_useless(str(path), None, 0)
    return Rows(list(header.values), records)


def read_json(path: Path, wanted: Sequence[str]) -> Rows:
    """All rows of a JSONL file or, where it begins with `[`, of a JSON array."""
    with open_bytes(path) as file:
        is_array = re.match(rb"(\xef\xbb\xbf)?\s*\[", file.read(4096)) is not None
    # the first line of a JSONL file may be an array too, and is a reject then: the name decides
    array = is_array and ".jsonl" not in path.name
    columns: dict[str, None] = {}
    records = []
    for record in (json_array_records if array else json_line_records)(path, path.name):
        if record.values is not None:
            columns.update(dict.fromkeys(record.values))
            # only what is read later stays in memory: of a line with values, the wanted ones
            values = {name: value for name, value in record.values.items() if name in wanted}
            record = Record(record.origin, values)
        records.append(record)
    if not columns:
        fault = f"item 1: {records[0].detail}" if records else None
        refuse_useless(str(path), fault, len(records))
    return Rows(list(columns), records)


def read_parquet(path: Path, wanted: Sequence[str]) -> Rows:
    """All rows of a Parquet file, the wanted columns only.

    Raises:
        BadInput: it is not a whole Parquet file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    records: list[Record] = []
    try:
        with parquet.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            for batch in file.iter_batches(columns=[name for name in columns if name in wanted]):
                for index in range(batch.num_rows):
                    records.append(parquet_row(f"{path.name}:row {len(records) + 1}", batch, index))
    except (pa.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read as Parquet ({line}).", "Fetch or write it again.") from error
    if not records:
        refuse_useless(str(path), None, 0)
    return Rows(columns, records)


def parquet_row(origin: str, batch: Any, index: int) -> Record:
    """One row of a record batch; Parquet does not promise that its texts are UTF-8."""
    try:
        return Record(origin, {name: batch.column(name)[index].as_py() for name in batch.schema.names})
    except UnicodeDecodeError as error:
        return Record(origin, None, "", "bad_text", f"bytes that are not UTF-8 ({error.reason})")


READERS: dict[str, Callable[[Path, Sequence[str]], Rows]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}


def suffix(name: str) -> str:
    """The suffix that tells the format: `.csv` of `a.csv.gz`."""
    suffixes = [part.lower() for part in Path(name).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_cells(path: Path, wanted: Sequence[str]) -> Rows:
    """All rows of a file, by its suffix.

    Raises:
        BadInput: missing, a folder, empty, damaged, or of no known format.
    """
    if path.is_dir():
        inside = ", ".join(sorted(child.name for child in path.iterdir() if suffix(child.name) in READERS)[:5])
        step = (
            f"Name one of its files: {inside}."
            if inside
            else "For a copy of hh-rlhf: kto binarize hh-rlhf --from FOLDER."
        )
        raise BadInput(f"{path} is a folder, not a file.", step)
    reader = READERS.get(suffix(path.name))
    if reader is None:
        raise BadInput(
            f"{path} has no suffix that tells its format.", f"Name it {', '.join(READERS)} (or .gz of these)."
        )
    with open_bytes(path) as file:
        if not file.read(1):
            refuse_useless(str(path), None, 0)
    return reader(path, wanted)
