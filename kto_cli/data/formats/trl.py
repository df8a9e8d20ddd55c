"""Tables (JSONL, JSON, CSV, TSV, Parquet) and Hub datasets in TRL's columns, one record a line.

    paired      prompt?, chosen, rejected
    unpaired    prompt, completion, label       label: see labels.py
    unpaired    messages, label                 the last message is the completion

https://huggingface.co/docs/trl/dataset_formats (`messages` with a label is ours). Each of prompt, chosen, rejected and
completion is a text or a list of chat messages {role, content}. An answer in messages may repeat the prompt before
it. Paired chat without `prompt`: what chosen and rejected share at their start is the prompt. A text prompt is one
user turn and its answer the assistant's, unless plain text is asked for. Other columns are ignored, and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.fields import rejected
from kto_cli.data.formats.records import Result, RowFault
from kto_cli.data.formats.rows import labelled, pair
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.any_file import parsed, records
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import printable

KINDS = {
    "paired": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "messages": ("messages", "label"),
}
WANTED = ("prompt", "chosen", "rejected", "completion", "label", "messages")
EXPECTED = "paired rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label)"
SIGNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "shp": (("history", "human_ref_A", "human_ref_B"),),
    "oasst": (("message_tree_id", "prompt"), ("message_id", "parent_id", "text")),
    "ultrafeedback": (("instruction", "completions"),),
    "alpaca-eval": (("instruction", "output_1", "output_2", "preference"),),
    "halos": (("type", "prompt", "output"), ("type", "prompt", "output_A")),
    "llama-factory": (("conversations",), ("instruction", "output", "kto_tag"), ("messages", "kto_tag")),
}
"""Columns that tell another source's files."""
FIRST = 32
"""Records that are looked at before the first is read."""


def table_kind(name: str, columns: Sequence[str]) -> str:
    """Which of KINDS the columns are.

    Raises:
        BadInput: none of them, or paired and unpaired at once.
    """
    fits = [kind for kind, needed in KINDS.items() if set(needed) <= set(columns)]
    if "paired" in fits and "unpaired" in fits:
        raise BadInput(f"{name} has the columns of both paired and unpaired rows.", f"Keep those of one: {EXPECTED}.")
    if not fits:
        found = ", ".join(columns[:20]) or "none"
        raise BadInput(f"{name} has the columns {found}.", other_ways(columns))
    return fits[0]


def other_ways(columns: Sequence[str]) -> str:
    """What to do with a file of other columns: the source whose columns they are, else rules over them."""
    for source, signs in SIGNS.items():
        if any(set(some) <= set(columns) for some in signs):
            return f"They look like those of {source}: kto binarize {source}:FILE"
    return f"kto needs {EXPECTED}; rename yours to these, or say what they mean: kto binarize log:FILE --desirable RULE"


def refuse_texts_without_prompt(name: str, columns: Sequence[str], records: Iterable[Record]) -> None:
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


def column_notes(kind: str, columns: Sequence[str]) -> list[str]:
    """Which columns are ignored."""
    read = WANTED if kind != "paired" else (*KINDS[kind], "prompt")
    extra = [column for column in columns if column not in read]
    return [f"Columns ignored: {', '.join(extra)}."] if extra else []


def first_records(raw_file: RawFile) -> list[Record]:
    """The first few records of a file, parsed; none of what is no file (a dataset of the Hub)."""
    if not raw_file.path.exists():
        return []
    return [parsed(record, WANTED) for record in islice(records(raw_file.path, raw_file.name, WANTED), FIRST)]


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """What of a file is ignored, and how its text prompts are read.

    Raises:
        BadInput: columns that are not those of feedback.
    """
    name = printable(str(raw_file.path))
    columns = [printable(column) for column in columns]
    kind = table_kind(name, columns)
    first = first_records(raw_file)
    if kind == "paired":
        refuse_texts_without_prompt(name, columns, first)
    notes = column_notes(kind, columns)
    if not config.text and any(isinstance((record.values or {}).get("prompt"), str) for record in first):
        notes.append(f"{name}: text prompts are read as one user turn each (--text keeps plain text).")
    return notes


def is_paired_file(columns: Sequence[str]) -> bool:
    """Whether the columns of a file are those of pairs."""
    return set(KINDS["paired"]) <= set(columns)


def is_paired(values: Mapping[str, Any]) -> bool:
    """Whether a record is meant as a pair, by the columns it has itself."""
    sides = [side for side in KINDS["paired"] if side in values]
    return len(sides) == 2 or (len(sides) == 1 and "completion" not in values and "messages" not in values)


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """The pair, the output or the fault that a record is."""
    if record.values is None:  # what it was meant as shows in its file's columns, or else in its text alone
        pair_meant = raw_file.paired or '"chosen"' in record.raw or '"rejected"' in record.raw
        yield rejected(record, 2 if pair_meant else 1)
        return
    paired = is_paired(record.values)
    try:
        if paired:
            yield pair(record.values, record.origin, config.text, raw_file.split)
        else:
            yield labelled(record.values, record.origin, config.text, raw_file.split)
    except RowFault as fault:
        yield rejected(record, 2 if paired else 1, fault)


SOURCE = Source(
    name="trl",
    about="Your own table in TRL's columns: pairs, or outputs with a label; chats or texts.",
    gives="pairs or labels",
    parse=parse,
    patterns=("*.jsonl*", "*.ndjson*", "*.json", "*.json.gz", "*.csv*", "*.tsv*", "*.parquet"),
    options=("--text", "--cut", "--margin"),
    wanted=WANTED,
    check=check,
    paired=is_paired_file,
    example=(
        '{"prompt": "Is the shop open on Sunday?", "completion": "Yes, from ten to four.", "label": true}',
        '{"prompt": "Is the shop open on Sunday?", "completion": "Look it up.", "label": false}',
    ),
)
