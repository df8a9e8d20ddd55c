"""Rules such as `resolved == true and stars >= 4`, which say what a column means; a small language that runs nothing.

    rule        and, or, not and parentheses around comparisons; `not` binds closest, then `and`, then `or`
    comparison  COLUMN == VALUE     COLUMN != VALUE     text, number, true or false
                COLUMN < NUMBER     <= > >=             numbers alone; dates are texts and have == and != alone
                COLUMN in (VALUE, ...)                  COLUMN not in (VALUE, ...)
                COLUMN contains TEXT                    COLUMN not contains TEXT
                COLUMN is null                          COLUMN is not null
    COLUMN      a name of letters, digits, _ and dots, any other in backticks: `was it good?`; two backticks within
                backticks stand for one. `feedback.thumbs` is the column of that very name or, where there is none, the
                field thumbs of the column feedback
    TEXT        in ' or "; the quote itself, within, is written twice. A backslash is a backslash
    NUMBER      4, -0.5, 1e-3
    words of the language are read in any case

What a comparison says of a row is in rule_eval.py: true, false, unknown (the cell is empty) or not applicable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.data.log.rule_ast import Contains, Every, IsNull, Member, Node, Not, Order, Some, Value, columns_of
from kto_cli.data.log.rule_eval import Truth, compiled
from kto_cli.data.log.rule_lexer import RuleFault, Word, read_number, words_of

MAX_DEPTH = 100
"""Of parentheses and `not`, one in the other."""
WINDOW = 70
"""Characters of a long rule that are shown around a fault."""

AFTER = {
    ")": "a parenthesis is closed that was not opened",
    ",": "a comma stands within the parentheses of in alone; decimals have a point",
}
"""What is wrong with a sign after the last whole comparison."""


@dataclass(frozen=True)
class Rule:
    """A rule, ready to be asked about rows."""

    text: str
    columns: tuple[str, ...]
    """Its columns, in the order of the rule."""
    says: Callable[[Mapping[str, Any]], Truth]
    """What it says of a row's values; it never raises."""


@lru_cache(maxsize=64)
def compile_rule(text: str, flag: str) -> Rule:
    """The rule that `flag` was given.

    Raises:
        BadInput: it cannot be read; the message points at the place.
    """
    try:
        tree = parse_rule(text)
    except RuleFault as fault:
        raise BadInput(pointed(text, flag, fault)) from None
    return Rule(text, columns_of(tree), compiled(tree))


def pointed(text: str, flag: str, fault: RuleFault) -> str:
    """Three lines: what is wrong, the rule, and a caret below the place."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    first = max(0, min(fault.start - WINDOW // 2, len(clean) - WINDOW))
    shown = clean[first : first + WINDOW]
    before, after = "..." * (first > 0), "..." * (first + WINDOW < len(clean))
    caret = " " * (len(before) + fault.start - first) + "^"
    return f"{flag}, character {fault.start + 1}: {fault.what}.\n    {before}{shown}{after}\n    {caret}"


def parse_rule(text: str) -> Node:
    """The tree of a rule.

    Raises:
        RuleFault: it is not a rule.
    """
    parser = Parser(words_of(text))
    tree = parser.some(0)
    if parser.word.kind != "end":
        raise RuleFault(parser.word.start, AFTER.get(parser.word.value, "expected and, or, or the end of the rule"))
    return tree


class Parser:
    """Recursive descent over the words of one rule; each method takes the words of its part."""

    def __init__(self, words: list[Word]) -> None:
        self.words = words
        self.place = 0

    @property
    def word(self) -> Word:
        """The word that is next."""
        return self.words[self.place]

    def take(self, *values: str) -> Word | None:
        """The next word, if it is one of these signs or reserved words; then the one after it is next."""
        word = self.word
        if word.kind not in ("sign", "reserved") or word.value not in values:
            return None
        self.place += 1
        return word

    def need(self, sign: str, what: str) -> None:
        """Takes a sign that must be next."""
        if not self.take(sign):
            raise RuleFault(self.word.start, what)

    def some(self, depth: int) -> Node:
        """Parts joined by `or`."""
        parts = [self.every(depth)]
        while self.take("or"):
            parts.append(self.every(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def every(self, depth: int) -> Node:
        """Parts joined by `and`."""
        parts = [self.one(depth)]
        while self.take("and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def one(self, depth: int) -> Node:
        """`not` and its part, a part in parentheses, or a comparison."""
        if depth > MAX_DEPTH:
            raise RuleFault(self.word.start, f"more than {MAX_DEPTH} parentheses or nots within one another")
        if self.take("not"):
            return Not(self.one(depth + 1))
        start = self.word.start
        if self.take("("):
            part = self.some(depth + 1)
            if not self.take(")"):
                what = "this parenthesis is never closed" if self.word.kind == "end" else "expected and, or, or )"
                raise RuleFault(start if self.word.kind == "end" else self.word.start, what)
            return part
        return self.comparison()

    def column(self) -> str:
        """The column that a comparison starts with."""
        word = self.word
        if word.kind == "name" and word.value:
            self.place += 1
            return word.value
        what = "expected a column"
        if word.kind == "reserved":
            what += f"; one that is called {word.shown} goes in backticks"
        elif word.kind in ("number", "text"):
            what += "; a comparison starts with it, and its name is written without quotes or in backticks"
        elif word.kind == "sign" and word.value != ")":
            # within double quotes a shell takes backticks, and what is between them, away
            what += "; on the command line, a rule with backticks goes in single quotes"
        raise RuleFault(word.start, what)

    def comparison(self) -> Node:
        """A column, what is asked of it, and the value."""
        column = self.column()
        if word := self.take("==", "!="):
            member = Member(column, (self.value(),))
            return Not(member) if word.value == "!=" else member
        if word := self.take("<", "<=", ">", ">="):
            return Order(column, word.value, self.number())
        if self.take("is"):
            inverted = self.take("not") is not None
            self.need("null", "expected null or not null; true and false are compared with ==")
            return Not(IsNull(column)) if inverted else IsNull(column)
        inverted = self.take("not") is not None
        if word := self.take("in", "contains"):
            node: Node = Contains(column, self.text()) if word.value == "contains" else Member(column, self.values())
            return Not(node) if inverted else node
        what = "expected in or contains" if inverted else "expected a comparison after the column, such as == true"
        raise RuleFault(self.word.start, what)

    def value(self) -> Value:
        """A text, a number, true or false."""
        word = self.word
        if word.kind == "text":
            return self.text()
        if word.kind == "number":
            return self.number()
        if found := self.take("true", "false"):
            return found.value == "true"
        what = "expected a value: a text in quotes, a number, true or false"
        if word.value == "null":
            what = "nothing equals null; write `is null` or `is not null`"
        elif word.kind == "name":
            what = f"expected a value; a text goes in quotes: '{word.value}'"
        raise RuleFault(word.start, what)

    def values(self) -> tuple[Value, ...]:
        """Values in parentheses."""
        self.need("(", "expected ( and the values, as in (1, 2) or ('a', 'b')")
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        self.need(")", "expected , or ) after a value of the list")
        return tuple(found)

    def number(self) -> int | float:
        """A number."""
        word = self.word
        if word.kind != "number":
            raise RuleFault(
                word.start, "expected a number; <, <=, > and >= compare numbers, texts have == and != alone"
            )
        value = read_number(word.value)
        if value is None:
            raise RuleFault(word.start, "this number is too large")
        self.place += 1
        return value

    def text(self) -> str:
        """A text that is not blank: an empty cell is missing, so nothing could equal it."""
        word = self.word
        if word.kind != "text":
            raise RuleFault(word.start, "expected a text in quotes")
        if not word.value.strip():
            raise RuleFault(word.start, "an empty cell counts as missing; write `is null` or `is not null`")
        self.place += 1
        return word.value
