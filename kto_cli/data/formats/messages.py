"""One chat message, in the spellings that people have: its role, its text, and what else it carries.

    role        role, from, sender, speaker, author or type; user or human, assistant or gpt, ai, bot, model, ...
    text        content, value, text, message or parts: a text, or a list of parts (message_parts.py); a refusal where
                there is no content
    reasoning   of the assistant: reasoning_content, reasoning, thinking, ..., or parts of the content
    calls       of tools, by the assistant: tool_calls, function_call, parts of the content, items of OpenAI's responses
                (tool_calls.py); their results are messages of the role `tool`

What the answer depends on and kto cannot give to a model rejects the row:

    role_not_accepted         an unknown role
    tools_not_accepted        calls and results that cannot be read (tool_calls.py), or not of the assistant
    media_not_accepted        images, audio, video, files
    part_not_accepted         a part of another kind

All other fields are left out and counted by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.message_names import (
    CALL_FIELDS,
    CALL_ROLES,
    ITEM_ROLES,
    MEDIA_COLUMNS,
    MEDIA_FIELDS,
    MORE_THAN_TEXT,
    PLAIN_ROLES,
    REASONING,
    REASONING_FIELDS,
    RESULT_ROLES,
    TEXT_KEYS,
    TOOL_COLUMNS,
    TOOL_FIELDS,
    identity,
    is_rating,
    role_of,
    unwrapped,
)
from kto_cli.data.formats.message_parts import NOTHING, Content, Result, content_of, read_reasoning, result_of
from kto_cli.data.formats.records import Message, RowFault, check_text, message
from kto_cli.data.formats.tool_calls import calls_json, tools_json
from kto_cli.data.texts import EXTRAS

RESPONSE = re.compile(r"\s*<tool_response>\n?(.*?)\n?</tool_response>\s*", re.DOTALL)
"""A result as templates in the style of Hermes write it."""
UNWRAPPED = "chats whose results of tools stood in <tool_response> tags, left out: chat templates write them"
_MORE = frozenset(MORE_THAN_TEXT)


class Turn(NamedTuple):
    """Message as it was read."""

    role: str
    content: str
    id: str = ""
    rated: bool = False
    """It has a rating of its own."""
    reasoning: str = ""
    calls: str = ""
    """JSON of calls of tools."""
    call_id: str = ""
    name: str = ""
    """Of a result: its call, and the name of the tool."""

    @property
    def is_blank(self) -> bool:
        """Whether it says nothing and calls no tool."""
        return not (self.content.strip() or self.calls)


def read_turns(value: Sequence[Mapping[str, Any] | Turn], what: str) -> list[Turn]:
    """Messages of a list, called `what` in the reasons of rejects; those that were read before stay as they are.

    Raises:
        RowFault: see the module's docstring; `not_text`, `bad_text`, `role_not_accepted`.
    """
    left_out: set[str] = set()
    turns: list[Turn] = []
    for turn in value:
        if isinstance(turn, Turn):
            turns.append(turn)
        elif len(turn) == 2 and turn.get("role") in PLAIN_ROLES and isinstance(turn.get("content"), str):
            turns.append(Turn(turn["role"], check_text(turn["content"], f"a content in {what}")))  # nearly all messages
        else:
            turns += turns_of_message(unwrapped(turn), what, left_out)
    if left_out:
        count(f"chats whose message fields {', '.join(sorted(left_out))} are left out")
    return turns


def offered_tools(cells: Mapping[str, Any]) -> str:
    """JSON of the tools that a row offers beside its texts; empty if it offers none.

    Raises:
        RowFault: `media_not_accepted` for images or sound: the text alone is not the prompt that was answered;
            `tools_not_accepted`.
    """
    if _MORE.isdisjoint(cells):
        return ""
    for name in MEDIA_COLUMNS:
        if cells.get(name) not in NOTHING:
            raise RowFault("media_not_accepted", f"the prompt also has {name}, which kto cannot use")
    return next((tools_json(cells[name], name) for name in TOOL_COLUMNS if cells.get(name) not in NOTHING), "")


def as_messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Turns as messages."""
    return tuple(map(as_message, turns))


def as_message(turn: Turn) -> Message:
    """A turn as a message of role and content, and of what else it has."""
    found = message(turn.role, turn.content)
    more = (turn.reasoning, turn.calls, turn.call_id, turn.name)
    if any(more):
        found |= {name: value for name, value in zip(EXTRAS, more, strict=True) if value}
    return found


def turns_of_message(values: Mapping[str, Any], what: str, left_out: set[str]) -> list[Turn]:
    """Turns of one message: itself, and before it the results of tools among its parts.

    Names of fields that are left out are added to `left_out`.

    Raises:
        RowFault: see the module's docstring.
    """
    role_key, role = role_of(values, what)
    if role_key == "type" and role in ITEM_ROLES:
        return item_turns(values, role, what)
    text_key = next((key for key in TEXT_KEYS if key != role_key and values.get(key) is not None), "content")
    given = values.get(text_key)
    if role in CALL_ROLES:
        return [Turn("assistant", "", identity(values), calls=calls_json(given, f"a {role} in {what}"))]
    content = content_of(given, f"a {text_key} in {what}")
    if content.results and (role not in RESULT_ROLES | {"user"} or content.text):
        raise RowFault("tools_not_accepted", f"a message of {what} holds results of tools and more")
    if content.results:
        return [result_turn(result) for result in content.results]
    if role in RESULT_ROLES:
        result = result_of({"content": given if given is not None else "", **values}, f"a {text_key} in {what}")
        return [result_turn(result)]
    return [said_turn(values, role, content, (role_key, text_key), what, left_out)]


def said_turn(
    values: Mapping[str, Any], role: str, content: Content, read: tuple[str, str], what: str, left_out: set[str]
) -> Turn:
    """A message of the system, the user or the assistant; `read` names its fields of role and text.

    Raises:
        RowFault: see the module's docstring.
    """
    text, rated = content.text, False
    reasoning, calls = content.reasoning, calls_json(content.calls, f"a message of {what}")
    for key, value in fields_of(values):
        name = key.lower()
        if key in read or value in NOTHING or (key, value) == ("type", "message"):
            continue
        if name in CALL_FIELDS:
            calls = calls or calls_json(value, f"{key} in {what}")
        elif name in TOOL_FIELDS:
            raise RowFault("tools_not_accepted", f"a message of {what} has {key}, which kto cannot read")
        elif name in MEDIA_FIELDS:
            raise RowFault("media_not_accepted", f"a message of {what} has {key}: kto reads text alone")
        elif name in REASONING_FIELDS:
            reasoning = reasoning or read_reasoning(value, what)
        elif name == "parts":  # the same message once more, in full
            more = content_of(value, f"{key} in {what}")
            if more.results:
                raise RowFault("tools_not_accepted", f"a message of {what} holds results of tools and more")
            reasoning, calls = reasoning or more.reasoning, calls or calls_json(more.calls, f"a message of {what}")
        elif name == "refusal":
            if text and text.strip():
                raise RowFault("part_not_accepted", f"a message of {what} has both a content and a refusal")
            text = check_text(value, f"a refusal in {what}")
        else:
            rated = rated or is_rating(name, value)
            left_out.add(key)
    if (calls or reasoning) and role != "assistant":
        kind = "calls of tools" if calls else "reasoning"
        raise RowFault("tools_not_accepted", f"a message of the {role} in {what} has {kind}")
    if text is None and not calls and not reasoning:
        check_text(text, f"a {read[1]} in {what}")
    return Turn(role, text or "", identity(values), rated, reasoning, calls)


def fields_of(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Fields of a message; what LangChain keeps of tools and reasoning in `additional_kwargs` comes last."""
    for key, value in values.items():
        inner = value if key == "additional_kwargs" and isinstance(value, dict) else None
        if inner is None:
            yield key, value
        elif known := {name: field for name, field in inner.items() if name.lower() in TOOL_FIELDS | REASONING_FIELDS}:
            yield from known.items()
        else:
            yield key, value


def item_turns(values: Mapping[str, Any], role: str, what: str) -> list[Turn]:
    """An item of OpenAI's responses without a role: a call of a tool, its result, or reasoning.

    Raises:
        RowFault: see tool_calls.py.
    """
    if role in CALL_ROLES:
        return [Turn("assistant", "", identity(values), calls=calls_json([values], f"a {role} in {what}"))]
    if role == REASONING:
        found = read_reasoning(values, what)
        return [Turn("assistant", "", reasoning=found)] if found else []
    return [result_turn(result_of(values, f"a {role} in {what}"))]


def result_turn(result: Result) -> Turn:
    """A result of a call as a message of the role `tool`."""
    if wrapped := RESPONSE.fullmatch(result.content):
        count(UNWRAPPED)
    return Turn("tool", wrapped[1] if wrapped else result.content, call_id=result.call_id, name=result.name)
