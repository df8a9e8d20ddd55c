"""Benchmarks in `kto eval`: lm-eval on the checkpoint and on the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kto_cli.common.cache import cache_folder
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.evaluation.benchmarks.compare import compare_tasks
from kto_cli.evaluation.benchmarks.plan import Plan, plan_tasks
from kto_cli.evaluation.benchmarks.run import BenchmarkModel, BenchmarkSettings, run_tasks
from kto_cli.model.logprobs.prepare import Prepared


def planned(config: EvalConfig) -> Plan | None:
    """The benchmarks of --tasks, or None.

    Raises:
        BadInput: as `plan_tasks`.
    """
    if not config.task_names:
        return None
    folder = None if config.task_folder is None else Path(config.task_folder)
    return plan_tasks(config.task_names, allow_code=config.allow_code_execution, folder=folder)


def examine(
    plan: Plan, config: EvalConfig, prepared: Prepared, model: Any, tokenizer: Any, weights: str, screen: Screen
) -> dict[str, Any]:
    """Runs the tasks on one model, asked by its tokenizer's chat template."""
    subject = BenchmarkModel(
        f"{weights} {prepared.dtype}",
        model,
        tokenizer,
        prepared.own_template,
        config.chat_template_kwargs or {},
    )
    settings = BenchmarkSettings(limit=config.task_limit, seed=config.seed)
    return run_tasks(plan, subject, settings, cache=cache_folder(config) / "benchmarks", say=screen.note)


def together(policy: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """The contents of benchmarks.json: both models' results, and their differences."""
    return {**policy, "reference": reference["tasks"], "against_reference": compare_tasks(policy, reference)}


def show_benchmarks(screen: Screen, called: str, found: dict[str, Any]) -> None:
    """Prints one line per benchmark, the checkpoint beside the reference."""
    screen.table(
        f"Benchmarks (lm-eval {found['lm_eval']}"
        + (f", first {plural(found['limit'], 'question')})" if found["limit"] else ")"),
        ["", "shots", "metric", called, "reference", "difference", "90 % interval", "better?"],
        [
            [name, one["shots"], one["metric"].partition(",")[0], *_difference(found["against_reference"][name])]
            for name, one in found["tasks"].items()
        ],
    )


def _difference(one: dict[str, Any]) -> list[Any]:
    low, high = one["interval"] or (None, None)
    signed = [None if value is None else f"{value:+.3f}" for value in (one["difference"], low, high)]
    return [
        *(None if one[name] is None else f"{one[name]:.3f}" for name in ("policy", "reference")),
        signed[0],
        "-" if None in signed else f"{signed[1]} to {signed[2]}",
        one["verdict"],
    ]
