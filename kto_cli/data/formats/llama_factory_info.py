"""LLaMA-Factory's `dataset_info.json`: its feedback files and the names of their columns.

https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md. An entry with `columns` has only the columns it names
(`src/llamafactory/data/parser.py`); an entry without has the defaults below. Tags that are not named have defaults too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_json
from kto_cli.common.words import printable
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.source import RawFile

INFO = "dataset_info.json"
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""Keys of entries whose data is not a file beside dataset_info.json."""
CHATS = ("sharegpt", "openai")
"""Values of `formatting` for lists of messages; the default is alpaca."""
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
SAME_NAME = ("history", "system", "tools", "images", "videos", "audios", "chosen", "rejected")
"""Columns without a default name; usually their name in the file is the same."""
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
MESSAGES_TAGS = TAGS | {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@dataclass(frozen=True)
class ColumnMap:
    """Columns, tags and kind of the feedback in one file."""

    chat: bool
    """sharegpt: a list of messages; otherwise alpaca: instruction, input, output."""
    ranking: bool
    """Pairs with chosen and rejected; otherwise one answer with a kto_tag."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """LLaMA-Factory's name of a column -> its name in the file; without columns that the file lacks."""
    tags: Mapping[str, str] = field(default_factory=dict)
    described: bool = False
    """From a dataset_info.json; otherwise guessed from the columns."""


def read_info(path: Path) -> dict[str, dict[str, Any]]:
    """Entries of a dataset_info.json.

    Raises:
        BadInput: the file cannot be read, or has another structure.
    """
    shown = printable(path)
    values = read_json(path, "descriptions of data sets")
    if not isinstance(values, dict) or not all(isinstance(entry, dict) for entry in values.values()):
        raise BadInput(
            f"{shown} does not map names to descriptions.", f"See {INFO} in the data README of LLaMA-Factory."
        )
    return values


def is_feedback(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a local file with pairs of answers or tagged answers."""
    columns = entry.get("columns")
    tagged = isinstance(columns, dict) and columns.get("kto_tag") is not None
    return (entry.get("ranking") is True or tagged) and not any(key in entry for key in ELSEWHERE)


def described_map(entry: Mapping[str, Any], name: str) -> ColumnMap:
    """Column map that an entry describes.

    Raises:
        BadInput: columns or tags that are not texts.
    """
    columns, tags = entry.get("columns", COLUMNS), entry.get("tags", TAGS)
    for what, names in (("columns", columns), ("tags", tags)):
        if not isinstance(names, dict) or not all(value is None or isinstance(value, str) for value in names.values()):
            raise BadInput(f"{INFO}: the {what} of {printable(name)} are not names of columns.", "Fix it.")
    ranking = entry.get("ranking") is True
    given = {key: value for key, value in columns.items() if value is not None}
    if ranking:  # required, and without a default in LLaMA-Factory
        given = {"chosen": "chosen", "rejected": "rejected"} | given
    all_tags = TAGS | {key: value for key, value in tags.items() if value is not None}
    return ColumnMap(entry.get("formatting") in CHATS, ranking, given, all_tags, True)


@lru_cache(maxsize=256)
def guessed_map(columns: tuple[str, ...]) -> ColumnMap | None:
    """Column map guessed from the column names of a file; None if they are not those of feedback."""
    messages = next((name for name in ("conversations", "messages") if name in columns), None)
    tag = next((name for name in ("kto_tag", "label") if name in columns), None)
    ranking = "chosen" in columns or "rejected" in columns
    if (messages is None and "instruction" not in columns) or (tag is None and not ranking):
        return None
    names = {key: name for key, name in COLUMNS.items() if name in columns}
    names |= {name: name for name in SAME_NAME if name in columns}
    if messages is not None:
        names["messages"] = messages
    if tag is not None:
        names["kto_tag"] = tag
    return ColumnMap(messages is not None, ranking, names)


def info_of(raw_file: RawFile) -> Path | None:
    """The dataset_info.json of a file: in the folder that was given, or else in the file's own folder."""
    top = raw_file.path
    for _ in Path(raw_file.name).parts:
        top = top.parent
    return next((folder / INFO for folder in (top, raw_file.path.parent) if (folder / INFO).is_file()), None)


@lru_cache(maxsize=256)
def column_map(raw_file: RawFile) -> ColumnMap | None:
    """Column map of a file from its dataset_info.json; None if no entry describes the file as feedback.

    Raises:
        BadInput: the entry is faulty, or two entries describe the file in two ways.
    """
    info = info_of(raw_file)
    if info is None:
        return None
    entries = {
        name: entry
        for name, entry in read_info(info).items()
        if is_feedback(entry) and raw_file.path.resolve() in [path.resolve() for path in files_of(info, entry)]
    }
    if raw_file.subset in entries:
        entries = {raw_file.subset: entries[raw_file.subset]}
    maps = [described_map(entry, name) for name, entry in entries.items()]
    if any(each != maps[0] for each in maps):
        what = f"{printable(str(info))} describes {printable(raw_file.name)} in several ways ({', '.join(entries)})."
        raise BadInput(what, f"Give {INFO} itself, and choose one with --subset.")
    return maps[0] if maps else None


def files_of(info: Path, entry: Mapping[str, Any]) -> list[Path]:
    """Files of an entry: one, or those of a folder."""
    name = entry.get("file_name")
    if not isinstance(name, str):
        return []
    path = info.parent / name
    if path.is_dir():
        return sorted(child for child in path.iterdir() if child.suffix in SUFFIXES)
    return [path]


def described_files(info: Path, subsets: Sequence[str]) -> list[RawFile]:
    """Feedback files that a dataset_info.json describes, of all entries or the named ones.

    Raises:
        BadInput: no feedback, no such entry, or a file that is missing or outside the folder.
    """
    shown, entries = printable(str(info)), read_info(info)
    feedback = {name: entry for name, entry in entries.items() if is_feedback(entry)}
    if missing := [name for name in subsets if name not in feedback]:
        there = ", ".join(map(printable, feedback)) or "none"
        raise BadInput(f"{shown} describes no feedback called {', '.join(missing)}.", f"It has: {there}.")
    if not feedback:
        wanted = "columns with a kto_tag, or ranking: true, and a file_name"
        raise BadInput(f"{shown} describes no feedback.", f"An entry of feedback has {wanted}.")
    chosen = {name: entry for name, entry in feedback.items() if not subsets or name in subsets}
    files = [file for name, entry in chosen.items() for file in entry_files(info, name, entry)]
    refuse_twice(shown, files)
    return with_splits(files)


def refuse_twice(shown: str, files: Sequence[RawFile]) -> None:
    """Rejects entries that share a file, whose rows would be read twice.

    Raises:
        BadInput: names the entries.
    """
    first: dict[Path, str] = {}
    for file in files:
        if file.path in first:
            both = f"{printable(first[file.path])} and {printable(file.subset)}"
            raise BadInput(f"{shown} describes {printable(file.name)} as both {both}.", "Choose one with --subset.")
        first[file.path] = file.subset


def entry_files(info: Path, name: str, entry: Mapping[str, Any]) -> Iterator[RawFile]:
    """Files of one entry.

    Raises:
        BadInput: a file is missing, or outside the folder of dataset_info.json.
    """
    where = f"{printable(str(info))}: the file of {printable(name)}"
    paths = files_of(info, entry)
    if not paths:
        raise BadInput(f"{where} is not named (file_name).", "Fix it, or choose other entries with --subset.")
    for path in paths:
        if not path.resolve().is_relative_to(info.parent.resolve()):
            raise BadInput(f"{where} is outside of its folder ({printable(path)}).", "Give that file itself.")
        if not path.is_file():
            step = f"Put it there, or choose other entries of {INFO} with --subset."
            raise BadInput(f"{where} is missing ({printable(path)}).", step)
        yield RawFile(path, path.relative_to(info.parent).as_posix(), name)


def with_splits(files: Sequence[RawFile]) -> list[RawFile]:
    """The files, those called `test` or `validation` beside a `train` marked as the validation split."""
    trained = {file.path.parent for file in files if file.path.name.startswith("train.")}
    official = ("test.", "validation.")
    return [
        RawFile(file.path, file.name, file.subset, VALIDATION)
        if file.path.name.startswith(official) and file.path.parent in trained
        else file
        for file in files
    ]
