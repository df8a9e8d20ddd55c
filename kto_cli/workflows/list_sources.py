"""`kto binarize --list`: the named sources of feedback."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from kto_cli.common.screen import Screen
from kto_cli.data.formats.source import Source
from kto_cli.data.registry import all_sources

WIDEST = 100
"""Maximum characters per line; longer lines are hard to read."""
INDENT = " " * 19


def run(screen: Screen) -> dict[str, Any]:
    """Shows every source with its origin and flags; returns the same for --json."""
    sources = [described(source) for source in all_sources()]
    width = min(WIDEST, shutil.get_terminal_size().columns)
    for one in sources:
        for line in lines(one, width):
            screen.say(line)
    screen.say("")
    for text in (
        "From the Hub: kto binarize NAME. From local files: kto binarize NAME:PATH.",
        "Several sources are mixed. --list --json has an example of each raw file.",
    ):
        screen.say(text)
    return {"sources": sources}


def described(source: Source) -> dict[str, Any]:
    """Description of a source, for --json."""
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
    """Lines about a source: its name and content, the kind of feedback, its origin and its flags."""
    about = one["about"].rstrip(".")
    texts = [about[:1].upper() + about[1:] + ".", f"Feedback: {one['gives']}.", origin(one)]
    if one["options"]:
        texts.append("Options: " + ", ".join(one["options"]))
    found = []
    for text in texts:
        found += textwrap.wrap(text, max(width - len(INDENT), 40), break_on_hyphens=False, break_long_words=False)
    return ["", one["name"].ljust(len(INDENT)) + found[0], *(INDENT + line for line in found[1:])]


def origin(one: dict[str, Any]) -> str:
    """Sentence with the Hub ids and licence of a source."""
    if not one["hub_ids"]:
        return "Your own file."
    licence = f" ({one['licence']})" if one["licence"] else ""
    return f"Hub: {', '.join(one['hub_ids'])}{licence}."
