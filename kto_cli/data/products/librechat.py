"""Messages of LibreChat, one document each, as mongoexport writes the collection `messages`.

    {"messageId", "conversationId", "parentMessageId", "isCreatedByUser", "text" | "content": parts,
     "feedback"?: {"rating": "thumbsUp" | "thumbsDown", "tag", "text"}}

Messages are chained by `parentMessageId`; one row for each rated answer (github.com/danny-avila/LibreChat,
packages/data-schemas/src/schema/message.ts). Messages of a conversation may be anywhere in the file, so all messages of
the file are in memory while it is read.

Dropped     no_label (a conversation without a rated message)
Rejected    thread_broken, rating_not_accepted, duplicate_id (of two messages), answer_is_error, quotes_not_accepted
            (texts that the model was given with a message and that are not in it), and those of rated_messages.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.chats import branch
from kto_cli.data.formats.fields import need_columns
from kto_cli.data.formats.labels import spell_cell
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.products.rated_messages import RULES, Chat, label_by_rules, rated_rows, rule_notes, without
from kto_cli.data.products.remarks import field_of, remark
from kto_cli.data.products.traced_calls import opened
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record

LABELS = {"thumbsUp": True, "thumbsDown": False}
WANTED = (
    *("messageId", "conversationId", "parentMessageId", "isCreatedByUser", "text", "content", "feedback"),
    *("files", "attachments", "image", "quotes", "error"),
)
PARENT = "parentMessageId"
LINKS = frozenset(("id", "messageId", "conversationId", PARENT, "feedback", "error"))
"""Fields of a message that a model is not given."""
MESSAGES = "messages"
"""Column of a conversation that was assembled."""


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Note on rules, if they decide.

    Raises:
        BadInput: columns are missing, or a rule names another one than `feedback`.
    """
    step = "Export the collection messages of its database as JSON lines, with mongoexport."
    needed = ("messageId", "conversationId", "parentMessageId", "isCreatedByUser")
    need_columns(raw_file.name, columns, needed, "librechat", step)
    return rule_notes(("feedback",), raw_file, config)


def records(raw_file: RawFile) -> Iterator[Record]:
    """One record per conversation, in the order of their first messages; broken lines as they are.

    Raises:
        BadInput: the file cannot be read.
    """
    chats: dict[str, list[dict[str, Any]]] = {}
    origins: dict[str, str] = {}
    for row in any_file.records(raw_file.path, raw_file.name, WANTED):
        record = any_file.parsed(row, WANTED)
        if record.values is None or not isinstance(record.values.get("conversationId"), str):
            yield record
            continue
        key = record.values["conversationId"]
        origins.setdefault(key, record.origin)
        chats.setdefault(key, []).append({name: record.values[name] for name in WANTED if name in record.values})
    for key, messages in chats.items():
        yield Record(origins[key], {"conversationId": key, MESSAGES: messages})


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """A row for each rated answer of a conversation."""
    values = record.values or {}
    if not isinstance(values.get(MESSAGES), list):
        raise RowFault("missing_field", "no 'conversationId'")
    messages: list[dict[str, Any]] = values[MESSAGES]
    by_id: dict[str, dict[str, Any]] = {}
    for each in messages:
        name = each.get("messageId")
        if not isinstance(name, str) or name in by_id:
            reason = "missing_field" if name is None else "duplicate_id"
            raise RowFault(reason, f"a message of the conversation has the messageId {spell_cell(name)}")
        by_id[name] = as_message(each)
    ids = list(by_id)

    def label(message: Mapping[str, Any]) -> bool | None:
        return label_by_rules(label_of(message), {"feedback": opened(message.get("feedback"))}, config)

    chat = Chat(
        messages, label, lambda index: without(refuse_incomplete(branch(by_id, ids[index])), LINKS), ids, remark_of
    )
    yield from rated_rows(chat, record.origin, f"conversation {values['conversationId']}", raw_file.split)


def label_of(message: Mapping[str, Any]) -> bool | None:
    """Label of a message; None if it is not rated.

    Raises:
        RowFault: `rating_not_accepted`.
    """
    feedback = opened(message.get("feedback"))
    rating = feedback.get("rating") if isinstance(feedback, dict) else feedback
    if rating is None:
        return None
    if not isinstance(rating, str) or rating not in LABELS:
        raise RowFault("rating_not_accepted", f"feedback.rating is {spell_cell(rating)}, not thumbsUp or thumbsDown")
    return LABELS[rating]


def remark_of(message: Mapping[str, Any]) -> str | None:
    """What was written beside a thumb: LibreChat has a tag for the reason, and a text."""
    feedback = opened(message.get("feedback"))
    return remark(reason=field_of(feedback, "tag"), comment=field_of(feedback, "text"))


def refuse_incomplete(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Messages down to a rated answer that say all that the model was given.

    Raises:
        RowFault: `answer_is_error` or `quotes_not_accepted`.
    """
    if messages[-1].get("error"):
        raise RowFault("answer_is_error", "the rated message is an error message, not an answer")
    if any(each.get("quotes") for each in messages):
        raise RowFault("quotes_not_accepted", "a message has quotes that the model was given, and its text has not")
    return messages


def as_message(values: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its text or parts, its files, and who wrote it; parts count where it has some, else its text."""
    kept = {name: value for name, value in values.items() if name == PARENT or value not in (None, [], "")}
    if "content" in kept:
        kept.pop("text", None)
    elif "text" not in kept:
        kept["text"] = ""
    return kept


SOURCE = Source(
    name="librechat",
    about="messages of LibreChat: thumbs on messages",
    gives="labels",
    read=read,
    has_texts=False,
    licence="yours",
    patterns=("*.jsonl*", "*.json", "*.json.gz"),
    wanted=WANTED,
    names_ignored=True,
    options=RULES,
    records=records,
    check=check,
    example=(
        '{"messageId": "a", "conversationId": "c1", "parentMessageId": null, "isCreatedByUser": true, "text": "Any '
        'tea?"}',
        '{"messageId": "b", "conversationId": "c1", "parentMessageId": "a", "isCreatedByUser": false, "text": "Green '
        'and black.", "feedback": {"rating": "thumbsUp"}}',
        '{"messageId": "c", "conversationId": "c2", "parentMessageId": null, "isCreatedByUser": true, "text": "Where '
        'do I park?"}',
        '{"messageId": "d", "conversationId": "c2", "parentMessageId": "c", "isCreatedByUser": false, "text": '
        '"Outside.", "feedback": {"rating": "thumbsDown"}}',
    ),
)
