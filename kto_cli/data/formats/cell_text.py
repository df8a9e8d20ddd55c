"""Lists, objects and chats that a cell holds as text: JSON, or what pandas and numpy print of Python objects.

CSV has only texts, and a chat in one of its cells is the source text of a list. `datasets.to_csv` and pandas write
Python's repr; of a column that was read from Parquet they write numpy's, which has no commas between the items.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.message_names import ROLES, TEXT_KEYS, TOOL_FIELDS, TOOL_ROLES
from kto_cli.data.formats.records import RowFault
from kto_cli.data.readers.jsonl import DuplicateKey, parse_json

MOST_PYTHON = 2**20
"""Characters of a Python repr that is parsed; `ast` needs some hundred times their memory."""
TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<open>[\[{(])|(?P<close>[\]})])|(?P<sign>[,:=])|(?P<word>[\w.+-]+)"""
    r"""|(?P<space>\s+)""",
    re.DOTALL,
)
CHAT_ROLES = frozenset([*ROLES, *TOOL_ROLES])
"""Values of `role` or `from` by which a list of objects is a chat and not a JSON answer."""
STARTS_A_CHAT = re.compile(
    r"""\s*(?:array\()?\[?\s*[{]\s*(["'])(?:role|from)\1\s*:\s*(["'])"""
    + f"(?:{'|'.join(sorted(CHAT_ROLES))})"
    + r"\2",
    re.IGNORECASE,
)
READ_AS_CHAT = "chats written as text in a cell (JSON or Python), read as chats"
KEPT_AS_TEXT = "answers that are the JSON of a chat other than their prompt's, kept as text"
READ_AS_TURNS = "prompts and answers that are lists of texts, read as turns"


def structure_of(text: str) -> list[Any] | dict[str, Any] | None:
    """List or object that a text is the JSON or Python source of; None for any other text."""
    bare = text.strip()
    if not bare or bare[0] not in "[{a" or bare[-1] not in "]})":
        return None
    try:
        value = parse_json(bare)
    except DuplicateKey:
        return None
    except ValueError:
        value = _python_value(bare)
    return value if isinstance(value, (list, dict)) else None


def _python_value(text: str) -> Any:
    """Value of a Python or numpy repr; None if it is not one."""
    if len(text) > MOST_PYTHON or (source := _with_commas(text)) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of backslashes in texts that are not reprs
        try:
            return ast.literal_eval(source)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            return None


def _with_commas(text: str) -> str | None:
    """A repr with commas between its items, `array(..., dtype=object)` as the list in it and nan as None.

    Without the commas Python would join two neighbouring texts into one.
    """
    parts: list[str] = []
    end, before, last, of_array = 0, "", "", []
    for token in TOKEN.finditer(text):
        if token.start() != end:
            return None
        end, kind, part = token.end(), str(token.lastgroup), token.group()
        if kind == "space":
            continue
        if part in "()":
            if part == "(":
                of_array.append(last == "array")
            if of_array[-1] if part == "(" else of_array and of_array.pop():
                last = part
                continue
        if last == "," and part == "dtype":
            parts.pop()
        last = part
        if (kind == "word" and part in ("array", "dtype", "object")) or part == "=":
            continue
        if kind in ("text", "open", "word") and before in ("text", "close", "word"):
            parts.append(",")
        parts.append("None" if part == "nan" else part)
        before = kind
    return "".join(parts) if end == len(text) else None


def chat_in_text(text: str, what: str) -> list[Any] | None:
    """Messages that a text is the JSON or Python source of: a list, one message, or an object with `messages`.

    Raises:
        RowFault: `not_messages` if it starts like a chat and cannot be parsed, as after truncation.
    """
    if not may_be_chat(text):
        return None
    found = structure_of(text)
    if found is None and STARTS_A_CHAT.match(text):
        raise RowFault("not_messages", f"{what} starts as a chat written as text, and is neither JSON nor Python")
    return chat_in(found)


def holds_chat(value: Any) -> bool:
    """Whether a cell is a text that is the source of a chat."""
    return isinstance(value, str) and may_be_chat(value) and chat_in(structure_of(value)) is not None


def may_be_chat(text: str) -> bool:
    """Whether a text is worth parsing; false for nearly all texts, at no cost."""
    if text[:1] not in "[{a" and not text[:1].isspace():
        return False
    return text.lstrip()[:1] in ("[", "{", "a") and ("role" in text or "from" in text) and "{" in text


def chat_in(value: Any) -> list[Any] | None:
    """Messages of a list of messages, of one message, or of an object with `messages`; None for anything else.

    An object with `messages` is often a request to a model, with its system message beside them.
    """
    if isinstance(value, dict) and isinstance(value.get("messages"), (list, tuple)):
        system = value.get("system")
        value = [*([{"role": "system", "content": system}] if system else []), *value["messages"]]
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)) or not value or not all(map(is_message, value)):
        return None
    return list(value)


def is_message(value: Any) -> bool:
    """Whether a value is a chat message with a role of chats."""
    if not isinstance(value, dict) or not any(key in value for key in (*TEXT_KEYS, *TOOL_FIELDS)):
        return False
    role = value.get("role", value.get("from"))
    return isinstance(role, str) and role.strip().casefold() in CHAT_ROLES


def turns_of(prompt: Any, answers: list[Any]) -> tuple[Any, list[Any]]:
    """Prompt and answers; if all of them are lists of as many texts (or the JSON of such), as the turns of a chat.

    Votes over two models are published like this: `["first question", "second"]` and `["first answer", "second"]`.

    Raises:
        RowFault: `missing_field` if a turn is null.
    """
    if isinstance(prompt, str) and prompt[:1] != "[" and not prompt[:1].isspace():  # nearly all: not all are lists
        return prompt, answers
    lists = [_texts_in(value) for value in (prompt, *answers)]
    if any(each is None for each in lists) or len({len(each or ()) for each in lists}) != 1:
        return prompt, answers
    asked, *replies = ([*each] for each in lists if each is not None)
    if any(text is None for each in (asked, *replies) for text in each):
        raise RowFault("missing_field", "a turn of the prompt or of an answer is null")
    count(READ_AS_TURNS)
    if len(asked) == 1:
        return asked[0], [texts[0] for texts in replies]
    chats = []
    for texts in replies:
        turns = [turn for both in zip(asked, texts, strict=True) for turn in both]
        chats.append([{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)])
    return chats[0][:-1], chats


def _texts_in(value: Any) -> list[str | None] | None:
    if isinstance(value, str):
        value = structure_of(value) if value.lstrip().startswith("[") else None
    if not isinstance(value, (list, tuple)) or not value:
        return None
    return list(value) if all(item is None or isinstance(item, str) for item in value) else None
