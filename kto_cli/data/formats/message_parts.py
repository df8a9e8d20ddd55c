"""Content of a message as a list of parts: texts, reasoning, calls of tools and their results.

Texts are put together without a space, as chat templates do. Parts of other kinds reject the row:

    media_not_accepted    images, audio, video, files
    part_not_accepted     another kind
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.records import RowFault, check_text

TEXT_PARTS = frozenset(("text", "input_text", "output_text"))
REASONING_PARTS = frozenset(("thinking", "redacted_thinking", "reasoning", "think", "thought"))
CALL_PARTS = frozenset(("tool_use", "tool_call", "function_call", "functioncall"))
RESULT_PARTS = frozenset(("tool_result", "function_call_output", "functionresponse", "function_response"))
MARKS = frozenset(("step_start", "step_finish"))
"""Parts that say nothing: where a step of an agent begins and ends."""
MEDIA_PARTS = ("image", "audio", "video", "file", "document", "media")
REASONING_KEYS = ("thinking", "text", "reasoning", "content", "summary", "think")
UNREAD = "chats with reasoning that cannot be read (encrypted or empty), left out"
NOTHING: tuple[Any, ...] = (None, "", "[]", "{}", [], {}, ())
"""Values of a field that say nothing."""


class Result(NamedTuple):
    """Result of a call of a tool."""

    call_id: str
    name: str
    content: str


class Content(NamedTuple):
    """What the parts of a message's content hold."""

    text: str | None
    """None if it has none."""
    reasoning: str = ""
    calls: tuple[Any, ...] = ()
    results: tuple[Result, ...] = ()


def content_of(value: Any, what: str) -> Content:
    """Content of a message: a text, a part, or a list of parts.

    Raises:
        RowFault: see the module's docstring; `not_text`, `bad_text`.
    """
    if isinstance(value, dict):
        value = value["parts"] if isinstance(value.get("parts"), (list, tuple)) else [value]
    if not isinstance(value, (list, tuple)):
        return Content(None if value is None else check_text(value, what))
    texts: list[str] = []
    reasoning: list[str] = []
    calls, results = [], []
    for part in value:
        kind = part_kind(part, what)
        if kind in REASONING_PARTS:
            reasoning.append(read_reasoning(part, what))
        elif kind in CALL_PARTS:
            calls.append(part)
        elif kind in RESULT_PARTS:
            results.append(result_of(part, what))
        elif kind not in MARKS:
            texts.append(text_part(part, kind, what))
    text = "".join(texts) if texts else None
    return Content(text, "\n\n".join(filter(None, reasoning)), tuple(calls), tuple(results))


def part_kind(part: Any, what: str) -> str:
    """Kind of a part, in lower case with underscores.

    Raises:
        RowFault: `not_text` if it is neither a text nor an object.
    """
    if isinstance(part, str):
        return "text"
    if not isinstance(part, dict):
        raise RowFault("not_text", f"{what} has a part that is {type(part).__name__}, not text")
    kind = part.get("type") or part.get("content_type")
    if not kind:  # Gemini names its parts by their only field
        kind = next((name for name in ("functionCall", "functionResponse") if isinstance(part.get(name), dict)), "text")
        if kind == "text" and part.get("thought") is True:
            kind = "thought"
    return str(kind).lower().replace("-", "_")


def text_part(part: Any, kind: str, what: str) -> str:
    """Text of a part.

    Raises:
        RowFault: `media_not_accepted`, `part_not_accepted` or `tools_not_accepted`.
    """
    if isinstance(part, str):
        return check_text(part, what)
    text = part.get("text") if part.get("text") is not None else part.get("content")
    if isinstance(text, dict):  # {"type": "text", "text": {"value": "..."}}
        text = text.get("value")
    if kind in TEXT_PARTS and isinstance(text, str):
        return check_text(text, what)
    if kind in TEXT_PARTS and all(value in NOTHING for name, value in part.items() if name not in ("type", "text")):
        raise RowFault("not_text", f"{what} has a part without text")
    if kind == "refusal":
        return check_text(part.get("refusal"), f"a refusal in {what}")
    names = [kind, *(name.lower() for name, value in part.items() if value not in NOTHING)]
    if any("tool" in name or "function" in name for name in names):
        raise RowFault("tools_not_accepted", f"{what} has a part of kind {kind[:40]!r}, which kto cannot read")
    if any(name.startswith(("inline_data", "input_")) or name.startswith(MEDIA_PARTS) for name in names):
        raise RowFault("media_not_accepted", f"{what} has a part of kind {kind[:40]!r}: kto reads text alone")
    raise RowFault("part_not_accepted", f"{what} has a part of kind {kind[:40]!r}, which is not text")


def read_reasoning(value: Any, what: str) -> str:
    """Reasoning in a field or part; empty, and counted, if it is not there to be read (encrypted).

    Raises:
        RowFault: `bad_text`.
    """
    if not (found := reasoning_text(value)):
        count(UNREAD)
    return check_text(found, f"reasoning in {what}")


def reasoning_text(value: Any) -> str:
    """Reasoning in a text, an object or a list of such; empty if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n\n".join(filter(None, map(reasoning_text, value)))
    if not isinstance(value, dict):
        return ""
    return next((text for key in REASONING_KEYS if (text := reasoning_text(value.get(key)))), "")


def result_of(part: Mapping[str, Any], what: str) -> Result:
    """Result of a call of a tool, from a part or an item.

    Raises:
        RowFault: it holds more than text.
    """
    inner = next(
        (part[key] for key in ("functionResponse", "function_response") if isinstance(part.get(key), dict)), part
    )
    keys = ("content", "output", "result", "response")
    content = result_text(next((inner[key] for key in keys if inner.get(key) is not None), ""), what)
    ids = ("tool_call_id", "tool_use_id", "call_id", "toolCallId", "id")
    names = ("name", "toolName", "tool_name")
    call_id, name = (next((str(inner[key]) for key in some if inner.get(key)), "") for some in (ids, names))
    return Result(call_id, name, content)


def result_text(value: Any, what: str) -> str:
    """Text of a result: a text, parts of text, or an object as JSON.

    Raises:
        RowFault: as `content_of`.
    """
    if isinstance(value, str):
        return check_text(value, what)
    if isinstance(value, dict) and value.get("type") in ("text", "json") and "value" in value:  # Vercel
        return result_text(value["value"], what)
    if isinstance(value, (list, tuple)) and all(isinstance(part, dict) and "type" in part for part in value):
        return content_of(value, what).text or ""
    return check_text(json.dumps(value, ensure_ascii=False), what)
