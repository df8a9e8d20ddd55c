"""Which rows are held out: whole families, so that no prompt and no conversation root is on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from kto_cli.files import text_hash
from kto_cli.sources.records import HELD_OUT, Item, Output, Text

ENCODER = json.JSONEncoder(separators=(",", ":"))
FEWEST_TO_SPLIT = 4
FEWEST_ON_A_SIDE = 2
"""Families on each side: the reference point needs a prompt and the answer to another."""


@dataclass(frozen=True)
class Split:
    """The items of each side in input order, and those that may be on neither."""

    train: list[Item]
    held_out: list[Item]
    left_out: list[tuple[Item, str, str]] = field(default_factory=list)
    """(item, reason, detail)"""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def canonical(text: Text) -> str:
    """One spelling for a text or a chat; no text is spelled as a chat is."""
    return ENCODER.encode(text if isinstance(text, str) else [[turn["role"], turn["content"]] for turn in text])


def families(items: Sequence[Item]) -> list[str]:
    """Each item's family, named by its smallest group: items that share a group or a prompt share it."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    links = [("group " + item.group, "prompt " + canonical(item.prompt)) for item in items]
    for group, prompt in links:
        # the smaller name leads, and "group" sorts before "prompt": the name depends on no order
        low, high = sorted((find(group), find(prompt)))
        parent[high] = low
    return [find(group) for group, _ in links]


def number_held_out(share: float, count: int) -> int:
    """How many of `count` families are held out: the share, but enough on each side to work with."""
    if share == 0 or count < FEWEST_TO_SPLIT:
        return 0
    return min(max(round(share * count), FEWEST_ON_A_SIDE), count - FEWEST_ON_A_SIDE)


def classes(items: Sequence[Item]) -> set[bool]:
    """The labels among the items."""
    return {label for item in items for label in ((item.label,) if isinstance(item, Output) else (True, False))}


def seeded_split(items: Sequence[Item], share: float, seed: int) -> Split:
    """Holds out the first families in the order of a seeded hash of their names.

    A family's place depends on nothing but its name and the seed, so more data moves few families.
    """
    names = families(items)
    ranked = sorted(set(names), key=lambda name: (text_hash(str(seed), name), name))
    chosen = set(ranked[: number_held_out(share, len(ranked))])
    train = [item for item, name in zip(items, names, strict=True) if name not in chosen]
    held_out = [item for item, name in zip(items, names, strict=True) if name in chosen]
    if share and not chosen:
        why = f"Nothing is held out: {len(ranked)} prompts are too few ({FEWEST_TO_SPLIT} needed)."
        return Split(train, [], warnings=[why + " kto eval will need other rows."])
    if classes(train) != classes(items):
        why = "Nothing is held out: all rows of one class would be among the held-out ones."
        return Split(list(items), [], warnings=[why + " kto eval will need other rows."])
    warnings = [] if not chosen or len(classes(held_out)) == 2 else ["The held-out rows are all of one class: no AUC."]
    notes = [f"Held out: {len(chosen):,} of {len(ranked):,} prompts or conversations, seed {seed}."] if chosen else []
    return Split(train, held_out, notes=notes, warnings=warnings)


def official_split(items: Sequence[Item]) -> Split:
    """The source's own test split; train items that share a prompt or a conversation with it are left out."""
    held_out = [item for item in items if item.split == HELD_OUT]
    prompts = {canonical(item.prompt) for item in held_out}
    groups = {item.group for item in held_out}
    train, left_out = [], []
    for item in items:
        if item.split == HELD_OUT:
            continue
        if canonical(item.prompt) in prompts:
            left_out.append((item, "prompt_held_out", "the official test split has the same prompt"))
        elif item.group in groups:
            left_out.append((item, "conversation_held_out", "the official test split has the same first turn"))
        else:
            train.append(item)
    notes = ["The source's own test split is held out; --holdout is not used."]
    if left_out:
        rows = sum(item.rows for item, _, _ in left_out)
        notes.append(f"{rows:,} train rows left out: they share a prompt or a conversation with the test split.")
    return Split(train, held_out, left_out, notes)


def split_items(items: Sequence[Item], share: float, seed: int) -> Split:
    """The source's own split where it has one, a seeded one otherwise."""
    if any(item.split == HELD_OUT for item in items):
        return official_split(items)
    return seeded_split(items, share, seed)
