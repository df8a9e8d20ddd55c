"""Feedback files of the KTO authors' own code, ContextualAI/HALOs: a JSON array, both types may share it.

    binary_feedback     prompt, output, label               label 1: desirable, 0: undesirable
    pairwise_feedback   prompt, output_A, output_B, label   label 1: A is better, 0: B is
    scalar_feedback     prompt, output, reward              a scored row; --cut says which rewards are desirable

As `train/label.py` writes them and `train/dataloader.py` (get_feedback) reads them: prompts and outputs are lists of
{role, content}, `split` (train or test) is optional, and the label of a pair is whether reward_A > reward_B. Earlier
versions wrote texts, the prompt as `instruction`. Two equal rewards are written with label 0 all the same: such a pair
prefers nothing and is left out. A label that the rewards contradict is rejected, as one of them is wrong. A scalar
record without a reward is left out (no_score), one with something else than a number there is rejected
(score_not_accepted). Another type is rejected: samples have neither label nor reward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.fields import is_absent, number, rejected
from kto_cli.data.formats.labels import as_number, label_value
from kto_cli.data.formats.records import VALIDATION, Dropped, Pair, Result, RowFault, Scored, root
from kto_cli.data.formats.rows import answer_of, labelled, pair, prompt_of
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.readers.open_file import printable

WANTED = (
    *("type", "prompt", "instruction", "label", "split", "prompt_id"),
    *("output", "reward", "output_A", "output_B", "reward_A", "reward_B"),
)
BINARY, PAIRWISE, SCALAR = "binary_feedback", "pairwise_feedback", "scalar_feedback"


def check(columns: Sequence[str], raw_file: RawFile, config: BinarizeConfig) -> list[str]:
    """Nothing to say of a file of HALOs.

    Raises:
        BadInput: its columns are not those of feedback.
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
    """VALIDATION where the record, or else its file, is of the test split."""
    split = values.get("split")
    if split is None:
        return raw_file.split
    return VALIDATION if split == "test" else None


def preferred(values: Mapping[str, Any]) -> bool | None:
    """Whether output A is the better one; None where both rewards are the same.

    Raises:
        RowFault: the label is missing, neither 1 nor 0, or not what the rewards say.
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
        told = f"label {label:g} and rewards {str(reward_a)[:20]} (A) and {str(reward_b)[:20]} (B)"
        raise RowFault("label_contradicts_rewards", f"{told} do not prefer the same output")
    return label == 1


def pairwise(values: Mapping[str, Any], record: Record, raw_file: RawFile, config: BinarizeConfig) -> Pair | Dropped:
    """A pairwise record as a pair; RowFault where it cannot be one."""
    a_is_better = preferred(values)
    if a_is_better is None:
        return Dropped(record.origin, "tie", "both outputs have the same reward", 2)
    better, worse = ("output_A", "output_B") if a_is_better else ("output_B", "output_A")
    for name in (better, worse):  # said here by the name it has in the file
        if values.get(name) is None:
            raise RowFault("missing_field", f"no {name}")
    sides = {"prompt": prompt_value(values), "chosen": values[better], "rejected": values[worse]}
    return pair(sides, record.origin, config.text, split_of(values, raw_file))


def scalar(values: Mapping[str, Any], record: Record, raw_file: RawFile, config: BinarizeConfig) -> Scored | Dropped:
    """A scalar record as a scored row; RowFault where it cannot be one."""
    if is_absent(values.get("reward")):
        return Dropped(record.origin, "no_score", "it has no reward", 1)
    reward = number(values["reward"])
    if reward is None:
        raise RowFault("score_not_accepted", "the reward is not a finite number")
    prompt = prompt_of(prompt_value(values), config.text)
    completion = answer_of(values.get("output"), prompt, "output")
    return Scored(prompt, completion, reward, record.origin, root(prompt), split_of(values, raw_file))


def prompt_value(values: Mapping[str, Any]) -> Any:
    """The prompt, under its present name or its earlier one; RowFault where there is none."""
    prompt = values.get("prompt")
    prompt = values.get("instruction") if prompt is None else prompt
    if prompt is None:
        raise RowFault("missing_field", "no prompt")
    return prompt


def parse(record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
    """The feedback, or the fault, that a record is."""
    values = record.values
    if values is None:
        yield rejected(record, 2 if '"output_A"' in record.raw or '"output_B"' in record.raw else 1)
        return
    rows = 2 if values.get("type") == PAIRWISE or "output_A" in values or "output_B" in values else 1
    try:
        yield feedback(values, record, raw_file, config)
    except RowFault as fault:
        yield rejected(record, rows, fault)


def feedback(values: Mapping[str, Any], record: Record, raw_file: RawFile, config: BinarizeConfig) -> Result:
    """What a record of any type gives; RowFault where it is of no type or cannot be used."""
    if values.get("type") == PAIRWISE:
        return pairwise(values, record, raw_file, config)
    if values.get("type") == SCALAR:
        return scalar(values, record, raw_file, config)
    if values.get("type") != BINARY:
        kind = values.get("type")
        told = f"type {kind[:40]!r}" if isinstance(kind, str) else "no type"
        raise RowFault("type_not_accepted", f"{told}; wanted {BINARY}, {PAIRWISE} or {SCALAR}")
    if values.get("output") is None:
        raise RowFault("missing_field", "no output")
    row = {"prompt": prompt_value(values), "completion": values["output"], "label": values.get("label")}
    return labelled(row, record.origin, config.text, split_of(values, raw_file))


SOURCE = Source(
    name="halos",
    about="Feedback files of the KTO authors' code (HALOs): outputs labelled by a judge or a reward model.",
    gives="labels, pairs or scores",
    parse=parse,
    patterns=("*.json", "*.json.gz", "*.jsonl*"),
    options=("--cut", "--margin", "--text"),
    wanted=WANTED,
    check=check,
    example=(
        '[{"type": "binary_feedback", "prompt_id": "1", "prompt": [{"role": "user", "content": "Is it open?"}],',
        '  "output": [{"role": "assistant", "content": "Until four."}], "label": 1, "reward": 0.9}]',
    ),
)
