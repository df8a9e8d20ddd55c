"""Conversations of Hugging Face's chat-ui: messages with `score` 1 (thumb up), -1 (thumb down) or 0.

    {"_id", "messages": [{"id", "from": "system" | "user" | "assistant", "content", "score"?, "ancestors"?: [ids]}]}

One row for each rated answer. Messages are a tree where they have `ancestors`, else a list
(github.com/huggingface/chat-ui, src/lib/types/Message.ts).

Dropped     no_label
Rejected    not_messages, thread_broken, score_not_accepted, and those of rated_messages.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.fields import need_columns, needed
from kto_cli.data.formats.labels import is_missing, spell_cell
from kto_cli.data.formats.messages import identity
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.products.rated_messages import Chat, rated_rows, without
from kto_cli.data.readers.jsonl import Record

LABELS = {1: True, -1: False, 0: None}
SAYS_NOTHING = frozenset(("id", "score", "ancestors", "children", "createdAt", "updatedAt", "interrupted"))
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
    messages = needed(values, "messages")
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise RowFault("not_messages", "messages is not a list of messages")
    by_id = {identity(each): each for each in messages}
    chat = Chat(
        messages,
        label_of,
        lambda index: without(thread(messages, by_id, index), SAYS_NOTHING),
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
    if isinstance(score, bool) or score not in LABELS:
        raise RowFault("score_not_accepted", f"the score of a message is {spell_cell(score)}, not 1, 0 or -1")
    return LABELS[score]


def thread(
    messages: list[Mapping[str, Any]], by_id: Mapping[str, Mapping[str, Any]], index: int
) -> list[Mapping[str, Any]]:
    """Messages from the first to the one at `index`: its ancestors, or all before it in the list."""
    ancestors = messages[index].get("ancestors")
    if not isinstance(ancestors, list):
        return messages[: index + 1]
    if missing := [each for each in ancestors if each not in by_id]:
        raise RowFault("thread_broken", f"the message {str(missing[0])[:40]!r} before it is not there")
    return [*(by_id[each] for each in ancestors), messages[index]]


SOURCE = Source(
    name="chat-ui",
    about="conversations of Hugging Face's chat-ui: thumbs on messages",
    gives="labels",
    read=read,
    has_texts=False,
    licence="yours",
    patterns=("*.jsonl*", "*.json", "*.json.gz"),
    wanted=("_id", "id", "messages"),
    check=check,
    example=(
        '{"_id": "c1", "messages": [{"id": "1", "from": "user", "content": "Any tea?"}, {"id": "2", "from": '
        '"assistant", "content": "Green and black.", "score": 1}]}',
        '{"_id": "c2", "messages": [{"id": "1", "from": "user", "content": "Where do I park?"}, {"id": "2", "from": '
        '"assistant", "content": "Outside.", "score": -1}]}',
    ),
)
