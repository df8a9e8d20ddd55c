"""Files of ratings that lie beside the files of what was rated, as exports of tables write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import state_of
from kto_cli.common.words import printable
from kto_cli.data.formats import listing
from kto_cli.data.formats.source import RawFile
from kto_cli.data.readers import any_file


def is_of(path: Path, kind: str) -> bool:
    """Whether a path says, in its last two parts, what it holds: `observations`, `scores`."""
    return any(kind.rstrip("s") in part.lower() for part in path.parts[-2:])


def rated_files(
    path: Path, subsets: Sequence[str], patterns: Sequence[str], source: str, is_rated: Callable[[Path], bool]
) -> list[RawFile]:
    """The file itself, or the files of a folder that hold what was rated; all its files where none says so.

    Args:
        is_rated: of a path below the folder.

    Raises:
        BadInput: nothing is there.
    """
    if path.is_file():
        return listing.one_file(path, subsets)
    found = listing.files_below(path, patterns, source)
    rated = [file for file in found if is_rated(file.relative_to(path))]
    return listing.in_folder(path, rated or found, lambda below: "")


Beside = tuple[tuple[Path, tuple[int, ...]], ...]
"""Files and their states (`state_of`): what is kept of them holds as long as they stay as they are."""


def files_beside(path: Path, holds: str, kind: str) -> Beside:
    """Files of a kind beside a file, by their names; or in a folder beside its own, if the two folders are named so.

    Args:
        holds: what the file itself holds.

    Raises:
        BadInput: there are none.
    """
    near = [each for each in path.parent.glob("*") if is_of(Path(each.name), kind)]
    if is_of(Path(path.parent.name), holds):
        near += [each for each in path.parent.parent.glob("*/*") if is_of(Path(each.parent.name), kind)]
    readable = (each for each in near if each.is_file() and any_file.suffix(each.name) in any_file.SUFFIXES)
    if found := tuple((each, state_of(each)) for each in sorted(readable) if each != path):
        return found
    what = f"{printable(str(path))} has {holds}, and no file of {kind} lies beside it."
    raise BadInput(what, f"Put files or folders called {holds} and {kind} side by side.")


def values_in(files: Beside) -> Iterator[dict[str, Any]]:
    """Rows of all of some files; one that cannot be parsed has no values.

    Raises:
        BadInput: a file cannot be read.
    """
    for path, _ in files:
        for record in any_file.records(path, path.name, None):
            yield any_file.parsed(record).values or {}
