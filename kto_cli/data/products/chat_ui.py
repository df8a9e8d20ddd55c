"""Conversations of Hugging Face's chat-ui: messages with `score` 1 (thumb up), -1 (thumb down) or 0.

    {"_id", "preprompt"?,
     "messages": [{"id", "from": "system" | "user" | "assistant", "content", "score"?, "ancestors"?: [ids]}]}

One row for each rated answer. Messages are a tree where they have `ancestors`, else a list; the Parquet of its own
export (`/admin/export`) has lists, in which an answer tried again stands behind the first one: such a chat is unclear.
`preprompt` is the system message where the chat has none (github.com/huggingface/chat-ui, src/lib/types/Message.ts and
src/routes/admin/export).

Dropped     no_label
Rejected    not_messages, thread_broken, thread_unclear, score_not_accepted, and those of rated_messages.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.fields import need_columns, needed
from kto_cli.data.formats.labels import as_number, is_missing, spell_cell
from kto_cli.data.formats.message_names import identity
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.products.rated_messages import Chat, rated_rows, without
from kto_cli.data.products.traced_calls import opened
from kto_cli.data.readers.jsonl import Record

LABELS: dict[float | None, bool | None] = {1: True, -1: False, 0: None}
SAYS_NOTHING = frozenset(
    ("id", "score", "ancestors", "children", "createdAt", "updatedAt", "interrupted", "updates", "routerMetadata")
)
"""Fields of a message that a model is not given."""


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file without conversations; has no notes.

    Raises:
        BadInput: there is no column `messages`.
    """
    need_columns(raw_file.name, columns, ("messages",), "chat-ui", "Give its conversations: documents with messages.")
    return []


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """A row for each rated answer of a conversation."""
    values = record.values or {}
    messages = opened(needed(values, "messages"))
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise RowFault("not_messages", "messages is not a list of messages")
    by_id = {identity(each): each for each in messages}
    chat = Chat(
        messages,
        label_of,
        lambda index: without(with_preprompt(thread(messages, by_id, index), values), SAYS_NOTHING),
        [identity(each) or str(index + 1) for index, each in enumerate(messages)],
    )
    name = values.get("_id", values.get("id"))
    group = None if is_missing(name) else f"conversation {spell_cell(name)}"
    yield from rated_rows(chat, record.origin, group, raw_file.split)


def label_of(message: Mapping[str, Any]) -> bool | None:
    """Label of a message; None without a score, and for 0.

    Raises:
        RowFault: `score_not_accepted`.
    """
    score = message.get("score")
    if is_missing(score):
        return None
    if (value := as_number(score)) not in LABELS:
        raise RowFault("score_not_accepted", f"the score of a message is {spell_cell(score)}, not 1, 0 or -1")
    return LABELS[value]


def thread(
    messages: list[Mapping[str, Any]], by_id: Mapping[str, Mapping[str, Any]], index: int
) -> list[Mapping[str, Any]]:
    """Messages from the first to the one at `index`: its ancestors, or all before it in the list.

    Raises:
        RowFault: `thread_broken`, `thread_unclear`, or `tools_not_accepted`.
    """
    ancestors = messages[index].get("ancestors")
    if not isinstance(ancestors, list):
        found = messages[: index + 1]
        if any(one.get("from") == other.get("from") for one, other in pairwise(found)):
            what = "two messages of one role in a row: one of them may be another try, and nothing says which is meant"
            raise RowFault("thread_unclear", what)
        return refuse_tools(found)
    if missing := [each for each in ancestors if not isinstance(each, str) or each not in by_id]:
        raise RowFault("thread_broken", f"the message {str(missing[0])[:40]!r} before it is not there")
    return refuse_tools([*(by_id[each] for each in ancestors), messages[index]])


def refuse_tools(messages: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Messages without calls of tools and searches.

    Raises:
        RowFault: `tools_not_accepted`.
    """
    for message in messages:
        updates = message.get("updates")
        if any(isinstance(each, dict) and each.get("type") in ("tool", "webSearch") for each in updates or ()):
            raise RowFault("tools_not_accepted", "an answer has calls of tools or a web search in its updates")
    return messages


def with_preprompt(messages: list[Mapping[str, Any]], values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Messages behind the conversation's own system prompt, if it has one and they have none."""
    system = values.get("preprompt")
    has_system = any(each.get("from") == "system" and each.get("content") for each in messages)
    if not isinstance(system, str) or not system.strip() or has_system:
        return messages
    return [{"from": "system", "content": system}, *messages]


SOURCE = Source(
    name="chat-ui",
    about="conversations of Hugging Face's chat-ui: thumbs on messages",
    gives="labels",
    read=read,
    has_texts=False,
    licence="yours",
    patterns=("*.jsonl*", "*.json", "*.json.gz", "*.parquet"),
    wanted=("_id", "id", "preprompt", "messages"),
    check=check,
    example=(
        '{"_id": "c1", "messages": [{"id": "1", "from": "user", "content": "Any tea?"}, {"id": "2", "from": '
        '"assistant", "content": "Green and black.", "score": 1}]}',
        '{"_id": "c2", "messages": [{"id": "1", "from": "user", "content": "Where do I park?"}, {"id": "2", "from": '
        '"assistant", "content": "Outside.", "score": -1}]}',
    ),
)
