"""The file of labels: JSON lines in TRL's columns, one answer with its label each, saved before the page goes on.

    {"prompt": ..., "completion": ..., "label": true, "reason": "", "rater": "ana", "choice": "better", "model": "a",
     "item": "0123456789abcdef", "of": 2, "shown": 1, "origin": "answers.jsonl:7", "at": "2026-11-28T09:30:00+00:00"}

`kto binarize FILE` reads it; `tools`, `row` (the id of a validation row) and `before` (the label that an answer had
already) are there where they are known. `choice` is
good or bad of a single answer; better, worse, both good or both bad of one of two, `shown` its position on the page.
`of` is how many rows the label of one item has: they are written at once, and a label that lacks some is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.files import write_json_lines
from kto_cli.common.row_file import append_rows, read_rows
from kto_cli.common.words import plural, printable
from kto_cli.data.pipeline.export import trl_texts
from kto_cli.data.texts import TOOLS, tools_of
from kto_cli.evaluation.labelling.items import Item

WHAT = "labels of kto label"
CHOICES: dict[int, dict[str, tuple[str, ...]]] = {
    1: {"good": ("good",), "bad": ("bad",)},
    2: {
        "first": ("better", "worse"),
        "second": ("worse", "better"),
        "both": ("both good", "both good"),
        "neither": ("both bad", "both bad"),
    },
}
"""Number of answers -> what may be pressed -> the choice of each answer in the order shown."""
DESIRABLE = {"good": True, "bad": False, "better": True, "worse": False, "both good": True, "both bad": False}
"""The label that a choice is: of two answers the better one is desirable and the worse one is not."""


class Given(NamedTuple):
    """A person's label of an item."""

    item: str
    rater: str
    rows: list[dict[str, Any]]

    @property
    def value(self) -> tuple[str, ...]:
        """The choices of the item's answers, whatever the order in which they were shown."""
        return tuple(row["choice"] for row in self._ordered)

    @property
    def before(self) -> tuple[str, ...]:
        """The choices that the labels of before are; empty if an answer had none."""
        labels = tuple(row.get("before") for row in self._ordered)
        choices = [
            shown for shown in CHOICES[len(labels)].values() if tuple(DESIRABLE[each] for each in shown) == labels
        ]
        return choices[0] if choices else ()

    @property
    def _ordered(self) -> list[dict[str, Any]]:
        return sorted(self.rows, key=lambda row: json.dumps(row["completion"], sort_keys=True))


def given(item: Item, order: Sequence[int], choice: str, *, rater: str, reason: str) -> Given:
    """A label with its rows.

    Args:
        order: index of each answer in the order shown. choice: one of `CHOICES`.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for position, (index, one) in enumerate(zip(order, CHOICES[len(order)][choice], strict=True), start=1):
        answer = item.answers[index]
        rows.append(
            {
                **trl_texts(item.prompt, answer.completion),
                "label": DESIRABLE[one],
                "reason": reason,
                "rater": rater,
                "choice": one,
                **({"model": answer.model} if answer.model else {}),
                **({"row": item.row} if item.row else {}),
                **({"before": answer.before} if answer.before is not None else {}),
                **({TOOLS: tools_of(item.prompt)} if tools_of(item.prompt) else {}),
                "item": item.id,
                "of": len(order),
                "shown": position,
                "origin": item.origin,
                "at": at,
            }
        )
    return Given(item.id, rater, rows)


class LabelFile:
    """The labels in a file, in the order they were given; every change is on the disk when a method returns."""

    def __init__(self, path: Path, *, change: bool = True) -> None:
        """Reads what is there; what a kill left half-written is removed, from the file too unless not to `change` it.

        Raises:
            BadInput: the file is no file of labels, or damaged elsewhere than at its end.
        """
        self.path, self._change = path, change
        self.labels: list[Given] = []
        self.notes: list[str] = []
        if path.exists() or path.is_symlink():
            self._read()

    def add(self, label: Given) -> None:
        """Appends the rows of a label, all or none.

        Raises:
            DiskFull: no space left. BadInput: the file cannot be written.
        """
        append_rows(self.path, label.rows)
        self.labels.append(label)

    def remove(self, label: Given) -> None:
        """Removes a label; the others are as they were, also if that fails.

        Raises:
            DiskFull: no space left. BadInput: the file cannot be written.
        """
        kept = [each for each in self.labels if each is not label]
        self._write(kept)
        self.labels = kept

    def _write(self, labels: list[Given]) -> None:
        write_json_lines(self.path, (row for label in labels for row in label.rows))

    def _read(self) -> None:
        found, torn, ended = read_rows(self.path, WHAT)
        self.labels, rest = _grouped(self.path, [_row(self.path, *each) for each in enumerate(found, start=1)])
        if torn or rest:
            self.notes.append(
                f"{printable(self.path)} ends in a label that was not saved completely: it was removed, and its answer "
                "is shown again."
            )
        if (rest or not ended) and self._change:
            self._write(self.labels)
        if self.labels:
            self.notes.append(f"{plural(len(self.labels), 'label')} in {printable(self.path)} from before.")


def _grouped(path: Path, rows: list[dict[str, Any]]) -> tuple[list[Given], list[dict[str, Any]]]:
    """Rows as labels, and those at the end whose label is not complete.

    Raises:
        BadInput: a label that is not the last lacks rows or has choices that do not go together, or a person has two
            labels of one item.
    """
    found: dict[tuple[str, str], Given] = {}
    at = 0
    while at < len(rows):
        first = rows[at]
        key, some = (first["item"], first["rater"]), rows[at : at + first["of"]]
        if any((row["item"], row["rater"]) != key for row in some):
            raise BadInput(f"Line {at + 1} of {printable(path)} is a label that lacks a row.", "Remove the line.")
        if len(some) == first["of"] and tuple(row["choice"] for row in some) not in CHOICES[first["of"]].values():
            raise BadInput(
                f"Lines {at + 1} and {at + 2} of {printable(path)} contradict each other.", "Remove both of them."
            )
        if key in found:
            who = printable(first["rater"])
            raise BadInput(f"Line {at + 1} of {printable(path)} is a second label of {who}.", "Remove one of them.")
        if len(some) < first["of"]:
            return list(found.values()), some
        found[key] = Given(*key, some)
        at += len(some)
    return list(found.values()), []


def _row(path: Path, number: int, row: Any) -> dict[str, Any]:
    """A row of a label.

    Raises:
        BadInput: it is none.
    """
    texts = ("item", "rater", "choice", "reason")
    sound = (
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in texts)
        and type(row.get("of")) is int
        and row["of"] in CHOICES
        and DESIRABLE.get(row["choice"]) is row.get("label")
        and {"prompt", "completion"} <= row.keys()
    )
    if not sound:
        step = "Give another file with --out." if number == 1 else "Remove the line, or give another file with --out."
        raise BadInput(f"Line {number} of {printable(path)} is not a label of kto label.", step)
    return dict(row)
