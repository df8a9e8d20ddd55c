"""Parses responses of a chat server: completion, error message, Retry-After."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator
from typing import Any

from kto_cli.common.read import parse_json

NOT_TEXTS = frozenset(("id", "object", "model", "role", "finish_reason", "type", "system_fingerprint"))


def json_object(body: str) -> dict[str, Any] | None:
    """The body as a JSON object, or None."""
    try:
        answer = parse_json(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def has_choices(answer: dict[str, Any]) -> bool:
    """Whether it has a completion, of whatever kind."""
    choices = answer.get("choices")
    return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)


def is_completion(answer: dict[str, Any]) -> bool:
    """Whether it has a message (which may be empty)."""
    return has_choices(answer) and isinstance(answer["choices"][0].get("message"), dict)


def is_list(answer: dict[str, Any]) -> bool:
    """Whether it is a list of models."""
    return isinstance(answer.get("data"), list)


def complaint(body: str) -> str:
    """The error message of {"error": {"message": ..., "code": ...}}, {"error": ...}, {"detail": ...}; the
    joined texts of a streamed reply; else the body."""
    answer = json_object(body)
    if answer is None:
        events = [json_object(line.removeprefix("data:")) for line in body.splitlines()]
        return "".join(_texts([event for event in events if event])) if any(events) else body
    error = answer.get("error", answer.get("detail", answer.get("message", "")))
    if isinstance(error, dict):
        return " ".join(str(error[name]) for name in ("message", "code") if error.get(name))
    return str(error or "")


def _texts(value: Any) -> Iterator[str]:
    """Texts of a streamed reply, which may come in pieces of a character; ids and kinds are omitted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from (text for key, item in value.items() if key not in NOT_TEXTS for text in _texts(item))


def retry_after(value: str | None) -> float | None:
    """Seconds from now (RFC 9110, 10.2.3: a number of them, or a date); None if unreadable."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
