"""Feedback that Open WebUI exports (Admin, Evaluations, Feedback): a JSON list, one thumb each.

    {"type": "rating", "data": {"rating": 1 | -1, "reason", "comment", "tags"}, "meta": {"chat_id", "message_id"},
     "snapshot": {"chat": {"chat": {"history": {"messages": {id: {"parentId", "role", "content"}}}}}}}

The rated message is that of `meta.message_id`; its ancestors in the snapshot's tree are the prompt. Where the snapshot
has no tree, its list of messages is read up to the rated one (github.com/open-webui/open-webui,
backend/open_webui/models/feedbacks.py and src/lib/components/admin/Evaluations). Open WebUI keeps an answer's reasoning
as a `<details type="reasoning">` block of its text, and does not send it to the model again: it is read as the field
`reasoning_content`. Blocks of tools and of the code interpreter are calls of tools.

Dropped     no_label (no rating, or feedback of another type), matches_neither (of rules about data or meta)
Rejected    rated_message_missing, thread_broken, rating_not_accepted, missing_field, answer_is_error, and those of
            rated_messages.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import unescape
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.chats import branch
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.fields import need_columns
from kto_cli.data.formats.labels import as_number, is_missing, spell_cell
from kto_cli.data.formats.message_names import identity
from kto_cli.data.formats.records import Dropped, Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.log.labels import NoFeedback
from kto_cli.data.products.rated_messages import RULES, label_by_rules, rated_row, rule_notes, without
from kto_cli.data.products.remarks import remark, with_remark
from kto_cli.data.products.traced_calls import opened
from kto_cli.data.readers.jsonl import Record

WANTED = ("type", "data", "meta", "snapshot")
LABELS: dict[float, bool] = {1: True, -1: False}
SAYS_NOTHING = frozenset(
    [
        *("id", "parentId", "childrenIds", "timestamp", "annotation", "feedbackId", "model", "models", "modelName"),
        *("modelIdx", "done", "userContext", "usage", "lastSentence", "info", "followUps", "favorite"),
    ]
)
"""Fields of a message that a model is not given."""
BLOCK = re.compile(r'<details type="(\w+)"[^>]*>\s*(?:<summary>.*?</summary>)?(.*?)</details>\s*', re.DOTALL)
"""A part of an answer that is not text: its kind and its content, each line of it quoted with `>`."""
QUOTED = re.compile(r"^> ?", re.MULTILINE)


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Note on rules, if they decide.

    Raises:
        BadInput: columns are missing, or a rule names another one.
    """
    step = "Give the file of Admin, Evaluations, Feedback, Export."
    need_columns(raw_file.name, columns, ("data", "meta", "snapshot"), "open-webui", step)
    return rule_notes(WANTED, raw_file, config)


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """The row of one thumb."""
    values = record.values or {}
    rating = part(values, "data").get("rating")
    if values.get("type", "rating") != "rating" or is_missing(rating):
        yield Dropped(record.origin, "no_label", "it has no rating", 1)
        return
    label = LABELS.get(as_number(rating) or 0)
    if label is None:
        raise RowFault("rating_not_accepted", f"data.rating is {spell_cell(rating)}, not 1 or -1")
    meta = part(values, "meta")
    try:
        label = label_by_rules(label, {**values, "data": part(values, "data"), "meta": meta}, config)
    except NoFeedback as nothing:
        yield Dropped(record.origin, nothing.reason, nothing.detail, 1)
        return
    message_id = meta.get("message_id")
    if not isinstance(message_id, str) or not message_id:
        raise RowFault("missing_field", "no meta.message_id, which says what message was rated")
    chat = part(part(part(values, "snapshot"), "chat"), "chat")
    chat_id = meta.get("chat_id")
    group = f"conversation {chat_id}" if isinstance(chat_id, str) and chat_id else None
    messages = without(thread(chat, message_id), SAYS_NOTHING)
    if messages[-1].get("error"):
        raise RowFault("answer_is_error", "the rated message is an error message, not an answer")
    messages = [opened_blocks(each) for each in messages]
    row = rated_row(messages, label is True, f"{record.origin} message {message_id[:40]}", group, raw_file.split)
    yield with_remark(row, remark(**{name: part(values, "data").get(name) for name in ("reason", "comment", "tags")}))


def part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object within a record; its JSON text, as tables of the database have it, is read and counted.

    Raises:
        RowFault: `missing_field`.
    """
    found = opened(values.get(name))
    if isinstance(values.get(name), str) and isinstance(found, dict):
        count(f"records whose {name} is the JSON of an object, read as that")
    if not isinstance(found, dict):
        raise RowFault("missing_field", f"{name} is {'missing' if found is None else 'not an object'}")
    return found


def thread(chat: Mapping[str, Any], message_id: str) -> list[Mapping[str, Any]]:
    """Messages of a chat from the first to the rated one.

    Raises:
        RowFault: `rated_message_missing` or `thread_broken`.
    """
    history = chat.get("history")
    tree = history.get("messages") if isinstance(history, dict) else None
    if isinstance(tree, dict) and tree:
        if message_id not in tree:
            raise RowFault("rated_message_missing", f"the snapshot has no message {message_id[:40]!r}")
        return with_system(branch(tree, message_id), chat)
    listed = chat.get("messages")
    messages = listed if isinstance(listed, list) and all(isinstance(each, dict) for each in listed) else []
    place = next((index for index, each in enumerate(messages) if identity(each) == message_id), None)
    if place is None:
        raise RowFault("rated_message_missing", f"the snapshot has no message {message_id[:40]!r}")
    return with_system(messages[: place + 1], chat)


def opened_blocks(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose reasoning is a field of its own.

    Raises:
        RowFault: `tools_not_accepted`.
    """
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, str) or "<details type=" not in content:
        return message
    reasoning = []
    for block in BLOCK.finditer(content):
        if block[1] in ("tool_calls", "code_interpreter"):
            raise RowFault("tools_not_accepted", f"an answer has a block of {block[1]}, whose calls cannot be read")
        if block[1] == "reasoning":
            reasoning.append(QUOTED.sub("", unescape(block[2]).strip()))
    if not reasoning:
        return message
    text = BLOCK.sub(lambda block: "" if block[1] == "reasoning" else block[0], content)
    return {**message, "content": text, "reasoning_content": "\n\n".join(reasoning)}


def with_system(messages: Sequence[Mapping[str, Any]], chat: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Messages behind the chat's own system prompt, which Open WebUI keeps in `params.system`, if there is one."""
    params = chat.get("params")
    system = params.get("system") if isinstance(params, dict) else None
    if not isinstance(system, str) or not system.strip() or messages[0].get("role") == "system":
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


SOURCE = Source(
    name="open-webui",
    about="feedback exported from Open WebUI: thumbs on messages",
    gives="labels",
    read=read,
    has_texts=False,
    licence="yours",
    patterns=("*.json", "*.json.gz", "*.jsonl*"),
    wanted=WANTED,
    options=RULES,
    check=check,
    example=(
        '{"type": "rating", "data": {"rating": 1}, "meta": {"chat_id": "c1", "message_id": "b"}, "snapshot": {"chat": '
        '{"chat": {"history": {"messages": {"a": {"id": "a", "parentId": null, "role": "user", "content": "Any tea?"}, '
        '"b": {"id": "b", "parentId": "a", "role": "assistant", "content": "Green and black."}}}}}}}',
        '{"type": "rating", "data": {"rating": -1}, "meta": {"chat_id": "c2", "message_id": "b"}, "snapshot": {"chat": '
        '{"chat": {"history": {"messages": {"a": {"id": "a", "parentId": null, "role": "user", "content": "Where do I '
        'park?"}, "b": {"id": "b", "parentId": "a", "role": "assistant", "content": "Outside."}}}}}}}',
    ),
)
