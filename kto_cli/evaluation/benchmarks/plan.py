"""Benchmarks to run: the paper's four by short names, any other task of lm-eval, the user's own tasks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.install import install_extra
from kto_cli.evaluation.benchmarks.quiet import quiet


class Benchmark(NamedTuple):
    """A task of lm-eval and how it is run."""

    task: str
    shots: int | None = None
    """Solved examples in the prompt; None: as many as lm-eval gives it."""
    metric: str | None = None
    """The headline among its metrics, "metric,filter" as lm-eval writes it; None: its first."""
    chat_task: str | None = None
    """The task to take instead when a chat template is applied."""


PAPER = {
    "mmlu": Benchmark("mmlu", 0, "acc,none"),
    "gsm8k": Benchmark("gsm8k_cot", 8, "exact_match,strict-match"),
    "humaneval": Benchmark("humaneval", 0, "pass@1,create_test", "humaneval_instruct"),
    "bbh": Benchmark("bbh_cot_fewshot", 3, "exact_match,get-answer"),
}
"""The paper's Table 2 with the shots of its section 4.2 (arXiv 2402.01306): MMLU 0-shot, GSM8K 8-shot with chain of
thought, HumanEval 0-shot, BBH 3-shot with chain of thought; exact match, for HumanEval pass@1. The authors' code
(github.com/ContextualAI/HALOs, benchmark.sh) names lm-eval's mmlu, gsm8k_cot and bbh_cot_fewshot; lm-eval's plain
gsm8k is 5-shot. HumanEval continues a bare function: where a chat template is applied, lm-eval's own variant for chats
asks for it in words and begins the answer with it."""


class Asked(NamedTuple):
    """One benchmark under the name the user gave it."""

    name: str
    benchmark: Benchmark
    runs_code: bool
    """Whether it executes code that the model writes."""


class Plan(NamedTuple):
    """The benchmarks to run, looked up before any model is loaded."""

    asked: list[Asked]
    manager: Any
    """lm-eval's TaskManager."""
    folder: Path | None
    """Of the user's own tasks."""


def plan_tasks(names: Sequence[str], *, allow_code: bool = False, folder: Path | None = None) -> Plan:
    """Looks the benchmarks up in lm-eval, without loading a model or fetching a dataset.

    Args:
        names: `mmlu`, `gsm8k`, `humaneval`, `bbh`, or any task, group or tag of lm-eval; `name@5` sets the shots.
        allow_code: the user lets code that the model writes run on this machine.
        folder: more tasks, in lm-eval's YAML; they take precedence.

    Raises:
        BadInput: lm-eval is not installed; a name is unknown or its shots cannot be set; it would execute code, and
            that is not allowed; the folder is none.
    """
    if find_spec("lm_eval") is None:
        raise BadInput("--tasks needs lm-eval, which is not installed.", f"{install_extra('tasks')}.")
    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder of tasks.", "Give a folder with lm-eval task files (*.yaml).")
    wanted = {name: _parse(name) for name in names}
    if not wanted:
        raise BadInput("--tasks names no benchmark.", f"Known short names: {', '.join(PAPER)}.")
    manager = _manager({name for name, _ in wanted.values()}, folder)
    return Plan([_ask(name, *parts, manager, allow_code, folder) for name, parts in wanted.items()], manager, folder)


def _parse(text: str) -> tuple[str, int | None]:
    """ "gsm8k@5" -> ("gsm8k", 5)"""
    name, at, shots = text.strip().partition("@")
    if not name or (at and not (shots.isascii() and shots.isdigit())):
        raise BadInput(f"--tasks: {text!r} is neither a task nor task@shots.", "Write, for example, gsm8k or gsm8k@5.")
    return name, int(shots) if at else None


def _manager(names: set[str], folder: Path | None) -> Any:
    """lm-eval's index of the folder if it has all names (the 14,000 of lm-eval take seconds to read), else of both."""
    from lm_eval.tasks import TaskManager

    with quiet():
        if folder is not None:
            own = TaskManager(include_path=folder, include_defaults=False)
            if names <= set(own.all_tasks):
                return own
        return TaskManager(include_path=folder)


def _ask(called: str, name: str, shots: int | None, manager: Any, allow_code: bool, folder: Path | None) -> Asked:
    benchmark = PAPER[name] if name in PAPER and not is_own(name, manager, folder) else Benchmark(name)
    if benchmark.task not in manager.task_index:
        raise _unknown(name, manager, folder)
    configs = [
        config
        for task in (benchmark.task, benchmark.chat_task)
        if task
        for config in configs_of(task, manager.task_index)
    ]
    runs_code = any(config.get("unsafe_code") for config in configs)
    if runs_code and not allow_code:
        raise BadInput(
            f"{name} executes code that the model writes, on this machine and without a sandbox.",
            "Allow it with --allow-code-execution, best inside a container, or leave it out.",
        )
    if shots is not None:
        if shots and configs and all(config.get("num_fewshot") == 0 for config in configs):
            raise BadInput(f"{name} has no examples to show: lm-eval fixes it at 0 shots.", f"Ask for {name}.")
        benchmark = benchmark._replace(shots=shots)
    return Asked(called, benchmark, runs_code)


def is_own(name: str, manager: Any, folder: Path | None) -> bool:
    """The user's folder defines a task of this name."""
    entry = manager.task_index.get(name)
    return bool(folder and entry and entry.yaml_path and entry.yaml_path.is_relative_to(folder))


def configs_of(name: str, index: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configs of a task, or of all tasks in a group or under a tag."""
    entry = index.get(name)
    if entry is None:
        return
    children = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task")
    if entry.kind.name not in ("TAG", "GROUP"):
        yield entry.cfg or {}
        return
    for child in [children] if isinstance(children, str) else children or ():
        if isinstance(child, dict):
            yield child
            child = child.get("task") or child.get("group") or ""
        if isinstance(child, str) and child != name:
            yield from configs_of(child, index)


def _unknown(name: str, manager: Any, folder: Path | None) -> BadInput:
    near = difflib.get_close_matches(name, [*PAPER, *manager.all_tasks], n=3)
    own = [task for task in manager.all_tasks if is_own(task, manager, folder)]
    advice = f"Did you mean {' or '.join(near)}?" if near else f"Short names: {', '.join(PAPER)}."
    if folder is not None:
        advice += f" {folder} defines {', '.join(own[:10]) or 'no task that lm-eval can read'}."
    return BadInput(f"lm-eval has no task {name}.", advice)
