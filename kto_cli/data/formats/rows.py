"""Rows of a table, texts or chats, as pairs or labelled answers. Reasons of a rejected row:

missing_field, not_text, bad_text, not_messages      the cell
empty_prompt, empty_answer, empty_turn               a text
role_not_accepted, tools_not_accepted, media_not_accepted, part_not_accepted
                                                     a message (messages.py)
roles_do_not_alternate, answer_not_one_turn, rated_message_unclear, rated_message_missing, call_without_result
                                                     a chat (chats.py)
two_system_messages                                  another one in the chat than in the column `system`
prompts_differ, answers_identical                    the two sides of a pair
label_missing, label_not_binary, label_not_accepted  the label (labels.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kto_cli.data.formats.cell_text import (
    KEPT_AS_TEXT,
    READ_AS_CHAT,
    chat_in_text,
    structure_of,
    turns_of,
)
from kto_cli.data.formats.chats import answer_turn, prompt_chat, rated_id, thread_of, whole_chat, with_rated
from kto_cli.data.formats.counts import count
from kto_cli.data.formats.fields import as_prompt, chat_turns
from kto_cli.data.formats.labels import is_blank, label_value
from kto_cli.data.formats.messages import Turn, as_messages, offered_tools, read_turns
from kto_cli.data.formats.records import Message, Output, Pair, RowFault, Scored, Text, check_text, message, root
from kto_cli.data.texts import tools_of, with_tools, without_tools

SYSTEM = "records whose system message is their column system"
OFFERED = "records whose prompt offers tools, which the model's chat template is given"


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
        return as_prompt(value, as_text)
    if as_text:
        raise RowFault("not_text", "--text keeps plain text, and the prompt is a chat")
    return offering(requested_tools(value), prompt_chat(chat_turns(value, "the prompt")))


def requested_tools(value: Any) -> str:
    """JSON of the tools in a request to a model, an object with `messages` or its text; empty if it offers none.

    Raises:
        RowFault: see `offered_tools`.
    """
    found = structure_of(value) if isinstance(value, str) else value
    return offered_tools(found) if isinstance(found, dict) and "messages" in found else ""


def offering(tools: str, prompt: Text) -> Text:
    """A prompt that offers tools, given as JSON.

    Raises:
        RowFault: `tools_not_accepted` with --text, or if the prompt itself offers others.
    """
    if tools and isinstance(prompt, str):
        raise RowFault("tools_not_accepted", "--text keeps plain text, and the prompt offers tools")
    if isinstance(prompt, str) or tools in ("", own := tools_of(prompt)):
        return prompt
    if own:
        raise RowFault("tools_not_accepted", "the request in the prompt and the column of tools offer different ones")
    count(OFFERED)
    return with_tools(tools, prompt)


def behind_system(prompt: Text, values: Mapping[str, Any]) -> Text:
    """Prompt with the system message that the row has in its column `system`, if any.

    Raises:
        RowFault: see `with_system`.
    """
    cell = values.get("system")
    found = prompt if is_blank(cell) else with_system(prompt, check_text(cell, "system"))
    if found is not prompt:
        count(SYSTEM)
    return found


def with_system(prompt: Text, system: str | None) -> Text:
    """Prompt with a system message, unless it has that very one.

    Raises:
        RowFault: `two_system_messages` if it has another one.
    """
    if system is None or isinstance(prompt, str):
        return prompt
    asked = without_tools(prompt)
    if asked[0]["role"] != "system":
        return with_tools(tools_of(prompt), (message("system", system), *asked))
    if asked[0]["content"].strip() != system.strip():
        raise RowFault("two_system_messages", "the chat has a system message that differs from the system column's")
    return prompt


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
        return value if isinstance(prompt, str) else (message("assistant", value),)
    if isinstance(prompt, str):
        raise RowFault("not_text", f"--text keeps plain text, and {what} is a chat")
    return (answer_turn(chat_turns(value, what), prompt, what),)


def answer_in_text(text: str, prompt: Text, what: str) -> list[Turn] | None:
    """Chat that a text is the source of, if it is one assistant message or starts with the prompt."""
    if (found := chat_in_text(text, what)) is None:
        return None
    chat = read_turns(found, what)
    fits = chat[-1].role == "assistant" and (
        len(chat) == 1 or isinstance(prompt, str) or as_messages(chat[:-1]) == without_tools(prompt)
    )
    count(READ_AS_CHAT if fits else KEPT_AS_TEXT)
    return chat if fits else None


def shared_prompt(one: Any, other: Any, names: Sequence[str] = ("chosen", "rejected")) -> tuple[Message, ...]:
    """Prompt of two whole chats: all before their answers, which must be equal in both.

    Raises:
        RowFault: a chat is missing or is text, or the two differ before their answers.
    """
    for value, name in zip((one, other), names, strict=True):
        if value is None:
            raise RowFault("missing_field", f"no {name}")
        if isinstance(value, str) and chat_in_text(value, name) is None:
            raise RowFault("missing_field", f"no prompt, and {name} is text, which does not include it")
    asked, again = (
        whole_chat(chat_turns(value, name), name)[0] for value, name in zip((one, other), names, strict=True)
    )
    if asked != again:
        raise RowFault("prompts_differ", f"{names[0]} and {names[1]} differ before their last message")
    return asked


def chat_and_answer(value: Any, what: str, values: Mapping[str, Any], as_text: bool) -> tuple[Text, Text]:
    """Prompt and answer of a whole chat; the row it is in may say which message was rated.

    Raises:
        RowFault: see chats.py; a chat with --text.
    """
    if as_text:
        raise RowFault("not_text", f"--text keeps plain text, and {what} is a chat")
    rated = rated_id(values)
    turns = with_rated(chat_turns(thread_of(value, rated), what), values)
    prompt, answer = whole_chat(turns, what, rated, is_labelled=True)
    return offering(requested_tools(value), prompt), (answer,)


def pair(values: dict[str, Any], origin: str, as_text: bool, split: str | None = None) -> Pair:
    """Pair from `chosen`, `rejected` and an optional `prompt`; RowFault if the row is not a valid one."""
    tools = offered_tools(values)
    given, sides = turns_of(values.get("prompt"), [values.get("chosen"), values.get("rejected")])
    prompt = offering(tools, prompt_of(shared_prompt(*sides) if given is None else given, as_text))
    prompt = behind_system(prompt, values)
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
    tools = offered_tools(values)
    if values.get("messages") is not None and values.get("completion") is None:
        prompt, completion = chat_and_answer(values["messages"], "messages", values, as_text)
        prompt = offering(tools, prompt)
    else:
        given, [answer] = turns_of(values.get("prompt"), [values.get("completion")])
        prompt = offering(tools, prompt_of(given, as_text))
        completion = answer_of(answer, prompt, "completion")
    prompt = behind_system(prompt, values)
    if isinstance(label, bool):
        return Output(prompt, completion, label, origin, root(prompt), split)
    return Scored(prompt, completion, label, origin, root(prompt), split, by_label=True)
