"""Who has labelled what, what each person is shown next, and undo. Threads may share it."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, NamedTuple

from kto_cli.common.files import text_hash
from kto_cli.common.words import printable
from kto_cli.data.texts import Text, turn_text, without_tools
from kto_cli.evaluation.labelling.agreement import agreements
from kto_cli.evaluation.labelling.items import Item, Items
from kto_cli.evaluation.labelling.label_file import CHOICES, Given, LabelFile, given


class NotNow(Exception):
    """A request does not fit what the person is shown now, as from an old page."""


class Shown(NamedTuple):
    """What a person is shown."""

    item: Item
    order: list[int]
    """Index of each answer in the order shown."""


class Person:
    """One person's order, labels and skipped items."""

    def __init__(self, name: str, items: tuple[Item, ...], seed: int) -> None:
        self.name = name
        self.seed = str(seed)
        self.order = sorted(items, key=lambda item: (item.rank, text_hash(self.seed, name, item.id)))
        self.done: set[str] = set()
        self.skipped: set[str] = set()
        self.before: list[Given | str] = []
        """What can be undone: labels, and ids of skipped items."""

    def next(self) -> Shown | None:
        """The next item, its answers in an order that is random and stays."""
        item = next((each for each in self.order if each.id not in self.done and each.id not in self.skipped), None)
        if item is None:
            return None
        order = list(range(len(item.answers)))
        flipped = int(text_hash(self.seed, self.name, item.id, "order"), 16) % 2
        return Shown(item, order[::-1] if flipped else order)


class Labelling:
    """Items, the people who label them, and the file of their labels."""

    def __init__(self, found: Items, file: LabelFile, seed: int) -> None:
        self.items, self.file, self.seed = found.items, file, seed
        self.known = {item.id for item in self.items}
        self.people: dict[str, Person] = {}
        self.lock = threading.RLock()
        for label in file.labels:
            if label.item in self.known:
                self._note(self._person(label.rater), label)

    def _person(self, name: str) -> Person:
        if name not in self.people:
            self.people[name] = Person(name, self.items, self.seed)
        return self.people[name]

    @staticmethod
    def _note(person: Person, label: Given) -> None:
        person.done.add(label.item)
        person.before.append(label)

    def counts(self) -> Counter[str]:
        """Labels of each person in the file, those of other items too."""
        return Counter(label.rater for label in self.file.labels)

    def agreement(self) -> list[dict[str, Any]]:
        """See `agreements`, over all labels in the file."""
        return agreements(self.file.labels)

    def choose(self, name: str, item: str, choice: str, reason: str) -> None:
        """Saves a label.

        Raises:
            NotNow: the person is shown another item, or it takes no such choice. DiskFull, BadInput: it is not saved.
        """
        with self.lock:
            person, shown = self._at(name, item)
            if choice not in CHOICES[len(shown.order)]:
                raise NotNow(f"Not saved: {printable(choice)} is no choice here.")
            label = given(shown.item, shown.order, choice, rater=name, reason=reason)
            self.file.add(label)
            self._note(person, label)

    def skip(self, name: str, item: str) -> None:
        """Puts an item off until the others are labelled.

        Raises:
            NotNow: the person is shown another item.
        """
        with self.lock:
            person, _ = self._at(name, item)
            person.skipped.add(item)
            person.before.append(item)

    def again(self, name: str) -> None:
        """Shows the skipped items again."""
        with self.lock:
            person = self._person(name)
            person.before = [each for each in person.before if isinstance(each, Given)]
            person.skipped.clear()

    def undo(self, name: str) -> str:
        """Takes the person's last label or skip back, and returns the reason that went with it.

        Raises:
            NotNow: there is none. DiskFull, BadInput: the label stays.
        """
        with self.lock:
            person = self._person(name)
            if not person.before:
                raise NotNow("There is nothing to undo.")
            last = person.before[-1]
            if isinstance(last, Given):
                self.file.remove(last)
                person.done.discard(last.item)
            else:
                person.skipped.remove(last)
            person.before.pop()
            return str(last.rows[0]["reason"]) if isinstance(last, Given) else ""

    def _at(self, name: str, item: str) -> tuple[Person, Shown]:
        person = self._person(name)
        shown = person.next()
        if shown is None or shown.item.id != item:
            raise NotNow("Not saved: another answer is shown now, as this page was out of date.")
        return person, shown

    def state(self, name: str) -> dict[str, Any]:
        """What the page shows to a person: never who gave an answer, nor what others said of it."""
        with self.lock:
            person = self._person(name)
            shown = person.next()
            found: dict[str, Any] = {
                "name": name,
                "total": len(self.items),
                "done": len(person.done),
                "skipped": len(person.skipped),
                "undo": bool(person.before),
                "file": printable(self.file.path),
                "item": None if shown is None else _shown(shown),
            }
            if shown is None:
                found |= {"people": dict(self.counts()), "agreement": self.agreement()}
            return found


def _shown(shown: Shown) -> dict[str, Any]:
    item = shown.item
    return {
        "id": item.id,
        "prompt": _turns(item.prompt),
        "answers": [_turns(item.answers[index].completion) for index in shown.order],
    }


def _turns(text: Text) -> list[dict[str, str]]:
    """Texts with their roles; characters that reorder or hide text are escaped, as on a terminal."""
    if isinstance(text, str):
        return [{"role": "", "text": printable(text, "\n\t")}]
    return [{"role": turn["role"], "text": printable(turn_text(turn), "\n\t")} for turn in without_tools(text)]
