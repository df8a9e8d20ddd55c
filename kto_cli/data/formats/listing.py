"""Raw files of a file or folder; their names tell the official split: `askhr/test.json`, `test_prefs-00000.parquet`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.source import RawFile, Source

SPLITS = ("train", "validation", "test")


def raw_files(place: Path, source: Source, subsets: Sequence[str] = ()) -> list[RawFile]:
    """The raw files of a source at a place, in a fixed order; a subset is a folder below it.

    Raises:
        BadInput: nothing is there, or not that subset.
    """
    if source.raw_files is not None:
        return source.raw_files(place, subsets)
    if place.exists() and not place.is_dir():
        return one_file(place, subsets)
    found = files_below(place, source.patterns, source.name)
    paths = [path for path in found if not set(path.relative_to(place).parts) & set(source.unused)]

    def subset_of(below: Path) -> str:
        return below.parent.as_posix() if below.parent != Path() else place.resolve().name

    return of_subsets(in_folder(place, paths, subset_of), subsets, place)


def split_name(name: str) -> str | None:
    """The split that a file's name has as one of its parts: `test` of a/test_prefs-00000.parquet."""
    parts = re.split(r"[-._]", Path(name).name)
    return next((part for part in parts if part in SPLITS), None)


def files_below(place: Path, patterns: Sequence[str], source: str) -> list[Path]:
    """The files below a folder that fit a pattern, in a fixed order; none in a hidden folder.

    Raises:
        BadInput: nothing is there.
    """
    if not place.exists():
        raise BadInput(f"{place} does not exist.", f"Give a file of {source}, or a folder of them.")
    found = []
    for path in sorted(place.rglob("*")):
        below = path.relative_to(place)
        hidden = any(part.startswith(".") for part in below.parts)
        if not hidden and path.is_file() and any(fnmatch(below.as_posix(), pattern) for pattern in patterns):
            found.append(path)
    if not found:
        raise BadInput(f"{place} holds no file of {source} ({', '.join(patterns)}).", "Name the file itself.")
    return found


def one_file(place: Path, subsets: Sequence[str]) -> list[RawFile]:
    """A file that was named itself: what there is to learn from, whatever split it is of.

    Raises:
        BadInput: a subset of it is asked for.
    """
    if subsets:
        raise BadInput(f"--subset needs a folder, and {place} is one file.", "Leave --subset out.")
    return [RawFile(place, place.name)]


def in_folder(place: Path, paths: Sequence[Path], subset_of: Callable[[Path], str]) -> list[RawFile]:
    """Files below a folder; `validation` and `test` are for validation where a `train` is in the same folder.

    Alone they are what there is to learn from. `subset_of` has the path below the folder.
    """
    trained = {path.parent for path in paths if split_name(path.name) == "train"}
    files = []
    for path in paths:
        official = path.parent in trained and split_name(path.name) in ("validation", "test")
        below = path.relative_to(place)
        files.append(RawFile(path, below.as_posix(), subset_of(below), VALIDATION if official else None))
    return files


def of_subsets(files: Sequence[RawFile], subsets: Sequence[str], place: Path) -> list[RawFile]:
    """The files of the wanted subsets; none wanted means all.

    Raises:
        BadInput: a subset that is not there.
    """
    there = {file.subset for file in files}
    if missing := [name for name in subsets if name not in there]:
        has = ", ".join(sorted(there - {""})) or "none"
        raise BadInput(f"{place} has no subset {', '.join(missing)}.", f"It has: {has}.")
    return [file for file in files if not subsets or file.subset in subsets]
