"""Tokens of a rule: names, texts, numbers and operators, each with its position for error messages."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from kto_cli.data.formats.labels import MINUS

MAX_LENGTH = 10_000
"""Characters of a rule."""
RESERVED = frozenset(("and", "or", "not", "in", "is", "contains", "null", "true", "false"))
"""Keywords, in any case; a column of such a name goes in backticks."""

NUMBER = re.compile(r"[+\-\u2212]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
NAME = re.compile(r"""[^\W\d]\w*(\.\w+|\[-?[0-9]+\]|\[\w+==?(?:"[^"]*"|'[^']*')\])*""")
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
"""Operators of other languages, longest first, with the advice for them."""
ITEM_SYNTAX = 'write an item of a list as votes[0] or scores[name="thumbs"], with the text in quotes'
CURLY = "“”„‟‘’‚‛«»´"
"""Quotes of word processors."""
LONGEST_NUMBER = 400
"""Characters; Python refuses integers of more than a few thousand digits."""


@dataclass(frozen=True)
class Token:
    """Token of a rule."""

    kind: str
    """name, text, number, reserved, sign or end"""
    value: str
    """Content: a text without its quotes, a keyword in lower case."""
    start: int
    """Position in the rule."""
    shown: str
    """As written."""


class RuleFault(Exception):
    """A rule cannot be parsed; becomes a BadInput that shows the position."""

    def __init__(self, start: int, what: str) -> None:
        super().__init__(what)
        self.start = start
        self.what = what


def read_number(text: str) -> int | float | None:
    """Number of a text: digits, a point, an exponent, also with a minus of typography; white space around is ignored.

    Integers stay integers, so that two long ids that differ in the last digit are not equal. None for anything else,
    such as `nan`, `inf`, `1,5` and `1_000`.
    """
    text = text.strip()
    if len(text) > LONGEST_NUMBER or (found := NUMBER.fullmatch(text)) is None:
        return None
    text = text.replace(MINUS, "-")
    if found.group(3) is None and "." not in text:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None


def tokens_of(rule: str) -> list[Token]:
    """Tokens of a rule; the last one is its end.

    Raises:
        RuleFault: an unknown operator, or a quote that is never closed.
    """
    if len(rule) > MAX_LENGTH:
        raise RuleFault(MAX_LENGTH, f"a rule has at most {MAX_LENGTH:,} characters, this one {len(rule):,}")
    tokens = []
    position = 0
    while position < len(rule):
        if rule[position].isspace():
            position += 1
            continue
        token = next_token(rule, position)
        tokens.append(token)
        position += len(token.shown)
    return [*tokens, Token("end", "", len(rule.rstrip()), "")]


def next_token(rule: str, position: int) -> Token:
    """Token that starts at `position`.

    Raises:
        RuleFault: there is none.
    """
    if found := QUOTED.match(rule, position):
        shown, quote = found.group(), found.group()[0]
        kind = "name" if quote == "`" else "text"
        return Token(kind, shown[1:-1].replace(quote * 2, quote), position, shown)
    if found := NUMBER.match(rule, position):
        refuse_joined(rule, found.end(), position)
        return Token("number", found.group(), position, found.group())
    if found := NAME.match(rule, position):
        shown = found.group()
        word = shown.lower()
        return Token("reserved", word, position, shown) if word in RESERVED else Token("name", shown, position, shown)
    slip = next((slip for slip in SLIPS if rule.startswith(slip, position)), None)
    found = SIGN.match(rule, position)
    if found and (slip is None or len(found.group()) >= len(slip)):
        return Token("sign", found.group(), position, found.group())
    if slip:
        raise RuleFault(position, SLIPS[slip])
    if rule[position] in "'\"`":
        raise RuleFault(position, f"the quote {rule[position]} is never closed")
    if rule[position] == "[":
        raise RuleFault(position, ITEM_SYNTAX)
    if rule[position] in CURLY:
        raise RuleFault(position, "write straight quotes, ' or \", for a text")
    raise RuleFault(position, "expected a column, a value, a comparison, and, or, not or a parenthesis")


def refuse_joined(rule: str, end: int, start: int) -> None:
    """Rejects a number with letters at its end.

    Raises:
        RuleFault: `2nd`, `1.2.3`.
    """
    if end < len(rule) and (rule[end].isalnum() or rule[end] in "_."):
        what = "not a number; a text goes in quotes, a column whose name starts with a digit in backticks"
        raise RuleFault(start, what)
