"""Syntax tree of a rule, and the text of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kto_cli.data.log.rule_lexer import NAME, RESERVED

Value = str | int | float | bool


@dataclass(frozen=True)
class Member:
    """Comparison: the cell equals one of the values."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Order:
    """Comparison: the cell is below or above a number."""

    column: str
    sign: str
    number: int | float


@dataclass(frozen=True)
class Contains:
    """Comparison: the cell contains the text."""

    column: str
    text: str


@dataclass(frozen=True)
class IsNull:
    """Comparison: the cell is missing."""

    column: str


@dataclass(frozen=True)
class Not:
    """`not`."""

    part: Node


@dataclass(frozen=True)
class Every:
    """`and` of all parts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Some:
    """`or` of all parts."""

    parts: tuple[Node, ...]


Comparison = Member | Order | Contains | IsNull
Node = Comparison | Not | Every | Some


def comparisons(node: Node) -> Iterator[Comparison]:
    """Comparisons of a rule, in order of occurrence."""
    parts = (node.part,) if isinstance(node, Not) else node.parts if isinstance(node, (Every, Some)) else ()
    if not isinstance(node, (Not, Every, Some)):
        yield node
    for part in parts:
        yield from comparisons(part)


def columns_of(node: Node, kinds: tuple[type, ...] = (Member, Order, Contains, IsNull)) -> tuple[str, ...]:
    """Columns of a rule's comparisons of these kinds, each once, in order of occurrence."""
    return tuple(dict.fromkeys(each.column for each in comparisons(node) if isinstance(each, kinds)))


def spell_column(name: str) -> str:
    """Column name, quoted for a rule if needed."""
    plain = NAME.fullmatch(name) and name.lower() not in RESERVED
    return name if plain else "`" + name.replace("`", "``") + "`"


def spell_text(text: str) -> str:
    """Text, quoted for a rule."""
    return "'" + text.replace("'", "''") + "'"
