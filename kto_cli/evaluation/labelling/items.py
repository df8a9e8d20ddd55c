"""What is shown at once: an answer, or two side by side, with the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from kto_cli.common.files import text_hash
from kto_cli.data.texts import Text, last_turn, spelled

EMPTY = "answers without text, which are not shown: no row can be made of them"
EQUAL = "answers that equal another one to their prompt, shown once"
REPEATED = "prompts with the same answers as an earlier one, shown once"


class Answer(NamedTuple):
    """An answer to a prompt."""

    completion: Text
    model: str = ""
    """Who gave it, as far as that is known; never shown."""
    before: bool | None = None
    """The label that it had already; never shown."""


@dataclass(frozen=True)
class Answers:
    """A prompt with all its answers."""

    prompt: Text
    answers: tuple[Answer, ...]
    origin: str
    """FILE:LINE."""
    row: str | None = None
    """Id of the validation row that it is."""
    rank: tuple[float, ...] = ()
    """Lower ones are shown earlier."""


@dataclass(frozen=True)
class Item:
    """One answer, or two side by side."""

    prompt: Text
    answers: tuple[Answer, ...]
    origin: str
    row: str | None = None
    rank: tuple[float, ...] = ()

    @cached_property
    def id(self) -> str:
        """Hash of the texts, whatever the order of the answers."""
        return text_hash(spelled(self.prompt), *sorted(spelled(each.completion) for each in self.answers))


@dataclass(frozen=True)
class Items:
    """All that can be labelled, and what cannot."""

    items: tuple[Item, ...]
    notes: Counter[str] = field(default_factory=Counter)
    """What was decided -> how often."""

    def said(self) -> list[str]:
        """The notes as sentences."""
        return [f"{note[:1].upper()}{note[1:]}: {count:,}." for note, count in self.notes.items()]


def as_items(found: Iterable[Answers], *, one_at_a_time: bool) -> Items:
    """Two answers to a prompt side by side, unless `one_at_a_time`; any other number one at a time."""
    notes: Counter[str] = Counter()
    items: dict[str, Item] = {}
    for each in found:
        answers = _different(each.answers, notes)
        shown = [answers] if len(answers) == 2 and not one_at_a_time else [(answer,) for answer in answers]
        for some in shown:
            item = Item(each.prompt, tuple(some), each.origin, each.row, each.rank)
            notes[REPEATED] += item.id in items
            items[item.id] = _repeated(items[item.id], item) if item.id in items else item
    return Items(tuple(items.values()), +notes)


def _different(answers: Sequence[Answer], notes: Counter[str]) -> list[Answer]:
    """Answers with a text, each once with all who gave it."""
    found: dict[str, Answer] = {}
    for answer in answers:
        if not last_turn(answer.completion).strip():
            notes[EMPTY] += 1
            continue
        key = spelled(answer.completion)
        notes[EQUAL] += key in found
        found[key] = _equal(found[key], answer) if key in found else answer
    return list(found.values())


def _repeated(item: Item, again: Item) -> Item:
    """An item that came again, where it came first."""
    others = {spelled(answer.completion): answer for answer in again.answers}
    return replace(item, answers=tuple(_equal(each, others[spelled(each.completion)]) for each in item.answers))


def _equal(answer: Answer, again: Answer) -> Answer:
    """An answer that was given twice: by both, and with no label of before if there are two that contradict."""
    models = dict.fromkeys(filter(None, (answer.model, again.model)))
    labels = {answer.before, again.before} - {None}
    return answer._replace(model=", ".join(models), before=labels.pop() if len(labels) == 1 else None)
