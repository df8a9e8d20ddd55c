"""Counts of what parsing decides, for notes on the screen: `count` adds to those that `counting` collects.

A format calls `count("...")` where it reads a record in another way than it stands there. The text is the note:
"chats given as text in a cell, read as chats" becomes "Chats given as text in a cell, read as chats: 12."
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_VALUES = 1000
"""Values that are counted apart, the most frequent ones: a column of comments has as many as rows."""
OTHER_VALUES = "other values"


class LabelCell(NamedTuple):
    """Value that decided a label, and what became of its row."""

    column: str
    value: str
    outcome: str
    """desirable, undesirable, number, or the reason why there is no label."""


class Ratings(NamedTuple):
    """What several raters gave to one answer."""

    name: str
    values: tuple[str, ...]
    """In the order of the alphabet: who gave which is not kept."""


LONGEST_RATING = 32
"""Characters; longer values are comments, on which nobody agrees."""


@dataclass
class Counts:
    """Decisions on the records of a block, or of all blocks of a source."""

    notes: Counter[str] = field(default_factory=Counter)
    of_record: set[str] = field(default_factory=set)
    """Notes on the record that is being read; they count if it gives rows."""
    labels: Counter[LabelCell] = field(default_factory=Counter)
    ratings: Counter[Ratings] = field(default_factory=Counter)
    scrubbed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(finding, "values" or "rows") -> what --scrub replaced."""

    def end_record(self, *, is_used: bool) -> None:
        """Counts the notes on a record, each once."""
        if self.of_record:
            self.notes.update(self.of_record if is_used else ())
            self.of_record.clear()

    def add(self, other: Counts) -> None:
        """Adds the counts of another block."""
        self.notes.update(other.notes)
        self.labels.update(other.labels)
        self.ratings.update(other.ratings)
        self.scrubbed.update(other.scrubbed)
        if len(self.labels) > 2 * MOST_VALUES:
            for cell, rows in self.labels.most_common()[MOST_VALUES:]:
                del self.labels[cell]
                self.labels[cell._replace(value=OTHER_VALUES)] += rows


_counts: ContextVar[Counts | None] = ContextVar("counts", default=None)


@contextmanager
def counting() -> Iterator[Counts]:
    """Context manager that collects what is counted within it."""
    counts = Counts()
    token = _counts.set(counts)
    try:
        yield counts
    finally:
        _counts.reset(token)
        counts.end_record(is_used=True)


def count(note: str) -> None:
    """Counts the record for a note, once; see `Counts.end_record`."""
    if (counts := _counts.get()) is not None:
        counts.of_record.add(note)


def count_label(column: str, value: str, outcome: str) -> None:
    """Counts one record for the values of a label column."""
    if (counts := _counts.get()) is not None:
        counts.labels[LabelCell(column, value, outcome)] += 1


def count_ratings(name: str, values: Sequence[str]) -> None:
    """Counts one answer for the agreement of its raters, if there are several."""
    if len(values) > 1 and (counts := _counts.get()) is not None and max(map(len, values)) <= LONGEST_RATING:
        counts.ratings[Ratings(name, tuple(sorted(values)))] += 1
