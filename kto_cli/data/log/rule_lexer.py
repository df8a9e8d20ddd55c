"""The words of a rule: names, texts, numbers and signs, each with its place, so that a fault can be pointed at."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MAX_LENGTH = 10_000
"""Characters of a rule."""
RESERVED = frozenset(("and", "or", "not", "in", "is", "contains", "null", "true", "false"))
"""Words with a meaning, in any case; a column of such a name goes in backticks."""

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NAME = re.compile(r"[^\W\d]\w*(\.\w+)*")
QUOTED = re.compile(r"""'((?:[^']|'')*)'|"((?:[^"]|"")*)"|`((?:[^`]|``)*)`""")
SIGN = re.compile(r"==|!=|<=|>=|<|>|\(|\)|,")
SLIPS = {
    "===": "write ==",
    "!==": "write !=",
    "<>": "write != for `is not`",
    "=<": "write <= for `at most`",
    "=>": "write >= for `at least`",
    "=~": "write contains for a text within a text",
    "=": "write == to compare",
    "&&": "write and",
    "&": "write and",
    "||": "write or",
    "|": "write or",
    "!": "write not, or != to compare",
    "~": "write contains for a text within a text",
    "-": "a column whose name has other characters than letters, digits, _ and . goes in backticks",
    ";": "join two conditions with and or or",
}
"""What other languages write, longest first, and what a rule has instead."""
CURLY = "“”„‟‘’‚‛«»´"
"""Quotes that a word processor makes of straight ones."""
LONGEST_NUMBER = 400
"""Digits; Python itself refuses to read an integer of more than some thousands."""


@dataclass(frozen=True)
class Word:
    """One word of a rule."""

    kind: str
    """name, text, number, reserved, sign or end"""
    value: str
    """What it means: a text without its quotes, a reserved word in lower case."""
    start: int
    """Characters before it."""
    shown: str
    """As it was written."""


class RuleFault(Exception):
    """A rule cannot be read; becomes a BadInput that shows where."""

    def __init__(self, start: int, what: str) -> None:
        super().__init__(what)
        self.start = start
        self.what = what


def read_number(text: str) -> int | float | None:
    """The number that a text is, white space around it aside: digits, a point, an exponent, nothing else.

    Whole numbers stay whole, so that two long ids that differ in the last digit are not equal. None for all else,
    `nan`, `inf`, `1,5` and `1_000` among it.
    """
    text = text.strip()
    if len(text) > LONGEST_NUMBER or (found := NUMBER.fullmatch(text)) is None:
        return None
    if found.group(3) is None and "." not in text:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None


def words_of(rule: str) -> list[Word]:
    """All words of a rule, the last of them its end.

    Raises:
        RuleFault: a sign that rules do not have, or a quote that is never closed.
    """
    if len(rule) > MAX_LENGTH:
        raise RuleFault(MAX_LENGTH, f"a rule has at most {MAX_LENGTH:,} characters, this one {len(rule):,}")
    words = []
    place = 0
    while place < len(rule):
        if rule[place].isspace():
            place += 1
            continue
        word = next_word(rule, place)
        words.append(word)
        place += len(word.shown)
    return [*words, Word("end", "", len(rule.rstrip()), "")]


def next_word(rule: str, place: int) -> Word:
    """The word that starts at `place`.

    Raises:
        RuleFault: none does.
    """
    if found := QUOTED.match(rule, place):
        shown, quote = found.group(), found.group()[0]
        kind = "name" if quote == "`" else "text"
        return Word(kind, shown[1:-1].replace(quote * 2, quote), place, shown)
    if found := NUMBER.match(rule, place):
        refuse_joined(rule, found.end(), place)
        return Word("number", found.group(), place, found.group())
    if found := NAME.match(rule, place):
        shown = found.group()
        word = shown.lower()
        return Word("reserved", word, place, shown) if word in RESERVED else Word("name", shown, place, shown)
    slip = next((slip for slip in SLIPS if rule.startswith(slip, place)), None)
    found = SIGN.match(rule, place)
    if found and (slip is None or len(found.group()) >= len(slip)):
        return Word("sign", found.group(), place, found.group())
    if slip:
        raise RuleFault(place, SLIPS[slip])
    if rule[place] in "'\"`":
        raise RuleFault(place, f"the quote {rule[place]} is never closed")
    if rule[place] in CURLY:
        raise RuleFault(place, "write straight quotes, ' or \", for a text")
    raise RuleFault(place, "expected a column, a value, a comparison, and, or, not or a parenthesis")


def refuse_joined(rule: str, end: int, start: int) -> None:
    """Refuses a number with letters at its end.

    Raises:
        RuleFault: `2nd`, `1.2.3`.
    """
    if end < len(rule) and (rule[end].isalnum() or rule[end] in "_."):
        what = "not a number; a text goes in quotes, a column whose name starts with a digit in backticks"
        raise RuleFault(start, what)
