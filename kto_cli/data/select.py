"""Sources named on the command line, resolved to raw files and the format that reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.common.files import sample_data
from kto_cli.common.words import plural
from kto_cli.data import hub
from kto_cli.data.audit.scrub import Finds, scrub_forms
from kto_cli.data.dataset import TRAIN, count_rows
from kto_cli.data.dataset import VALIDATION as VALIDATION_FILE
from kto_cli.data.dataset_folder import is_ours
from kto_cli.data.formats.listing import of_subsets, raw_files
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.saved_dataset import saved_files
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.any_file import SUFFIXES, suffix
from kto_cli.data.readers.jsonl import line_records
from kto_cli.data.readers.object_folder import object_files
from kto_cli.data.registry import MODULES, all_sources, source

WITH_SAMPLE = "hh-rlhf"
"""The source with a built-in sample, for machines that cannot reach the Hub."""
MOST_NAMED = 8
"""Files that a note names."""


@dataclass(frozen=True)
class Chosen:
    """Source with its raw files."""

    source: Source
    name: str
    """Name of its rows in the dataset: `shp`, a file's name or a Hub id."""
    files: list[RawFile]
    where: dict[str, Any]
    """Origin of the files, for the manifest."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def choose(config: BinarizeConfig) -> list[Chosen]:
    """Sources named by the user, with their raw files.

    Raises:
        BadInput: a source is not there or not of a known kind, or a flag does not apply to any source.
    """
    if config.from_path is not None and len(config.sources) > 1:
        raise BadFlag("--from goes with one source.", "Write NAME:PATH for each, as in shp:./shp log:tickets.csv.")
    if not config.sources:
        raise BadInput("No source is given.", "Give one, as in kto binarize hh-rlhf. To list all: kto binarize --list")
    if all(map(_is_source, config.sources)):
        refuse_other_flags([split_name(text)[0] or "trl" for text in config.sources], config)  # before any download
    chosen = with_unique_names([_choose(text, config) for text in config.sources])
    return [replace(one, name=scrub_forms(one.name, Finds())) for one in chosen] if config.scrub else chosen


def _is_source(text: str) -> bool:
    """Whether a text names a source, a file or what may be a dataset of the Hub; otherwise `_choose` rejects it."""
    return split_name(text)[0] is not None or os.path.exists(text) or _is_hub_id(text)


def refuse_other_flags(names: Sequence[str], config: BinarizeConfig) -> None:
    """Rejects a flag that applies to none of the named sources.

    Raises:
        BadFlag: with the sources that it applies to.
    """
    applicable = {flag for name in names for flag in source(name).options}
    if others := [flag for flag in config.source_flags if flag not in applicable]:
        takers = [each.name for each in all_sources() if others[0] in each.options]
        step = f"Remove it, or use a source that takes it: {', '.join(takers)} (as in {takers[0]}:FILE)."
        raise BadFlag(f"{others[0]} does not apply to {', '.join(dict.fromkeys(names))}.", step)


def with_unique_names(chosen: list[Chosen]) -> list[Chosen]:
    """The sources with unique names: two logs become `log:a.csv` and `log:b.csv`, or are numbered."""
    names = [one.name for one in chosen]
    names = [
        f"{one.name}:{Path(one.where['path']).name}"
        if names.count(one.name) > 1 and one.name in MODULES and "path" in one.where
        else one.name
        for one in chosen
    ]
    return [
        replace(one, name=f"{name} ({names[: index + 1].count(name)})" if names.count(name) > 1 else name)
        for index, (one, name) in enumerate(zip(chosen, names, strict=True))
    ]


def default_name(sources: Sequence[str]) -> str:
    """Name of the data folder: a source's name, `name` for owner/name, `ratings` for path/ratings.csv.gz, or `mix`."""
    if len(sources) != 1:
        return "mix"
    named, path = split_name(sources[0])
    if named is not None and named != "log":
        return named
    name = Path(path or sources[0]).name
    while suffix(name) in SUFFIXES:
        name = Path(name).stem
    return name


def split_name(text: str) -> tuple[str | None, str | None]:
    """(source name, path) from NAME, NAME:PATH or the Hub id of a named source; otherwise (None, None)."""
    name, _, path = text.partition(":")
    if name in MODULES:
        return name, path or None
    owned = [each.name for each in all_sources() if text in each.hub_ids] if "/" in text else []
    return (owned[0], None) if owned and not os.path.exists(text) else (None, None)


def _choose(text: str, config: BinarizeConfig) -> Chosen:
    name, path = split_name(text)
    if name is not None:
        if path and config.from_path:
            raise BadFlag(f"{text} has a path, and --from gives another one.", "Remove one of them.")
        return _named(source(name), path or config.from_path, text, config)
    if config.from_path is not None:
        raise BadFlag("--from goes with a named source.", "Give the file alone, or write NAME:PATH.")
    local = Path(text)
    is_folder, is_there = os.path.isdir(text), os.path.exists(text)  # pathlib's exists raises for a name too long
    if is_folder and is_ours(local):
        return _own_dataset(local)
    if is_folder and (files := saved_files(local)):
        return Chosen(
            source("trl"), local.name, of_subsets(files, config.subsets, local), {"path": text}, [_reading(files)]
        )
    if config.subsets:
        raise BadFlag("--subset goes with a named source.", "Give the file of the subset.")
    if is_folder:
        raise BadInput(f"{local} is a folder, not a file.", _inside(local))
    if is_there:
        return Chosen(source("trl"), local.name, [RawFile(local, local.name)], {"path": text})
    if _is_hub_id(text):
        return _hub_dataset(text)
    if meant := get_close_matches(text.partition(":")[0], MODULES, 1):
        raise BadInput(f"{text} is neither a known source nor a file.", f"Did you mean {meant[0]}?")
    if suffix(text) in SUFFIXES or "/" in text:
        raise BadInput(f"{text} does not exist.", "Check the path.")
    step = f"Give one of {', '.join(MODULES)}, a JSONL, CSV or Parquet file, or a Hub id owner/name."
    raise BadInput(f"{text} is neither a known source nor a file.", step)


def _named(found: Source, path: str | None, text: str, config: BinarizeConfig) -> Chosen:
    """Named source: from a local path, else from the Hub, else (with a warning) the built-in sample."""
    if config.text and not found.has_texts:
        raise BadFlag(f"--text does not apply to {found.name}, which has chats only.", "Remove it.")
    if path is not None and not os.path.exists(path):
        raise BadInput(f"{path} does not exist.", f"Give a file of {found.name}, or a folder of them.")
    if path is not None:
        return _files(found, Path(path), config, {"path": path, "sample": False})
    if not found.hub_ids:
        raise BadInput(f"{found.name} needs a file.", f"Write {found.name}:FILE")
    hub_id = text if text in found.hub_ids else found.hub_ids[0]
    try:
        folder = hub.snapshot(hub_id, found.patterns, config.subsets or found.parts if found.subsets_are_files else ())
    except hub.Unreachable as reason:
        if found.name != WITH_SAMPLE:
            what = f"The Hub cannot be reached ({reason}), and {hub_id} is not in its cache."
            raise BadInput(what, f"Use --from PATH for a local copy of {found.name}.") from reason
        chosen = _files(found, sample_data() / "hh-rlhf", config, {"path": "built-in sample", "sample": True})
        pairs = sum(1 for file in chosen.files for _ in line_records(file.path, file.name))
        chosen.warnings.append(
            f"The Hub cannot be reached ({reason}). Using the built-in sample of hh-rlhf, NOT the real data: {pairs:,} "
            "pairs written by this project. Use --from PATH for a local copy."
        )
        return chosen
    return _files(found, folder, config, {"hub": hub_id, "revision": folder.name, "sample": False})


def _files(found: Source, path: Path, config: BinarizeConfig, where: dict[str, Any]) -> Chosen:
    files = raw_files(path, found, config.subsets)
    notes = [_reading(files)]
    if path.is_dir() and (unused := [name for name in found.unused if any(path.rglob(name))]):
        notes.append(f"Skipping {', '.join(unused)}: no feedback in it.")
    return Chosen(found, found.name, files, {**where, "files": [file.name for file in files]}, notes)


def _reading(files: Sequence[RawFile]) -> str:
    """Note on the files that are read; a folder of files with one object each with their number."""
    shown = [
        f"{file.name} ({plural(len(object_files(file.path)), 'file')} of one object each)"
        if file.path.is_dir()
        else file.name
        for file in files[:MOST_NAMED]
    ]
    more = f" and {plural(len(files) - len(shown), 'more file')}" if len(files) > len(shown) else ""
    return f"Reading {', '.join(shown)}{more}."


def _own_dataset(folder: Path) -> Chosen:
    """Dataset written by `kto binarize`, with its split."""
    files = [RawFile(folder / TRAIN, TRAIN)]
    if count_rows(folder / VALIDATION_FILE):
        files.append(RawFile(folder / VALIDATION_FILE, VALIDATION_FILE, split=VALIDATION))
    return Chosen(source("trl"), folder.name, files, {"path": str(folder)})


def _hub_dataset(hub_id: str) -> Chosen:
    """Train split of any dataset on the Hub, by its columns."""
    columns, records = hub.table_records(hub_id)
    table = replace(source("trl"), columns=lambda _: columns, records=lambda _: records)
    return Chosen(table, hub_id, [RawFile(Path(hub_id), hub_id)], {"hub": hub_id})


def _is_hub_id(text: str) -> bool:
    """Whether the text looks like `owner/name`, not like a file."""
    owner, _, name = text.partition("/")
    looks = bool(owner and name) and "/" not in name and owner not in (".", "..", "~")
    return looks and suffix(text) not in SUFFIXES


def _inside(folder: Path) -> str:
    if object_files(folder):
        return f"Its files hold one object each; for a log of them: kto binarize log:{folder} with rules or columns."
    inside = ", ".join(sorted(child.name for child in folder.iterdir() if suffix(child.name) in SUFFIXES)[:5])
    return f"Give one of its files: {inside}." if inside else "For a copy of hh-rlhf: kto binarize hh-rlhf:FOLDER."
