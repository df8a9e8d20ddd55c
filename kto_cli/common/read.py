"""The door through which kto reads files: whatever is wrong with one becomes a line that names it.

JSON and YAML are read strictly: a key given twice, NaN, deep nesting, YAML's aliases and numbers of thousands of digits
are refused, as nobody can say what they mean. Feedback is read as a stream, in data/readers/, through `parse_json`.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from kto_cli.common.errors import BadInput, KtoError, first_line, is_out_of_memory

_MOST_DIGITS = sys.get_int_max_str_digits()


class DuplicateKey(ValueError):
    """An object gives one key twice."""


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Context manager that turns every failure to read a file into one line.

    Args:
        what: describes the file in the error.

    Raises:
        BadInput: it is missing, no plain file, not readable, truncated or damaged. MemoryError: as it is.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise BadInput(f"{path} ({what}) is {'a folder' if path.is_dir() else 'not a plain file'}, not a file.")
        yield
    except KtoError:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing ({what}).") from error
    except OSError as error:
        raise BadInput(f"{path} ({what}) cannot be read: {error.strerror or first_line(error)}.") from error
    except Exception as error:  # of many libraries, each with exceptions of its own
        if is_out_of_memory(error):
            raise
        raise BadInput(f"{path} is damaged ({what}): {first_line(error)}.") from error


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file.

    Raises:
        BadInput: see `reading`.
    """
    with reading(path, what):
        return path.read_bytes()


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, without a mark at its start.

    Raises:
        BadInput: see `reading`.
    """
    with reading(path, what):
        return path.read_bytes().decode("utf-8-sig")


def open_binary(path: Path, what: str) -> IO[bytes]:
    """A file open for reading, without a buffer.

    Raises:
        BadInput: see `reading`.
    """
    with reading(path, what):
        return path.open("rb", buffering=0)


# --- JSON and YAML ---------------------------------------------------------------------------


def read_json(path: Path, what: str, *, constants: bool = False) -> Any:
    """The value of a JSON file.

    Args:
        constants: whether NaN and Infinity are numbers, as configs of models have them.

    Raises:
        BadInput: see `reading`; it is not JSON.
    """
    text = read_text(path, what)
    with reading(path, what):
        return parse_json(text, constants=constants)


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        BadInput: see `read_json`; it is a list, a text or a number.
    """
    value = read_json(path, what)
    if not isinstance(value, dict):
        raise BadInput(f"{path} is damaged ({what}): a JSON {type(value).__name__} in place of an object.")
    return value


def parse_json(text: str, *, constants: bool = True) -> Any:
    """The value of a JSON text.

    Raises:
        DuplicateKey: an object gives one key twice.
        ValueError: not JSON, nested too deeply, a number of thousands of digits, or (unless `constants`) NaN.
    """
    try:
        return (_DECODER if constants else _FINITE_DECODER).decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1:,}") from error
    except ValueError as error:
        raise type(error)(_plain(error)) from error


def _plain(error: Exception) -> str:
    """What is wrong, in one line."""
    text = " ".join(str(error).split())
    return f"a number of more than {_MOST_DIGITS} digits" if "integer string conversion" in text else text


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these keys and values.

    Raises:
        DuplicateKey: one of the keys is there twice.
    """
    values = dict(pairs)
    if len(values) != len(pairs):
        raise DuplicateKey(twice(pairs))
    return values


def twice(pairs: list[tuple[str, Any]]) -> str:
    """Which key is there twice, in words."""
    seen: set[str] = set()
    key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return f"the key {key[:40]!r} is given twice"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=unique)
_FINITE_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse_constant)


def read_yaml(path: Path, what: str) -> Any:
    """The value of a YAML (or JSON) file without aliases, which can make a few bytes fill the memory.

    Raises:
        BadInput: see `reading`; it is no such YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML without aliases and without a key given twice."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """A node; no alias."""
            if self.check_event(yaml.AliasEvent):
                line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
                raise ValueError(f"aliases (*name) are not read (line {line})")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """A mapping; no key twice."""
            names = [str(key.value) for key, _ in node.value]
            if len(set(names)) != len(names):
                raise DuplicateKey(f"{twice([(name, None) for name in names])} (line {node.start_mark.line + 1})")
            return super().construct_mapping(node, deep)

    text = read_text(path, what)
    try:
        return yaml.load(text, Loader)
    except RecursionError:
        fault = "nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        fault = _plain(error)
    raise BadInput(f"{path} is neither YAML nor JSON ({what}): {fault}.")


# --- tables and tensors ----------------------------------------------------------------------


def parquet_file(path: Path, what: str) -> Any:
    """The open `pyarrow.parquet.ParquetFile`; read from it inside `reading`.

    Raises:
        BadInput: see `reading`.
    """
    from pyarrow import parquet

    with reading(path, what):
        return parquet.ParquetFile(path)


def read_parquet(path: Path, what: str, **options: Any) -> Any:
    """A Parquet file as a `pyarrow.Table`; `options` are those of `pyarrow.parquet.read_table`.

    Raises:
        BadInput: see `reading`.
    """
    from pyarrow import parquet

    with reading(path, what):
        return parquet.read_table(path, **options)


def read_array(path: Path, what: str) -> Any:
    """A NumPy file, memory-mapped.

    Raises:
        BadInput: see `reading`.
    """
    import numpy

    with reading(path, what):
        return numpy.load(path, mmap_mode="r")


def map_integers(file: IO[bytes], path: Path, what: str) -> Any:
    """The 32-bit integers of an open file as a memory-mapped array, for a short use.

    Raises:
        BadInput: it cannot be mapped, as an empty file.
    """
    import numpy

    try:
        return numpy.memmap(file, "<u4", "r")
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} ({what}) cannot be read: {first_line(error)}.") from error


def read_tensors(path: Path, what: str) -> Mapping[str, Any]:
    """The tensors of a safetensors file by name.

    Raises:
        BadInput: see `reading`.
    """
    from safetensors.torch import load_file

    with reading(path, what):
        return load_file(path)


def open_tensors(path: Path, what: str) -> Any:
    """The open `safetensors.safe_open`.

    Raises:
        BadInput: see `reading`.
    """
    from safetensors import safe_open

    with reading(path, what):
        return safe_open(path, framework="pt")
