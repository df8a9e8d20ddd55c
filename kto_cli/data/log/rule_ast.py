"""The tree of a rule, and how its parts are written as text again."""

from __future__ import annotations

from dataclasses import dataclass

from kto_cli.data.log.rule_lexer import NAME, RESERVED

Value = str | int | float | bool


@dataclass(frozen=True)
class Member:
    """The cell is one of the values."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Order:
    """The cell is below or above a number."""

    column: str
    sign: str
    number: int | float


@dataclass(frozen=True)
class Contains:
    """The text is somewhere in the cell."""

    column: str
    text: str


@dataclass(frozen=True)
class IsNull:
    """The cell is missing."""

    column: str


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Node


@dataclass(frozen=True)
class Every:
    """All parts: `and`."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Some:
    """One part or more: `or`."""

    parts: tuple[Node, ...]


Node = Member | Order | Contains | IsNull | Not | Every | Some


def columns_of(node: Node) -> tuple[str, ...]:
    """The columns of a rule, each once, in its order."""
    if isinstance(node, Not):
        return columns_of(node.part)
    if isinstance(node, (Every, Some)):
        return tuple(dict.fromkeys(column for part in node.parts for column in columns_of(part)))
    return (node.column,)


def spell_column(name: str) -> str:
    """A column as it is written in a rule."""
    plain = NAME.fullmatch(name) and name.lower() not in RESERVED
    return name if plain else "`" + name.replace("`", "``") + "`"


def spell_text(text: str) -> str:
    """A text as it is written in a rule."""
    return "'" + text.replace("'", "''") + "'"
