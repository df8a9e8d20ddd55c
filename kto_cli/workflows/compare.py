"""`kto eval A B C`: several checkpoints on the same validation rows, each against the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.words import plural
from kto_cli.core.statistics.comparison import Side, compare
from kto_cli.core.statistics.win_rates import compare_rates
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.evaluation.answers.answering import SHOWN
from kto_cli.evaluation.benchmarks.compare import compare_tasks
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.files import COMPARISONS, write_part
from kto_cli.evaluation.report.page import write_report
from kto_cli.evaluation.tables import comparison_table
from kto_cli.workflows.evaluate import Evaluated, evaluate


def run(configs: Sequence[EvalConfig], screen: Screen) -> dict[str, Any]:
    """Evaluates each (results in its own eval folder), then compares the later ones with the first: validation numbers,
    win rates against the same other side, benchmarks.

    All are evaluated on the data of the first (or --data): only on the same rows is a difference one of checkpoints.

    Returns:
        `checkpoints`: each one's result as of `evaluate.run`; `comparisons`: for each later one `first`, `second`
        (names), `rows`, and `differences` as of `core.comparison.compare`.

    Raises:
        KtoError: as `evaluate.run`; a checkpoint named twice; no row that both have.
    """
    checkpoints = [Checkpoint.find(config.checkpoint) for config in configs]
    data = _data_of_all(configs, checkpoints, screen)
    inner = Screen(as_json=True, quiet=screen.quiet)  # one table of all says more than the tables of each
    evaluated = []
    for config, checkpoint in zip(configs, checkpoints, strict=True):
        screen.heading(f"kto eval {config.checkpoint}")
        evaluated.append(evaluate(replace(config, data=data), inner, checkpoint))
    first, *others = evaluated
    comparisons = [_compared(first, other, screen) for other in others]
    _keep(evaluated, comparisons)
    _show_answers(evaluated, screen)
    for one in evaluated:
        won = f" Win rate {one.result['win_rate']['sentence']}" if "win_rate" in one.result else ""
        screen.say(f"{one.result['checkpoint']}: {one.result['sentence']}{won} Written to {one.result['eval']}")
    return {"checkpoints": [one.result for one in evaluated], "comparisons": comparisons}


def _data_of_all(configs: Sequence[EvalConfig], checkpoints: Sequence[Checkpoint], screen: Screen) -> str:
    """The data folder on which all are evaluated; warns if a run was trained on another one or reads other prompts."""
    folders = [one.folder.resolve() for one in checkpoints]
    for index, one in enumerate(checkpoints):
        if folders[index] in folders[:index]:
            raise BadInput(f"{one.name} is named twice.", "Name different checkpoints to compare them.")
    filled = [one.fill(config)[0] for config, one in zip(configs, checkpoints, strict=True)]  # faults come first
    first, *others = [spelled_kwargs(config.chat_template_kwargs or {}) for config in filled]
    for one, kwargs in zip(checkpoints[1:], others, strict=True):
        if kwargs != first:
            screen.warn(
                f"The chat template of {checkpoints[0].name} is given {first}, that of {one.name} {kwargs}: each reads "
                "its own prompts. To give all the same, add --chat-template-kwargs."
            )
    data = load_data_dir(find_data_dir(filled[0].data))
    for one in checkpoints:
        own = None if one.settings is None else one.settings["data"]
        if own is not None and own["fingerprint"] != data.fingerprint:
            screen.warn(
                f"{one.name} was trained on {own['folder']}, not on {data.folder}: if it was trained on rows that are "
                "for validation there, its numbers are too good."
            )
    return str(data.folder)


def _compared(first: Evaluated, second: Evaluated, screen: Screen) -> dict[str, Any]:
    """The second against the first on the rows that both have."""
    names = (first.result["checkpoint"], second.result["checkpoint"])
    left, right = ({name: row for row, name in enumerate(one.ids)} for one in (first, second))
    common = [name for name in left if name in right]
    if not common:
        raise BadData(f"{names[0]} and {names[1]} have no validation row in common.", "Raise --max-length.")
    if len(common) < max(len(left), len(right)):
        screen.note(f"Compared on {plural(len(common), 'row')}; others do not fit {names[0]} or {names[1]}.")
    if first.reference != second.reference:
        screen.note(f"{names[0]} and {names[1]} have other references: each is measured against its own.")
    if first.weights.beta != second.weights.beta:
        screen.note(
            f"{names[0]} has beta {first.weights.beta:g}, {names[1]} {second.weights.beta:g}: rewards and margins are "
            "in each one's own units; AUCs and accuracies do not depend on them."
        )
    sides = [
        Side(one.scores.take([places[name] for name in common]), one.weights)
        for one, places in ((first, left), (second, right))
    ]
    found = compare(*sides)
    if first.judged and second.judged:
        found["win_rate"] = compare_rates(first.judged, second.judged)
    if first.benchmarks and second.benchmarks:
        found |= _benchmarks(first.benchmarks, second.benchmarks)
    comparison_table(screen, *names, len(common), found)
    return {"first": names[0], "second": names[1], "rows": len(common), "differences": found}


def _benchmarks(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Benchmarks of both, in the shape of other differences."""
    words = {"better": "second", "worse": "first", "not shown": "unclear"}
    return {
        name: {
            "first": one["reference"],
            "second": one["policy"],
            "difference": one["difference"],
            "interval": one["interval"],
            "verdict": words[one["verdict"]],
        }
        for name, one in compare_tasks(second, first).items()
        if one["difference"] is not None
    }


def _keep(evaluated: Sequence[Evaluated], comparisons: Sequence[dict[str, Any]]) -> None:
    """Each checkpoint's comparisons.json, and its report with them in it."""
    for one in evaluated:
        called = one.result["checkpoint"]
        mine = [found for found in comparisons if called in (found["first"], found["second"])]
        write_part(one.eval_folder, COMPARISONS, one.evaluated_id, {"comparisons": mine})
        write_report(one.eval_folder, one.checkpoint.run)


def _show_answers(evaluated: Sequence[Evaluated], screen: Screen) -> None:
    """The same prompts, answered by all; prompts are the same where the rows are."""
    samples = [{row["id"]: row for row in one.result["samples"]} for one in evaluated]
    common = [name for name in samples[0] if all(name in rows for rows in samples)]
    if common:
        screen.texts(
            "The same validation prompts, answered by all",
            ["prompt", *(one.result["checkpoint"] for one in evaluated)],
            [[samples[0][name]["prompt"], *(rows[name]["policy"] for rows in samples)] for name in common[:SHOWN]],
        )
