"""Chats as they happen: bots greet first, people send two messages in a row and say a last word after the answer.

A prompt is an optional system message, then user and assistant in turn, ending with user or with the results of tools
that the assistant called. Chats are brought into that
form, and each change is counted: neighbouring messages of one role are joined by an empty line; what the assistant says
before the first user turn is left out; so is what follows the rated answer. Rejected:

    roles_do_not_alternate     no user turn, a system message in the middle, a prompt that ends with the assistant
    answer_not_one_turn        no answer of the assistant, or several with user turns between
    empty_turn, empty_answer
    rated_message_unclear      several messages have a rating of their own, and nothing says which one is meant
    rated_message_missing      the record names a message that is not in the chat, or not the assistant's
    thread_broken              the chat is a tree, and a message above the rated one is not in it
    call_without_result        the assistant calls a tool and goes on without its result
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from kto_cli.data.formats.counts import count
from kto_cli.data.formats.messages import Turn, as_message, as_messages
from kto_cli.data.formats.records import Message, RowFault, check_chat, spell
from kto_cli.data.formats.tool_calls import joined_calls
from kto_cli.data.texts import without_tools

JOINED = "chats with neighbouring messages of one role, joined"
GREETING = "chats whose messages of the assistant before the first user turn are left out"
LAST_WORD = "chats whose messages after the rated answer are left out"
SEVERAL = "chats with several answers, where the label is taken for the last one"
NO_SYSTEM = "chats whose empty system message is left out"
RATED_COLUMNS = ("rated_message_id", "message_id", "messageId", "meta", "metadata")
"""Columns that may say which message was rated."""


def whole_chat(
    turns: Sequence[Turn], what: str, rated: str | None = None, *, is_labelled: bool = False
) -> tuple[tuple[Message, ...], Message]:
    """Prompt and answer of a chat: the answer is the rated message, or the last of the assistant.

    Args:
        rated: id of the rated message, if the record names one.
        is_labelled: it has one label, which may be of any of its answers.

    Raises:
        RowFault: see the module's docstring.
    """
    end = rated_index(turns, what, rated)
    if end is None:
        end = max((index for index, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
        if is_labelled and sum(is_answer(turn) for turn in in_turn(turns, quiet=True)) > 1:
            count(SEVERAL)
    if turns and end < 0:
        raise RowFault("answer_not_one_turn", f"the roles of {what} are {roles(turns)}: no answer of the assistant")
    if not any(turn.role == "user" for turn in turns[: max(end, 0)]):
        raise RowFault("roles_do_not_alternate", f"the roles of {what} are {roles(turns)}: no answer to a user turn")
    if end < len(turns) - 1:
        count(LAST_WORD)
    *asked, answer = in_turn(turns[: end + 1])
    return prompt_chat(asked), as_answer(answer, f"the answer of {what}")


def is_answer(turn: Turn) -> bool:
    """Whether a turn is the assistant's, and no call of tools."""
    return turn.role == "assistant" and not turn.calls


def rated_index(turns: Sequence[Turn], what: str, rated: str | None) -> int | None:
    """Index of the message that was rated; None if nothing says which.

    Raises:
        RowFault: `rated_message_unclear` or `rated_message_missing`.
    """
    if rated is not None and any(turn.id for turn in turns):
        found = [index for index, turn in enumerate(turns) if turn.id == rated and turn.role == "assistant"]
        if len(found) != 1:
            raise RowFault("rated_message_missing", f"the rated message {rated[:40]!r} is no answer in {what}")
        return found[0]
    found = [index for index, turn in enumerate(turns) if turn.rated and turn.role == "assistant"]
    if len(found) > 1:
        fault = f"{len(found)} answers of {what} have a rating of their own; which one the label is of is not said"
        raise RowFault("rated_message_unclear", fault)
    return found[0] if found else None


def in_turn(turns: Sequence[Turn], *, quiet: bool = False) -> list[Turn]:
    """Turns without a greeting, with neighbours of one role joined and empty system messages left out.

    Raises:
        RowFault: `empty_turn`, before it is joined with another.
    """
    kept = [turn for turn in turns if turn.role != "system" or turn.content.strip()]
    if len(kept) < len(turns) and not quiet:
        count(NO_SYSTEM)
    first = next((index for index, turn in enumerate(kept) if turn.role == "user"), len(kept))
    start = [turn for turn in kept[:first] if turn.role != "assistant"]
    if first < len(kept) and len(start) < first:
        kept = start + kept[first:]
        if not quiet:
            count(GREETING)
    joined = []
    for role, group in groupby(kept, key=lambda turn: turn.role):
        some = list(group)
        if role == "tool":
            joined += some
            continue
        if len(some) > 1 and not quiet:
            count(JOINED)
        joined.append(join(some))
    return joined


def join(turns: list[Turn]) -> Turn:
    """Neighbouring turns of one role as one.

    Raises:
        RowFault: `empty_turn`, or `call_without_result` if the assistant says more behind a call.
    """
    if len(turns) == 1:
        return turns[0]
    if empty := [turn for turn in turns if turn.is_blank and not turn.reasoning]:
        raise RowFault("empty_turn", f"a message of the {empty[0].role}, beside another, is empty")
    called = False
    for turn in turns:
        if called and (turn.content.strip() or turn.reasoning):
            raise RowFault("call_without_result", "the assistant calls a tool and goes on without its result")
        called = called or bool(turn.calls)
    text, reasoning = (
        "\n\n".join(filter(None, parts))
        for parts in ([turn.content for turn in turns], [turn.reasoning for turn in turns])
    )
    calls = joined_calls(*(turn.calls for turn in turns))
    return turns[-1]._replace(content=text, reasoning=reasoning, calls=calls)


def prompt_chat(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Prompt from its messages.

    Raises:
        RowFault: `roles_do_not_alternate` or `empty_turn`.
    """
    kept = in_turn(turns)
    messages = as_messages(kept)
    check_chat(messages)
    return messages


def answer_turn(turns: Sequence[Turn], prompt: tuple[Message, ...], what: str) -> Message:
    """Answer to a prompt from its messages, which may repeat the prompt before the answer.

    Raises:
        RowFault: see the module's docstring.
    """
    if not turns:
        raise RowFault("empty_answer", f"{what} has no message")
    kept = list(turns)
    while kept and kept[-1].role == "user":
        kept.pop()
    if len(kept) < len(turns):
        count(LAST_WORD)
    if any(turn.role == "user" for turn in kept):
        *asked, last = in_turn(kept, quiet=True)
        kept = [last] if as_messages(asked) == without_tools(prompt) else kept
    elif {turn.role for turn in kept} == {"assistant"} and sum(bool(turn.content.strip()) for turn in kept) < 2:
        kept = [join(kept)]  # reasoning, a text and calls, each as an item of its own
    if [turn.role for turn in kept] != ["assistant"]:
        fault = f"{what} after the prompt has the roles {roles(turns)}, not one assistant turn"
        raise RowFault("answer_not_one_turn", fault)
    return as_answer(kept[0], what)


def as_answer(turn: Turn, what: str) -> Message:
    """The answer as a message.

    Raises:
        RowFault: `empty_answer`.
    """
    if turn.is_blank:
        raise RowFault("empty_answer", f"{what} is empty")
    return as_message(turn)


def roles(turns: Sequence[Turn]) -> str:
    """Roles of turns as text."""
    return spell([turn.role for turn in turns])


def rated_id(values: Mapping[str, Any]) -> str | None:
    """Id of the message that a record says was rated, as Open WebUI does in `meta.message_id`."""
    for holder in (values, values.get("meta"), values.get("metadata")):
        if not isinstance(holder, Mapping):
            continue
        for name in RATED_COLUMNS[:3]:
            if isinstance(found := holder.get(name), (str, int)) and found != "":
                return str(found)
    return None


def with_rated(turns: list[Turn], values: Mapping[str, Any]) -> list[Turn]:
    """Turns with the rated one marked, if the record has its place and text, as Gradio's `index` and `value`."""
    place, text = values.get("index"), values.get("value")
    if isinstance(place, str) and place.strip().isdigit():
        place = int(place)
    if not isinstance(place, int) or not isinstance(text, str) or not 0 <= place < len(turns):
        return turns
    if turns[place].role != "assistant" or turns[place].content.strip() != text.strip():
        return turns
    return [turn._replace(rated=index == place) for index, turn in enumerate(turns)]


def thread_of(value: Any, rated: str | None) -> Any:
    """Messages that lead to the rated one, of messages stored as a tree by id (Open WebUI); other values unchanged."""
    if not isinstance(value, dict):
        return value
    inner = value.get("history")
    history: dict[str, Any] = inner if isinstance(inner, dict) else value
    inner = history.get("messages")
    tree: dict[str, Any] = inner if isinstance(inner, dict) else history
    if not tree or not all(isinstance(turn, dict) and "parentId" in turn for turn in tree.values()):
        return value
    last = rated if rated in tree else history.get("currentId")
    return branch(tree, last) if last in tree else value


def branch(messages: Mapping[str, Any], last: str) -> list[dict[str, Any]]:
    """Messages of a tree by id, from the first one down to `last`, each with its id (Open WebUI, LibreChat).

    Raises:
        RowFault: `thread_broken` if a message before it is not there, or the ids go in a circle.
    """
    thread: list[dict[str, Any]] = []
    at: Any = last
    while at is not None and str(at).strip("0-"):  # LibreChat writes zeros as the parent of a first message
        if not isinstance(at, str) or not isinstance(turn := messages.get(at), dict):
            raise RowFault("thread_broken", f"the message {str(at)[:40]!r} before it is not there")
        if len(thread) == len(messages):
            raise RowFault("thread_broken", "its messages answer each other in a circle")
        thread.append({"id": at, **turn})
        at = turn.get("parentId", turn.get("parent_id", turn.get("parentMessageId")))
    return thread[::-1]
