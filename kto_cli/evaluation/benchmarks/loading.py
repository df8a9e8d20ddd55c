"""Loads lm-eval tasks with documents and shots; what cannot run is reported before anything runs."""

from __future__ import annotations

import json
from typing import Any

from kto_cli.common.errors import BadInput, first_line
from kto_cli.evaluation.benchmarks.plan import Asked, Plan, configs_of, is_own
from kto_cli.evaluation.benchmarks.quiet import quiet


def load_task(plan: Plan, task: str, asked: Asked, seed: int) -> dict[str, Any]:
    """The task with its documents, or all tasks of a group or tag, with the shots asked for.

    Raises:
        BadInput: it cannot be loaded, has fewer examples than shots, or executes code that the index did not mention.
    """
    from jinja2 import TemplateError

    try:
        with quiet():
            loaded = plan.manager.load([task])
            for each in loaded["tasks"].values():
                _set_shots(each, asked, seed)
    except (OSError, ValueError, ImportError, LookupError, AssertionError, TemplateError) as error:
        raise _cannot_load(plan, task, asked, error) from error
    return dict(loaded)


def _set_shots(task: Any, asked: Asked, seed: int) -> None:
    """Sets the shots as `lm_eval.simple_evaluate` does: 0 stays 0, unset is 0. One prompt is built at once, so that
    faults show before hours of other tasks."""
    if getattr(task, "UNSAFE_CODE", False) and not asked.runs_code:
        raise BadInput(f"{asked.name} executes code that the model writes.", "Leave it out.")
    given = task.get_config("num_fewshot")
    if asked.benchmark.shots is not None and given != 0:
        task.set_config(key="num_fewshot", value=asked.benchmark.shots)
    elif given is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=seed)
    task.build_all_requests(limit=1)
    task.set_fewshot_seed(seed=seed)


def _cannot_load(plan: Plan, task: str, asked: Asked, error: Exception) -> BadInput:
    index = plan.manager.task_index
    sets = sorted({config["dataset_path"] for config in configs_of(task, index) if config.get("dataset_path")})
    reason = first_line(error)
    if is_own(task, plan.manager, plan.folder):
        return BadInput(f"The task in {index[task].yaml_path} cannot be loaded: {reason}.", "Fix the file.")
    of = f" (dataset {', '.join(sets[:3])})" if sets else ""
    return BadInput(
        f"The benchmark {asked.name}{of} cannot be loaded: {reason}.",
        "Datasets come from the Hub: connect, fill Hugging Face's cache beforehand, or leave the benchmark out.",
    )


def shots_of(loaded: dict[str, Any]) -> str:
    """The tasks' shots in words, such as "5 shots"."""
    counts = sorted({task.get_config("num_fewshot") or 0 for task in loaded["tasks"].values()})
    return " and ".join(map(str, counts)) + (" shot" if counts == [1] else " shots")


def refuse_short_context(asked: Asked, loaded: dict[str, Any], model: Any) -> None:
    """Checks that the longest answer leaves room for a prompt; lm-eval would stop at an assertion.

    Raises:
        BadInput: the model's context is too short.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    for task in loaded["tasks"].values():
        if task.OUTPUT_TYPE == "generate_until":
            longest = normalize_gen_kwargs(task.get_config("generation_kwargs") or {}, model.max_gen_toks)[
                "max_gen_toks"
            ]
            if longest >= model.max_length:
                raise BadInput(
                    f"{asked.name} asks for answers of up to {longest} tokens, and the model's context is "
                    f"{model.max_length} tokens.",
                    "Leave it out for this model.",
                )


def documents_of(loaded: dict[str, Any], limit: int | None) -> dict[str, list[str]]:
    """{task: its documents as text}, up to the limit."""
    return {
        name: [
            json.dumps(dict(document), sort_keys=True, default=str) for _, document in task.doc_iterator(limit=limit)
        ]
        for name, task in loaded["tasks"].items()
    }
