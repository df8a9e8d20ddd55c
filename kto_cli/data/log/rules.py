"""Parser of rules such as `resolved == true and stars >= 4`. A rule only compares cells; it runs no code.

    rule        and, or, not and parentheses around comparisons; `not` binds closest, then `and`, then `or`
    comparison  COLUMN == VALUE     COLUMN != VALUE     text, number, true or false
                COLUMN < NUMBER     <= > >=             numbers only; dates are texts, with == and != only
                COLUMN in (VALUE, ...)                  COLUMN not in (VALUE, ...)
                COLUMN contains TEXT                    COLUMN not contains TEXT
                COLUMN is null                          COLUMN is not null
    COLUMN      a name of letters, digits, _ and dots; other names in backticks: `was it good?` (a backtick is doubled).
                `feedback.thumbs` is the column of that name, otherwise the field thumbs of the column feedback;
                `votes[0]` is the first item of a list
    TEXT        in ' or " (the quote itself is doubled; a backslash is a backslash)
    NUMBER      4, -0.5, 1e-3

Keywords are read in any case. rule_eval.py has the value of a comparison: true, false, unknown or not applicable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.words import UNSAFE
from kto_cli.data.log.rule_ast import (
    Contains,
    Every,
    IsNull,
    Member,
    Node,
    Not,
    Order,
    Some,
    Value,
    columns_of,
)
from kto_cli.data.log.rule_eval import Truth, by_column, compiled
from kto_cli.data.log.rule_lexer import RuleFault, Token, read_number, tokens_of

MAX_DEPTH = 100
"""Levels of parentheses and `not`."""
WINDOW = 70
"""Characters shown of a long rule around a fault."""

AFTER = {
    ")": "a parenthesis is closed that was not opened",
    ",": "a comma stands within the parentheses of in alone; decimals have a point",
}
"""Fault of an operator after the last complete comparison."""


@dataclass(frozen=True)
class Rule:
    """A compiled rule."""

    text: str
    columns: tuple[str, ...]
    """Its columns, in order of occurrence."""
    texts: Mapping[str, frozenset[str]]
    """Texts that it compares a column with, by column."""
    prose: frozenset[str]
    """Columns of which it asks only for a part (contains) or for anything (is null)."""
    value: Callable[[Mapping[str, Any]], Truth]
    """Value for a row; never raises."""


@lru_cache(maxsize=64)
def compile_rule(text: str, option: str, other: str = "") -> Rule:
    """Rule given with `option`; `other` is the other rule: a text that it names is that text and no variant of one, and
    a cell of a type that it compares the column with is not of a wrong type.

    Raises:
        BadInput: it cannot be parsed; the message points at the position.
    """
    try:
        tree = parse_rule(text)
    except RuleFault as fault:
        raise BadInput(pointed(text, option, fault)) from None
    try:
        trees = [tree, parse_rule(other)] if other else [tree]
    except RuleFault:
        trees = [tree]  # the other option reports its own fault
    columns = columns_of(tree)
    prose = frozenset(columns) - frozenset(columns_of(tree, (Member, Order)))
    texts = {column: compared.texts for column, compared in by_column([tree]).items()}
    return Rule(text, columns, texts, prose, compiled(tree, by_column(trees)))


def pointed(text: str, option: str, fault: RuleFault) -> str:
    """Message of three lines: the fault, the rule, and a caret below the position."""
    clean = UNSAFE.sub(" ", text)
    first = max(0, min(fault.start - WINDOW // 2, len(clean) - WINDOW))
    shown = clean[first : first + WINDOW]
    before, after = "..." * (first > 0), "..." * (first + WINDOW < len(clean))
    caret = " " * (len(before) + fault.start - first) + "^"
    return f"{option}, character {fault.start + 1}: {fault.what}.\n    {before}{shown}{after}\n    {caret}"


def parse_rule(text: str) -> Node:
    """Syntax tree of a rule.

    Raises:
        RuleFault: not a rule.
    """
    parser = Parser(tokens_of(text))
    tree = parser.some(0)
    if parser.token.kind != "end":
        raise RuleFault(parser.token.start, AFTER.get(parser.token.value, "expected and, or, or the end of the rule"))
    return tree


class Parser:
    """Recursive descent over the tokens of one rule; each method consumes the tokens of its part."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0

    @property
    def token(self) -> Token:
        """Next token."""
        return self.tokens[self.position]

    def take(self, *values: str) -> Token | None:
        """Next token, consumed, if it is one of these operators or keywords."""
        token = self.token
        if token.kind not in ("sign", "reserved") or token.value not in values:
            return None
        self.position += 1
        return token

    def need(self, sign: str, what: str) -> None:
        """Consumes a required operator."""
        if not self.take(sign):
            raise RuleFault(self.token.start, what)

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
        """`not` with its part, a part in parentheses, or a comparison."""
        if depth > MAX_DEPTH:
            raise RuleFault(self.token.start, f"more than {MAX_DEPTH} parentheses or nots within one another")
        if self.take("not"):
            return Not(self.one(depth + 1))
        start = self.token.start
        if self.take("("):
            part = self.some(depth + 1)
            if not self.take(")"):
                what = "this parenthesis is never closed" if self.token.kind == "end" else "expected and, or, or )"
                raise RuleFault(start if self.token.kind == "end" else self.token.start, what)
            return part
        return self.comparison()

    def column(self) -> str:
        """Column at the start of a comparison."""
        token = self.token
        if token.kind == "name" and token.value:
            self.position += 1
            return token.value
        what = "expected a column"
        if token.kind == "reserved":
            what += f"; one that is called {token.shown} goes in backticks"
        elif token.kind in ("number", "text"):
            what += "; a comparison starts with it, and its name is written without quotes or in backticks"
        elif token.kind == "sign" and token.value != ")":
            # within double quotes a shell replaces backticks and the text between them
            what += "; on the command line, a rule with backticks goes in single quotes"
        raise RuleFault(token.start, what)

    def comparison(self) -> Node:
        """Column, operator and value."""
        column = self.column()
        if token := self.take("==", "!="):
            member = Member(column, (self.value(),))
            return Not(member) if token.value == "!=" else member
        if token := self.take("<", "<=", ">", ">="):
            return Order(column, token.value, self.number())
        if self.take("is"):
            inverted = self.take("not") is not None
            self.need("null", "expected null or not null; true and false are compared with ==")
            return Not(IsNull(column)) if inverted else IsNull(column)
        inverted = self.take("not") is not None
        if token := self.take("in", "contains"):
            node: Node = Contains(column, self.text()) if token.value == "contains" else Member(column, self.values())
            return Not(node) if inverted else node
        what = "expected in or contains" if inverted else "expected a comparison after the column, such as == true"
        raise RuleFault(self.token.start, what)

    def value(self) -> Value:
        """Text, number, true or false."""
        token = self.token
        if token.kind == "text":
            return self.text()
        if token.kind == "number":
            return self.number()
        if found := self.take("true", "false"):
            return found.value == "true"
        what = "expected a value: a text in quotes, a number, true or false"
        if token.value == "null":
            what = "nothing equals null; write `is null` or `is not null`"
        elif token.kind == "name":
            what = f"expected a value; a text goes in quotes: '{token.value}'"
        raise RuleFault(token.start, what)

    def values(self) -> tuple[Value, ...]:
        """Values in parentheses."""
        self.need("(", "expected ( and the values, as in (1, 2) or ('a', 'b')")
        found = [self.value()]
        while self.take(","):
            found.append(self.value())
        self.need(")", "expected , or ) after a value of the list")
        return tuple(found)

    def number(self) -> int | float:
        """Number."""
        token = self.token
        if token.kind != "number":
            raise RuleFault(
                token.start, "expected a number; <, <=, > and >= compare numbers, texts have == and != alone"
            )
        value = read_number(token.value)
        if value is None:
            raise RuleFault(token.start, "this number is too large")
        self.position += 1
        return value

    def text(self) -> str:
        """Text that is not blank: an empty cell is missing, so nothing could equal it."""
        token = self.token
        if token.kind != "text":
            raise RuleFault(token.start, "expected a text in quotes")
        if not token.value.strip():
            raise RuleFault(token.start, "an empty cell counts as missing; write `is null` or `is not null`")
        self.position += 1
        return token.value
