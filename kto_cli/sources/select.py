"""From what the command line names to its feedback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kto_cli.errors import BadInput
from kto_cli.files import sample_data
from kto_cli.sources import hh_rlhf, hub, table
from kto_cli.sources.cells import READERS, suffix
from kto_cli.sources.records import Feedback, Item, Pair, Reject


def is_hh(source: str) -> bool:
    """Whether the source is hh-rlhf, by its short name or its Hub id."""
    return source in ("hh-rlhf", hh_rlhf.HUB_ID)


def is_hub_id(source: str) -> bool:
    """Whether the source looks like `owner/name` and not like a file."""
    owner, _, name = source.partition("/")
    looks = bool(owner and name) and "/" not in name and owner not in (".", "..", "~")
    return looks and suffix(source) not in READERS


def default_name(source: str) -> str:
    """The name of the data folder: hh-rlhf, `name` of owner/name, `ratings` of path/ratings.csv.gz."""
    if is_hh(source):
        return "hh-rlhf"
    name = Path(source).name
    while suffix(name) in READERS:
        name = Path(name).stem
    return name


def read_source(source: str, from_path: str | None, subsets: Sequence[str], *, as_text: bool) -> Feedback:
    """The feedback that the command line names.

    Raises:
        BadInput: it is not there, not of a known kind, or a flag does not go with it.
    """
    if is_hh(source):
        if as_text:
            raise BadInput("--text does not go with hh-rlhf, which is chat.", "Leave it out.")
        return read_hh(from_path, subsets)
    for flag, given in (("--from", from_path), ("--subset", subsets)):
        if given:
            raise BadInput(f"{flag} goes with hh-rlhf only.", "Name the file itself as SOURCE.")
    if Path(source).exists():
        return table.read_file(Path(source), as_text=as_text)
    if is_hub_id(source):
        return table.read_hub(source, as_text=as_text)
    what = "does not exist" if suffix(source) in READERS or "/" in source else "is no known source and no file"
    step = "Give hh-rlhf, a JSONL, CSV or Parquet file, or a Hub id owner/name."
    raise BadInput(f"{source} {what}.", step)


def read_hh(from_path: str | None, subsets: Sequence[str]) -> Feedback:
    """hh-rlhf from --from, else from the Hub, else the built-in sample, which is said loudly."""
    if from_path is not None:
        return parse_hh(Path(from_path), subsets, {"path": from_path, "sample": False})
    try:
        place = hub.snapshot(hh_rlhf.HUB_ID, subsets or hh_rlhf.SUBSETS)
    except hub.Unreachable as reason:
        feedback = parse_hh(sample_data() / "hh-rlhf", subsets, {"path": "built-in sample", "sample": True})
        pairs = sum(isinstance(item, Pair) for item in feedback.items)
        feedback.warnings.append(
            f"The Hub cannot be reached ({reason}): using the built-in sample of hh-rlhf ({pairs:,} pairs, "
            "written by this project), NOT the real data. Use --from PATH for a local copy."
        )
        return feedback
    return parse_hh(place, subsets, {"hub": hh_rlhf.HUB_ID, "revision": place.name, "sample": False})


def parse_hh(place: Path, subsets: Sequence[str], where: dict[str, Any]) -> Feedback:
    """All pairs of the raw files at `place`."""
    files = hh_rlhf.raw_files(place, subsets)
    items: list[Item] = []
    rejects: list[Reject] = []
    for result in hh_rlhf.read(files):
        if isinstance(result, Reject):
            rejects.append(result)
        else:
            items.append(result)
    notes = [f"Read {', '.join(file.name for file in files)}."]
    if hh_rlhf.skips_unused(place):
        notes.append(f"Subset {hh_rlhf.UNUSED_SUBSET} skipped: it has no pairs of answers.")
    where = {**where, "files": [file.name for file in files]}
    return Feedback("hh-rlhf", items, rejects, len(items) + len(rejects), where, notes)
