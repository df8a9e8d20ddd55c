"""Items of what `kto eval` saved: the answers of a checkpoint or of two, or the validation rows themselves.

The most informative first, by rows.parquet: rows that are saturated on the wrong side (the checkpoint is sure of the
other label), the surest of them first; then all others, those first of which it is least sure. The answers to a prompt
stand where the first of its rows does. A loss without a reference point gives no such order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.read import parse_json, read_parquet, read_text
from kto_cli.common.words import printable
from kto_cli.data.dataset import VALIDATION, DataDir, Row, load_data_dir, read_batches
from kto_cli.data.dataset_folder import is_ours
from kto_cli.data.texts import Text
from kto_cli.evaluation.files import GENERATIONS, METRICS, ROWS, SAMPLES, WHAT, faults, read_result
from kto_cli.evaluation.labelling.items import Answer, Answers, Items, as_items

POLICY = "policy"
"""The checkpoint's own answers in samples.jsonl."""
SURE, UNSURE = 0, 1
"""First number of a rank: saturated on the wrong side; any other row."""
Rank = tuple[float, ...]


class Evaluated(NamedTuple):
    """What `kto eval` saved of one checkpoint."""

    name: str
    folder: Path
    """Its eval folder."""
    of: str
    data: dict[str, str]
    """Folder and fingerprint of the dataset."""


def eval_folder(name: str) -> Path | None:
    """The folder with results of a checkpoint, named by its own folder, by the folder of its results or on the Hub."""
    path = Path(name)
    step = path.absolute()
    below = (path, path / "eval", step.parent.parent / "eval" / step.name, Path("eval") / name.replace("/", "--"))
    return next((each for each in below if (each / METRICS).is_file()), None)


def evaluated(name: str) -> Evaluated:
    """The saved results of a checkpoint.

    Raises:
        BadInput: there are none, or they are damaged.
    """
    folder = eval_folder(name)
    if folder is None and is_ours(Path(name)):
        raise BadInput(
            f"{printable(name)} is a dataset, whose rows have labels.",
            f"To check them: kto label {printable(name)}/{VALIDATION}",
        )
    if folder is None:
        raise BadInput(f"There are no results of kto eval for {printable(name)}.", f"Run: kto eval {printable(name)}")
    for fault in faults(folder).values():
        raise BadInput(fault, f"Run kto eval {printable(name)} again.")
    found = read_result(folder / METRICS)
    try:
        data = {key: str(found["data"][key]) for key in ("folder", "fingerprint")}
        return Evaluated(str(Path(name)) if Path(name).exists() else name, folder, str(found["of"]), data)
    except (KeyError, TypeError) as error:
        raise BadInput(f"{folder / METRICS} does not say what was evaluated.", f"Run kto eval {name} again.") from error


def items_of_answers(
    checkpoints: list[Evaluated], data: str | None, *, beside: str | None = None, one_at_a_time: bool
) -> Items:
    """The answers of one checkpoint, or of two to the prompts that both answered.

    Args:
        beside: of one checkpoint, answers that were saved beside its own: REFERENCE or TARGET.

    Raises:
        BadInput: there are no answers, the two are one or were evaluated on different rows, or their dataset is not
            there.
    """
    if len({each.folder.resolve() for each in checkpoints}) < len(checkpoints):
        what = f"{' and '.join(printable(each.name) for each in checkpoints)} are one checkpoint."
        raise BadInput(what, "Name another beside it, or it alone.")
    answers = {each.name: _samples(each, POLICY) for each in checkpoints}
    answers |= {beside: _samples(checkpoints[0], beside)} if beside is not None else {}
    first, *others = answers.values()
    shared = [name for name in first if all(name in each for each in others)]
    if not shared:
        raise BadInput(
            f"{' and '.join(answers)} have no answers to the same prompt.",
            "Evaluate both on the same data: kto eval A --data DIR",
        )
    rows = _rows(_dataset(checkpoints, data), shared)
    ranks = _ranks(checkpoints[0])
    found = [
        Answers(
            rows[name].prompt,
            tuple(Answer(_as_answer(each[name], rows[name].prompt), model) for model, each in answers.items()),
            rows[name].origin,
            rank=ranks.by_prompt.get(rows[name].prompt_id, ()),
        )
        for name in shared
    ]
    return as_items(found, one_at_a_time=one_at_a_time)


def items_of_rows(checkpoint: Evaluated, data: str | None) -> Items:
    """The validation rows that a checkpoint was evaluated on; the labels that they have are not shown, but compared.

    Raises:
        BadInput: their dataset is not there.
    """
    ranks = _ranks(checkpoint)
    rows = _rows(_dataset([checkpoint], data), ranks.by_row)
    found = [
        Answers(row.prompt, (Answer(row.completion, before=row.label),), row.origin, row.id, ranks.by_row[row.id])
        for row in rows.values()
    ]
    return as_items(found, one_at_a_time=True)


def _samples(checkpoint: Evaluated, column: str) -> dict[str, str]:
    """Id of a validation row -> an answer to its prompt; without the prompts to which there is none."""
    again = f"Run: kto eval {printable(checkpoint.name)} --samples 64"
    path = checkpoint.folder / SAMPLES
    if read_result(checkpoint.folder / GENERATIONS).get("of") != checkpoint.of or not path.is_file():
        raise BadInput(f"kto eval saved no answers of {printable(checkpoint.name)}.", again)
    try:
        lines = [parse_json(line) for line in read_text(path, WHAT).splitlines() if line.strip()]
        return {line["id"]: line[column] for line in lines if isinstance(line.get(column), str)}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is damaged ({WHAT}).", again) from error


def _dataset(checkpoints: list[Evaluated], data: str | None) -> DataDir:
    """The dataset that all were evaluated on: samples.jsonl has the last turn of a prompt, a row needs all of it.

    Raises:
        BadInput: they were evaluated on different ones, or it is not there any more.
    """
    first, last = checkpoints[0], checkpoints[-1]
    if first.data["fingerprint"] != last.data["fingerprint"]:
        raise BadInput(
            f"{first.name} was evaluated on {first.data['folder']}, {last.name} on other rows.",
            "Evaluate both on the same data: kto eval A --data DIR",
        )
    folder = Path(data or first.data["folder"])
    if not folder.is_dir():
        raise BadInput(
            f"{folder}, the dataset of this evaluation, is not there.", "Name the folder it is in now with --data."
        )
    found = load_data_dir(folder)
    if found.fingerprint != first.data["fingerprint"]:
        raise BadInput(
            f"{folder} has other rows than those that {first.name} was evaluated on.",
            f"Name the dataset of then with --data, or run kto eval {first.name} again.",
        )
    return found


def _rows(data: DataDir, names: Collection[str]) -> dict[str, Row]:
    """Validation rows by id.

    Raises:
        BadInput: one of them is not there.
    """
    wanted = set(names)
    found = {row.id: row for rows in read_batches(data.folder / VALIDATION) for row in rows if row.id in wanted}
    if len(found) < len(wanted):
        raise BadInput(f"{data.folder} lacks rows that were evaluated.", "Name the dataset of then with --data.")
    return found


def _as_answer(text: str, prompt: Text) -> Text:
    return text if isinstance(prompt, str) else ({"role": "assistant", "content": text},)


class Ranks(NamedTuple):
    """Where rows, and the answers to their prompts, stand."""

    by_row: dict[str, Rank]
    by_prompt: dict[str, Rank]


def _ranks(checkpoint: Evaluated) -> Ranks:
    """Ranks of all validation rows; the same for all where the loss gives no probabilities."""
    names = ["id", "prompt_id", "label", "probability", "saturated", "right_side"]
    table = read_parquet(checkpoint.folder / ROWS, WHAT, columns=names)
    by_row, by_prompt = {}, dict[str, Rank]()
    for name, prompt, *values in _values(table, names):
        rank = by_row[name] = rank_of(*values)
        by_prompt[prompt] = min(by_prompt.get(prompt, rank), rank)
    return Ranks(by_row, by_prompt)


def _values(table: Any, names: list[str]) -> Iterator[tuple[Any, ...]]:
    yield from zip(*(table.column(name).to_pylist() for name in names), strict=True)


def rank_of(label: bool, probability: float | None, saturated: bool | None, right_side: bool | None) -> Rank:
    """Rank of a row: see above. `probability` is that of being desirable."""
    if probability is None or math.isnan(probability):
        return ()
    if saturated and not right_side:
        return (SURE, probability if label else 1 - probability)
    return (UNSURE, abs(probability - 0.5))
