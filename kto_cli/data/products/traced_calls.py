"""Prompt and answer in the inputs and outputs that tracers record of a call of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kto_cli.data.formats.cell_text import structure_of
from kto_cli.data.formats.labels import is_blank
from kto_cli.data.formats.message_names import TOOL_COLUMNS
from kto_cli.data.formats.records import RowFault
from kto_cli.data.texts import TOOLS

PROMPTS = ("messages", "input", "question", "query", "prompt", "text", "content", "user_input")
ANSWERS = ("output", "answer", "response", "completion", "text", "result", "content", "messages", "message")


def opened(value: Any) -> Any:
    """A value; a text that is the source of a list or an object as that."""
    found = structure_of(value) if isinstance(value, str) else None
    return value if found is None else found


def prompt_in(value: Any, what: str = "inputs") -> Any:
    """Text or messages of a call's input: as they are, or in the fields that clients use.

    Raises:
        RowFault: `missing_field` with the fields that are there.
    """
    value = opened(value)
    if isinstance(value, Mapping) and not _is_message(value):
        found = next((value[name] for name in PROMPTS if not is_blank(value.get(name))), None)
        value = _only_text(value, what) if found is None else opened(found)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):  # LangChain calls with batches
        value = value[0]
    if is_blank(value):
        raise RowFault("missing_field", f"no {what}")
    return value


def answer_in(value: Any, what: str = "outputs") -> Any:
    """Text or message of a call's output: as it is, or in the fields that clients use.

    Raises:
        RowFault: `missing_field` with the fields that are there; `answer_not_one_turn` for several choices.
    """
    value = opened(value)
    if isinstance(value, Mapping) and not _is_message(value):
        for name in ("choices", "generations", "candidates"):
            if isinstance(several := value.get(name), list) and several:
                return _choice(several, f"{what}.{name}")
        found = next((value[name] for name in ANSWERS if not is_blank(value.get(name))), None)
        value = _only_text(value, what) if found is None else opened(found)
    if is_blank(value):
        raise RowFault("missing_field", f"no {what}")
    return [value] if isinstance(value, Mapping) else value


def tools_in(*holders: Any) -> dict[str, Any]:
    """Tools that a call offered, as the column of a log: from the first of some objects that has some."""
    for holder in map(opened, holders):
        for name in TOOL_COLUMNS:
            if isinstance(holder, Mapping) and not is_blank(found := opened(holder.get(name))):
                return {TOOLS: found}
    return {}


def _choice(several: list[Any], what: str) -> Any:
    """The one choice of a call; LangChain has a list of them for each prompt."""
    if len(several) == 1 and isinstance(several[0], list):
        several = several[0]
    if len(several) != 1:
        raise RowFault("answer_not_one_turn", f"{what} has {len(several)} answers; which one was rated is not said")
    one = several[0]
    found = one.get("message") if isinstance(one, Mapping) else None
    return [found] if isinstance(found, Mapping) else answer_in(one, what)


def _is_message(value: Mapping[str, Any]) -> bool:
    return "role" in value or value.get("type") in ("human", "ai", "system", "constructor")


def _only_text(value: Mapping[str, Any], what: str) -> str:
    """The text of an object with a single field."""
    fields = list(value)
    if len(fields) == 1 and isinstance(text := value[fields[0]], str):
        return text
    there = ", ".join(repr(str(name)[:40]) for name in fields[:8]) or "nothing"
    raise RowFault("missing_field", f"{what} has no text or messages in a field that is known; found {there}")
