"""Rows of CSV and TSV (RFC 4180), strictly, as a stream: one row is in memory at a time.

A faulty row is rejected alone only if the start of the next row is certain. An open quote turns the following rows into
text and text into rows, so a file with unbalanced quotes or an endless cell is rejected as a whole.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers import jsonl
from kto_cli.data.readers.header_row import column_names, refuse_other_header, row_record
from kto_cli.data.readers.jsonl import Record, bounded_lines
from kto_cli.data.readers.open_file import Reached, open_text, refuse_empty

DELIMITERS = (",", "\t", ";", "|")
"""Spreadsheets write `;` where the decimal sign is a comma."""
SEPARATOR_LINE = re.compile(r"""["']?sep=(.)["']?\s*""", re.IGNORECASE)
"""First line that Excel writes and reads for the delimiter; it is no header."""
JSON_START = re.compile(r"""\s*(\{\s*("|$)|\[\s*([\["{]|$))""")
"""Start of a first line that is no header but JSON."""
MOST_LINES = 1_000_000
"""Lines of one row; a longer one is the rest of a file after an open quote."""
RAW_LINES = 100
"""Lines kept of a row, to show it if it is faulty."""
FIX = "Fix the file."


@dataclass
class CsvFile:
    """Open CSV file, with the lines of the current row, which are needed if it is faulty."""

    name: str
    text: TextIOWrapper
    number: int = 0
    """Lines read."""
    start: int = 1
    """Line on which the current row starts."""
    row: list[str] = field(default_factory=list)
    """First lines of the current row."""
    quotes: int = 0
    """Quotes in all lines of the current row."""

    def numbered(self) -> Iterator[str]:
        """Lines of the file, recorded.

        Raises:
            BadInput: a line is too long (it may have opened a quote), or a row has too many lines.
        """
        for line, whole in bounded_lines(self.text, self.name):
            self.number += 1
            if not whole:
                raise BadInput(f"{self.name}: line {self.number:,} is longer than {jsonl.MAX_LINE:,} characters.", FIX)
            if len(self.row) < RAW_LINES:
                self.row.append(line)
            elif self.number - self.start > MOST_LINES:
                what = f"{self.name}: the quote opened in the row of line {self.start:,} is not closed"
                raise BadInput(f"{what} for {MOST_LINES:,} lines.", FIX)
            self.quotes += line.count('"')
            yield line

    def rows(self, delimiter: str) -> Iterator[list[str] | csv.Error]:
        """Cells of each row, or its fault.

        Raises:
            BadInput: the start of the next row is not certain.
        """
        # the limit is global and never lowered again: several files may be open
        csv.field_size_limit(max(csv.field_size_limit(), jsonl.MAX_LINE))
        # strict: otherwise an open quote makes one cell of the rest of the file
        reader = csv.reader(self.numbered(), delimiter=delimiter, strict=True)
        while True:
            self.start, self.row, self.quotes = self.number + 1, [], 0
            try:
                yield next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.refuse_uncertain(error, delimiter)
                yield error

    def ends_here(self, delimiter: str) -> bool:
        """Whether a faulty row ends with the last line read, for a lenient reader too."""
        with_another = csv.reader([*self.row, "another\n"], delimiter=delimiter)
        return len(self.row) < RAW_LINES and [*with_another][-1] == ["another"]

    def refuse_uncertain(self, error: csv.Error, delimiter: str) -> None:
        """Rejects the file if the start of the row after a faulty one is not certain.

        Raises:
            BadInput: the quotes of the faulty row are not balanced.
        """
        where = f"{self.name}: the quote opened in the row of line {self.start:,}"
        if "unexpected end" in str(error):
            raise BadInput(f"{where} is never closed.", FIX) from error
        if "field larger" in str(error):
            raise BadInput(f"{where} is not closed for {jsonl.MAX_LINE:,} characters.", FIX) from error
        if self.quotes % 2 or not self.ends_here(delimiter):
            what = f"{self.name}: the quotes of the row of line {self.start:,} do not pair up"
            raise BadInput(f"{what}, so nobody can tell where it ends.", FIX) from error


def delimiter_of(path: Path, wanted: Sequence[str]) -> str:
    """Delimiter that gives most wanted columns in the header, otherwise most columns.

    Raises:
        BadInput: see `open_bytes`.
    """
    with open_text(path) as text:
        lines = (line for line, _ in bounded_lines(text, printable(path)) if not line.isspace())
        header = next(lines, "")
        if named := SEPARATOR_LINE.fullmatch(header):
            return named[1]

    def found(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in header.rstrip("\r\n").split(delimiter)]
        return len({cell.strip('"') for cell in cells} & set(wanted)), len(cells)

    return max(DELIMITERS, key=found)


@contextmanager
def opened(path: Path, wanted: Sequence[str]) -> Iterator[tuple[list[str], Iterator[Record]]]:
    """(column names, one record per row) of a file; the origin of a record is its line.

    Raises:
        BadInput: the file is empty, its header is faulty, or see `CsvFile`.
    """
    reached = Reached("line")
    delimiter = delimiter_of(path, wanted)
    with open_text(path, reached) as text:
        file = CsvFile(printable(path), text)
        rows = not_blank(file.rows(delimiter))
        cells = next(rows, None)
        if SEPARATOR_LINE.fullmatch("".join(file.row)):
            cells = next(rows, None)
        if cells is None:
            refuse_empty(file.name)
        header = header_of(file, cells)
        yield header, records_of(file, header, rows, reached)


def not_blank(rows: Iterator[list[str] | csv.Error]) -> Iterator[list[str] | csv.Error]:
    """Rows with at least one cell that is not blank."""
    return (cells for cells in rows if isinstance(cells, csv.Error) or any(cell.strip() for cell in cells))


def header_of(file: CsvFile, cells: list[str] | csv.Error) -> list[str]:
    """Column names.

    Raises:
        BadInput: the header cannot be read, has a name twice, or is JSON.
    """
    if JSON_START.match("".join(file.row)):
        raise BadInput(f"{file.name} holds JSON, not a table.", "Name it .jsonl, or .json.")
    if isinstance(cells, csv.Error):
        raise BadInput(f"{file.name} has a header that cannot be read ({cells}).", FIX)
    return column_names(file.name, cells)


def records_of(
    file: CsvFile, header: list[str], rows: Iterator[list[str] | csv.Error], reached: Reached
) -> Iterator[Record]:
    """One record per row, with its first line as origin. An empty cell, or one that a short row lacks, is missing.

    Raises:
        BadInput: the header comes again with its columns in another order.
    """
    for cells in rows:
        origin = str(file.start)
        if isinstance(cells, csv.Error):
            yield Record(origin, None, "".join(file.row).rstrip("\r\n"), "bad_csv", str(cells))
        else:
            refuse_other_header(file.name, f"line {file.start:,}", header, cells)
            yield row_record(origin, header, cells)
        reached.count = file.number


def csv_columns(path: Path, wanted: Sequence[str]) -> list[str]:
    """Names in the header.

    Raises:
        BadInput: see `opened`.
    """
    with opened(path, wanted) as (header, _):
        return header


def csv_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """One record per row, with the origin NAME:LINE of its first line and the wanted columns.

    Raises:
        BadInput: see `opened`.
    """
    with opened(path, wanted or ()) as (_, records):
        for record in records:
            values = record.values
            if wanted is not None and values is not None:
                values = {column: values[column] for column in wanted if column in values}
            yield Record(f"{name}:{record.origin}", values, record.raw, record.reason, record.detail)
