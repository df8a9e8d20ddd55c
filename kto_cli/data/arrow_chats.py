"""Chats in Arrow: lists of {role, content}, and of more where a dataset has tools or reasoning.

Built from flat columns, several times faster than from dicts. Calls of tools and the tools themselves are JSON text:
their arguments differ from row to row, and a struct would give each call those of all others, as nulls.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kto_cli.data.texts import EXTRAS, Message, tools_of, with_tools, without_tools

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = ("role", "content")
"""Fields of a message of text alone."""


def chat_type(*, has_more: bool) -> pa.DataType:
    """Type of a column of chats; `has_more`: their messages have more than role and content."""
    import pyarrow as pa

    return pa.list_(pa.struct([(name, pa.string()) for name in (PLAIN + EXTRAS if has_more else PLAIN)]))


def to_arrow(chats: Sequence[tuple[Message, ...]]) -> tuple[pa.Array, pa.Array, bool]:
    """(chats with all fields, JSON of the tools of each, whether there are more than texts)."""
    import numpy
    import pyarrow as pa

    tools = [tools_of(chat) or None for chat in chats]
    offers_tools = any(tools)
    said = list(map(without_tools, chats)) if offers_tools else chats
    turns = [turn for chat in said for turn in chat]
    offsets = pa.array(numpy.cumsum([0, *map(len, said)], dtype="i4"))
    has_extras = max(map(len, turns), default=2) > 2
    extras = [
        pa.array([turn.get(name) for turn in turns], pa.string()) if has_extras else pa.nulls(len(turns), pa.string())
        for name in EXTRAS
    ]
    plain = [pa.array([turn[name] for turn in turns], pa.string()) for name in PLAIN]
    messages = pa.StructArray.from_arrays(plain + extras, PLAIN + EXTRAS)
    column = pa.array(tools, pa.string()) if offers_tools else pa.nulls(len(tools), pa.string())
    return pa.ListArray.from_arrays(offsets, messages), column, offers_tools or has_extras


def texts_alone(chats: pa.Array) -> pa.Array:
    """Chats with role and content alone."""
    import pyarrow as pa

    messages = pa.StructArray.from_arrays([chats.values.field(name) for name in PLAIN], PLAIN)
    return pa.ListArray.from_arrays(chats.offsets, messages)


def from_arrow(column: pa.Array, tools: pa.Array | None = None) -> list[Any]:
    """A column as Python objects, chats as tuples with their tools."""
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        return column.to_pylist()
    flat = column.flatten()
    roles, contents = (flat.field(name).to_pylist() for name in PLAIN)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    for name in EXTRAS if flat.type.num_fields > len(PLAIN) else ():
        for turn, value in zip(turns, flat.field(name).to_pylist(), strict=True):
            if value is not None:
                turn[name] = value
    offsets = (column.offsets.to_numpy() - column.offsets[0].as_py()).tolist()
    chats = [tuple(turns[start:end]) for start, end in pairwise(offsets)]
    if tools is None:
        return chats
    return [with_tools(text or "", chat) for text, chat in zip(tools.to_pylist(), chats, strict=True)]
