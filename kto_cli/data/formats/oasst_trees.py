"""OpenAssistant message trees in any of their three written forms, as one list of messages.

    tree        {"message_tree_id", "tree_state", "prompt": {message with "replies": [messages with ...]}}
    nested      a first message with "replies"
    flat        a message of its own with "parent_id"; the rows of a tree may be anywhere in the file

Form and names: github.com/LAION-AI/Open-Assistant, oasst-data/README.md and oasst_data/schemas.py. A tree and a nested
line are one record each. Flat messages are put together first, which holds the file's messages in memory (88,838 for
all of oasst1, 135,174 for oasst2), only the columns that are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kto_cli.data.formats import fields
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.source import RawFile
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import printable

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
"""A record with one of these is a tree by itself; `messages` is what flat messages become here."""


@dataclass(frozen=True)
class Node:
    """One message of a tree; parents come before their replies."""

    values: dict[str, Any]
    origin: str
    parent: int | None
    """Place of the message it replies to; None: a first message, or one whose parent is not there."""
    whole: bool
    """Its thread reaches back to a first message."""


def id_of(values: dict[str, Any], name: str) -> str | None:
    """An id that is there."""
    value = values.get(name)
    return value if isinstance(value, str) and value else None


def origin_of(origin: str, values: dict[str, Any]) -> str:
    """FILE:LINE and the message's id, for people."""
    return f"{origin} message {id_of(values, 'message_id') or '?'}"


def records(raw_file: RawFile) -> Iterator[Record]:
    """One record for each tree: lines that are one as they are, then those put together from flat messages.

    Raises:
        BadInput: the file cannot be read.
    """
    flat: list[tuple[str, dict[str, Any]]] = []
    for record in rows(raw_file.path, raw_file.name):
        if record.values is None or "prompt" in record.values or record.values.get("replies"):
            yield record
        else:
            known = {name: record.values[name] for name in MESSAGE_COLUMNS if name in record.values}
            flat.append((record.origin, known))
    yield from assembled(flat)


def rows(path: Path, name: str) -> Iterator[Record]:
    """The rows of a file, parsed, with the columns that are read.

    Raises:
        BadInput: the file cannot be read.
    """
    wanted = (*MESSAGE_COLUMNS, *WHOLE_TREE)
    for record in any_file.records(path, name, wanted):
        yield any_file.parsed(record, wanted)


def assembled(flat: list[tuple[str, dict[str, Any]]]) -> Iterator[Record]:
    """Flat messages by their tree, in the order of the trees' first rows."""
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
    """The id that a message's thread goes back to; `first` remembers it for every id on the way."""
    current = id_of(values, "message_id") or id_of(values, "parent_id") or ""
    way: dict[str, None] = {}
    while current not in first and current not in way:
        way[current] = None
        current = parents.get(current) or current
    top = first.get(current, current)
    first.update(dict.fromkeys(way, top))
    return top


def nodes(record: Record) -> list[Node]:
    """All messages of one record, parents first, siblings in the order they are written."""
    values = record.values or {}
    if isinstance(values.get("messages"), list):
        return flat_nodes(values["messages"], record.origin)
    top = values.get("prompt", values)
    return [] if top is None else nested_nodes(top, record.origin)


def nested_nodes(top: Any, origin: str) -> list[Node]:
    """The messages of a nested tree. What stands in a reply's place is one, whatever it is."""
    found: list[Node] = []
    waiting: list[tuple[Any, int | None]] = [(top, None)]
    while waiting:
        value, parent = waiting.pop()
        values = value if isinstance(value, dict) else {"text": value}
        whole = parent is not None or id_of(values, "parent_id") is None
        found.append(Node(values, origin_of(origin, values), parent, whole and (parent is None or found[parent].whole)))
        replies = values.get("replies") or []
        place = len(found) - 1
        waiting.extend((reply, place) for reply in reversed(replies if isinstance(replies, list) else [replies]))
    return found


def flat_nodes(messages: list[Any], origin: str) -> list[Node]:
    """The messages of a flat tree: from the first message down, then those whose thread does not reach one.

    Of two messages with one id the first is the parent of their replies.
    """
    rows = [message if isinstance(message, dict) else {"text": message} for message in messages]
    places: dict[str, int] = {}
    for place, values in enumerate(rows):
        if found := id_of(values, "message_id"):
            places.setdefault(found, place)
    replies: dict[int, list[int]] = {}
    tops = []
    for place, values in enumerate(rows):
        parent = id_of(values, "parent_id")
        if parent is None:
            tops.append(place)
        elif parent in places:
            replies.setdefault(places[parent], []).append(place)
    out: list[Node] = []
    seen: set[int] = set()

    def add(tops: list[int], whole: bool) -> None:
        waiting: list[tuple[int, int | None]] = [(place, None) for place in reversed(tops)]
        while waiting:
            place, parent = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            values = rows[place]
            own = values.get("origin")
            out.append(Node(values, origin_of(own if isinstance(own, str) else origin, values), parent, whole))
            here = len(out) - 1
            waiting.extend((reply, here) for reply in reversed(replies.get(place, [])))

    add(tops, True)
    add([place for place in range(len(rows)) if place not in seen], False)
    return out


ROLES = {"prompter": "user", "assistant": "assistant"}


READY = "ready_for_export"


@dataclass(frozen=True)
class Verdict:
    """Why a message cannot be used, nor what follows it in its thread."""

    reason: str
    detail: str
    is_fault: bool
    """Rejected, not left out."""


def own_verdict(node: Node, parent: Node | None, seen: set[str]) -> Verdict | None:
    """What is wrong with a message itself; None: nothing."""
    values = node.values
    try:
        role = values.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise RowFault("role_not_accepted", "a message has no role, or one that is neither prompter nor assistant")
        if not node.whole or (parent is None and role != "prompter"):
            raise RowFault("parent_missing", "the thread does not reach back to a first message of a prompter")
        if (found := id_of(values, "message_id")) in seen:
            raise RowFault("repeated_id", f"message {found} is there twice")
        if parent is not None and parent.values.get("role") == role:
            raise RowFault("roles_do_not_alternate", f"two messages of the {role} follow each other")
        fields.text_field(values, "text", "empty_answer" if role == "assistant" else "empty_turn")
    except RowFault as fault:
        return Verdict(fault.reason, fault.detail, True)
    if values.get("deleted") not in (None, False):
        return Verdict("deleted", "the message was deleted", False)
    if values.get("review_result") not in (None, True):
        return Verdict("failed_review", "reviewers marked the message as spam", False)
    return None


def verdicts(tree: list[Node], whole_tree: Verdict | None) -> list[Verdict | None]:
    """For each message, why it cannot be used: the tree's reason, that of an earlier message, or its own."""
    seen: set[str] = set()
    found: list[Verdict | None] = []
    for node in tree:
        above = whole_tree if node.parent is None else found[node.parent]
        parent = None if node.parent is None else tree[node.parent]
        verdict = above or own_verdict(node, parent, seen)
        if above and above is not whole_tree and not above.detail.startswith("earlier"):
            verdict = Verdict(above.reason, f"earlier in its thread: {above.detail}", above.is_fault)
        found.append(verdict)
        seen.add(id_of(node.values, "message_id") or "")
    return found


def tree_verdict(record: Record, tree: list[Node], languages: Sequence[str]) -> Verdict | None:
    """Why a whole tree is left out; its state and language are those of the first message that has them."""
    values = [record.values or {}, *(node.values for node in tree)]
    state = next((found for each in values if (found := id_of(each, "tree_state"))), READY)
    if state != READY:
        return Verdict("tree_not_ready", f"the tree's state is {printable(state)[:40]}, not {READY}", False)
    language = next((found for each in values if (found := id_of(each, "lang"))), "")
    if languages and language.casefold() not in [each.casefold() for each in languages]:
        return Verdict("other_language", f"the language is {printable(language)[:20] or 'not given'}", False)
    return None
