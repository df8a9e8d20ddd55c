"""LLaMA-Factory's feedback files: sharegpt or alpaca, with a `kto_tag` or (`ranking`) with chosen and rejected.

    sharegpt    conversations (or messages), kto_tag               the last message is the answer
    sharegpt    conversations, chosen, rejected                    each {from, value}
    alpaca      instruction, input?, history?, output, kto_tag     the prompt is "instruction\\ninput"
    alpaca      instruction, input?, history?, chosen, rejected

`system` is a column or the first message; the message wins. A `dataset_info.json` beside the file, or given instead of
it, may define other names of columns and tags (`llama_factory_info.py`). Semantics as in
`src/llamafactory/data/converter.py`, but rows that it drops with a warning or trains on without a label are rejected
here: a tag that is not a boolean, roles out of turn. Rows with images, videos or audios are rejected too: the text
alone is not the prompt that was answered. `tools`, function_call and observation become tools, calls and results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.fields import chat_turns, ignored_columns
from kto_cli.data.formats.llama_factory_info import (
    INFO,
    ColumnMap,
    column_map,
    described_files,
    guessed_map,
    with_splits,
)
from kto_cli.data.formats.message_names import MORE_THAN_TEXT
from kto_cli.data.formats.messages import Turn
from kto_cli.data.formats.records import Result, RowFault, Text, check_text, message
from kto_cli.data.formats.rows import labelled, pair
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

WANTED = "conversations (or instruction) with kto_tag, or with chosen and rejected"
PATTERNS = ("*.json", "*.jsonl")


def raw_files(path: Path, subsets: Sequence[str] = ()) -> list[RawFile]:
    """The file itself; for a dataset_info.json or its folder, the feedback files it describes; else a folder's files.

    Raises:
        BadInput: nothing is there, or a subset (an entry of dataset_info.json) is not.
    """
    shown = printable(str(path))
    if not path.exists():
        raise BadInput(f"{shown} does not exist.", f"Give a file, a folder or a {INFO} of LLaMA-Factory.")
    info = path / INFO if path.is_dir() else path
    if info.name == INFO and info.is_file():
        return described_files(info, subsets)
    if subsets:
        raise BadFlag(f"--subset chooses entries of a {INFO}, and {shown} has none.", "Remove --subset.")
    if not path.is_dir():
        return [RawFile(path, path.name)]
    found = sorted(file for pattern in PATTERNS for file in path.glob(pattern) if file.is_file())
    if not found:
        raise BadInput(f"{shown} has no .json or .jsonl files.", "Name the file itself.")
    return with_splits([RawFile(file, file.name, path.resolve().name) for file in found])


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Notes on the ignored columns and on the use of a dataset_info.json.

    Raises:
        BadInput: the columns, or those that dataset_info.json names, are not those of feedback.
    """
    name, found = printable(str(raw_file.path)), printable(", ".join(columns[:20])) or "none"
    layout = column_map(raw_file) or guessed_map(tuple(columns))
    if layout is None:
        step = f"LLaMA-Factory's feedback has {WANTED}; define other names in a {INFO} beside the file."
        raise BadInput(f"{name} has the columns {found}.", step)
    answers = ("chosen", "rejected") if layout.ranking else ("kto_tag",) if layout.chat else ("response", "kto_tag")
    needed = ("messages" if layout.chat else "prompt", *answers)
    missing = [layout.columns.get(key, key) for key in needed if layout.columns.get(key) not in columns]
    if missing:
        named = f", which {INFO} names" if layout.described else ""
        what = f"{name} has the columns {found}, and not {printable(', '.join(missing))}{named}."
        raise BadInput(what, f"LLaMA-Factory's feedback has {WANTED}.")
    if layout.ranking and not layout.described and "kto_tag" in layout.columns:
        raise BadInput(f"{name} has the columns of both pairs and tagged answers.", f"Choose one in a {INFO}.")
    used = set(layout.columns.values())
    notes = [f"{name} is read as {INFO} describes it."] if layout.described else []
    return [*notes, *ignored_columns(columns, used)]


def described(raw_file: RawFile) -> ColumnMap | None:
    """Column map from a dataset_info.json; None without one, or with a faulty one, which `check` has reported."""
    try:
        return column_map(raw_file)
    except BadInput:
        return None


def map_for(values: Mapping[str, Any], raw_file: RawFile) -> ColumnMap:
    """Column map of one record."""
    return described(raw_file) or guessed_map(tuple(values)) or lenient_map(values)


def rows(record: Record, raw_file: RawFile, config: BinarizeConfig) -> int:
    """Two for a record that is meant as a pair, else one."""
    if record.values is not None:
        return 2 if map_for(record.values, raw_file).ranking else 1
    known = described(raw_file)
    return 2 if (known.ranking if known else '"chosen"' in record.raw or '"rejected"' in record.raw) else 1


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Pair or labelled row of one record; RowFault if it is faulty."""
    values = record.values or {}
    layout = map_for(values, raw_file)
    make = pair if layout.ranking else labelled
    return [make(row_of(values, layout), record.origin, config.text, raw_file.split)]


def lenient_map(values: Mapping[str, Any]) -> ColumnMap:
    """Column map for a record that lacks a column of its file, so that its reject names the column."""
    chat = "conversations" in values or "messages" in values
    names = {name: name for name in ("system", *MORE_THAN_TEXT)}
    first = {"messages": "messages" if "messages" in values else "conversations"}
    first |= {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"}
    return ColumnMap(chat, False, names | first)


def row_of(values: Mapping[str, Any], layout: ColumnMap) -> dict[str, Any]:
    """Row in TRL's columns: prompt; completion and label, or chosen and rejected.

    Raises:
        RowFault: it has more than text, or does not fit its column map.
    """
    cells = {key: values.get(name) for key, name in layout.columns.items()}
    row: dict[str, Any] = {name: cells[name] for name in MORE_THAN_TEXT if cells.get(name) is not None}
    if layout.chat:
        return row | chat_row(cells, layout)
    row["prompt"] = alpaca_prompt(cells)
    if layout.ranking:
        return row | {"chosen": cells.get("chosen"), "rejected": cells.get("rejected")}
    return row | {"completion": cells.get("response"), "label": cells.get("kto_tag")}


def chat_row(cells: Mapping[str, Any], layout: ColumnMap) -> dict[str, Any]:
    """Row of sharegpt in TRL's columns."""
    if cells.get("messages") is None:
        raise RowFault("missing_field", f"no {layout.columns.get('messages', 'conversations')}")
    chat = chat_of(cells["messages"], layout, "the conversation")
    system = system_of(cells)
    if system and not any(turn.role == "system" for turn in chat[:1]):
        chat = [Turn("system", system), *chat]
    if layout.ranking:
        return {"prompt": chat, **{side: answer(cells.get(side), layout, side) for side in ("chosen", "rejected")}}
    return {"messages": chat, "label": cells.get("kto_tag")}


def answer(value: Any, layout: ColumnMap, what: str) -> Any:
    """One side of a pair: a message, a list of messages, or a text."""
    if isinstance(value, dict):
        return chat_of([value], layout, what)
    return value if value is None or isinstance(value, str) else chat_of(value, layout, what)


def chat_of(value: Any, layout: ColumnMap, what: str) -> list[Turn]:
    """Messages, with the roles and names of fields that a dataset_info.json gives, else with those that are known.

    Raises:
        RowFault: not a list of messages, or another role; see messages.py.
    """
    tags = layout.tags
    if not tags or not isinstance(value, (list, tuple)) or not all(isinstance(turn, dict) for turn in value):
        return chat_turns(value, what)
    roles = {tags.get(f"{role}_tag"): role for role in ("user", "assistant", "system")}
    roles |= {tags.get("function_tag"): "function_call", tags.get("observation_tag"): "observation"}
    role_tag, content_tag = tags.get("role_tag", "from"), tags.get("content_tag", "value")
    chat = []
    for turn in value:
        tag = check_text(turn.get(role_tag), f"a role in {what}")
        if tag not in roles:
            accepted = ", ".join(role for role in roles if role)
            raise RowFault("role_not_accepted", f"role {tag[:40]!r} is not one of {accepted}")
        other = {name: field for name, field in turn.items() if name not in (role_tag, content_tag)}
        chat.append({**other, "role": roles[tag], "content": turn.get(content_tag)})
    return chat_turns(chat, what)


def system_of(cells: Mapping[str, Any]) -> str:
    """Text of the system column; empty if there is none."""
    return "" if cells.get("system") is None else check_text(cells["system"], "the system prompt")


def alpaca_prompt(cells: Mapping[str, Any]) -> Text:
    """Prompt of an alpaca row: `instruction` and `input` on two lines; a chat if a system prompt or history precedes.

    Raises:
        RowFault: not texts, neither of the two, or a history that is not a list of [prompt, answer].
    """
    parts = [check_text(cells[key], key) for key in ("prompt", "query") if cells.get(key) is not None]
    asked = "\n".join(part for part in parts if part)
    system, history = system_of(cells), cells.get("history") or ()
    if not asked.strip():
        raise RowFault("empty_prompt" if parts else "missing_field", "no instruction")
    if not system and not history:
        return asked
    chat = [message("system", system)] if system else []
    if not isinstance(history, (list, tuple)) or not all(isinstance(t, (list, tuple)) and len(t) == 2 for t in history):
        raise RowFault("not_messages", "the history is not a list of [prompt, answer]")
    for prompt, reply in history:
        chat.append(message("user", check_text(prompt, "a prompt in the history")))
        chat.append(message("assistant", check_text(reply, "an answer in the history")))
    return (*chat, message("user", asked))


SOURCE = Source(
    name="llama-factory",
    about="LLaMA-Factory's KTO and preference files, sharegpt or alpaca.",
    gives="labels or pairs",
    read=read,
    rows=rows,
    patterns=PATTERNS,
    options=("--subset", "--text", "--threshold", "--margin"),
    raw_files=raw_files,
    check=check,
    example=(
        '[{"conversations": [{"from": "human", "value": "Is the shop open on Sunday?"},',
        '  {"from": "gpt", "value": "Yes, from ten to four."}], "kto_tag": true}]',
    ),
)
