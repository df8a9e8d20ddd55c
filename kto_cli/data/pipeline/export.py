"""A dataset of kto in the file formats of other tools, in folders called as the formats.

    trl             train.jsonl, validation.jsonl: unpaired preference {prompt, completion, label}
                    https://huggingface.co/docs/trl/dataset_formats
    llama-factory   train.json, validation.json, dataset_info.json: sharegpt {conversations, kto_tag} for chats, alpaca
                    {instruction, output, kto_tag} for texts
                    https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
    halos           train.json, validation.json: binary_feedback, as get_feedback of its train/dataloader.py reads it;
                    name both in its `datasets` list, where `split` separates them. HALOs reads chats only, so a text
                    becomes one user turn; it needs a reward, which is the label's 1 or 0
    openai-preference   pairs alone (export_pairs.py)

An empty split has no file, as `datasets` and HALOs fail to load one. Ids, pairs and origins are in kto's own files
only: the other tools have no column for them. Rows are converted one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.read import parquet_file
from kto_cli.data.dataset import TRAIN, VALIDATION, WHAT, Row, count_rows, read_batches
from kto_cli.data.pipeline.export_pairs import NAME as PAIRS
from kto_cli.data.pipeline.export_pairs import write_pairs
from kto_cli.data.texts import TOOLS, Message, Text, api_messages, calls_of, has_more, offered, tools_of, without_tools

SPLITS = {"train": TRAIN, "validation": VALIDATION}
"""Split -> its Parquet file."""
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
"""Role -> LLaMA-Factory's default tag."""
INFO = "dataset_info.json"

Form = Callable[[Row], dict[str, Any]]


def write_exports(folder: Path, formats: Sequence[str], data: Path, *, name: str = "kto") -> dict[str, int]:
    """Writes FOLDER/FORMAT/... from the Parquet files in `data`; the caller writes atomically, if it needs to.

    Args:
        formats: some of `binarize_config.FORMATS`.
        name: prefix of LLaMA-Factory's datasets, NAME_train and NAME_validation.

    Returns:
        Number of rows (of pairs for openai-preference) per file, by its path below `folder`.

    Raises:
        BadInput: a file of `data` is missing, damaged or not ours, or a format cannot hold a row.
    """
    counts: dict[str, int] = {}
    has_tools = TOOLS in names_of_columns(data)
    for tool in dict.fromkeys(formats):
        if tool == PAIRS:
            counts |= write_pairs(folder, data)
            continue
        (folder / tool).mkdir(parents=True, exist_ok=True)
        splits = {split: rows for split, file in SPLITS.items() if (rows := count_rows(data / file))}
        for split, rows in splits.items():
            path = folder / tool / f"{split}{'.jsonl' if tool == 'trl' else '.json'}"
            form = FORMS[tool](split, has_tools)
            write_rows(path, (form(row) for batch in read_batches(data / SPLITS[split]) for row in batch))
            counts[f"{tool}/{path.name}"] = rows
        if tool == "llama-factory":
            write_info(folder / tool, data, name, splits, has_tools)
    return counts


def write_rows(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """Writes JSON lines or, for .json, one JSON array, value by value."""
    array = path.suffix == ".json"
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for index, value in enumerate(values):
            before = "[\n" if array and not index else ",\n" if array else "\n" if index else ""
            file.write(before + json.dumps(value, ensure_ascii=False))
        file.write("\n]\n" if array else "\n")


def messages(text: Text, role: str) -> list[dict[str, Any]]:
    """A chat unchanged, its calls of tools as objects; a text as one message of `role`."""
    return [{"role": role, "content": text}] if isinstance(text, str) else api_messages(text)


def trl_form(split: str, has_tools: bool) -> Form:
    """TRL's unpaired preference, conversational for chats and standard for texts."""

    def form(row: Row) -> dict[str, Any]:
        tools = {TOOLS: tools_of(row.prompt) or None} if has_tools and not isinstance(row.prompt, str) else {}
        return {**trl_texts(row.prompt, row.completion), "label": row.label, **tools}

    return form


def trl_texts(prompt: Text, completion: Text) -> dict[str, Any]:
    """Prompt and completion as TRL has them: both texts, or both lists of messages; tools are a column of their own."""
    if isinstance(prompt, str):
        return {"prompt": prompt, "completion": completion}
    return {"prompt": messages(prompt, "user"), "completion": messages(completion, "assistant")}


def halos_form(split: str, has_tools: bool) -> Form:
    """HALOs' binary_feedback; its splits are called train and test.

    Raises:
        BadInput: (the form) tools, calls of them or reasoning, which HALOs does not read.
    """
    name = {"train": "train", "validation": "test"}[split]

    def form(row: Row) -> dict[str, Any]:
        if has_more(row.prompt, row.completion):
            raise BadInput(f"{row.origin} has tools or reasoning, which halos cannot hold.", "Remove --format halos.")
        return {
            "prompt_id": row.prompt_id,
            "prompt": messages(row.prompt, "user"),
            "output": messages(row.completion, "assistant"),
            "label": int(row.label),
            "reward": float(row.label),
            "type": "binary_feedback",
            "split": name,
        }

    return form


def llama_factory_form(split: str, has_tools: bool) -> Form:
    """LLaMA-Factory's KTO row: sharegpt for chats, alpaca for texts.

    Raises:
        BadInput: (the form) an answer of several messages, of which LLaMA-Factory would use the last only; a message
            with both text and calls of tools, or reasoning in a field of its own, which it has no place for.
    """

    def form(row: Row) -> dict[str, Any]:
        if isinstance(row.prompt, str):
            return {"instruction": row.prompt, "output": row.completion, "kto_tag": row.label}
        if len(row.completion) != 1:
            what = f"The answer of {row.origin} has {len(row.completion)} messages; llama-factory takes one."
            raise BadInput(what, "Remove --format llama-factory.")
        chat = [llama_factory_turn(turn, row.origin) for turn in (*without_tools(row.prompt), *row.completion)]
        tools = [tool["function"] for tool in offered(row.prompt) or []]
        more = {TOOLS: json.dumps(tools, ensure_ascii=False) if tools else ""} if has_tools else {}
        return {"conversations": chat, "kto_tag": row.label, **more}

    return form


def llama_factory_turn(turn: Message, origin: str) -> dict[str, str]:
    """A message in sharegpt: calls of tools are a message of function_call, results one of observation.

    Raises:
        BadInput: it has both text and calls, or reasoning.
    """
    calls = [call["function"] for call in calls_of(turn)]
    if "reasoning_content" in turn or (calls and turn["content"].strip()):
        what = "both text and calls of tools" if calls else "reasoning in a field of its own"
        fault = f"A message of {origin} has {what}; llama-factory has no place for it."
        raise BadInput(fault, "Remove --format llama-factory.")
    if calls:
        return {"from": "function_call", "value": json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)}
    return {"from": SPEAKERS[turn["role"]], "value": turn["content"]}


FORMS: dict[str, Callable[[str, bool], Form]] = {
    "trl": trl_form,
    "llama-factory": llama_factory_form,
    "halos": halos_form,
}


def write_info(folder: Path, data: Path, name: str, splits: Iterable[str], has_tools: bool) -> None:
    """Writes dataset_info.json, which describes the files of the splits for LLaMA-Factory."""
    chat = holds_chats(data)
    tools = {TOOLS: TOOLS} if has_tools else {}
    columns = {"messages": "conversations", **tools} if chat else {"prompt": "instruction", "response": "output"}
    entry = {"formatting": "sharegpt" if chat else "alpaca", "columns": columns | {"kto_tag": "kto_tag"}}
    info = {f"{name}_{split}": {"file_name": f"{split}.json", **entry} for split in splits}
    (folder / INFO).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def names_of_columns(data: Path) -> list[str]:
    """Names of the columns of a dataset's files."""
    with parquet_file(data / TRAIN, WHAT) as file:
        return list(file.schema_arrow.names)


def holds_chats(data: Path) -> bool:
    """Whether the rows of a dataset are chats, by the schema of its files."""
    import pyarrow as pa

    with parquet_file(data / TRAIN, WHAT) as file:
        return pa.types.is_list(file.schema_arrow.field("prompt").type)
