"""`kto binarize --list`: the sources of feedback that have a name."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from kto_cli.common.screen import Screen
from kto_cli.data.formats.source import Source
from kto_cli.data.registry import all_sources

WIDEST = 100
"""Characters of a line: what is wider is hard to read."""
INDENT = " " * 16


def run(screen: Screen) -> dict[str, Any]:
    """Shows what each source is, where it comes from and what flags it has; returns the same for --json."""
    sources = [described(source) for source in all_sources()]
    width = min(WIDEST, shutil.get_terminal_size().columns)
    for one in sources:
        for line in lines(one, width):
            screen.say(line)
    screen.say("")
    for text in (
        "From the Hub: kto binarize NAME. From raw files here: kto binarize NAME:PATH.",
        "Several are mixed. With --json each has lines of a raw file to copy.",
    ):
        screen.say(text)
    return {"sources": sources}


def described(source: Source) -> dict[str, Any]:
    """What people may want to know of a source."""
    return {
        "name": source.name,
        "about": source.about,
        "gives": source.gives,
        "hub_ids": list(source.hub_ids),
        "licence": source.licence,
        "options": list(source.options),
        "example": list(source.example),
    }


def lines(one: dict[str, Any], width: int) -> list[str]:
    """A source as lines: its name and what it is, then what it gives, from where, with what flags."""
    about = one["about"].rstrip(".")
    texts = [about[:1].upper() + about[1:] + ".", f"Gives {one['gives']}.", where(one)]
    if one["options"]:
        texts.append("Options: " + ", ".join(one["options"]))
    found = []
    for text in texts:
        found += textwrap.wrap(text, max(width - len(INDENT), 40), break_on_hyphens=False, break_long_words=False)
    return ["", one["name"].ljust(len(INDENT)) + found[0], *(INDENT + line for line in found[1:])]


def where(one: dict[str, Any]) -> str:
    """Hub ids and licence in a sentence."""
    place = "Hub: " + ", ".join(one["hub_ids"]) if one["hub_ids"] else "Your own file"
    return f"{place} ({one['licence']})." if one["hub_ids"] and one["licence"] else f"{place}."
