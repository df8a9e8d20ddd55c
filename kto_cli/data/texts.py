"""Prompts and completions in memory: plain texts, or chats as lists of messages.

A message has a role and a content, and may have more, each a text:

    reasoning_content   what the assistant thought before it answered
    tool_calls          calls of tools by the assistant: JSON of [{"type": "function", "function": {name, arguments}}]
    tool_call_id, name  of a message of the role `tool`: the call whose result it is, the name of the tool

Tools that a prompt offers are its first message: role `tools`, the content is the JSON of their list. In the dataset's
files they are a column of their own (`arrow_chats.py`), and a chat template is given them as `tools`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kto_cli.common.read import parse_json

Message = dict[str, str]
"""{"role": "tools" | "system" | "user" | "assistant" | "tool", "content": text} and some of EXTRAS."""
Text = str | tuple[Message, ...]
"""A prompt or a completion: plain text, or chat messages."""
EXTRAS = ("reasoning_content", "tool_calls", "tool_call_id", "name")
"""What a message may have besides role and content, in the order of `spelled`."""
TOOLS = "tools"
"""Role of the message that holds the tools of a prompt."""


def spelled(text: Text) -> str:
    """A text or chat as one string, injectively: for hashes."""
    if isinstance(text, str):
        return "t" + text
    start = "+" if text and text[0]["role"] == TOOLS else ""
    return start + "".join(
        f"{turn['role']}\n{len(turn['content'])}\n{turn['content']}{_extras(turn) if len(turn) > 2 else ''}"
        for turn in text
    )


def _extras(turn: Message) -> str:
    return "".join(f"+{name}\n{len(turn[name])}\n{turn[name]}" for name in EXTRAS if name in turn)


def turn_text(turn: Message) -> str:
    """What a message says, as people read it: its reasoning, its content and its calls of tools.

    Reasoning and calls are written as most chat templates write them; only a template knows how one model does.
    """
    if len(turn) == 2:
        return turn["content"]
    reasoning = turn.get("reasoning_content", "")
    parts = [f"<think>\n{reasoning}\n</think>" if reasoning else "", turn["content"], *map(_call, calls_of(turn))]
    return "\n\n".join(part for part in parts if part)


def calls_of(turn: Message) -> list[dict[str, Any]]:
    """Calls of tools in a message."""
    return list(parse_json(turn["tool_calls"])) if "tool_calls" in turn else []


def _call(call: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>"


def contents(text: Text) -> list[str]:
    """Texts of a chat's turns, without roles; a text is one turn."""
    return [text] if isinstance(text, str) else [turn_text(turn) for turn in text]


def joined(text: Text) -> str:
    """A text or chat as one readable text: the turns, without roles, with an empty line between them."""
    return "\n\n".join(contents(text))


def last_turn(text: Text) -> str:
    """A text, or the last turn of a chat: the answer of a completion."""
    return text if isinstance(text, str) else turn_text(text[-1])


def question(prompt: Text) -> str:
    """What a prompt asks last: its last turn of the user and what follows it (calls of tools and their results)."""
    if isinstance(prompt, str):
        return prompt
    asked = max((index for index, turn in enumerate(prompt) if turn["role"] == "user"), default=0)
    return joined(prompt[asked:])


def tools_of(text: str | Sequence[Message]) -> str:
    """JSON of the tools that a prompt offers; empty if it offers none."""
    return text[0]["content"] if not isinstance(text, str) and text and text[0]["role"] == TOOLS else ""


def offered(text: str | Sequence[Message]) -> list[dict[str, Any]] | None:
    """Tools that a prompt offers, as chat templates and servers take them; None if it offers none."""
    tools = tools_of(text)
    return list(parse_json(tools)) if tools else None


def without_tools(text: tuple[Message, ...]) -> tuple[Message, ...]:
    """Messages of a chat that were said: all but the one that holds its tools."""
    return text[1:] if tools_of(text) else text


def with_tools(tools: str, text: tuple[Message, ...]) -> tuple[Message, ...]:
    """A chat that offers tools, given as JSON; unchanged if there are none."""
    return ({"role": TOOLS, "content": tools}, *text) if tools else text


def kinds(texts: Sequence[Text]) -> set[str]:
    """Roles of all messages of chats, and `tool_calls` if one has calls of tools."""
    turns = [turn for text in texts if not isinstance(text, str) for turn in text]
    return {turn["role"] for turn in turns} | {"tool_calls" for turn in turns if "tool_calls" in turn}


def has_more(*texts: Text) -> bool:
    """Whether some have tools, calls of them, or reasoning."""
    return any(len(turn) > 2 or turn["role"] == TOOLS for text in texts if not isinstance(text, str) for turn in text)


def api_messages(text: Text, *, arguments_as_text: bool = False) -> list[dict[str, Any]]:
    """Messages as chat templates take them, calls of tools as objects; a text is one user turn.

    Args:
        arguments_as_text: arguments of calls as JSON text, as OpenAI's API and its files have them.
    """
    if isinstance(text, str):
        return [{"role": "user", "content": text}]
    found: list[dict[str, Any]] = [dict(turn) for turn in without_tools(text)]
    for turn in found:
        if calls := calls_of(turn):
            turn["tool_calls"] = [with_arguments_as_text(call) for call in calls] if arguments_as_text else calls
    return found


def with_arguments_as_text(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments are JSON text."""
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}
