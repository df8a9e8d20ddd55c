"""LLaMA-Factory's feedback: sharegpt or alpaca, with a `kto_tag` or (`ranking`) with chosen and rejected.

    sharegpt    conversations (or messages), kto_tag               the last message is the answer
    sharegpt    conversations, chosen, rejected                    each {from, value}
    alpaca      instruction, input?, history?, output, kto_tag     the prompt is "instruction\\ninput"
    alpaca      instruction, input?, history?, chosen, rejected

`system` is a column, or the first message, which comes first. Column and tag names may be others: a
`dataset_info.json` beside the file, or given in its place, says which (`llama_factory_info.py`). Meaning as in
`src/llamafactory/data/converter.py`, but what that drops with a warning, or trains on without a label, is a reject
here: a tag that is no boolean, roles out of turn. So are rows that are more than text (tools, images, videos, audios),
as their prompt without those is not the one that was answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.fields import rejected
from kto_cli.data.formats.llama_factory_info import (
    INFO,
    MESSAGES_TAGS,
    TAGS,
    Layout,
    described_files,
    guessed_layout,
    layout_for,
    with_splits,
)
from kto_cli.data.formats.records import Message, Result, RowFault, Text, check_text, message
from kto_cli.data.formats.rows import labelled, pair
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import printable

MORE_THAN_TEXT = ("tools", "images", "videos", "audios")
NOTHING: tuple[Any, ...] = (None, "", "[]", [], ())
WANTED = "conversations (or instruction) with kto_tag, or with chosen and rejected"
PATTERNS = ("*.json", "*.jsonl")


def raw_files(place: Path, subsets: Sequence[str] = ()) -> list[RawFile]:
    """A file itself; of a folder, or a dataset_info.json, the feedback it describes; of any other folder, its files.

    Raises:
        BadInput: nothing there, or a subset (an entry of dataset_info.json) that is not there.
    """
    shown = printable(str(place))
    if not place.exists():
        raise BadInput(f"{shown} does not exist.", f"Give a file, a folder or a {INFO} of LLaMA-Factory.")
    info = place / INFO if place.is_dir() else place
    if info.name == INFO and info.is_file():
        return described_files(info, subsets)
    if subsets:
        raise BadInput(f"--subset chooses among the entries of a {INFO}, and {shown} is none.", "Leave --subset out.")
    if not place.is_dir():
        return [RawFile(place, place.name)]
    found = sorted(path for pattern in PATTERNS for path in place.glob(pattern) if path.is_file())
    if not found:
        raise BadInput(f"{shown} holds no .json or .jsonl.", "Name the file itself.")
    return with_splits([RawFile(path, path.name, place.resolve().name) for path in found])


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Which columns are ignored, and by whose word the others are what they are.

    Raises:
        BadInput: the columns, or those that dataset_info.json names, are no feedback.
    """
    name, found = printable(str(raw_file.path)), printable(", ".join(columns[:20])) or "none"
    layout = layout_for(raw_file) or guessed_layout(tuple(columns))
    if layout is None:
        step = f"Feedback of LLaMA-Factory has {WANTED}; other names go into a {INFO} beside the file."
        raise BadInput(f"{name} has the columns {found}.", step)
    answers = ("chosen", "rejected") if layout.ranking else ("kto_tag",) if layout.chat else ("response", "kto_tag")
    needed = ("messages" if layout.chat else "prompt", *answers)
    missing = [layout.columns.get(key, key) for key in needed if layout.columns.get(key) not in columns]
    if missing:
        told = f", as {INFO} has it" if layout.described else ""
        what = f"{name} has the columns {found}, and not {printable(', '.join(missing))}{told}."
        raise BadInput(what, f"Feedback of LLaMA-Factory has {WANTED}.")
    if layout.ranking and not layout.described and "kto_tag" in layout.columns:
        raise BadInput(f"{name} has the columns of both pairs and tagged answers.", f"Say which in a {INFO}.")
    used = set(layout.columns.values())
    extra = [printable(column) for column in columns if column not in used]
    notes = [f"{name} is read as {INFO} describes it."] if layout.described else []
    return [*notes, f"Columns ignored: {', '.join(extra)}."] if extra else notes


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """The feedback, or the fault, that a record is."""
    try:
        described = layout_for(raw_file)
    except BadInput:  # `check` has said so
        described = None
    if record.values is None:
        pairs = described.ranking if described else '"chosen"' in record.raw or '"rejected"' in record.raw
        yield rejected(record, 2 if pairs else 1)
        return
    layout = described or guessed_layout(tuple(record.values)) or lenient(record.values)
    try:
        row = row_of(record.values, layout)
        make = pair if layout.ranking else labelled
        yield make(row, record.origin, config.text, raw_file.split)
    except RowFault as fault:
        yield rejected(record, 2 if layout.ranking else 1, fault)


def lenient(values: Mapping[str, Any]) -> Layout:
    """A layout for a record that lacks a column of its file, whose absence is then said by name."""
    chat = "conversations" in values or "messages" in values
    names = {name: name for name in ("system", *MORE_THAN_TEXT)}
    first = {"messages": "messages" if "messages" in values else "conversations"}
    first |= {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "kto_tag"}
    return Layout(chat, False, names | first)


def row_of(values: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """The columns of a row in TRL's names: prompt; completion and label, or chosen and rejected.

    Raises:
        RowFault: it is more than text, or of another form than its layout.
    """
    cells = {key: values.get(name) for key, name in layout.columns.items()}
    for name in MORE_THAN_TEXT:
        if cells.get(name) not in NOTHING:
            reason = "tools_not_accepted" if name == "tools" else "media_not_accepted"
            raise RowFault(reason, f"the prompt comes with {name}, without which it is another prompt")
    if layout.chat:
        return chat_row(cells, layout)
    row: dict[str, Any] = {"prompt": alpaca_prompt(cells)}
    if layout.ranking:
        return row | {"chosen": cells.get("chosen"), "rejected": cells.get("rejected")}
    return row | {"completion": cells.get("response"), "label": cells.get("kto_tag")}


def chat_row(cells: Mapping[str, Any], layout: Layout) -> dict[str, Any]:
    """A row of sharegpt."""
    if cells.get("messages") is None:
        raise RowFault("missing_field", f"no {layout.columns.get('messages', 'conversations')}")
    chat = chat_of(cells["messages"], layout, "the conversation")
    if chat[:1] and chat[0]["role"] == "system":
        if not chat[0]["content"]:  # LLaMA-Factory's way to say that there is none
            chat = chat[1:]
    elif system := system_of(cells):
        chat = (message("system", system), *chat)
    if layout.ranking:
        return {"prompt": chat, **{side: answer(cells.get(side), layout, side) for side in ("chosen", "rejected")}}
    return {"prompt": chat[:-1], "completion": chat[-1:], "label": cells.get("kto_tag")}


def answer(value: Any, layout: Layout, what: str) -> Any:
    """One side of a pair: a message, a list of them, or a text."""
    if isinstance(value, dict):
        return chat_of([value], layout, what)
    return value if value is None or isinstance(value, str) else chat_of(value, layout, what)


def chat_of(value: Any, layout: Layout, what: str) -> tuple[Message, ...]:
    """Messages in our roles.

    Raises:
        RowFault: they are no messages, or of a role that is neither the user's, the assistant's nor the system's.
    """
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, dict) for turn in value):
        raise RowFault("not_messages", f"{what} is no list of messages")
    tags = layout.tags
    if not tags:
        tags = MESSAGES_TAGS if value and "role" in value[0] else TAGS
    roles = {tags.get(f"{role}_tag"): role for role in ("user", "assistant", "system")}
    chat = []
    for turn in value:
        if turn.get("tool_calls"):
            raise RowFault("tools_not_accepted", f"a message of {what} calls tools, which its content does not show")
        tag = check_text(turn.get(tags.get("role_tag", "from")), f"a role in {what}")
        content = check_text(turn.get(tags.get("content_tag", "value")), f"a content in {what}")
        if tag not in roles:
            accepted = ", ".join(role for role in roles if role)
            raise RowFault("role_not_accepted", f"role {tag[:40]!r} is not one of {accepted}")
        chat.append(message(roles[tag], content))
    return tuple(chat)


def system_of(cells: Mapping[str, Any]) -> str:
    """The system column; empty where there is none."""
    return "" if cells.get("system") is None else check_text(cells["system"], "the system prompt")


def alpaca_prompt(cells: Mapping[str, Any]) -> Text:
    """`instruction` and `input` on two lines; a chat where a system prompt or a history comes before.

    Raises:
        RowFault: not texts, none of the two, or a history that is no list of [prompt, answer].
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
        raise RowFault("not_messages", "the history is no list of [prompt, answer]")
    for prompt, reply in history:
        chat.append(message("user", check_text(prompt, "a prompt in the history")))
        chat.append(message("assistant", check_text(reply, "an answer in the history")))
    return (*chat, message("user", asked))


SOURCE = Source(
    name="llama-factory",
    about="LLaMA-Factory's KTO and preference files, sharegpt or alpaca.",
    gives="labels or pairs",
    parse=parse,
    patterns=PATTERNS,
    options=("--subset", "--text", "--cut", "--margin"),
    raw_files=raw_files,
    check=check,
    example=(
        '[{"conversations": [{"from": "human", "value": "Is the shop open on Sunday?"},',
        '  {"from": "gpt", "value": "Yes, from ten to four."}], "kto_tag": true}]',
    ),
)
