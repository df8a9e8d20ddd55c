"""Which words two texts do not share."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import groupby
from typing import NamedTuple

MOST_WORDS = 3000
"""Longer texts are shown without marks: comparing takes the square of their length."""


LEAST_SHARED = 2
"""A single word that two changed stretches have between them is chance; it counts as changed."""


class Piece(NamedTuple):
    """A stretch of a text."""

    text: str
    differs: bool
    """The other text has something else, or nothing, at this place."""


def word_differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces; joined, they are the texts again. Space between words never differs."""
    left, right = _words(before), _words(after)
    if max(len(left), len(right)) > MOST_WORDS:
        return [Piece(before, False)], [Piece(after, False)]
    matcher = SequenceMatcher(None, [word.strip() for word in left], [word.strip() for word in right], autojunk=False)
    lefts: list[Piece] = []
    rights: list[Piece] = []
    steps = matcher.get_opcodes()
    for place, (kind, start, end, other_start, other_end) in enumerate(steps):
        by_chance = 0 < place < len(steps) - 1 and end - start < LEAST_SHARED
        for pieces, words in ((lefts, left[start:end]), (rights, right[other_start:other_end])):
            if words:
                pieces.append(Piece("".join(words), kind != "equal" or by_chance))
    return _joined(lefts), _joined(rights)


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbours that both differ as one; the space after them apart, so that no mark runs into it."""
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
