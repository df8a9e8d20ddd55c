"""Runs benchmarks on a loaded model through lm-eval; each result is cached when it is finished."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.common.words import plural
from kto_cli.core.statistics.intervals import RESAMPLES
from kto_cli.evaluation.benchmarks.loading import documents_of, load_task, refuse_short_context, shots_of
from kto_cli.evaluation.benchmarks.plan import Asked, Plan
from kto_cli.evaluation.benchmarks.quiet import as_before, code_allowed, quiet
from kto_cli.evaluation.benchmarks.results import read_results
from kto_cli.model.lengths import rotation_switch
from kto_cli.model.tokens.control_text import control_text_of

Say = Callable[[str], None]
LAYOUT = 1
"""Version of cached results; others are not read."""


class BenchmarkModel(NamedTuple):
    """The model to test."""

    fingerprint: str
    """Hash of its content, adapters and 4 bits included."""
    model: Any
    """Loaded, on any device and in any dtype; an adapted one may be merged or not."""
    tokenizer: Any
    own_template: bool
    """Whether the template is the model's or the user's: the fallback of `load_tokenizer` is unknown to the model."""
    template_kwargs: Mapping[str, Any] = MappingProxyType({})
    """Arguments of the template besides the messages."""


class BenchmarkSettings(NamedTuple):
    """Settings of all benchmarks of a run."""

    limit: int | None = None
    """Uses only the first documents of each task: for trials, not for reports."""
    batch_size: int | str = 8
    """Sequences at once, or "auto" for as many as fit; it changes only rounding."""
    seed: int = 0
    """Seed of lm-eval's few-shot examples and of sampled answers."""


def run_tasks(
    plan: Plan,
    subject: BenchmarkModel,
    settings: BenchmarkSettings,
    *,
    cache: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Loads all planned benchmarks, then runs one after another. Model, tokenizer and random numbers stay as they were.

    Each result is cached at once under a hash of all that decides it (`_key`), so a killed run repeats at most one
    benchmark. lm-eval's own response cache does not distinguish models and is not used.

    Returns:
        {"tasks": {name: `read_results` and lm_eval_name, chat_template, truncated; control_text where the template ends
        prompts with one}, "lm_eval": its version, "limit", "seed"}.

    Raises:
        BadInput: a dataset cannot be loaded, or the model's context is too short for a task's answers.
    """
    say(_about_template(subject.own_template))
    with as_before(subject.model, settings.seed):
        model = _wrapped(subject, settings)
        every = [_get_ready(asked, plan, subject, settings, model) for asked in plan.asked]
        results = {ready.asked.name: _result(ready, plan, subject, settings, model, cache, say) for ready in every}
    return {"tasks": results, "lm_eval": version("lm_eval"), "limit": settings.limit, "seed": settings.seed}


def _about_template(own: bool) -> str:
    if own:
        return "Benchmarks: the chat template is applied; solved examples are earlier turns of the chat."
    return "Benchmarks: plain text, for the model has no chat template of its own."


def _wrapped(subject: BenchmarkModel, settings: BenchmarkSettings) -> Any:
    """The model wrapped for lm-eval, with a copy of the tokenizer (lm-eval sets its padding)."""
    import torch
    from lm_eval.models.huggingface import HFLM

    tokenizer = copy.deepcopy(subject.tokenizer)
    if tokenizer.pad_token_id is None and tokenizer.unk_token_id is None and tokenizer.eos_token_id is None:
        # lm-eval would add a token that the model has no embedding for; padding is masked, so any id will do.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    with quiet():
        return HFLM(
            pretrained=subject.model,
            tokenizer=tokenizer,
            batch_size=settings.batch_size,
            max_length=rotation_switch(subject.model.config),
            chat_template_args=dict(subject.template_kwargs),
            softmax_dtype=torch.float32,  # a bfloat16 model's log-probs would be rounded to 3 digits
        )


class _Ready(NamedTuple):
    """A benchmark that is loaded."""

    asked: Asked
    task: str
    """lm-eval's name for it; it may depend on the chat template."""
    loaded: dict[str, Any]


def _get_ready(asked: Asked, plan: Plan, subject: BenchmarkModel, settings: BenchmarkSettings, model: Any) -> _Ready:
    task = (subject.own_template and asked.benchmark.chat_task) or asked.benchmark.task
    with code_allowed(asked.runs_code):
        loaded = load_task(plan, task, asked, settings.seed)
    refuse_short_context(asked, loaded, model)
    return _Ready(asked, task, loaded)


def _result(
    ready: _Ready,
    plan: Plan,
    subject: BenchmarkModel,
    settings: BenchmarkSettings,
    model: Any,
    cache: Path | None,
    say: Say,
) -> dict[str, Any]:
    """The result of one benchmark, from the cache or new."""
    asked, documents = ready.asked, documents_of(ready.loaded, settings.limit)
    cached = cache and cache / f"{_key(ready, documents, plan, subject, settings)}.json"
    if cached and cached.exists():
        try:
            result: dict[str, Any] = read_sealed(cached, "the cached result of a benchmark")["result"]
            say(f"{asked.name}: result of an earlier run, from the cache.")
            return result
        except (BadInput, KeyError):
            say(f"{asked.name}: the cached result of an earlier run is damaged ({cached}); it is computed again.")
    count = sum(map(len, documents.values()))
    warning = "; executes code that the model writes" if asked.runs_code else ""
    say(f"{asked.name}: lm-eval's {ready.task}, {shots_of(ready.loaded)}, {plural(count, 'document')}{warning}.")
    found, messages = _evaluate(ready.loaded, model, subject, settings, asked)
    truncated = any("truncat" in message.lower() for message in messages)
    if truncated:
        say(f"{asked.name}: some prompts are longer than the model's context; their beginnings were cut off.")
    result = read_results(found, ready.task, asked.benchmark.metric)
    result |= {"lm_eval_name": ready.task, "chat_template": subject.own_template, "truncated": truncated}
    template = subject.tokenizer.chat_template
    if subject.own_template and isinstance(template, str) and (text := control_text_of(template)):
        result["control_text"] = text
    result = files.finite(result)
    if cached:
        write_sealed(cached, {"layout": LAYOUT, "result": result})
    return result


def _key(
    ready: _Ready, documents: dict[str, list[str]], plan: Plan, subject: BenchmarkModel, settings: BenchmarkSettings
) -> str:
    """Cache key: everything a result depends on; for the user's own tasks also the files beside them."""
    own = sorted(path for path in plan.folder.rglob("*") if path.is_file()) if plan.folder else []
    shots = {name: each.get_config("num_fewshot") for name, each in ready.loaded["tasks"].items()}
    facts = {
        "layout": LAYOUT,
        "model": subject.fingerprint,
        "dtype": str(subject.model.dtype),
        "template": subject.tokenizer.chat_template if subject.own_template else None,
        "task": ready.task,
        "metric": ready.asked.benchmark.metric,
        "shots": shots,
        "documents": {name: files.text_hash(*texts) for name, texts in documents.items()},
        "files": {str(path.relative_to(plan.folder)): files.file_sha256(path) for path in own if plan.folder},
        "limit": settings.limit,
        "seed": settings.seed,
        "versions": [version(name) for name in ("lm_eval", "transformers")],
    }
    if subject.own_template and subject.template_kwargs:
        facts["template_kwargs"] = dict(subject.template_kwargs)
    return files.text_hash(json.dumps(facts, sort_keys=True))


def _evaluate(
    loaded: dict[str, Any], model: Any, subject: BenchmarkModel, settings: BenchmarkSettings, asked: Asked
) -> tuple[dict[str, Any], list[str]]:
    """lm-eval's results and warnings. `simple_evaluate` would load the tasks again and inspect the machine (3 s)."""
    from lm_eval.evaluator import evaluate

    with quiet() as messages, as_before(subject.model, settings.seed), code_allowed(asked.runs_code):
        found = evaluate(
            lm=model,
            task_dict=loaded,
            limit=settings.limit,
            bootstrap_iters=RESAMPLES,
            log_samples=True,
            apply_chat_template=subject.own_template,
            fewshot_as_multiturn=subject.own_template,
            confirm_run_unsafe_code=asked.runs_code,
        )
    return dict(found), messages
