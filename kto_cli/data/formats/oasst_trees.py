"""OpenAssistant message trees as lists of messages, from any of their three file formats.

    tree        {"message_tree_id", "tree_state", "prompt": {message with "replies": [messages with ...]}}
    nested      a first message with "replies"
    flat        one message per row with "parent_id"; the rows of a tree may be anywhere in the file

Formats and names: github.com/LAION-AI/Open-Assistant, oasst-data/README.md and oasst_data/schemas.py. A line with a
tree or a nested message is one record. Flat messages are assembled into trees first, so all messages of the file are in
memory (88,838 for all of oasst1, 135,174 for oasst2), with the columns that are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kto_cli.common.words import printable
from kto_cli.data.formats import fields
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.source import RawFile
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record

MESSAGE_COLUMNS = (
    "message_id",
    "parent_id",
    "text",
    "role",
    "lang",
    "rank",
    "deleted",
    "review_result",
    "tree_state",
    "message_tree_id",
    "emojis",
)
WHOLE_TREE = ("prompt", "replies", "messages")
"""Columns of a record that is a whole tree; `messages` holds the assembled flat messages."""


@dataclass(frozen=True)
class Node:
    """Message of a tree; parents come before their replies."""

    values: dict[str, Any]
    origin: str
    parent: int | None
    """Index of the message it replies to; None for a first message, or if the parent is not there."""
    complete: bool
    """The thread reaches back to a first message."""


def id_of(values: dict[str, Any], name: str) -> str | None:
    """Id in field `name`; None if it is missing or empty."""
    value = values.get(name)
    return value if isinstance(value, str) and value else None


def origin_of(origin: str, values: dict[str, Any]) -> str:
    """FILE:LINE and the message's id, for people."""
    return f"{origin} message {id_of(values, 'message_id') or '?'}"


def records(raw_file: RawFile) -> Iterator[Record]:
    """One record per tree: first the lines that hold a whole tree, then trees assembled from flat messages.

    Raises:
        BadInput: the file cannot be read.
    """
    wanted = (*MESSAGE_COLUMNS, *WHOLE_TREE)
    flat: list[tuple[str, dict[str, Any]]] = []
    for row in any_file.records(raw_file.path, raw_file.name, wanted):
        record = any_file.parsed(row, wanted)
        if record.values is None or "prompt" in record.values or record.values.get("replies"):
            yield record
        else:
            known = {name: record.values[name] for name in MESSAGE_COLUMNS if name in record.values}
            flat.append((record.origin, known))
    yield from assembled(flat)


def assembled(flat: list[tuple[str, dict[str, Any]]]) -> Iterator[Record]:
    """Flat messages grouped into trees, in the order of the trees' first rows."""
    parents = {found: id_of(values, "parent_id") for _, values in flat if (found := id_of(values, "message_id"))}
    first: dict[str, str] = {}
    trees: dict[str, list[dict[str, Any]]] = {}
    origins: dict[str, str] = {}
    for origin, values in flat:
        key = id_of(values, "message_tree_id") or topmost(values, parents, first)
        origins.setdefault(key, origin)
        values["origin"] = origin
        trees.setdefault(key, []).append(values)
    for key, messages in trees.items():
        yield Record(origins[key], {"message_tree_id": key, "messages": messages})


def topmost(values: dict[str, Any], parents: dict[str, str | None], first: dict[str, str]) -> str:
    """Id of the first message of a thread; `first` caches it for every id on the path."""
    current = id_of(values, "message_id") or id_of(values, "parent_id") or ""
    path: dict[str, None] = {}
    while current not in first and current not in path:
        path[current] = None
        current = parents.get(current) or current
    top = first.get(current, current)
    first.update(dict.fromkeys(path, top))
    return top


def nodes(record: Record) -> list[Node]:
    """All messages of one record, parents first, siblings in the order of the file."""
    values = record.values or {}
    if isinstance(values.get("messages"), list):
        return flat_nodes(values["messages"], record.origin)
    top = values.get("prompt", values)
    return [] if top is None else nested_nodes(top, record.origin)


def nested_nodes(top: Any, origin: str) -> list[Node]:
    """Messages of a nested tree; any value among the replies counts as a message."""
    found: list[Node] = []
    waiting: list[tuple[Any, int | None]] = [(top, None)]
    while waiting:
        value, parent = waiting.pop()
        values = value if isinstance(value, dict) else {"text": value}
        complete = found[parent].complete if parent is not None else id_of(values, "parent_id") is None
        found.append(Node(values, origin_of(origin, values), parent, complete))
        replies = values.get("replies") or []
        index = len(found) - 1
        waiting.extend((reply, index) for reply in reversed(replies if isinstance(replies, list) else [replies]))
    return found


def flat_nodes(messages: list[Any], origin: str) -> list[Node]:
    """Messages of a flat tree: from the first message down, then those whose thread does not reach one.

    If two messages have the same id, the first is the parent of their replies.
    """
    rows = [message if isinstance(message, dict) else {"text": message} for message in messages]
    rows_by_id: dict[str, int] = {}
    for row, values in enumerate(rows):
        if found := id_of(values, "message_id"):
            rows_by_id.setdefault(found, row)
    replies: dict[int, list[int]] = {}
    tops = []
    for row, values in enumerate(rows):
        parent = id_of(values, "parent_id")
        if parent is None:
            tops.append(row)
        elif parent in rows_by_id:
            replies.setdefault(rows_by_id[parent], []).append(row)
    out: list[Node] = []
    seen: set[int] = set()

    def add(tops: list[int], complete: bool) -> None:
        waiting: list[tuple[int, int | None]] = [(row, None) for row in reversed(tops)]
        while waiting:
            row, parent = waiting.pop()
            if row in seen:
                continue
            seen.add(row)
            values = rows[row]
            own = values.get("origin")
            out.append(Node(values, origin_of(own if isinstance(own, str) else origin, values), parent, complete))
            index = len(out) - 1
            waiting.extend((reply, index) for reply in reversed(replies.get(row, [])))

    add(tops, True)
    add([row for row in range(len(rows)) if row not in seen], False)
    return out


ROLES = {"prompter": "user", "assistant": "assistant"}


READY = "ready_for_export"


@dataclass(frozen=True)
class Exclusion:
    """Reason not to use a message and its replies."""

    reason: str
    detail: str
    is_fault: bool
    """The rows are rejected; otherwise dropped."""


def own_exclusion(node: Node, parent: Node | None, seen: set[str]) -> Exclusion | None:
    """Reason not to use a message, from the message itself; None if there is none."""
    values = node.values
    try:
        role = values.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise RowFault("role_not_accepted", "a message has no role, or one that is neither prompter nor assistant")
        if not node.complete or (parent is None and role != "prompter"):
            raise RowFault("parent_missing", "the thread does not reach back to a first message of a prompter")
        if (found := id_of(values, "message_id")) in seen:
            raise RowFault("repeated_id", f"message {found} is there twice")
        if parent is not None and parent.values.get("role") == role:
            raise RowFault("roles_do_not_alternate", f"two messages of the {role} follow each other")
        fields.text_field(values, "text", "empty_answer" if role == "assistant" else "empty_turn")
    except RowFault as fault:
        return Exclusion(fault.reason, fault.detail, True)
    if values.get("deleted") not in (None, False):
        return Exclusion("deleted", "the message was deleted", False)
    if values.get("review_result") not in (None, True):
        return Exclusion("failed_review", "reviewers marked the message as spam", False)
    return None


def exclusions(tree: list[Node], of_tree: Exclusion | None) -> list[Exclusion | None]:
    """Reason not to use each message: the tree's, that of an earlier message in the thread, or its own."""
    seen: set[str] = set()
    found: list[Exclusion | None] = []
    for node in tree:
        above = of_tree if node.parent is None else found[node.parent]
        parent = None if node.parent is None else tree[node.parent]
        exclusion = above or own_exclusion(node, parent, seen)
        if above and above is not of_tree and not above.detail.startswith("earlier"):
            exclusion = Exclusion(above.reason, f"earlier in its thread: {above.detail}", above.is_fault)
        found.append(exclusion)
        seen.add(id_of(node.values, "message_id") or "")
    return found


def tree_exclusion(record: Record, tree: list[Node], languages: Sequence[str]) -> Exclusion | None:
    """Reason to drop a whole tree; its state and language are those of the first message that has them."""
    values = [record.values or {}, *(node.values for node in tree)]
    state = next((found for each in values if (found := id_of(each, "tree_state"))), READY)
    if state != READY:
        return Exclusion("tree_not_ready", f"the tree's state is {printable(state)[:40]}, not {READY}", False)
    language = next((found for each in values if (found := id_of(each, "lang"))), "")
    if languages and language.casefold() not in [each.casefold() for each in languages]:
        return Exclusion("other_language", f"the language is {printable(language)[:20] or 'not given'}", False)
    return None
