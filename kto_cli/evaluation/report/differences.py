"""Words that two texts do not share."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

MOST_WORDS = 3000
"""Longer texts are not marked: comparing takes quadratic time."""
LEAST_SHARED = 2
"""Fewer words shared between two changes are chance and count as changed."""


class Piece(NamedTuple):
    """A piece of a text."""

    text: str
    differs: bool
    """Whether the other text differs here."""


def word_differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts as pieces that join to the texts. Space between words never differs."""
    left, right = _words(before), _words(after)
    if max(len(left), len(right)) > MOST_WORDS:
        return [Piece(before, False)], [Piece(after, False)]
    matcher = SequenceMatcher(None, [word.strip() for word in left], [word.strip() for word in right], autojunk=False)
    lefts: list[Piece] = []
    rights: list[Piece] = []
    steps = matcher.get_opcodes()
    for index, (kind, start, end, other_start, other_end) in enumerate(steps):
        by_chance = 0 < index < len(steps) - 1 and end - start < LEAST_SHARED
        for pieces, words in ((lefts, left[start:end]), (rights, right[other_start:other_end])):
            if words:
                pieces.append(Piece("".join(words), kind != "equal" or by_chance))
    return _joined(lefts), _joined(rights)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Joins neighbouring pieces of one kind; trailing space is split off, so that it is not marked."""
    found: list[Piece] = []
    for differs, group in groupby(pieces, key=lambda piece: piece.differs):
        text = "".join(piece.text for piece in group)
        words = text.rstrip() if differs else text
        found += [Piece(words, differs)] if words else []
        found += [Piece(text[len(words) :], False)] if words != text else []
    return found


def _words(text: str) -> list[str]:
    """Words, each with the space after it; space before the first is a word."""
    return re.findall(r"^\s+|\S+\s*", text)
