"""Reasoning of the assistant within its text: <think> ... </think> before the answer, and tags like it."""

from __future__ import annotations

import re

from kto_cli.data.texts import Text

OPENER = re.compile(r"([<\[]\|?)((?:START_)?)((?:seed:)?think\w*|thought\w*|reason\w*)(\|?[>\]])", re.IGNORECASE)
"""A token that opens reasoning: <think>, [THINK], <|START_THINKING|>, <seed:think>."""
LONGEST_OPENER = 32
"""Characters of a token that opens reasoning, and white space before it."""


def closer_of(opener: re.Match[str]) -> str:
    """The token that closes reasoning: </think>, [/THINK], <|END_THINKING|>."""
    left, start, name, right = opener.groups()
    return f"{left}END_{name}{right}" if start else f"{left}/{name}{right}"


def opener_of(text: str) -> re.Match[str] | None:
    """The token that opens reasoning at the start of a text."""
    if text[:1] not in "<[" and not text[:1].isspace():
        return None  # nearly all texts
    head = text[:LONGEST_OPENER]
    return OPENER.match(head, len(head) - len(head.lstrip()))


def split_reasoning(text: str) -> tuple[str, str]:
    """(reasoning, answer behind it) of a text that begins with reasoning; ("", text) for any other text.

    Where a chat template opens the reasoning in the prompt, a text has only the end of it.
    """
    opener = opener_of(text)
    closer = closer_of(opener) if opener else "</think>"
    reasoning, found, answer = text.partition(closer)
    if not found:
        return "", text
    return (reasoning[opener.end() :] if opener else reasoning).strip("\n"), answer.lstrip("\n")


def has_reasoning(text: Text) -> bool:
    """Whether a text, or the last turn of a chat, holds reasoning, in a field of its own or in its text."""
    if not isinstance(text, str):
        if "reasoning_content" in text[-1]:
            return True
        text = text[-1]["content"]
    return "</think>" in text or opener_of(text) is not None


def without_reasoning(text: Text) -> Text:
    """A completion, or a chat prompt, without the reasoning of the assistant."""
    if isinstance(text, str):
        return split_reasoning(text)[1]
    return tuple(
        {name: value for name, value in turn.items() if name != "reasoning_content"}
        | {"content": split_reasoning(turn["content"])[1]}
        if turn["role"] == "assistant"
        else turn
        for turn in text
    )
