"""One chat message, in the spellings that people have: its role, its text, and what else it carries.

    role       role, from, sender, speaker, author or type; user or human, assistant or gpt, ai, bot, model, ...
    text       content, value, text, message or parts: a text, or a list of text parts, put together without a space
               as chat templates do; a refusal where there is no content

A message is more than its role and text. What the answer depends on and kto cannot give to a model rejects the row:

    role_not_accepted         a tool's message, or one of an unknown role
    tools_not_accepted        calls of tools, and their results
    media_not_accepted        images, audio, video, files
    part_not_accepted         a part of another kind
    reasoning_not_accepted    reasoning in a field of its own, in the rated answer (earlier turns: chats.py)

All other fields are left out and counted by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.records import Message, RowFault, check_text, message

ROLES = {
    **dict.fromkeys(("user", "human", "humanmessage", "prompter", "usr", "person"), "user"),
    **dict.fromkeys(
        ("assistant", "ai", "aimessage", "gpt", "chatgpt", "bot", "chatbot", "model", "llm", "bing", "bard"),
        "assistant",
    ),
    **dict.fromkeys(("system", "systemmessage", "developer"), "system"),
}
"""Role of chats -> role of a chat template, in lower case."""
PLAIN_ROLES = ("user", "assistant", "system")
TOOL_ROLES = frozenset(
    [
        *("tool", "tools", "function", "observation", "function_call", "function_response"),
        *("function_call_output", "tool_call", "tool_calls", "tool_response", "tool_result", "tool_use"),
        *("toolmessage", "functionmessage", "ipython", "environment"),
    ]
)
ROLE_KEYS = ("role", "from", "sender", "speaker", "author", "type")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
TOOL_FIELDS = frozenset(
    [
        *("tool_calls", "toolcalls", "function_call", "functioncall", "tool_call", "tool_call_id"),
        *("tool_use", "tool_results", "toolinvocations", "invalid_tool_calls"),
    ]
)
MEDIA_FIELDS = frozenset(
    [
        *("images", "image", "image_url", "image_urls", "audio", "audios", "video", "videos", "files"),
        *("file", "attachments", "experimental_attachments", "media"),
    ]
)
REASONING_FIELDS = frozenset(
    [
        *("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details"),
        *("reasoning_text", "thinking_blocks"),
    ]
)
RATING_FIELDS = frozenset(
    [
        *("annotation", "annotations", "feedback", "rating", "thumbs", "thumb", "vote", "liked", "reaction"),
    ]
)
"""Fields by which an application marks the message that was rated."""
TEXT_PARTS = frozenset(("text", "input_text", "output_text"))
REASONING_PARTS = frozenset(("thinking", "redacted_thinking", "reasoning", "think", "thought"))
MEDIA_PARTS = ("image", "audio", "video", "file", "document", "media")
NOTHING: tuple[Any, ...] = (None, "", "[]", "{}", [], {}, ())
"""Values of a field that say nothing."""
MORE_THAN_TEXT = ("tools", "functions", "images", "image", "videos", "video", "audios", "audio")
"""Columns beside a chat that its answer depends on."""
_MORE = frozenset(MORE_THAN_TEXT)


class Turn(NamedTuple):
    """Message as it was read."""

    role: str
    content: str
    id: str = ""
    rated: bool = False
    """It has a rating of its own."""
    reasoning: str = ""
    """Name of a field with reasoning."""


def read_turns(value: Sequence[Mapping[str, Any] | Turn], what: str) -> list[Turn]:
    """Messages of a list, called `what` in the reasons of rejects; those that were read before stay as they are.

    Raises:
        RowFault: see the module's docstring; `not_text`, `bad_text`, `role_not_accepted`.
    """
    left_out: set[str] = set()
    turns = [turn if isinstance(turn, Turn) else read_turn(unwrapped(turn), what, left_out) for turn in value]
    if left_out:
        count(f"chats whose message fields {', '.join(sorted(left_out))} are left out")
    return turns


def refuse_more_than_text(cells: Mapping[str, Any]) -> None:
    """Rejects a row with tools, images or sound beside its texts: the text alone is not the prompt that was answered.

    Raises:
        RowFault: `tools_not_accepted` or `media_not_accepted`.
    """
    if _MORE.isdisjoint(cells):
        return
    for name in MORE_THAN_TEXT:
        if cells.get(name) not in NOTHING:
            reason = "tools_not_accepted" if name in ("tools", "functions") else "media_not_accepted"
            raise RowFault(reason, f"the prompt also has {name}, which kto cannot use")


def as_messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Turns as messages of role and content."""
    return tuple(message(turn.role, turn.content) for turn in turns)


def unwrapped(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields of a message; LangChain keeps them in `data` or `kwargs`, beside the message's type."""
    for key in ("data", "kwargs"):
        inner = values.get(key)
        if isinstance(inner, dict) and any(name in inner for name in TEXT_KEYS) and "role" not in values:
            kind = values.get("type")
            names = values.get("id")
            if kind == "constructor" and isinstance(names, (list, tuple)) and names:
                kind = str(names[-1]).removesuffix("Chunk")
            return {**inner, "type": kind}
    return values


def read_turn(values: Mapping[str, Any], what: str, left_out: set[str]) -> Turn:
    """One message; names of fields that are left out are added to `left_out`.

    Raises:
        RowFault: see the module's docstring.
    """
    if len(values) == 2 and values.get("role") in PLAIN_ROLES and isinstance(values.get("content"), str):
        return Turn(values["role"], check_text(values["content"], f"a content in {what}"))  # nearly all messages
    role_key, role = role_of(values, what)
    text_key = next((key for key in TEXT_KEYS if key != role_key and values.get(key) is not None), "content")
    content, reasoning = text_of(values.get(text_key), f"a {text_key} in {what}")
    rated = False
    for key, value in values.items():
        if key in (role_key, text_key) or value in NOTHING:
            continue
        name = key.lower()
        if name == "additional_kwargs" and isinstance(value, dict):  # LangChain
            inner = [field.lower() for field, content in value.items() if content not in NOTHING]
            name = next((field for field in inner if field in TOOL_FIELDS | REASONING_FIELDS), name)
        if name in TOOL_FIELDS:
            raise RowFault("tools_not_accepted", f"a message of {what} has {key}: kto cannot use calls of tools")
        if name in MEDIA_FIELDS:
            raise RowFault("media_not_accepted", f"a message of {what} has {key}: kto reads text alone")
        if name in REASONING_FIELDS:
            reasoning = reasoning or key
        elif name == "refusal":
            if content and content.strip():
                raise RowFault("part_not_accepted", f"a message of {what} has both a content and a refusal")
            content = check_text(value, f"a refusal in {what}")
        else:
            rated = rated or is_rating(name, value)
            left_out.add(key)
    if content is None:
        check_text(content, f"a {text_key} in {what}")
    return Turn(role, content or "", identity(values), rated, reasoning)


def role_of(values: Mapping[str, Any], what: str) -> tuple[str, str]:
    """(field of a message's role, its role).

    Raises:
        RowFault: `role_not_accepted`; `not_text` if there is none.
    """
    if "role" not in values and isinstance(values.get("isCreatedByUser"), bool):  # LibreChat
        return "isCreatedByUser", "user" if values["isCreatedByUser"] else "assistant"
    key = next((key for key in ROLE_KEYS if isinstance(values.get(key), (str, dict))), "role")
    given = values.get(key)
    if isinstance(given, dict):  # {"author": {"role": "user"}}
        given = given.get("role")
    given = check_text(given, f"a role in {what}")
    folded = given.strip().casefold()
    if folded in ROLES:
        return key, ROLES[folded]
    if folded in TOOL_ROLES:
        raise RowFault("role_not_accepted", f"{what} has a message of the role {given[:40]!r}: kto cannot use tools")
    accepted = ", ".join(dict.fromkeys(ROLES.values()))
    raise RowFault(
        "role_not_accepted", f"role {given[:40]!r} is not one of {accepted} (nor human, gpt, ai, bot, model)"
    )


def text_of(value: Any, what: str) -> tuple[str | None, str]:
    """(text of a message's content, None if it has none; `thinking` if it has parts with reasoning).

    Raises:
        RowFault: see the module's docstring.
    """
    if isinstance(value, dict):
        value = value["parts"] if isinstance(value.get("parts"), (list, tuple)) else [value]
    if not isinstance(value, (list, tuple)):
        return (None if value is None else check_text(value, what)), ""
    texts, reasoning = [], ""
    for part in value:
        text = part if isinstance(part, str) else part_text(part, what)
        if text is None:
            reasoning = "a part of its content"
        else:
            texts.append(check_text(text, what))
    return ("".join(texts) if texts else None), reasoning


def part_text(part: Any, what: str) -> str | None:
    """Text of one part of a message's content; None for reasoning.

    Raises:
        RowFault: `tools_not_accepted`, `media_not_accepted` or `part_not_accepted`.
    """
    if not isinstance(part, dict):
        raise RowFault("not_text", f"{what} has a part that is {type(part).__name__}, not text")
    kind = str(part.get("type") or part.get("content_type") or "text").lower().replace("-", "_")
    text = part.get("text") if part.get("text") is not None else part.get("content")
    if isinstance(text, dict):  # {"type": "text", "text": {"value": "..."}}
        text = text.get("value")
    if kind in TEXT_PARTS and isinstance(text, str):
        return text
    if kind in TEXT_PARTS and all(value in NOTHING for name, value in part.items() if name not in ("type", "text")):
        raise RowFault("not_text", f"{what} has a part without text")
    if kind == "refusal":
        return check_text(part.get("refusal"), f"a refusal in {what}")
    if kind in REASONING_PARTS:
        return None
    names = [kind, *(name.lower() for name, value in part.items() if value not in NOTHING)]
    if any("tool" in name or "function" in name for name in names):
        raise RowFault("tools_not_accepted", f"{what} has a part of kind {kind[:40]!r}: kto cannot use tools")
    if any(name.startswith(("inline_data", "input_")) or name.startswith(MEDIA_PARTS) for name in names):
        raise RowFault("media_not_accepted", f"{what} has a part of kind {kind[:40]!r}: kto reads text alone")
    raise RowFault("part_not_accepted", f"{what} has a part of kind {kind[:40]!r}, which is not text")


def is_rating(name: str, value: Any) -> bool:
    """Whether a field says that its message was rated; a score only as thumbs are stored, 1 or -1."""
    if name == "score":
        return value in (1, -1) and not isinstance(value, bool)
    return name in RATING_FIELDS and value != 0


def identity(values: Mapping[str, Any]) -> str:
    """Id of a message; empty if it has none."""
    found = next((values[key] for key in ("id", "message_id", "messageId", "_id") if key in values), None)
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else ""
