r"""Anthropic hh-rlhf: lines {"chosen": text, "rejected": text}, each text a whole conversation.

A turn starts at exactly "\n\nHuman:" or "\n\nAssistant:" and at nothing else: answers do hold "Human:"
mid-line, and "\nAssistant:" after a single line end. Roles are those written, never told by position.
The one space after the colon and white space at a turn's end go; all other text stays as it is.

A pair is rejected, both rows, for the first of:

    not_json, not_an_object           the line
    missing_field, not_text, bad_text `chosen` or `rejected`
    prompts_differ                    the two texts differ before their last turn
    roles_do_not_alternate            not Human, Assistant, ..., Assistant; or text before the first marker
    empty_answer                      a last turn without text
    empty_turn                        an earlier turn without text
    answers_identical                 one text in both classes: it would teach both ways

`detail` names all that is wrong with the pair: where the prompts of the real data differ, it is because
one answer was broken in two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kto_cli.errors import BadInput
from kto_cli.sources.lines import Record, json_line_records
from kto_cli.sources.records import (
    HELD_OUT,
    Message,
    Pair,
    Reject,
    RowFault,
    check_text,
    message,
    root,
)

HUB_ID = "Anthropic/hh-rlhf"
SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
UNUSED_SUBSET = "red-team-attempts"
"""Transcripts with a rating of the attack, no pairs of answers."""

MARKER = re.compile(r"\n\n(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class RawFile:
    """One file of the raw format and what its place says about it."""

    path: Path
    name: str
    """What its lines are called: the path below the folder that was read."""
    subset: str
    split: str | None


def turns(text: str) -> tuple[str, tuple[Message, ...]]:
    """(text before the first marker, messages) of one conversation."""
    before, *parts = MARKER.split(text)
    contents = [part.removeprefix(" ").rstrip() for part in parts[1::2]]
    roles = [ROLES[role] for role in parts[::2]]
    return before, tuple(map(message, roles, contents))


def role_fault(side: str, before: str, messages: tuple[Message, ...]) -> str | None:
    """What is wrong with the sequence of roles of one side, in words."""
    if before.strip():
        return f"{side} has text before its first marker: {before.strip()[:40]!r}"
    if not messages:
        return f"{side} has no turn marker"
    for number, turn in enumerate(messages, start=1):
        due = ("user", "assistant")[(number - 1) % 2]
        if turn["role"] != due:
            return f"turn {number} of {len(messages)} of {side} is the {turn['role']}'s where the {due}'s is due"
    return None if len(messages) % 2 == 0 else f"{side} ends with the user's turn"


def faults(parsed: dict[str, tuple[str, tuple[Message, ...]]]) -> list[tuple[str, str]]:
    """All (reason, detail) of a pair's two sides, the one it is counted under first."""
    found = []
    (_, left), (_, right) = parsed.values()
    if left[:-1] != right[:-1]:
        detail = f"{len(left)} turns in chosen, {len(right)} in rejected, not equal before the last"
        found.append(("prompts_differ", detail))
    for side, (before, messages) in parsed.items():
        if fault := role_fault(side, before, messages):
            found.append(("roles_do_not_alternate", fault))
    for side, (_, messages) in parsed.items():
        if messages and not messages[-1]["content"]:
            found.append(("empty_answer", f"the last turn of {side} is empty"))
    for side, (_, messages) in parsed.items():
        if any(not turn["content"] for turn in messages[:-1]):
            found.append(("empty_turn", f"a turn of {side} before the last is empty"))
    if not found and left == right:
        found.append(("answers_identical", "chosen and rejected are the same text"))
    return found


def parse_pair(values: dict[str, Any], origin: str, split: str | None = None) -> Pair:
    """The pair of one parsed line.

    Raises:
        RowFault: it cannot be used; reasons in the module's docstring.
    """
    for side in ("chosen", "rejected"):
        if values.get(side) is None:
            raise RowFault("missing_field", f"no {side!r}; found {', '.join(map(repr, values)) or 'nothing'}")
        check_text(values[side], side)
    parsed = {side: turns(values[side]) for side in ("chosen", "rejected")}
    if found := faults(parsed):
        others = [f"also {reason}: {detail}" for reason, detail in found[1:]]
        raise RowFault(found[0][0], "; ".join([found[0][1], *others]))
    (_, chosen), (_, rejected) = parsed.values()
    prompt = chosen[:-1]
    return Pair(prompt, chosen[-1:], rejected[-1:], origin, group=root(prompt), split=split)


def parse(record: Record, split: str | None) -> Pair | Reject:
    """One line as a pair, or as what is wrong with it (two rows)."""
    if record.values is None:
        return Reject(record.origin, record.reason, record.detail, 2, record.raw)
    try:
        return parse_pair(record.values, record.origin, split)
    except RowFault as fault:
        return Reject(record.origin, fault.reason, fault.detail, 2, record.raw)


def kind(path: Path) -> str:
    """`train` of train.jsonl.gz."""
    return path.name.split(".")[0]


def raw_files(place: Path, subsets: Iterable[str] = ()) -> list[RawFile]:
    """The raw files of a file or folder, in a fixed order; `test` beside `train` is the held-out split.

    Raises:
        BadInput: nothing there, or a subset that is not there.
    """
    wanted = tuple(subsets)
    if not place.exists():
        raise BadInput(f"{place} does not exist.", "Give --from a file of hh-rlhf, or a folder of them.")
    if place.is_file():
        if wanted:
            raise BadInput(f"--subset needs a folder, and {place} is one file.", "Leave --subset out.")
        return [RawFile(place, place.name, "", None)]
    paths = [path for path in sorted(place.rglob("*.jsonl*")) if path.is_file() and is_raw(path.relative_to(place))]
    kinds = {(path.parent, kind(path)) for path in paths}
    files = []
    for path in paths:
        below = path.relative_to(place)
        official = kind(path) == "test" and (path.parent, "train") in kinds
        subset = below.parent.as_posix() if below.parent != Path() else place.resolve().name
        files.append(RawFile(path, below.as_posix(), subset, HELD_OUT if official else None))
    return choose(files, wanted, place)


def is_raw(below: Path) -> bool:
    """Whether a path below the folder is a raw file: by its suffix, and in no hidden folder."""
    hidden = any(part.startswith(".") for part in below.parts)
    return below.name.endswith((".jsonl", ".jsonl.gz")) and not hidden


def choose(files: list[RawFile], wanted: tuple[str, ...], place: Path) -> list[RawFile]:
    """The files of the wanted subsets, or of all that hold pairs.

    Raises:
        BadInput: no files, or a subset that is not there.
    """
    usable = [file for file in files if file.path.parent.name != UNUSED_SUBSET]
    if not usable:
        raise BadInput(f"{place} holds no .jsonl or .jsonl.gz file of pairs.", "Give --from a copy of hh-rlhf.")
    there = {file.subset for file in usable}
    if missing := [name for name in wanted if name not in there]:
        raise BadInput(f"{place} has no subset {', '.join(missing)}.", f"It has: {', '.join(sorted(there))}.")
    return [file for file in usable if not wanted or file.subset in wanted]


def skips_unused(place: Path) -> bool:
    """Whether the folder has the subset without pairs, so that a note can say it was left out."""
    return place.is_dir() and any(place.rglob(UNUSED_SUBSET))


def read(files: Iterable[RawFile]) -> Iterator[Pair | Reject]:
    """Every line of the files, in order.

    Raises:
        BadInput: a file that cannot be read or holds no JSON object at all.
    """
    for file in files:
        for record in json_line_records(file.path, file.name):
            yield parse(record, file.split)
