"""Files (JSONL, JSON, CSV, TSV, Parquet) and Hub datasets of paired or unpaired feedback, one row a line.

    paired      prompt?, chosen, rejected
    unpaired    prompt, completion, label       label: see labels.py
    unpaired    messages, label                 the last message is the completion

Each of prompt, chosen, rejected and completion is a text or a list of chat messages {role, content}. An
answer in messages may repeat the prompt before it. Paired chat without `prompt`: what chosen and rejected
share at their start is the prompt. A text prompt is one user turn and its answer the assistant's, unless
plain text is asked for. Other columns are ignored, and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kto_cli.errors import BadInput
from kto_cli.sources.cells import Rows, read_cells
from kto_cli.sources.hub import table_rows
from kto_cli.sources.labels import as_number, other_numbers
from kto_cli.sources.lines import Record
from kto_cli.sources.records import Feedback, Reject, printable
from kto_cli.sources.rows import convert

KINDS = {
    "paired": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "messages": ("messages", "label"),
}
WANTED = ("prompt", "chosen", "rejected", "completion", "label", "messages")
EXPECTED = "paired rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label)"


def table_kind(name: str, columns: list[str]) -> str:
    """Which of KINDS the columns are.

    Raises:
        BadInput: none of them, or paired and unpaired at once.
    """
    fits = [kind for kind, needed in KINDS.items() if set(needed) <= set(columns)]
    if "paired" in fits and "unpaired" in fits:
        raise BadInput(f"{name} has the columns of both paired and unpaired rows.", f"Keep those of one: {EXPECTED}.")
    if not fits:
        found = ", ".join(columns[:20]) or "none"
        raise BadInput(f"{name} has the columns {found}.", f"kto needs {EXPECTED}; rename yours to these.")
    return fits[0]


def refuse_texts_without_prompt(name: str, columns: list[str], records: Iterable[Record]) -> None:
    """Refuses paired texts of which nobody says where the prompt ends.

    Raises:
        BadInput: with the command to use where the texts have hh-rlhf's turn markers.
    """
    if "prompt" in columns:
        return
    answers = [
        record.values["chosen"] for record in records if record.values and record.values.get("chosen") is not None
    ]
    if not answers or not all(isinstance(answer, str) for answer in answers):
        return
    what = f"{name} has texts chosen and rejected without a prompt."
    if "\n\nHuman:" in answers[0]:
        raise BadInput(f"{what[:-1]}, in the form of hh-rlhf.", f"Run: kto binarize hh-rlhf --from {name}")
    raise BadInput(what, "Add a column prompt, or give both as chat messages.")


def label_notes(labels: Sequence[Any], others: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(notes, warnings) on what numbers in the label column were taken for, if there are any."""
    count = sum(as_number(label) is not None for label in labels)
    if not count:
        return [], []
    if others:
        what = f"All {count:,} number labels are rejected: not all are 1 or 0 (there are {', '.join(others)})."
        return [], [f"{what} Give true or false instead."]
    return [f"{count:,} labels are numbers: 1 read as desirable, 0 as undesirable (there are no others)."], []


def column_notes(kind: str, columns: Sequence[str]) -> list[str]:
    """Which columns are ignored."""
    extra = [column for column in columns if column not in (*KINDS[kind], "prompt")]
    return [f"Columns ignored: {', '.join(extra)}."] if extra else []


def prompt_notes(records: Iterable[Record], as_text: bool) -> tuple[list[str], list[str]]:
    """(notes, warnings) on how text prompts are read."""
    prompts = [record.values.get("prompt") for record in records if record.values]
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    marked = sum("\n\nHuman:" in text for text in texts)
    notes, warnings = [], []
    if texts and not as_text:
        notes.append(f"{len(texts):,} text prompts read as one user turn each (--text keeps plain text).")
    if marked and not as_text:
        what = f"{marked:,} prompts hold turn markers of hh-rlhf, which are read as part of one user turn."
        warnings.append(f"{what} Give such chats as lists of messages.")
    return notes, warnings


def from_rows(name: str, shown: str, rows: Rows, *, as_text: bool, where: dict[str, Any]) -> Feedback:
    """Rows of any table as feedback called `name`; `shown` names the file in errors.

    Raises:
        BadInput: columns that are not those of feedback.
    """
    columns = [printable(column) for column in rows.columns]
    kind = table_kind(shown, columns)
    if not rows.records:
        raise BadInput(f"{shown} has the right columns and no rows.", "Give a file with at least one row.")
    paired = kind == "paired"
    if paired:
        refuse_texts_without_prompt(shown, columns, rows.records)
    labels = [] if paired else [record.values.get("label") for record in rows.records if record.values]
    others = other_numbers(labels)
    results = [convert(record, paired, as_text, others) for record in rows.records]
    items = [result for result in results if not isinstance(result, Reject)]
    rejects = [result for result in results if isinstance(result, Reject)]
    notes, warnings = prompt_notes(rows.records, as_text)
    more_notes, more_warnings = label_notes(labels, others)
    notes += [*more_notes, *column_notes(kind, columns)]
    warnings += more_warnings
    return Feedback(name, items, rejects, len(rows.records), {**where, "kind": kind}, notes, warnings)


def read_file(path: Path, *, as_text: bool) -> Feedback:
    """The feedback of one file."""
    rows = read_cells(path, WANTED)
    return from_rows(path.name, str(path), rows, as_text=as_text, where={"path": str(path)})


def read_hub(hub_id: str, *, as_text: bool) -> Feedback:
    """The feedback of a Hub dataset's train split."""
    columns, values = table_rows(hub_id, WANTED)
    table_kind(hub_id, columns)
    records = [Record(f"{hub_id}:row {number}", row) for number, row in enumerate(values, start=1)]
    return from_rows(hub_id, hub_id, Rows(columns, records), as_text=as_text, where={"hub": hub_id})
