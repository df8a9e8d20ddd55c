"""Raw files in a file or folder, with the official split in their names: `askhr/test.json`, `test_prefs-0.parquet`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.saved_dataset import saved_files
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers import any_file
from kto_cli.data.readers.object_folder import object_files

SPLITS = ("train", "validation", "test")
SubsetOf = Callable[[Path], str]
"""Subset of a file, from its path below the folder that was given."""


def raw_files(path: Path, source: Source, subsets: Sequence[str] = ()) -> list[RawFile]:
    """Raw files of a source in a file or folder, in a fixed order; a subset is a folder below it.

    Raises:
        BadInput: nothing is there, or a subset is not.
    """
    if saved := saved_files(path):
        return of_subsets(saved, subsets, path)
    if source.raw_files is not None:
        return source.raw_files(path, subsets)

    def subset_of(below: Path) -> str:
        return below.parent.as_posix() if below.parent != Path() else path.resolve().name

    return by_folder(path, source.patterns, source.name, subsets, subset_of, source.unused)


def by_folder(
    path: Path,
    patterns: Sequence[str],
    source: str,
    subsets: Sequence[str],
    subset_of: SubsetOf,
    unused: Sequence[str] = (),
) -> list[RawFile]:
    """The file itself, or the files of the wanted subsets below a folder, without those in `unused` folders.

    Raises:
        BadInput: nothing is there, or a subset is not.
    """
    if path.exists() and not path.is_dir():
        return one_file(path, subsets)
    found = files_below(path, patterns, source)
    used = [file for file in found if not set(file.relative_to(path).parts) & set(unused)]
    return of_subsets(grouped(in_folder(path, used, subset_of)), subsets, path)


def split_name(name: str) -> str | None:
    """Split that is a part of a file's name: `test` of a/test_prefs-00000.parquet."""
    parts = re.split(r"[-._]", Path(name).name)
    return next((part for part in parts if part in SPLITS), None)


def files_below(folder: Path, patterns: Sequence[str], source: str) -> list[Path]:
    """Files below a folder that match a pattern, in a fixed order, without hidden folders.

    Raises:
        BadInput: there are none.
    """
    if not folder.exists():
        raise BadInput(f"{folder} does not exist.", f"Give a file of {source}, or a folder of them.")
    found = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        if not hidden and path.is_file() and any(fnmatch(below.as_posix(), pattern) for pattern in patterns):
            found.append(path)
    if not found:
        raise BadInput(f"{folder} holds no file of {source} ({', '.join(patterns)}).", "Name the file itself.")
    return found


def one_file(path: Path, subsets: Sequence[str]) -> list[RawFile]:
    """A file named by the user: all of it is for training, whatever split its name has.

    Raises:
        BadInput: a subset of it is asked for.
    """
    if subsets:
        raise BadFlag(f"--subset needs a folder, and {path} is one file.", "Remove --subset.")
    return [RawFile(path, path.name)]


def in_folder(folder: Path, paths: Sequence[Path], subset_of: SubsetOf) -> list[RawFile]:
    """Files below a folder; `validation` and `test` are for validation if `train` is beside them, else for training."""
    trained = {path.parent for path in paths if split_name(path.name) == "train"}
    files = []
    for path in paths:
        official = path.parent in trained and split_name(path.name) in ("validation", "test")
        below = path.relative_to(folder)
        files.append(RawFile(path, below.as_posix(), subset_of(below), VALIDATION if official else None))
    return files


def grouped(files: Sequence[RawFile]) -> list[RawFile]:
    """Raw files, with the JSON files of one object each in a folder as one: none of them has to have all columns.

    Files of an official split (train.json, test.json) are files of their own.

    Raises:
        BadInput: a file cannot be read as text.
    """
    listed = [file.path for file in files]
    in_splits = {file.path.parent for file in files if file.split is not None}
    folders = {path.parent: None for path in listed if any_file.suffix(path.name) == ".json"}
    of_folder = {folder: object_files(folder) for folder in folders if folder not in in_splits}
    objects = {path for found in of_folder.values() if set(found) <= set(listed) for path in found}
    result: dict[Path, RawFile] = {}
    for file in files:
        if file.path in objects:
            folder = file.path.parent
            below = Path(file.name).parent.as_posix()
            file = replace(file, path=folder, name=folder.resolve().name if below == "." else below, split=None)
        result.setdefault(file.path, file)
    return list(result.values())


def of_subsets(files: Sequence[RawFile], subsets: Sequence[str], folder: Path) -> list[RawFile]:
    """Files of the given subsets; all files if none is given.

    Raises:
        BadInput: a subset is not there.
    """
    there = {file.subset for file in files}
    if missing := [name for name in subsets if name not in there]:
        has = ", ".join(sorted(there - {""})) or "none"
        raise BadInput(f"{folder} has no subset {', '.join(missing)}.", f"It has: {has}.")
    return [file for file in files if not subsets or file.subset in subsets]
