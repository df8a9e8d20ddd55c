"""Rows of a table, texts or chats, as pairs or labelled answers. Reasons of a rejected row:

missing_field, not_text, bad_text, not_messages      the cell
empty_prompt, empty_answer, empty_turn               a text
role_not_accepted, roles_do_not_alternate            the prompt's messages
answer_not_one_turn                                  an answer with several messages, or not the assistant's
prompts_differ, answers_identical                    the two sides of a pair
label_missing, label_not_binary, label_not_accepted  the label (labels.py)
"""

from __future__ import annotations

from typing import Any

from kto_cli.data.formats.cell_text import (
    JSON_ANSWER,
    JSON_PROMPT,
    KEPT_AS_TEXT,
    READ_AS_CHAT,
    chat_in_text,
    structure_of,
    turns_of,
)
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.fields import as_prompt, messages_of
from kto_cli.data.formats.labels import label_value
from kto_cli.data.formats.records import (
    Message,
    Output,
    Pair,
    RowFault,
    Scored,
    Text,
    check_chat,
    check_text,
    message,
    root,
    spell,
)


def prompt_of(value: Any, as_text: bool) -> Text:
    """Prompt as chat messages, or as plain text with --text.

    Raises:
        RowFault: missing, empty, no valid prompt, or a chat with --text.
    """
    if value is None:
        raise RowFault("missing_field", "no prompt")
    if isinstance(value, str) and chat_in_text(value, "the prompt") is None:
        if not check_text(value, "the prompt").strip():
            raise RowFault("empty_prompt", "the prompt is empty")
        count_object(value, JSON_PROMPT)
        return as_prompt(value, as_text)
    if as_text:
        raise RowFault("not_text", "--text keeps plain text, and the prompt is a chat")
    chat = messages_of(value, "the prompt")
    check_chat(chat)
    return chat


def answer_of(value: Any, prompt: Text, what: str) -> Text:
    """Answer in the form of its prompt; a list of messages may repeat the prompt before the answer.

    A text that is the source of a chat is that chat if it fits the prompt: an answer may quote the JSON of another one.

    Raises:
        RowFault: missing, empty, more than one turn, or not the assistant's.
    """
    if value is None:
        raise RowFault("missing_field", f"no {what}")
    if isinstance(value, str):
        value = answer_in_text(value, prompt, what) or value
    if isinstance(value, str):
        if not check_text(value, what).strip():
            raise RowFault("empty_answer", f"{what} is empty")
        count_object(value, JSON_ANSWER)
        return value if isinstance(prompt, str) else (message("assistant", value),)
    if isinstance(prompt, str):
        raise RowFault("not_text", f"--text keeps plain text, and {what} is a chat")
    chat = messages_of(value, what)
    if chat[: len(prompt)] == prompt:
        chat = chat[len(prompt) :]
    if not chat:
        raise RowFault("empty_answer", f"{what} has no message")
    if len(chat) > 1 or chat[0]["role"] != "assistant":
        roles = spell([turn["role"] for turn in chat])
        fault = f"{what} after the prompt has the roles {roles}, not one assistant turn"
        raise RowFault("answer_not_one_turn", fault)
    if not chat[0]["content"].strip():
        raise RowFault("empty_answer", f"{what} is empty")
    return chat


def count_object(text: str, note: str) -> None:
    """Counts a text that is the source of an object: a log may hold the text in a field of it."""
    if text.lstrip().startswith("{") and isinstance(structure_of(text), dict):
        count(note)


def answer_in_text(text: str, prompt: Text, what: str) -> tuple[Message, ...] | None:
    """Chat that a text is the source of, if it is one assistant message or starts with the prompt."""
    if (found := chat_in_text(text, what)) is None:
        return None
    chat = messages_of(found, what)
    fits = chat[-1]["role"] == "assistant" and (len(chat) == 1 or isinstance(prompt, str) or chat[:-1] == prompt)
    count(READ_AS_CHAT if fits else KEPT_AS_TEXT)
    return chat if fits else None


def shared_prompt(values: dict[str, Any]) -> tuple[Message, ...]:
    """Prompt of a pair of chats: all messages but the last, which must be equal in both.

    Raises:
        RowFault: an answer is missing or is text, or the two differ before their last message.
    """
    for side in ("chosen", "rejected"):
        if values.get(side) is None:
            raise RowFault("missing_field", f"no {side}")
        if isinstance(values[side], str) and chat_in_text(values[side], side) is None:
            raise RowFault("missing_field", f"no prompt, and {side} is text, which does not include it")
    chosen, worse = messages_of(values["chosen"], "chosen"), messages_of(values["rejected"], "rejected")
    if chosen[:-1] != worse[:-1]:
        raise RowFault("prompts_differ", "chosen and rejected differ before their last message")
    return chosen[:-1]


def pair(values: dict[str, Any], origin: str, as_text: bool, split: str | None = None) -> Pair:
    """Pair from `chosen`, `rejected` and an optional `prompt`; RowFault if the row is not a valid one."""
    given, sides = turns_of(values.get("prompt"), [values.get("chosen"), values.get("rejected")])
    prompt = prompt_of(shared_prompt(values) if given is None else given, as_text)
    chosen, worse = (answer_of(value, prompt, name) for name, value in zip(("chosen", "rejected"), sides, strict=True))
    if chosen == worse:
        raise RowFault("answers_identical", "chosen and rejected are the same; one text would be in both classes")
    return Pair(prompt, chosen, worse, origin, root(prompt), split)


def labelled(values: dict[str, Any], origin: str, as_text: bool, split: str | None) -> Output | Scored:
    """Unpaired row from `prompt`, `completion` and `label`; a number as its label is decided by the whole column.

    Raises:
        RowFault: the row is not a valid one.
    """
    label = label_value(values.get("label"))
    if values.get("messages") is not None and values.get("completion") is None:
        chat = messages_of(values["messages"], "messages")
        values = {"prompt": chat[:-1], "completion": chat[-1:]}
    given, [answer] = turns_of(values.get("prompt"), [values.get("completion")])
    prompt = prompt_of(given, as_text)
    completion = answer_of(answer, prompt, "completion")
    if isinstance(label, bool):
        return Output(prompt, completion, label, origin, root(prompt), split)
    return Scored(prompt, completion, label, origin, root(prompt), split, by_label=True)
