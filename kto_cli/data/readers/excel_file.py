"""Rows of an Excel workbook (.xlsx, .xlsm), by openpyxl: of its first visible sheet, whose first row names the columns.

Cells keep their kind: texts, numbers, true and false; dates and times are ISO 8601 texts, a formula is the value that
was saved with it. Rows are read one at a time; the workbook's table of texts is in memory. Control characters that
Excel writes as `_x000D_` are read as what they are. A text as long as a cell can be is a fault (`cell_full`): it may be
cut off there.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from kto_cli.common.errors import BadInput, first_line, is_out_of_memory
from kto_cli.common.install import install_extra
from kto_cli.common.words import printable
from kto_cli.data.readers.header_row import column_names, is_blank, refuse_other_header, row_record
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import Reached, named_faults, refuse_empty

MAGIC, OLD_MAGIC = b"PK", b"\xd0\xcf\x11\xe0"
"""First bytes of a ZIP archive, which a workbook is, and of a container that holds old and encrypted ones."""
MOST_CHARACTERS = 32_767
"""Characters that a cell can hold (support.microsoft.com, "Excel specifications and limits")."""
MOST_IN_MEMORY = 2**30
"""Bytes of the table of texts, decompressed."""
CONTROL = re.compile(r"_x00([01][0-9A-Fa-f])_")
"""A control character as workbooks write it (ECMA-376 part 1, section 22.9.2.19)."""
AS_CSV = "Save the sheet as CSV."


@contextmanager
def _opened(path: Path, reached: Reached) -> Iterator[Any]:
    """Open workbook; a fault while it is read becomes one line.

    Raises:
        BadInput: there is no openpyxl, or the file is missing, damaged, encrypted, or no workbook.
    """
    name = printable(path)
    with named_faults(path, "", reached), path.open("rb") as file:
        _refuse_others(name, file.read(4))
        try:
            import openpyxl
        except ImportError as error:
            step = f"Save the sheet as CSV, or run: {install_extra('excel')}"
            raise BadInput(f"{name} is an Excel workbook, which needs openpyxl.", step) from error
        workbook = None
        try:
            _refuse_huge(name, file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of styles and extensions that are not kept
                workbook = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
                yield workbook
        except (BadInput, GeneratorExit):
            raise
        except Exception as error:  # of openpyxl, zipfile, zlib and XML parsers, each its own
            if is_out_of_memory(error):
                raise
            what = f"{name} cannot be read as an Excel workbook{reached} ({first_line(error)})."
            raise BadInput(what, "Open and save it again, or save the sheet as CSV.") from error
        finally:
            if workbook is not None:
                workbook.close()


def _refuse_others(name: str, head: bytes) -> None:
    """Refuses a file that does not start as a workbook does.

    Raises:
        BadInput: it is empty, encrypted, or something else.
    """
    if not head:
        refuse_empty(name)
    if head.startswith(OLD_MAGIC):
        raise BadInput(f"{name} has a password or is an old workbook (.xls).", AS_CSV)
    if not head.startswith(MAGIC):
        raise BadInput(f"{name} is no Excel workbook, whatever its name says.", "Name it by what it is, as .csv.")


def _refuse_huge(name: str, file: Any) -> None:
    """Refuses a workbook whose parts that are read into memory are larger than MOST_IN_MEMORY.

    Raises:
        BadInput: with the size. BadZipFile: it is damaged.
    """
    with ZipFile(file) as archive:
        parts = archive.infolist()
    if not any(part.filename == "[Content_Types].xml" for part in parts):
        raise BadZipFile("it is another ZIP archive")
    size = sum(part.file_size for part in parts if not part.filename.startswith("xl/worksheets/"))
    if size > MOST_IN_MEMORY:
        raise BadInput(f"{name} has {size / 2**30:.1f} GiB of texts, which would all be in memory.", AS_CSV)


def sheet_of(workbook: Any, name: str) -> tuple[Any, list[str]]:
    """The first visible sheet, and the names of the others.

    Raises:
        BadInput: there is none.
    """
    sheets = workbook.worksheets
    if not sheets:
        raise BadInput(f"{name} has no sheet with cells.", "Give a file with at least one row.")
    chosen = next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0])
    return chosen, [sheet.title for sheet in sheets if sheet is not chosen]


def _rows(sheet: Any) -> Iterator[tuple[int, list[Any]]]:
    """Number and cells of each row of a sheet that is not blank."""
    sheet.reset_dimensions()  # those that a file states are often wrong, and would cut columns off
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if any(not is_blank(cell) for cell in cells):
            yield number, [plain(cell) for cell in cells]


def plain(cell: Any) -> Any:
    """A cell's value as JSON has it."""
    if isinstance(cell, str):
        return CONTROL.sub(lambda found: chr(int(found[1], 16)), cell) if "_x00" in cell else cell
    if isinstance(cell, datetime):
        return (cell.date() if cell.time() == time() else cell).isoformat()
    if isinstance(cell, (date, time)):
        return cell.isoformat()
    return cell if cell is None or isinstance(cell, (bool, int, float)) else str(cell)


@contextmanager
def _table(path: Path) -> Iterator[tuple[list[str], Iterator[Record]]]:
    """(column names, one record per row) of the sheet; the origin of a record is its row in the sheet.

    Raises:
        BadInput: see `_opened`; the sheet is empty, or a name occurs twice.
    """
    reached, name = Reached("row"), printable(path)
    with _opened(path, reached) as workbook:
        sheet, others = sheet_of(workbook, name)
        rows = _rows(sheet)
        first = next(rows, None)
        if first is None:
            more = f" Put the rows on the first sheet; the others are {_named(others)}." if others else ""
            raise BadInput(
                f"Sheet {sheet.title!r} of {name} is empty.", more.strip() or "Give a file with at least one row."
            )
        header = column_names(name, ["" if cell is None else str(cell) for cell in first[1]])
        yield header, _records(name, header, rows, reached)


def _records(name: str, header: list[str], rows: Iterator[tuple[int, list[Any]]], reached: Reached) -> Iterator[Record]:
    """One record per row.

    Raises:
        BadInput: the header comes again with its columns in another order.
    """
    for number, cells in rows:
        reached.count = number
        refuse_other_header(name, f"row {number:,}", header, cells)
        record = row_record(str(number), header, cells)
        for column, cell in (record.values or {}).items():
            if isinstance(cell, str) and len(cell) >= MOST_CHARACTERS:
                detail = f"{column} has {len(cell):,} characters, all that a cell can hold: it may be cut off there"
                record = Record(record.origin, None, "", "cell_full", detail)
                break
        yield record


def _named(sheets: Sequence[str]) -> str:
    """Names of sheets for a message, the first few."""
    more = f" and {len(sheets) - 8} more" if len(sheets) > 8 else ""
    return ", ".join(printable(each) for each in sheets[:8]) + more


def excel_columns(path: Path) -> list[str]:
    """Names in the header of the sheet.

    Raises:
        BadInput: see `_table`.
    """
    with _table(path) as (header, _):
        return header


def excel_records(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[Record]:
    """One record per row, with the origin NAME:row N (its row in the sheet) and the wanted columns.

    Raises:
        BadInput: see `_table`.
    """
    with _table(path) as (_, records):
        for record in records:
            values = record.values
            if wanted is not None and values is not None:
                values = {column: values[column] for column in wanted if column in values}
            yield Record(f"{name}:row {record.origin}", values, record.raw, record.reason, record.detail)


def sheet_notes(path: Path) -> list[str]:
    """Note on which sheet is read, if there are several.

    Raises:
        BadInput: see `_opened`.
    """
    name = printable(path)
    with _opened(path, Reached("row")) as workbook:
        sheet, others = sheet_of(workbook, name)
        read, left = printable(sheet.title), _named(others)
    return [f"The sheet {read} of {name} is read; left out: {left}."] if others else []
