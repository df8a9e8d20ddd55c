"""Feedback files of the KTO authors' code, ContextualAI/HALOs: a JSON array, which may mix these types.

    binary_feedback     prompt, output, label               label 1: desirable, 0: undesirable
    pairwise_feedback   prompt, output_A, output_B, label   label 1: A is better, 0: B is
    scalar_feedback     prompt, output, reward              a scored row; --threshold decides which are desirable

As `train/label.py` writes them and `train/dataloader.py` (get_feedback) reads them: prompts and outputs are lists of
{role, content}, `split` (train or test) is optional, and the label of a pair is whether reward_A > reward_B. Earlier
versions wrote texts, with the prompt as `instruction`.

Dropped: tie (equal rewards, which HALOs writes with label 0); no_score (a scalar record without a reward).
Rejected: label_contradicts_rewards; score_not_accepted (the reward is not a number); type_not_accepted (samples have
neither label nor reward); and the reasons of rows.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.formats.fields import number
from kto_cli.data.formats.labels import as_number, is_missing, label_value
from kto_cli.data.formats.records import VALIDATION, Dropped, Pair, Result, RowFault, Scored, root
from kto_cli.data.formats.rows import answer_of, labelled, pair, prompt_of
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record

WANTED = (
    *("type", "prompt", "instruction", "label", "split", "prompt_id"),
    *("output", "reward", "output_A", "output_B", "reward_A", "reward_B"),
)
BINARY, PAIRWISE, SCALAR = "binary_feedback", "pairwise_feedback", "scalar_feedback"


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Rejects a file without the columns of HALOs' feedback; has no notes.

    Raises:
        BadInput: columns are missing.
    """
    there = set(columns)
    prompt = there & {"prompt", "instruction"}
    answers = "output" in there or {"output_A", "output_B"} <= there
    if prompt and answers and "type" in there and there & {"label", "reward"}:
        return []
    name, found = printable(str(raw_file.path)), printable(", ".join(columns[:20])) or "none"
    wanted = "type, prompt, label (or reward) and output (or output_A and output_B)"
    raise BadInput(f"{name} has the columns {found}.", f"Feedback of HALOs has {wanted}; label.py writes it.")


def split_of(values: Mapping[str, Any], raw_file: RawFile) -> str | None:
    """VALIDATION if the record's `split` is test; the split of its file if it has none."""
    split = values.get("split")
    if split is None:
        return raw_file.split
    return VALIDATION if split == "test" else None


def preferred(values: Mapping[str, Any]) -> bool | None:
    """Whether output A is the better one; None if both rewards are equal.

    Raises:
        RowFault: the label is missing, neither 1 nor 0, or contradicts the rewards.
    """
    label = label_value(values.get("label"))
    if label not in (0, 1):
        raise RowFault("label_not_binary", f"the label of a pair is {label:g}, neither 1 (A is better) nor 0 (B is)")
    reward_a, reward_b = as_number(values.get("reward_A")), as_number(values.get("reward_B"))
    if reward_a is None or reward_b is None:
        return label == 1
    if reward_a == reward_b:
        return None
    if (reward_a > reward_b) != (label == 1):
        both = f"label {label:g} and the rewards {str(reward_a)[:20]} (A) and {str(reward_b)[:20]} (B)"
        raise RowFault("label_contradicts_rewards", f"{both} do not prefer the same output")
    return label == 1


def pairwise(values: Mapping[str, Any], record: Record, raw_file: RawFile, config: BinarizeConfig) -> Pair | Dropped:
    """Pair of a pairwise record; RowFault if it is not a valid one."""
    a_is_better = preferred(values)
    if a_is_better is None:
        return Dropped(record.origin, "tie", "both outputs have the same reward", 2)
    better, worse = ("output_A", "output_B") if a_is_better else ("output_B", "output_A")
    for name in (better, worse):  # checked here, so that the message has the name in the file
        if values.get(name) is None:
            raise RowFault("missing_field", f"no {name}")
    sides = {"prompt": prompt_value(values), "chosen": values[better], "rejected": values[worse]}
    return pair(sides, record.origin, config.text, split_of(values, raw_file))


def scalar(values: Mapping[str, Any], record: Record, raw_file: RawFile, config: BinarizeConfig) -> Scored | Dropped:
    """Scored row of a scalar record; RowFault if it is not a valid one."""
    if is_missing(values.get("reward")):
        return Dropped(record.origin, "no_score", "it has no reward", 1)
    reward = number(values["reward"])
    if reward is None:
        raise RowFault("score_not_accepted", "the reward is not a finite number")
    prompt = prompt_of(prompt_value(values), config.text)
    completion = answer_of(values.get("output"), prompt, "output")
    return Scored(prompt, completion, reward, record.origin, root(prompt), split_of(values, raw_file))


def prompt_value(values: Mapping[str, Any]) -> Any:
    """Prompt, under its present name or its earlier one; RowFault if there is none."""
    prompt = values.get("prompt")
    prompt = values.get("instruction") if prompt is None else prompt
    if prompt is None:
        raise RowFault("missing_field", "no prompt")
    return prompt


def rows(record: Record, raw_file: RawFile, config: BinarizeConfig) -> int:
    """Two for a record that is meant as a pair, else one."""
    if record.values is None:
        return 2 if '"output_A"' in record.raw or '"output_B"' in record.raw else 1
    return 2 if record.values.get("type") == PAIRWISE or {"output_A", "output_B"} & record.values.keys() else 1


def read(record: Record, raw_file: RawFile, config: BinarizeConfig) -> list[Result]:
    """Feedback of one record of any type; RowFault if it has another type or is faulty."""
    values = record.values or {}
    kind = values.get("type")
    if kind == PAIRWISE:
        return [pairwise(values, record, raw_file, config)]
    if kind == SCALAR:
        return [scalar(values, record, raw_file, config)]
    if kind != BINARY:
        found = f"type {kind[:40]!r}" if isinstance(kind, str) else "no type"
        raise RowFault("type_not_accepted", f"{found}; expected {BINARY}, {PAIRWISE} or {SCALAR}")
    if values.get("output") is None:
        raise RowFault("missing_field", "no output")
    row = {"prompt": prompt_value(values), "completion": values["output"], "label": values.get("label")}
    return [labelled(row, record.origin, config.text, split_of(values, raw_file))]


SOURCE = Source(
    name="halos",
    about="Feedback files of the KTO authors' code (HALOs): outputs labelled by a judge or a reward model.",
    gives="labels, pairs or scores",
    read=read,
    rows=rows,
    patterns=("*.json", "*.json.gz", "*.jsonl*"),
    options=("--threshold", "--margin", "--text"),
    wanted=WANTED,
    check=check,
    example=(
        '[{"type": "binary_feedback", "prompt_id": "1", "prompt": [{"role": "user", "content": "Is it open?"}],',
        '  "output": [{"role": "assistant", "content": "Until four."}], "label": 1, "reward": 0.9}]',
    ),
)
