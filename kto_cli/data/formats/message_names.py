"""Names that messages and their fields have: roles, texts, calls of tools, media, reasoning, ratings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.records import RowFault, check_text

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
RESULT_ROLES = frozenset(
    [
        *("tool", "function", "observation", "function_response", "function_call_output", "tool_response"),
        *("tool_result", "toolmessage", "functionmessage", "ipython", "environment"),
    ]
)
"""Roles of messages that hold the result of a call."""
CALL_ROLES = frozenset(("function_call", "tool_call", "tool_calls", "tool_use"))
"""Roles of messages of the assistant whose text is the JSON of calls (LLaMA-Factory, OpenAI's responses)."""
TOOL_ROLES = RESULT_ROLES | CALL_ROLES
REASONING = "reasoning"
ITEM_ROLES = TOOL_ROLES | {REASONING}
"""Types of items of OpenAI's responses that are no messages."""
ROLE_KEYS = ("role", "from", "sender", "speaker", "author", "type")
TEXT_KEYS = ("content", "value", "text", "message", "parts")
CALL_FIELDS = ("tool_calls", "toolcalls", "function_call", "functioncall", "tool_call")
TOOL_FIELDS = frozenset(
    [*CALL_FIELDS, "tool_call_id", "tool_use", "tool_results", "toolinvocations", "invalid_tool_calls"]
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
TOOL_COLUMNS = ("tools", "functions")
MEDIA_COLUMNS = ("images", "image", "videos", "video", "audios", "audio")
MORE_THAN_TEXT = (*TOOL_COLUMNS, *MEDIA_COLUMNS)
"""Columns beside a chat that its answer depends on."""
DEVELOPER = "chats whose message of the role developer is read as a system message"


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


def role_of(values: Mapping[str, Any], what: str) -> tuple[str, str]:
    """(field of a message's role, its role: of a chat template, or one of ITEM_ROLES).

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
    if folded == "developer":
        count(DEVELOPER)
    if folded in ROLES:
        return key, ROLES[folded]
    if folded in ITEM_ROLES:
        return key, folded
    accepted = ", ".join(dict.fromkeys(ROLES.values()))
    raise RowFault(
        "role_not_accepted", f"role {given[:40]!r} is not one of {accepted} (nor human, gpt, ai, bot, model)"
    )


def is_rating(name: str, value: Any) -> bool:
    """Whether a field says that its message was rated; a score only as thumbs are stored, 1 or -1."""
    if name == "score":
        return value in (1, -1) and not isinstance(value, bool)
    return name in RATING_FIELDS and value != 0


def identity(values: Mapping[str, Any]) -> str:
    """Id of a message; empty if it has none."""
    found = next((values[key] for key in ("id", "message_id", "messageId", "_id") if key in values), None)
    return str(found) if isinstance(found, (str, int)) and not isinstance(found, bool) else ""
