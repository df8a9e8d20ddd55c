"""Rows of an SQL query over local files, by DuckDB: joins, and any export that no other source reads.

    kto binarize sql:QUERY.sql

The query's columns are read as a log's: prompt and completion (or messages), and label, or a score with --score-column.
A file is named in the query by its path, from the folder where the command is typed
(https://duckdb.org/docs/stable/data/overview). Rows are called QUERY.sql:row N; a query without ORDER BY gives them in
the same order each time, as it runs on one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, first_line
from kto_cli.common.install import install_extra
from kto_cli.common.read import read_text
from kto_cli.common.words import printable
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log import format as log_format
from kto_cli.data.readers.jsonl import Record

AT_ONCE = 2048
"""Rows that are fetched at a time."""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, str]]:
    """A connection and a query for it; what DuckDB says of the query becomes one line.

    Raises:
        BadInput: there is no DuckDB, no such file, or the query fails, also while its rows are fetched.
    """
    try:
        import duckdb
    except ImportError as error:
        raise BadInput("sql needs DuckDB.", f"Run: {install_extra('sql')}") from error
    query = read_text(path, "an SQL query")
    try:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")  # a join of several threads gives its rows in any order
            yield connection, query
    except duckdb.Error as error:
        what = f"{printable(str(path))} fails: {first_line(error)}"
        raise BadInput(what, "Mend the query; files are named by their paths.") from error


def columns(raw_file: RawFile) -> list[str]:
    """Columns of the query's result; it is not run for them.

    Raises:
        BadInput: see `_opened`; it gives no rows; two columns have one name.
    """
    name = printable(str(raw_file.path))
    with _opened(raw_file.path) as (connection, query):
        relation = connection.sql(query)
        if relation is None:
            raise BadInput(f"{name} gives no rows.", "Write one query, such as SELECT ... FROM 'log.csv'.")
        names = list(relation.columns)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadInput(f"{name} gives two columns {twice[0]!r}.", "Name one of them: ... AS x")
    return names


def records(raw_file: RawFile) -> Iterator[Record]:
    """Rows of the query's result.

    Raises:
        BadInput: see `_opened`.
    """
    with _opened(raw_file.path) as (connection, query):
        result = connection.execute(query)
        names, number = [str(column[0]) for column in result.description], 0
        while rows := result.fetchmany(AT_ONCE):
            for row in rows:
                number += 1
                yield Record(f"{raw_file.name}:row {number}", dict(zip(names, row, strict=True)))


def raw_files(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """The query's file.

    Raises:
        BadInput: it is not there, or no query.
    """
    if not path.is_file() or path.suffix.lower() != ".sql":
        raise BadInput(f"{printable(str(path))} is no file of a query.", "Name a file that ends in .sql.")
    return [RawFile(path, path.name)]


SOURCE = replace(
    log_format.SOURCE,
    name="sql",
    about="rows of an SQL query over local files, by DuckDB: its columns are read as a log's",
    patterns=("*.sql",),
    raw_files=raw_files,
    records=records,
    columns=columns,
    example=(
        "SELECT 'Any tea?' AS prompt, 'Green and black.' AS completion, true AS label",
        "UNION ALL SELECT 'Where do I park?', 'Outside.', false",
    ),
)
