"""Bytes and text of a file, decompressed; a file of another kind is rejected with the name of that kind."""

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
from kto_cli.common.words import printable

BUFFER = 1 << 16
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed files: RFC 1952 section 2.3.1, RFC 8878 section 3.1.1."""
FOREIGN = (
    (rb"PK(\x03\x04|\x05\x06)", "a ZIP archive or a spreadsheet", "Unpack it, or name the spreadsheet .xlsx."),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "Export the sheet as CSV."),
    (rb"%PDF-", "a PDF document", "Give the data it was made from."),
    (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a", "an image", "Give the data as JSONL, CSV or Parquet."),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", "Unpack it first."),
    (rb"\xfd7zXZ\x00", "packed with xz", "Unpack it first."),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it first."),
    (rb"SQLite format 3\x00", "an SQLite database", "Export the table as CSV."),
    (rb"PAR1", "Parquet", "Name it .parquet."),
    (rb"ARROW1", "an Arrow file", "Name it .arrow."),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML document", "Save its rows as JSONL or CSV."),
    (rb"\s*<(!doctype html|html)", "a web page, not data", "Fetch the file itself."),
)
"""Other kinds of files: pattern of the first bytes, kind, next step."""
WIDE = (
    (rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff|[^\x00]\x00\x00\x00|\x00\x00\x00[^\x00]", "UTF-32"),
    (rb"\xff\xfe|\xfe\xff|[^\x00]\x00[^\x00]\x00|\x00[^\x00]\x00[^\x00]", "UTF-16"),
)
"""Encodings other than UTF-8, by byte order mark or by the zero bytes of two ASCII characters (RFC 4627 section 3)."""


@dataclass
class Reached:
    """Number of lines, items or rows read, for messages."""

    unit: str
    count: int = 0

    def __str__(self) -> str:
        return f" after {self.unit} {self.count:,}" if self.count else ""


@contextmanager
def named_faults(path: Path, compression: str, reached: Reached) -> Iterator[None]:
    """Context manager that turns faults while a file is read into BadInput.

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
        # decompressors raise OSError without an errno
        what = f"{name} is truncated or damaged {compression}{reached} ({first_line(error)})."
        raise BadInput(what, "Fetch it again.") from error


def compression_of(path: Path) -> str:
    """`gzip`, `zstd` or empty, by the first bytes: suffixes are often wrong.

    Raises:
        BadInput: not a plain file; a pipe could block, and cannot be read twice.
        OSError: the file cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise BadInput(f"{printable(path)} is not a plain file.", "Write its data to a file, and name that.")
    with path.open("rb") as plain:
        head = plain.read(4)
    return next((kind for magic, kind in COMPRESSED.items() if head.startswith(magic)), "")


def decompressed(path: Path, compression: str) -> IO[bytes]:
    """Open file, decompressed while it is read."""
    if compression == "gzip":
        return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, gzip.open(path)), BUFFER))
    if compression == "zstd":
        import pyarrow

        stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream, BUFFER))
    return path.open("rb", buffering=BUFFER)


@contextmanager
def open_bytes(path: Path, reached: Reached | None = None) -> Iterator[IO[bytes]]:
    """Bytes of a text file, decompressed if they are gzip or zstd.

    Raises:
        BadInput: missing, a folder, a pipe, not readable, truncated, damaged, or not UTF-8 text.
    """
    reached = reached or Reached("line")
    compression = ""
    with named_faults(path, compression, reached):
        compression = compression_of(path)
    with named_faults(path, compression, reached), decompressed(path, compression) as file:
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
    """Text of a file, without byte order mark and with its original line ends.

    Bytes that are not UTF-8 become lone surrogates; `check_text` rejects the rows that have them.

    Raises:
        BadInput: see `open_bytes`.
    """
    with open_bytes(path, reached) as file:
        yield io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def starts_with(path: Path, count: int) -> bytes:
    """First bytes of a text file, without byte order mark; fewer if it is shorter.

    Raises:
        BadInput: see `open_bytes`.
    """
    with open_bytes(path) as file:
        return file.read(count).removeprefix(codecs.BOM_UTF8)


def refuse_empty(name: str) -> NoReturn:
    """Rejects a file without any text.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"{name} is empty.", "Give a file with at least one row.")
