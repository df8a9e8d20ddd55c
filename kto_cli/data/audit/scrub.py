"""Personal data and keys replaced by their kind, such as <EMAIL>: in texts, chats, calls of tools and any JSON.

They are told by their form alone; `common/secrets.py` removes this process's own keys, which it knows, in any encoding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kto_cli.common.read import parse_json
from kto_cli.data.audit.account_numbers import is_card
from kto_cli.data.audit.found import ABOUT, CARD, Found
from kto_cli.data.audit.private_data import KINDS, kinds_for
from kto_cli.data.audit.secret_keys import Span
from kto_cli.data.formats.fields import json_text
from kto_cli.data.texts import TOOLS, Message, Text

CARD_PLACEHOLDER = next(kind.placeholder for kind in KINDS if kind.bit == CARD)
LEAST_CARD = 10**12
"""Numbers above may be a card's."""
PLACEHOLDER = re.compile(r"<[A-Z_]+>")
ESCAPE = re.compile(r"\\u00([0-7][0-9A-Fa-f])")
"""An ASCII character as JSON may escape it."""
WORDS = re.compile(r"_|(?<=[a-z])(?=[A-Z])")
"""Where a field's name has its next word."""
LONGEST_KEY = 40
"""Characters of a field's name, which may say what its value is: `phone`, `api_key`."""


@dataclass
class Finds:
    """What was found and replaced."""

    kinds: list[str] = field(default_factory=list)
    """The name of its finding for each value."""
    values: dict[str, str] = field(default_factory=dict)
    """Value -> what stands in its place."""

    def add(self, other: Finds) -> None:
        """Adds what was found elsewhere."""
        self.kinds += other.kinds
        self.values |= other.values


class Named(NamedTuple):
    """A value found by a model or a package: where, and its kind in words."""

    span: Span
    kind: str
    """Such as private_person."""


Finder = Callable[[str], Iterable[Named]]
_finders: ContextVar[tuple[Finder, ...]] = ContextVar("finders", default=())


@contextmanager
def also_finding(*finders: Finder) -> Iterator[None]:
    """Context manager within which `scrub` also asks these finders; they belong to this process."""
    token = _finders.set(finders)
    try:
        yield
    finally:
        _finders.reset(token)


def scrub(text: str, finds: Finds) -> str:
    """`text` with each value replaced by its kind; forms come first, then what finders see in what is left."""
    text = scrub_forms(text, finds)
    for finder in _finders.get():
        named = [one for one in finder(text) if not PLACEHOLDER.fullmatch(text, *one.span)]
        text = replaced(text, named, "", finds)
    return text


def scrub_forms(text: str, finds: Finds) -> str:
    """`text` with each value of a known form replaced by its kind."""
    for kind in kinds_for(text, text.encode("utf-8", "surrogatepass")):
        spans = [Named(span, ABOUT[Found(kind.bit)].name) for span in kind.spans(text, True)]
        text = replaced(text, spans, kind.placeholder, finds) if spans else text
    return text


def replaced(text: str, values: Iterable[Named], placeholder: str, finds: Finds) -> str:
    """`text` with values replaced and counted; one that begins within another is part of it.

    Args:
        placeholder: empty: the kind of each in capitals.
    """
    parts, done = [], 0
    for (start, end), kind in sorted(values):
        if start >= done:
            instead = placeholder or f"<{kind.removeprefix('private_').upper()}>"
            parts += [text[done:start], instead]
            finds.kinds.append(kind)
            finds.values[text[start:end]] = instead
        done = max(done, end)
    return "".join(parts) + text[done:]


def scrub_text(text: Text, finds: Finds) -> Text:
    """A prompt or an answer with all its parts scrubbed; the same object where nothing was found."""
    before = len(finds.kinds)
    cleaned = scrub(text, finds) if isinstance(text, str) else tuple(_message(turn, finds) for turn in text)
    return text if len(finds.kinds) == before else cleaned


def _message(turn: Message, finds: Finds) -> Message:
    """A message with its content, its reasoning, its calls (the values in them) and its names scrubbed."""
    return {
        name: value
        if name == "role"
        else scrub_raw(value, finds)
        if name == "tool_calls" or (name == "content" and turn["role"] == TOOLS)
        else scrub(value, finds)
        for name, value in turn.items()
    }


def spread(text: Text, values: dict[str, str]) -> Text:
    """A prompt or an answer without values that were found elsewhere in its row, such as a number said again."""
    if not values:
        return text
    if isinstance(text, str):
        for value, placeholder in values.items():
            if value in text:
                text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", placeholder, text)
        return text
    return tuple({name: str(spread(part, values)) for name, part in turn.items()} for turn in text)


def scrub_raw(raw: str, finds: Finds) -> str:
    """JSON text with its values scrubbed, unchanged where nothing was found; any other text scrubbed as it stands.

    In a text that is no JSON, ASCII characters are taken out of their escapes first (\\u0040 is @).
    """
    try:
        value = parse_json(raw)
    except ValueError:
        return scrub(ESCAPE.sub(lambda match: chr(int(match[1], 16)), raw), finds)
    before = len(finds.kinds)
    cleaned = scrub_json(value, finds)
    return raw if len(finds.kinds) == before else json_text(cleaned)


def scrub_json(value: Any, finds: Finds) -> Any:
    """A JSON value with its texts, its names and its numbers scrubbed; a name may say what its value is."""
    if isinstance(value, str):
        return scrub(value, finds)
    if isinstance(value, dict):
        return {_name(name, finds): _field(name, item, finds) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrub_json(item, finds) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > LEAST_CARD and is_card(str(value)):
        return replaced(str(value), [Named((0, len(str(value))), ABOUT[Found.CARD].name)], CARD_PLACEHOLDER, finds)
    return value


def _name(name: Any, finds: Finds) -> Any:
    return scrub(name, finds) if isinstance(name, str) else name


def _field(name: Any, value: Any, finds: Finds) -> Any:
    """The value of a field: `phone: 0170 8234567` is a phone number, 0170 8234567 alone may be anything."""
    is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    if not is_plain or not isinstance(name, str) or len(name) > LONGEST_KEY:
        return scrub_json(value, finds)
    seen, start = Finds(), f"{WORDS.sub(' ', name)}: "
    together = scrub(f"{start}{value}", seen)
    if not seen.kinds or not together.startswith(start):
        return scrub_json(value, finds)
    finds.add(seen)
    return together.removeprefix(start)


def scrub_strings(value: Any) -> Any:
    """A JSON value with its texts scrubbed, each by itself; names and numbers stay: for a manifest."""
    if isinstance(value, str):
        return scrub_forms(value, Finds())
    if isinstance(value, dict):
        return {name: scrub_strings(item) for name, item in value.items()}
    return [scrub_strings(item) for item in value] if isinstance(value, (list, tuple)) else value
