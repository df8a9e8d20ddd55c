"""Tables (JSONL, JSON, CSV, TSV, Parquet) and Hub datasets in TRL's columns, one record per row.

    paired      prompt?, chosen, rejected
    unpaired    prompt, completion, label       label: see labels.py
    unpaired    messages, label                 the last message is the completion

https://huggingface.co/docs/trl/dataset_formats (`messages` with a label is an addition of kto). Each of prompt, chosen,
rejected and completion is a text or a list of chat messages {role, content}. An answer in messages may repeat the
prompt before it. In a pair of chats without `prompt`, the messages that chosen and rejected share are the prompt.
Chats are read as they happen (chats.py); the message that was rated may be named by `message_id` or `meta.message_id`.
A text prompt is one user turn and its answer one assistant turn, unless --text is given. A column `system` has the
system message of the prompt. Other columns are ignored, with a note that names them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.cell_text import holds_chat
from kto_cli.data.formats.column_names import known, look_like_data
from kto_cli.data.formats.fields import ignored_columns
from kto_cli.data.formats.message_names import MORE_THAN_TEXT
from kto_cli.data.formats.records import Result
from kto_cli.data.formats.rows import labelled, pair
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.any_file import parsed, records
from kto_cli.data.readers.jsonl import Record

KINDS = {
    "paired": ("chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "messages": ("messages", "label"),
}
WANTED = (
    *("prompt", "chosen", "rejected", "completion", "label", "messages", "system"),
    *MORE_THAN_TEXT,
    *("message_id", "meta"),  # which message of a chat was rated (chats.py)
)
EXPECTED = "paired rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label)"
SIGNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "shp": (("history", "human_ref_A", "human_ref_B"),),
    "oasst": (("message_tree_id", "prompt"), ("message_id", "parent_id", "text")),
    "ultrafeedback": (("instruction", "completions"),),
    "alpaca-eval": (("instruction", "output_1", "output_2", "preference"),),
    "halos": (("type", "prompt", "output"), ("type", "prompt", "output_A")),
    "llama-factory": (("conversations",), ("instruction", "output", "kto_tag"), ("messages", "kto_tag")),
    "open-webui": (("data", "meta", "snapshot"),),
    "chat-ui": (("messages", "rootMessageId"),),
    "librechat": (("messageId", "parentMessageId", "isCreatedByUser"),),
    "openai-preference": (("input", "preferred_output", "non_preferred_output"),),
}
"""Columns that identify another source's files."""
FIRST = 32
"""Records that `check` looks at."""


def table_kind(name: str, columns: Sequence[str]) -> str:
    """Key of KINDS that fits the columns.

    Raises:
        BadInput: none of them, or paired and unpaired at once.
    """
    fits = [kind for kind, needed in KINDS.items() if set(needed) <= set(columns)]
    if "paired" in fits and "prompt" not in columns and (source := source_of(columns)):
        raise BadInput(f"{name} has the columns of {source}.", f"Run: kto binarize {source}:{shlex.quote(name)}")
    if "paired" in fits and "unpaired" in fits:
        raise BadInput(f"{name} has the columns of both paired and unpaired rows.", f"Keep those of one: {EXPECTED}.")
    if not fits:
        found = ", ".join(columns[:20]) or "none"
        raise BadInput(f"{name} has the columns {found}.", other_ways(columns, name))
    return fits[0]


def other_ways(columns: Sequence[str], name: str) -> str:
    """Next step for a file with other columns: the source that has them, else rules over them."""
    if source := source_of(columns):
        return f"They look like those of {source}: kto binarize {source}:FILE"
    if known("label_column", columns) and known("completion_column", columns) and known("prompt_column", columns):
        return f"They have well-known names: kto binarize log:{shlex.quote(name)}"
    rules = "kto binarize log:FILE --desirable RULE --undesirable RULE"
    hint = " (They look like a row of data: if the file has no header, add one.)" if look_like_data(columns) else ""
    return f"kto needs {EXPECTED}. Rename your columns to these, or give rules for them: {rules}{hint}"


def source_of(columns: Sequence[str]) -> str | None:
    """Name of the source whose columns these are."""
    return next((name for name, signs in SIGNS.items() if any(set(some) <= set(columns) for some in signs)), None)


def refuse_texts_without_prompt(name: str, columns: Sequence[str], records: Iterable[Record]) -> None:
    """Rejects pairs of texts without a prompt column: it is unknown where the prompt ends.

    Raises:
        BadInput: with the command to use if the texts have hh-rlhf's turn markers.
    """
    if "prompt" in columns:
        return
    answers = [
        record.values["chosen"] for record in records if record.values and record.values.get("chosen") is not None
    ]
    if not answers or not all(isinstance(each, str) and not holds_chat(each) for each in answers):
        return
    what = f"{name} has the texts chosen and rejected without a prompt"
    if "\n\nHuman:" in answers[0]:
        raise BadInput(f"{what}, in the format of hh-rlhf.", f"Run: kto binarize hh-rlhf --from {name}")
    step = "Add a column prompt, or give both as lists of chat messages."
    if known("prompt_column", columns):
        answers_of = "--completion-column chosen --other-column rejected"
        rules = "--desirable 'chosen is not null' --undesirable 'chosen is null'"
        step = f"Run: kto binarize log:{shlex.quote(name)} {answers_of} {rules}"
    raise BadInput(f"{what}.", step)


def column_notes(kind: str, columns: Sequence[str], as_text: bool) -> list[str]:
    """Note on the ignored columns, if there are any; plain text has no system message."""
    read = WANTED if kind != "paired" else (*KINDS[kind], "prompt", "system", *MORE_THAN_TEXT)
    return ignored_columns(columns, [name for name in read if not (as_text and name == "system")])


def first_records(raw_file: RawFile) -> list[Record]:
    """First few records of a file, parsed; none for a dataset of the Hub."""
    if not raw_file.path.exists():
        return []
    return [parsed(record, WANTED) for record in islice(records(raw_file.path, raw_file.name, WANTED), FIRST)]


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Notes on the ignored columns and on text prompts.

    Raises:
        BadInput: the columns are not those of feedback.
    """
    name = printable(str(raw_file.path))
    columns = [printable(column) for column in columns]
    kind = table_kind(name, columns)
    first = first_records(raw_file)
    if kind == "paired":
        refuse_texts_without_prompt(name, columns, first)
    notes = column_notes(kind, columns, config.text)
    prompts = [record.values.get("prompt") for record in first if record.values]
    if not config.text and any(isinstance(prompt, str) and not holds_chat(prompt) for prompt in prompts):
        notes.append(f"{name}: each text prompt is read as one user turn (--text keeps plain text).")
    return notes


def is_paired_file(columns: Sequence[str]) -> bool:
    """Whether the columns of a file are those of pairs."""
    return set(KINDS["paired"]) <= set(columns)


def is_paired(values: Mapping[str, Any]) -> bool:
    """Whether a record is meant as a pair, by its own columns."""
    sides = [side for side in KINDS["paired"] if side in values]
    return len(sides) == 2 or (len(sides) == 1 and "completion" not in values and "messages" not in values)


def rows(record: Record, raw_file: RawFile, config: BinarizeConfig) -> int:
    """Two for a record that is meant as a pair, else one; without values, its file's columns or its text decide."""
    if record.values is not None:
        return 2 if is_paired(record.values) else 1
    return 2 if raw_file.paired or '"chosen"' in record.raw or '"rejected"' in record.raw else 1


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Pair or labelled row of one record; RowFault if it is faulty."""
    values = record.values or {}
    make = pair if is_paired(values) else labelled
    return [make(values, record.origin, config.text, raw_file.split)]


SOURCE = Source(
    name="trl",
    about="Your own table in TRL's columns: pairs, or outputs with a label; chats or texts.",
    gives="pairs or labels",
    read=read,
    rows=rows,
    patterns=("*.jsonl*", "*.ndjson*", "*.json", "*.json.gz", "*.csv*", "*.tsv*", "*.xls[xm]", "*.parquet"),
    options=("--text", "--threshold", "--margin"),
    wanted=WANTED,
    check=check,
    names_ignored=True,
    paired=is_paired_file,
    example=(
        '{"prompt": "Is the shop open on Sunday?", "completion": "Yes, from ten to four.", "label": true}',
        '{"prompt": "Is the shop open on Sunday?", "completion": "Look it up.", "label": false}',
    ),
)
