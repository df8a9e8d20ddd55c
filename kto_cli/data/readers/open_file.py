"""The bytes and the text of a file, unpacked where packed; what is no text is refused by what it is."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from kto_cli.common.errors import BadInput, first_line

BUFFER = 1 << 16
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes: RFC 1952 section 2.3.1, RFC 8878 section 3.1.1."""
FOREIGN = (
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive or a spreadsheet", "Unpack it, or export the sheet as CSV."),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "Export the sheet as CSV."),
    (rb"%PDF-", "a PDF document", "Give the data it was made from."),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a", "an image", "Give the data as JSONL, CSV or Parquet."),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", "Unpack it first."),
    (rb"\xfd7zXZ\x00", "packed with xz", "Unpack it first."),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (rb"SQLite format 3\x00", "an SQLite database", "Export the table as CSV."),
    (rb"PAR1", "Parquet", "Name it .parquet."),
    (rb"ARROW1", "an Arrow file", "Save it as Parquet."),
    (rb"\s*<(!doctype html|html)", "a web page, not data", "Fetch the file itself."),
)
"""Formats that data is often mistaken for: a pattern of the first bytes, what it is, what to do."""
WIDE = (
    (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff|[^\x00]\x00\x00\x00|\x00\x00\x00[^\x00]", "UTF-32"),
    (rb"\xff\xfe|\xfe\xff|[^\x00]\x00[^\x00]\x00|\x00[^\x00]\x00[^\x00]", "UTF-16"),
)
"""By the mark at the start, or by where the zero bytes of two ASCII characters are (RFC 4627 section 3)."""


@dataclass
class Reached:
    """How far into a file reading has come, for messages."""

    unit: str
    count: int = 0

    def __str__(self) -> str:
        return f" after {self.unit} {self.count:,}" if self.count else ""


@contextmanager
def faults_named(path: Path, packing: str, reached: Reached) -> Iterator[None]:
    """What goes wrong with a file while it is read, in words.

    Raises:
        BadInput: missing, a folder, not readable, truncated or damaged.
    """
    name = printable(path)
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(f"{name} does not exist.", "Check the path.") from error
    except IsADirectoryError as error:
        raise BadInput(f"{name} is a folder, not a file.", "Name the file itself.") from error
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise BadInput(f"{name} cannot be read{reached} ({error.strerror}).", "Check the file.") from error
        # libraries that unpack raise OSError without a number
        what = f"{name} is truncated or damaged {packing}{reached} ({first_line(error)})."
        raise BadInput(what, "Fetch it again.") from error


def packing_of(path: Path) -> str:
    """`gzip`, `zstd` or nothing, by the first bytes: names are often wrong.

    Raises:
        BadInput: not a plain file; a pipe would wait for ever, and cannot be read twice.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise BadInput(f"{printable(path)} is not a plain file.", "Write its data to a file, and name that.")
    with path.open("rb") as plain:
        head = plain.read(4)
    return next((kind for magic, kind in PACKED.items() if head.startswith(magic)), "")


def unpacked(path: Path, packing: str) -> IO[bytes]:
    """The open file, unpacked as it is read, never as a whole."""
    if packing == "gzip":
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, gzip.open(path)), BUFFER))
    if packing == "zstd":
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream, BUFFER))
    return path.open("rb", buffering=BUFFER)


@contextmanager
def open_bytes(path: Path, reached: Reached | None = None) -> Iterator[IO[bytes]]:
    """The bytes of a file of text, unpacked if they are gzip or zstd.

    Raises:
        BadInput: missing, a folder, a pipe, not readable, truncated or damaged, not a text in UTF-8.
    """
    reached = reached or Reached("line")
    packing = ""
    with faults_named(path, packing, reached):
        packing = packing_of(path)
    with faults_named(path, packing, reached), unpacked(path, packing) as file:
        head = cast(io.BufferedReader, file).peek(64)
        for pattern, what, step in FOREIGN:
            if re.match(pattern, head, re.IGNORECASE if pattern.startswith(rb"\s") else 0):
                raise BadInput(f"{printable(path)} is {what}.", step)
        for pattern, encoding in WIDE:
            if re.match(pattern, head, re.DOTALL):
                raise BadInput(f"{printable(path)} is {encoding}.", "Save it as UTF-8.")
        yield file


@contextmanager
def open_text(path: Path, reached: Reached | None = None) -> Iterator[io.TextIOWrapper]:
    """The text of a file, without a mark at its start and with its line ends as they are.

    Bytes that are not UTF-8 become lone surrogates, which `check_text` later finds in the rows they hurt.

    Raises:
        BadInput: see `open_bytes`.
    """
    with open_bytes(path, reached) as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def starts_with(path: Path, count: int) -> bytes:
    """The first bytes of a file of text, without a mark at its start; fewer where it is shorter.

    Raises:
        BadInput: see `open_bytes`.
    """
    with open_bytes(path) as file:
        return file.read(count).removeprefix(codecs.BOM_UTF8)


def printable(text: str | Path) -> str:
    """`text` for people, in one line: what a terminal would act on or cannot show is escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in str(text)
    )


def refuse_useless(name: str, first_fault: str | None, count: int) -> NoReturn:
    """Refuses a file of `count` lines none of which could be parsed.

    Raises:
        BadInput: naming the file and the first line's fault.
    """
    if count == 0:
        raise BadInput(f"{name} is empty.", "Give a file with at least one row.")
    raise BadInput(f"No line of {name} is a JSON object; {first_fault}.", "Give a JSONL file, one object a line.")
