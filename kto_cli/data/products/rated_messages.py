"""Ratings on messages inside a chat: one row for each rated answer, with all before it as its prompt.

Rejected    the reasons of formats/chats.py and formats/messages.py, each for its own row
Dropped     no_label (no message of the chat is rated), matches_neither (of the user's rules)

Rules of the user (--desirable, --undesirable) are about what a product keeps of a rating; they decide instead of its
thumb, for answers that have one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.chats import whole_chat
from kto_cli.data.formats.fields import json_text
from kto_cli.data.formats.messages import read_turns
from kto_cli.data.formats.records import Dropped, Output, Reject, Result, RowFault, root
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log.columns import rules_of
from kto_cli.data.log.labels import NoFeedback, by_rules
from kto_cli.data.products.remarks import with_remark


class Chat(NamedTuple):
    """How a product keeps the messages of one chat."""

    messages: Sequence[Mapping[str, Any]]
    label_of: Callable[[Mapping[str, Any]], bool | None]
    """Label of a message, None if it is not rated; may raise RowFault."""
    thread_to: Callable[[int], Sequence[Mapping[str, Any]]]
    """Messages from the first one down to the one of an index; may raise RowFault."""
    ids: Sequence[str]
    """Of the messages, for origins."""
    remark_of: Callable[[Mapping[str, Any]], str | None] = lambda message: None
    """What the rater of a message wrote."""


def rated_rows(chat: Chat, origin: str, group: str | None, split: str | None) -> Iterator[Result]:
    """A row for each rated answer of one chat; a faulty one is rejected by itself.

    Args:
        group: keeps them on one side of the split; default: the chat's root.
    """
    rows = 0
    for index, each in enumerate(chat.messages):
        place = f"{origin} message {chat.ids[index][:40]}"
        try:
            if (label := chat.label_of(each)) is not None:
                rows += 1
                yield with_remark(rated_row(chat.thread_to(index), label, place, group, split), chat.remark_of(each))
        except NoFeedback as nothing:
            rows += 1
            yield Dropped(place, nothing.reason, nothing.detail, 1)
        except RowFault as fault:
            rows += 1
            yield Reject(place, fault.reason, fault.detail, 1, json_text(each))
    if not rows:
        yield Dropped(origin, "no_label", "no message of it is rated", 1)


RULES = ("--desirable", "--undesirable")
"""Flags of sources whose ratings rules may decide on."""


def rule_notes(fields: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Note that rules decide, if there are any.

    Args:
        fields: what a rule may name, with the fields in it.

    Raises:
        BadInput: a rule names something else.
    """
    if config.desirable is None:
        return []
    for column in (name for rule in rules_of(config) if rule for name in rule.columns):
        if re.split(r"[.\[]", column)[0] not in fields:
            what = f"{printable(str(raw_file.path))} has no {printable(column)} that a rule can name."
            raise BadInput(what, f"It has: {', '.join(fields)}, and the fields in them.")
    return ["The rules decide instead of the thumbs."]


def label_by_rules(label: bool | None, values: Mapping[str, Any], config: BinarizeConfig) -> bool | None:
    """Label of a rating by the user's rules, if there are some; None for an answer that is not rated.

    Raises:
        NoFeedback: `matches_neither`. RowFault: see log/labels.py.
    """
    return label if label is None or config.desirable is None else by_rules(dict(values), config)


def rated_row(
    thread: Sequence[Mapping[str, Any]], label: bool, origin: str, group: str | None, split: str | None
) -> Output:
    """The row of a rated answer, the last message of its thread.

    Raises:
        RowFault: it is not the assistant's, or the chat cannot be used (formats/chats.py).
    """
    turns = read_turns(thread, "the chat")
    if not turns or turns[-1].role != "assistant":
        raise RowFault("rated_message_missing", "the rated message is not the assistant's")
    last = len(turns) - 1
    # earlier answers may be rated as well; this row is about the last one
    turns = [turn._replace(rated=index == last) for index, turn in enumerate(turns)]
    prompt, answer = whole_chat(turns, "the chat")
    return Output(prompt, (answer,), label, origin, group or root(prompt), split)


def without(messages: Sequence[Mapping[str, Any]], names: frozenset[str]) -> list[dict[str, Any]]:
    """Messages without fields of the product that say nothing to the model, so that no note names them."""
    return [{name: value for name, value in each.items() if name not in names} for each in messages]
