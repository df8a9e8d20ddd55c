"""A dataset of kto in the files of other tools, beside it: `trl/`, `llama-factory/`, `halos/`.

    trl             train.jsonl, validation.jsonl: unpaired preference {prompt, completion, label}
                    https://huggingface.co/docs/trl/dataset_formats
    llama-factory   train.json, validation.json, dataset_info.json: sharegpt {conversations, kto_tag} for chats, alpaca
                    {instruction, output, kto_tag} for texts
                    https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
    halos           train.json, validation.json: binary_feedback, as get_feedback of its train/dataloader.py reads it;
                    both belong into its `datasets` list, where `split` tells them apart. It knows chats alone: a text
                    is one user turn. It wants a reward: the label's 1 or 0

Rows go through one by one, and files without rows are valid: an empty JSONL, or the JSON array `[]`; `datasets` and
HALOs refuse to load those, so drop them there. Ids, pairs and
origins stay in kto's own files, as the other tools have no column for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import TRAIN, VALIDATION, Row, Text, count_rows, read_batches

SPLITS = {"train": TRAIN, "validation": VALIDATION}
"""What a file is called elsewhere, and the file of ours that it is made of."""
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
"""Our roles in LLaMA-Factory's default tags."""
INFO = "dataset_info.json"

Form = Callable[[Row], dict[str, Any]]


def write_exports(folder: Path, formats: Sequence[str], data: Path, *, name: str = "kto") -> dict[str, int]:
    """Writes FOLDER/FORMAT/... of the Parquet files in `data`; the caller makes `folder` take its place at once.

    Args:
        formats: of `binarize_config.FORMATS`.
        name: begins the names of LLaMA-Factory's datasets, NAME_train and NAME_validation.

    Returns:
        The rows of each file of rows, by its path below `folder`.

    Raises:
        BadInput: a file of `data` is missing, damaged or not ours, or a row that a format cannot hold.
    """
    counts = {}
    for tool in dict.fromkeys(formats):
        (folder / tool).mkdir(parents=True, exist_ok=True)
        for split, file in SPLITS.items():
            path = folder / tool / f"{split}{'.jsonl' if tool == 'trl' else '.json'}"
            form = FORMS[tool](split)
            values = (form(row) for rows in read_batches(data / file) for row in rows)
            counts[f"{tool}/{path.name}"] = write_rows(path, values)
        if tool == "llama-factory":
            write_info(folder / tool, data, name)
    return counts


def write_rows(path: Path, values: Iterable[dict[str, Any]]) -> int:
    """Writes JSON lines, or (.json) one JSON array, value by value; returns how many."""
    array = path.suffix == ".json"
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        before = "[\n" if array else ""
        for value in values:
            file.write(before + json.dumps(value, ensure_ascii=False))
            before = ",\n" if array else "\n"
            count += 1
        file.write("\n]\n" if array and count else "[]\n" if array else "\n" if count else "")
    return count


def messages(text: Text, role: str) -> list[dict[str, str]]:
    """A chat as it is; a text as one message of `role`."""
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return [{"role": turn["role"], "content": turn["content"]} for turn in text]


def trl_form(split: str) -> Form:
    """TRL's unpaired preference, conversational for chats and standard for texts."""

    def form(row: Row) -> dict[str, Any]:
        if isinstance(row.prompt, str):
            return {"prompt": row.prompt, "completion": row.completion, "label": row.label}
        prompt, completion = messages(row.prompt, "user"), messages(row.completion, "assistant")
        return {"prompt": prompt, "completion": completion, "label": row.label}

    return form


def halos_form(split: str) -> Form:
    """HALOs' binary_feedback; its own splits are called train and test."""
    name = {"train": "train", "validation": "test"}[split]

    def form(row: Row) -> dict[str, Any]:
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


def llama_factory_form(split: str) -> Form:
    """LLaMA-Factory's KTO row: sharegpt for chats, alpaca for texts.

    Raises:
        BadInput: (the form) an answer of several messages, of which LLaMA-Factory would take the last alone.
    """

    def form(row: Row) -> dict[str, Any]:
        if isinstance(row.prompt, str):
            return {"instruction": row.prompt, "output": row.completion, "kto_tag": row.label}
        if len(row.completion) != 1:
            what = f"The answer of {row.origin} has {len(row.completion)} messages; llama-factory holds one."
            raise BadInput(what, "Leave --format llama-factory out.")
        turns = [*messages(row.prompt, "user"), *messages(row.completion, "assistant")]
        chat = [{"from": SPEAKERS[turn["role"]], "value": turn["content"]} for turn in turns]
        return {"conversations": chat, "kto_tag": row.label}

    return form


FORMS: dict[str, Callable[[str], Form]] = {
    "trl": trl_form,
    "llama-factory": llama_factory_form,
    "halos": halos_form,
}


def write_info(folder: Path, data: Path, name: str) -> None:
    """Describes the files for LLaMA-Factory; one without rows is not described, as it could not be trained on."""
    chat = holds_chats(data)
    columns = {"messages": "conversations"} if chat else {"prompt": "instruction", "response": "output"}
    entry = {"formatting": "sharegpt" if chat else "alpaca", "columns": columns | {"kto_tag": "kto_tag"}}
    info = {
        f"{name}_{split}": {"file_name": f"{split}.json", **entry}
        for split, file in SPLITS.items()
        if count_rows(data / file)
    }
    (folder / INFO).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def holds_chats(data: Path) -> bool:
    """Whether the rows of a dataset are chats, by the schema of its files."""
    import pyarrow as pa
    from pyarrow import parquet

    return pa.types.is_list(parquet.read_schema(data / TRAIN).field("prompt").type)
