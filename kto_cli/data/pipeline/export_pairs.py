"""Pairs of a dataset as OpenAI's preference file, which Together, Fireworks and Azure take as well.

    openai-preference   train.jsonl, validation.jsonl:
                        {input: {messages, tools, parallel_tool_calls}, preferred_output, non_preferred_output}
                        https://platform.openai.com/docs/guides/direct-preference-optimization

Rows that are in no pair, or whose partner is not in the dataset, are left out. A text becomes one turn. A split
without pairs has no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import TRAIN, VALIDATION, Row, read_batches
from kto_cli.data.texts import Text, api_messages, offered

NAME = "openai-preference"


def write_pairs(folder: Path, data: Path) -> dict[str, int]:
    """Writes FOLDER/openai-preference/SPLIT.jsonl from the Parquet files in `data`.

    Returns:
        Number of pairs per file, by its path below `folder`.

    Raises:
        BadInput: there is no pair, or a file of `data` is missing, damaged or not ours.
    """
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    counts = {}
    for split, rows in {"train": TRAIN, "validation": VALIDATION}.items():
        path = folder / NAME / f"{split}.jsonl"
        count = 0
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for better, worse in pairs_of(data / rows):
                file.write(json.dumps(preference(better, worse), ensure_ascii=False) + "\n")
                count += 1
        if count:
            counts[f"{NAME}/{path.name}"] = count
        else:
            path.unlink()
    if not counts:
        what = f"No two rows of the dataset are a pair, which is what {NAME} holds."
        raise BadInput(what, f"Remove --format {NAME}.")
    return counts


def pairs_of(path: Path) -> Iterator[tuple[Row, Row]]:
    """The desirable and the undesirable row of each pair of a file, where they stand side by side, as they are written.

    Raises:
        BadInput: see `read_batches`.
    """
    rows = (row for batch in read_batches(path) for row in batch)
    for one, other in pairwise(rows):
        if one.pair_id is not None and one.pair_id == other.pair_id and one.label != other.label:
            yield (one, other) if one.label else (other, one)


def preference(better: Row, worse: Row) -> dict[str, Any]:
    """A line of the file."""
    return {
        "input": {
            "messages": turns(better.prompt, "user"),
            "tools": offered(better.prompt) or [],
            "parallel_tool_calls": True,
        },
        "preferred_output": turns(better.completion, "assistant"),
        "non_preferred_output": turns(worse.completion, "assistant"),
    }


def turns(text: Text, role: str) -> list[dict[str, Any]]:
    """A chat with the arguments of its calls as text, as OpenAI has them; a text as one message of `role`."""
    if isinstance(text, str):
        return [{"role": role, "content": text}]
    return api_messages(text, arguments_as_text=True)


def rows_left_out(exports: dict[str, int], rows: dict[str, int]) -> dict[str, int]:
    """Rows of each split that a file of pairs does not have, by the path of the file.

    Args:
        exports: lines of each exported file. rows: of the splits.
    """
    if not any(path.startswith(f"{NAME}/") for path in exports):
        return {}
    paths = {split: f"{NAME}/{split}.jsonl" for split in rows}
    return {path: left for split, path in paths.items() if (left := rows[split] - 2 * exports.get(path, 0))}
