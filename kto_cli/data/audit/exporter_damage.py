"""Damage that exporters do to one text: JSON kept as text, escaped newlines, half of the reasoning; and what an answer
looks like where damage shows in many rows only (`cut_answers.py`)."""

from __future__ import annotations

import re
from enum import IntFlag

from kto_cli.data.audit.found import ESCAPED, HALF_THOUGHT, JSON_ANSWER, NO_THOUGHT
from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.readers.jsonl import parse_json

ASKS_FOR_JSON = re.compile(
    r"json|dictionar|\bdict\b|schema|object|\bapi\b|\barray|\blists?\b|structured|key[- ]value|[{\[]", re.IGNORECASE
)
"""Words and signs of a prompt that asks for JSON, or shows what the answer shall look like."""

ESCAPED_FORM = re.compile(r"\\n(?:\\n|[A-Z0-9*#\s-])")
"""Backslash and n where a line would end; not the start of a LaTeX command or of a Windows path."""
LEAST_ESCAPED = 2

OPENS = re.compile(r"\s*(?:<(think|thinking|reasoning|thought)>|\[(THINK)\])")
CLOSES = re.compile(r"(?<!`)(?:</(?:think|thinking|reasoning|thought)>|\[/THINK\])(?!`)")

LONG = 400
"""Characters of an answer that has several lines, as a rule."""
LIST_IN_LINE = re.compile(r"\b1[.)] \S.* 2[.)] \S.* 3[.)] \S|(?:[.:;!?] +[-*•] \S.*){3}|\S ```|``` \S")
ELLIPSES = ("...", "…")


class Shape(IntFlag):
    """Bits of `Columns.shapes`."""

    TRAILS = 1
    """The answer ends in an ellipsis."""
    UNENDED = 2
    """The answer ends in a letter, a digit or a comma."""
    LINES = 4
    """The answer is LONG and has a newline."""
    LIST_IN_LINE = 8
    """The answer is LONG, has no newline, and has a list or a block of code in its only line."""


TRAILS, UNENDED, LINES, FLAT_LIST = map(int, Shape)


def shape_of(answer: str) -> int:
    """Bits of `Shape`."""
    end = answer[-1:]
    bits = UNENDED if end.isalnum() or end == "," else TRAILS if answer.endswith(ELLIPSES) else 0
    if len(answer) < LONG:
        return bits
    if "\n" in answer:
        return bits | LINES
    may_be = " 2" in answer or "```" in answer or answer.count(" - ") + answer.count(" * ") + answer.count(" • ") >= 3
    return bits | FLAT_LIST if may_be and LIST_IN_LINE.search(answer) else bits


def is_json(text: str) -> bool:
    """Whether a text is the JSON (or Python) source of an object, of a list of objects, or of a text with escapes."""
    if text[:1].isalpha():
        return False
    first = text[:1] if not text[:1].isspace() else text.lstrip()[:1]
    if first == '"':
        bare = text.strip()
        return bare.endswith('"') and "\\" in bare and isinstance(_parsed(bare), str)
    if first not in ("{", "["):
        return False
    found = structure_of(text)
    return bool(found) and (isinstance(found, dict) or all(isinstance(item, dict) for item in found or ()))


def _parsed(text: str) -> object:
    try:
        return parse_json(text)
    except ValueError:
        return None


def exporter_damage(answer: str, prompt: str) -> int:
    """Bits of `Found`: JSON, escaped newlines and reasoning in an answer."""
    if answer[:1].isalpha() and "</" not in answer and "[/" not in answer and "\\n" not in answer:
        return 0  # nearly all
    found = 0
    if is_json(answer) and not ASKS_FOR_JSON.search(prompt):
        found |= JSON_ANSWER
    if (
        "\\n" in answer
        and "\n" not in answer
        and "`" not in answer
        and len(ESCAPED_FORM.findall(answer)) >= LEAST_ESCAPED
    ):
        found |= ESCAPED
    if "</" in answer or "[/" in answer or answer[:1] in "<[" or answer[:1].isspace():
        found |= _reasoning(answer)
    return found


def _reasoning(answer: str) -> int:
    """HALF_THOUGHT or NO_THOUGHT, by the first block of reasoning."""
    opens, closes = OPENS.match(answer), CLOSES.search(answer)
    if bool(opens) == bool(closes):
        return NO_THOUGHT if opens and closes and not answer[opens.end() : closes.start()].strip() else 0
    if opens:
        return HALF_THOUGHT
    assert closes
    tag = closes[0].replace("/", "")
    return 0 if tag in answer[: closes.start()] else HALF_THOUGHT
