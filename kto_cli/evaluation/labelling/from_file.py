"""Items of a file of answers: any table that kto reads (data/readers/), one record a prompt with

    prompt, completion            one answer
    prompt, completions           a list of answers
    prompt, chosen, rejected      two answers; which was chosen is not shown
    messages                      a whole chat; its last message is the answer

Prompts and answers are texts or chats, with `tools` and `system` beside them, as kto binarize reads them. A label that
is there already (true or false, or which answer was chosen) is not shown; at the end people are compared with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.cell_text import chat_in_text, turns_of
from kto_cli.data.formats.labels import is_blank
from kto_cli.data.formats.messages import offered_tools
from kto_cli.data.formats.records import RowFault
from kto_cli.data.formats.rows import answer_of, behind_system, chat_and_answer, offering, prompt_of
from kto_cli.data.readers.any_file import columns, parsed, records
from kto_cli.data.texts import Text
from kto_cli.evaluation.labelling.items import Answer, Answers, Items, as_items

KINDS = (("prompt", "completion"), ("prompt", "completions"), ("prompt", "chosen", "rejected"), ("messages",))
WANTED = "prompt and completion, prompt and completions (a list), prompt, chosen and rejected, or messages"
SHOWN = 3
"""Columns named of a file without answers."""


def items_of_file(path: Path, *, one_at_a_time: bool) -> Items:
    """All answers of a file.

    Raises:
        BadInput: it is missing, empty, damaged, of another kind, or no record of it can be used.
    """
    there = columns(path, path.name, [name for kind in KINDS for name in kind])
    if not any(set(kind) <= set(there) for kind in KINDS):
        named = ", ".join(map(printable, there[:SHOWN])) + (" ..." if len(there) > SHOWN else "")
        raise BadInput(f"{printable(path)} has the columns {named or 'none'}.", f"kto label needs {WANTED}.")
    faults: Counter[str] = Counter()
    found = as_items(_answers(path, faults), one_at_a_time=one_at_a_time)
    rejected = {f"records that cannot be used ({reason})": count for reason, count in faults.items()}
    notes = Counter(rejected) + found.notes
    if not found.items:
        why = ", ".join(f"{reason} {count:,}" for reason, count in faults.items()) or "all answers are empty"
        raise BadInput(f"{printable(path)} has no answer that can be shown ({why}).", f"A record needs {WANTED}.")
    return Items(found.items, notes)


def _answers(path: Path, faults: Counter[str]) -> Iterator[Answers]:
    for record in map(parsed, records(path, path.name, None)):
        if record.values is None:
            faults[record.reason] += 1
            continue
        try:
            prompt, completions = _texts(record.values)
        except RowFault as fault:
            faults[fault.reason] += 1
            continue
        model = record.values.get("model")
        by = model if isinstance(model, str) else ""
        before = _before(record.values, len(completions))
        answers = (Answer(completion, by, label) for completion, label in zip(completions, before, strict=True))
        yield Answers(prompt, tuple(answers), record.origin)


def _texts(values: dict[str, Any]) -> tuple[Text, list[Text]]:
    """Prompt and answers, as texts where all of them are texts, else as chats.

    Raises:
        RowFault: see `prompt_of` and `answer_of`.
    """
    tools = offered_tools(values)
    cells = _cells(values)
    if cells is None:
        prompt, answer = chat_and_answer(values.get("messages"), "messages", values, False)
        return behind_system(offering(tools, prompt), values), [answer]
    given, answers = turns_of(values.get("prompt"), cells)
    plain = not tools and is_blank(values.get("system")) and all(map(_is_plain, (given, *answers)))
    prompt = behind_system(offering(tools, prompt_of(given, plain)), values)
    return prompt, [_answer(answer, prompt) for answer in answers]


def _cells(values: dict[str, Any]) -> list[Any] | None:
    """The answers of a record with a prompt; None for a whole chat."""
    if values.get("completions") is not None:
        if not isinstance(values["completions"], list) or not values["completions"]:
            raise RowFault("completions_not_a_list", "completions is no list of answers")
        return values["completions"]
    if "chosen" in values and "rejected" in values:
        return [values["chosen"], values["rejected"]]
    return (
        None if values.get("completion") is None and values.get("messages") is not None else [values.get("completion")]
    )


def _before(values: dict[str, Any], answers: int) -> list[bool | None]:
    """The labels that a record has already."""
    if values.get("completions") is None and "chosen" in values and "rejected" in values:
        return [True, False]
    label = values.get("label")
    return [label if isinstance(label, bool) and answers == 1 else None] * answers


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and chat_in_text(value, "a text") is None


def _answer(value: Any, prompt: Text) -> Text:
    """An answer; one without text is no fault here, as `as_items` counts it."""
    if isinstance(value, str) and not value.strip():
        return value if isinstance(prompt, str) else ({"role": "assistant", "content": value},)
    return answer_of(value, prompt, "completion")
