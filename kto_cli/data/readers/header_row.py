"""Tables whose first row names the columns: CSV and sheets of a workbook."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers.jsonl import Record, as_record, bare_name


def column_names(file: str, cells: Sequence[str]) -> list[str]:
    """Names of the columns, without white space at their ends.

    Raises:
        BadInput: a name occurs twice, or has zero bytes.
    """
    names = [cell.strip() for cell in cells]
    if "\0" in "".join(names):
        raise BadInput(f"{file} has a header that cannot be read (zero bytes in it).", "Fix the file.")
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BadInput(f"{file} has more than one column {printable(', '.join(twice))}.", "Rename or remove one.")
    return names


def row_record(origin: str, header: list[str], cells: Sequence[Any]) -> Record:
    """Record of a row. An empty cell, or one that a short row lacks, is missing; cells beyond the header are a fault.

    Args:
        header: a column without a name is not read.
    """
    width = len(header)
    kept = (None if cell == "" else cell for cell in cells[:width])
    record = as_record(origin, dict(zip_longest(header, kept)), "")
    if record.values is None:
        return record
    if any(not is_blank(cell) for cell in cells[width:]):
        detail = f"{len(cells)} cells where the header has {width}"
        raw = json.dumps(list(cells), ensure_ascii=False, default=str)
        return Record(origin, None, raw, "wrong_cell_count", detail)
    record.values.pop("", None)
    return record


def is_blank(cell: Any) -> bool:
    """Whether a cell is empty or only white space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def refuse_other_header(file: str, position: str, header: Sequence[str], cells: Sequence[Any]) -> None:
    """Refuses a row that has all names of the header in another order: the rows after it have other columns.

    Args:
        position: of the row, for the message: `line 5`.

    Raises:
        BadInput: with the position.
    """
    names = [bare_name(name) for name in header if name]
    if len(names) > 1 and isinstance(cells[0], str) and bare_name(cells[0]) in names:
        given = [bare_name(cell) if isinstance(cell, str) else "" for cell in cells]
        if set(names) <= set(given) and given[: len(header)] != [bare_name(name) for name in header]:
            what = f"{file}: {position} is a header with the columns in another order."
            raise BadInput(what, "Split the file there: the rows after it have other columns.")
