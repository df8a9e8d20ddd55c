"""From what the command line names to raw files and what reads them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.files import sample_data
from kto_cli.data import hub
from kto_cli.data.dataset import TRAIN, count_rows, is_ours
from kto_cli.data.dataset import VALIDATION as VALIDATION_FILE
from kto_cli.data.formats.listing import raw_files
from kto_cli.data.formats.records import VALIDATION
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.any_file import SUFFIXES, suffix
from kto_cli.data.readers.jsonl import line_records
from kto_cli.data.registry import MODULES, all_sources, source

WITH_SAMPLE = "hh-rlhf"
"""The source with a built-in sample, for machines that cannot reach the Hub."""


@dataclass(frozen=True)
class Chosen:
    """A source and its raw files."""

    source: Source
    name: str
    """What its rows are called after: `shp`, a file's name or a Hub id."""
    files: list[RawFile]
    where: dict[str, Any]
    """Where it was read from, for the manifest."""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def choose(config: BinarizeConfig) -> list[Chosen]:
    """What each of the named sources is.

    Raises:
        BadInput: it is not there, not of a known kind, or a flag does not go with it.
    """
    if config.from_path is not None and len(config.sources) > 1:
        raise BadInput("--from goes with one source.", "Write NAME:PATH for each, as in shp:./shp log:tickets.csv.")
    if not config.sources:
        raise BadInput("No source is named.", "Name one: kto binarize hh-rlhf. All of them: kto binarize --list")
    chosen = [_choose(text, config) for text in config.sources]
    understood = {flag for one in chosen for flag in one.source.options}
    if unheard := [flag for flag in config.asked_of_sources if flag not in understood]:
        names = ", ".join(dict.fromkeys(one.source.name for one in chosen))
        takers = [each.name for each in all_sources() if unheard[0] in each.options]
        what = f"{unheard[0]} means nothing for {names}."
        raise BadInput(
            what, f"Leave it out, or name a source that takes it: {', '.join(takers)} (as in {takers[0]}:FILE)."
        )
    return told_apart(chosen)


def told_apart(chosen: list[Chosen]) -> list[Chosen]:
    """The same with a name of its own for each: two logs are `log:a.csv` and `log:b.csv`, or else numbered."""
    called = [
        f"{one.name}:{Path(one.where['path']).name}"
        if count > 1 and one.name in MODULES and "path" in one.where
        else one.name
        for one, count in zip(chosen, _counted([one.name for one in chosen]), strict=True)
    ]
    numbered = [
        f"{name} ({called[: place + 1].count(name)})" if count > 1 else name
        for place, (name, count) in enumerate(zip(called, _counted(called), strict=True))
    ]
    return [replace(one, name=name) for one, name in zip(chosen, numbered, strict=True)]


def _counted(names: list[str]) -> list[int]:
    return [names.count(name) for name in names]


def default_name(sources: Sequence[str]) -> str:
    """The name of the data folder: a source's name, `name` of owner/name, `ratings` of path/ratings.csv.gz; `mix`."""
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
    """(name of a source, path) of NAME, NAME:PATH or the Hub id of a named source; else (None, None)."""
    name, _, path = text.partition(":")
    if name in MODULES:
        return name, path or None
    owned = [each.name for each in all_sources() if text in each.hub_ids] if "/" in text else []
    return (owned[0], None) if owned and not os.path.exists(text) else (None, None)


def _choose(text: str, config: BinarizeConfig) -> Chosen:
    name, path = split_name(text)
    if name is not None:
        if path and config.from_path:
            raise BadInput(f"{text} names a place, and so does --from.", "Leave one out.")
        return _named(source(name), path or config.from_path, text, config)
    if config.from_path is not None:
        raise BadInput("--from goes with a named source.", "Name the file itself, or write NAME:PATH.")
    place = Path(text)
    is_folder, is_there = os.path.isdir(text), os.path.exists(text)  # of a name too long pathlib raises
    if is_folder and is_ours(place):
        return _our_own(place)
    if config.subsets:
        raise BadInput("--subset goes with a named source.", "Name the file itself.")
    if is_folder:
        raise BadInput(f"{place} is a folder, not a file.", _inside(place))
    if is_there:
        return Chosen(source("trl"), place.name, [RawFile(place, place.name)], {"path": text})
    if _is_hub_id(text):
        return _dataset(text)
    what = "does not exist" if suffix(text) in SUFFIXES or "/" in text else "is no known source and no file"
    meant = get_close_matches(text.partition(":")[0], MODULES, 1)
    if meant:
        raise BadInput(f"{text} {what}.", f"Did you mean {meant[0]}?")
    step = f"Give one of {', '.join(MODULES)}, a JSONL, CSV or Parquet file, or a Hub id owner/name."
    raise BadInput(f"{text} {what}.", step)


def _named(found: Source, path: str | None, text: str, config: BinarizeConfig) -> Chosen:
    """A source with a name: from a place here, else from the Hub, else the built-in sample, which is said loudly."""
    if config.text and not found.has_texts:
        raise BadInput(f"--text does not go with {found.name}, which is chat.", "Leave it out.")
    if path is not None and not os.path.exists(path):
        raise BadInput(f"{path} does not exist.", f"Give a file of {found.name}, or a folder of them.")
    if path is not None:
        return _files(found, Path(path), config, {"path": path, "sample": False})
    if not found.hub_ids:
        raise BadInput(f"{found.name} is read from a file of yours.", f"Write {found.name}:FILE")
    hub_id = text if text in found.hub_ids else found.hub_ids[0]
    try:
        place = hub.snapshot(hub_id, found.patterns, config.subsets or found.parts if found.subsets_are_files else ())
    except hub.Unreachable as reason:
        if found.name != WITH_SAMPLE:
            what = f"The Hub cannot be reached ({reason}), and {hub_id} is not in its cache."
            raise BadInput(what, f"Use --from PATH for a local copy of {found.name}.") from reason
        chosen = _files(found, sample_data() / "hh-rlhf", config, {"path": "built-in sample", "sample": True})
        pairs = sum(1 for file in chosen.files for _ in line_records(file.path, file.name))
        chosen.warnings.append(
            f"The Hub cannot be reached ({reason}): using the built-in sample of hh-rlhf ({pairs:,} pairs, written by "
            "this project), NOT the real data. Use --from PATH for a local copy."
        )
        return chosen
    return _files(found, place, config, {"hub": hub_id, "revision": place.name, "sample": False})


def _files(found: Source, place: Path, config: BinarizeConfig, where: dict[str, Any]) -> Chosen:
    files = raw_files(place, found, config.subsets)
    notes = [f"Read {', '.join(file.name for file in files[:8])}{' ...' if len(files) > 8 else ''}."]
    if place.is_dir() and (unused := [name for name in found.unused if any(place.rglob(name))]):
        notes.append(f"Skipped {', '.join(unused)}: no feedback in it.")
    return Chosen(found, found.name, files, {**where, "files": [file.name for file in files]}, notes)


def _our_own(place: Path) -> Chosen:
    """A dataset that `kto binarize` wrote, with its split."""
    files = [RawFile(place / TRAIN, TRAIN)]
    if count_rows(place / VALIDATION_FILE):
        files.append(RawFile(place / VALIDATION_FILE, VALIDATION_FILE, split=VALIDATION))
    return Chosen(source("trl"), place.name, files, {"path": str(place)})


def _dataset(hub_id: str) -> Chosen:
    """The train split of any dataset on the Hub, by its columns."""
    columns, records = hub.table_records(hub_id)
    table = replace(source("trl"), columns=lambda _: columns, records=partial(_given, records))
    return Chosen(table, hub_id, [RawFile(Path(hub_id), hub_id)], {"hub": hub_id})


def _given(records: Any, _: RawFile) -> Any:
    return records


def _is_hub_id(text: str) -> bool:
    """Whether the text looks like `owner/name` and not like a file."""
    owner, _, name = text.partition("/")
    looks = bool(owner and name) and "/" not in name and owner not in (".", "..", "~")
    return looks and suffix(text) not in SUFFIXES


def _inside(place: Path) -> str:
    inside = ", ".join(sorted(child.name for child in place.iterdir() if suffix(child.name) in SUFFIXES)[:5])
    return f"Name one of its files: {inside}." if inside else "For a copy of hh-rlhf: kto binarize hh-rlhf:FOLDER."
