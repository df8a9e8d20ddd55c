"""kto's side, each function in a process of its own. All calls into kto are in this file.

A job is a dict: the settings of the run (see `settings` in train_vs_trl.py), the folders of this case, and the way.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from process_memory import Memory

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.core import logps
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.plan import plan_epoch
from kto_cli.core.rows import EncodedRow
from kto_cli.core.statistics.metrics import step_metrics
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.dataset_writer import write_data_dir
from kto_cli.model.distributed.processes import wrap
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.layers import checkpoint_layers, compile_layers
from kto_cli.model.logprobs.prepare import Prepared, make_scorer, prepare
from kto_cli.model.logprobs.reference import ReferenceLogps, reference_logps
from kto_cli.model.precision import keep_float32_gradients
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.training.dry_run.estimate import step_cost, step_tokens
from kto_cli.training.optimizer import make_optimizer
from kto_cli.training.step import StepOutput, TrainingEngine
from kto_cli.workflows import binarize
from versus_trl import naive
from versus_trl.shapes import Shape, train_tokenizer, write_model
from versus_trl.step_profile import seconds_by_kind

SEED = 0


class Loaded(NamedTuple):
    """A model and rows, ready to compute."""

    config: TrainConfig
    prepared: Prepared
    scorer: Any
    accelerator: Any
    screen: Screen


def compiles() -> bool:
    """Whether this kto can compile its model."""
    return "compile" in {field.name for field in fields(TrainConfig)}


# --- set-up -------------------------------------------------------------------------------------


def set_up(job: dict[str, Any]) -> dict[str, Any]:
    """Writes models, the chosen rows as kto's dataset, and the same rows in text and token ids for TRL.

    Returns:
        `pairs`: how many could be chosen from; `chosen` of them.
    """
    work = Path(job["work"])
    screen = Screen(quiet=True)
    binarize.run(BinarizeConfig(("hh-rlhf",), from_path=job["source"], out=str(work / "all")), screen)
    rows = list(load_data_dir(work / "all").train)
    texts = [message["content"] for row in rows for message in (*row.prompt, *row.completion)]
    tokenizer = train_tokenizer(texts)
    for shape in job["shapes"]:
        write_model(Shape(**shape), tokenizer, work / shape["name"])
    first = work / job["shapes"][0]["name"]
    pairs = whole_pairs(prepared_rows({**job, "model": str(first), "data": str(work / "all")}))
    wanted = job["batch_size"] * (job["steps"] + 1) // 2
    if len(pairs) < wanted:
        raise SystemExit(f"{job['source']} has {len(pairs)} pairs that fit; {wanted} are needed. Take fewer --steps.")
    chosen = {id_ for pair in Random(SEED).sample(sorted(pairs), wanted) for id_ in pairs[pair]}
    kept = [row for row in rows if row.id in chosen]
    write_data_dir(work / "rows", kept, [], [], {"source": {"name": "hh-rlhf"}}, overwrite=False)
    found = load({**job, "model": str(first), "data": str(work / "rows")})
    dump(planned(found.prepared, job), found.prepared.tokenizer, work)
    return {"pairs": len(pairs), "chosen": wanted, "token_budget": found.prepared.token_budget, "compiles": compiles()}


def prepared_rows(job: dict[str, Any]) -> Prepared:
    """Rows in tokens as `kto train` prepares them."""
    return prepare(config_of(job), start_accelerator(), Screen(quiet=True))


def whole_pairs(prepared: Prepared) -> dict[str, list[str]]:
    """Pair id -> row ids of the pairs that need no cutting and whose text gives their very tokens again."""
    tokenizer = prepared.tokenizer
    pairs: dict[str, list[str]] = {}
    for row in prepared.train:
        text = tokenizer.decode(row.own.completion)
        whole = row.own.completion[-1] == tokenizer.eos_token_id
        again = tokenizer(tokenizer.decode(row.own.prompt) + text).input_ids
        if whole and row.pair_id is not None and again == [*row.own.prompt, *row.own.completion]:
            pairs.setdefault(row.pair_id, []).append(row.id)
    return {pair: ids for pair, ids in pairs.items() if len(ids) == 2}


def planned(prepared: Prepared, job: dict[str, Any]) -> list[EncodedRows]:
    """The effective batches that `kto train` takes: one that warms up, then those that are timed."""
    rows = prepared.train
    groups = (rows.prompts.tolist(), rows.conversations.tolist()) if job.get("group_prompts", True) else ()
    plan = plan_epoch(rows.labels.tolist(), *groups, batch_size=job["batch_size"], seed=SEED, epoch=0)
    return [rows.take(batch) for batch in plan]


def dump_rows(job: dict[str, Any]) -> dict[str, Any]:
    """Writes batches.json for a dataset that is there already."""
    prepared = prepared_rows(job)
    dump(planned(prepared, job), prepared.tokenizer, Path(job["work"]))
    return {}


def dump(batches: Sequence[Sequence[EncodedRow]], tokenizer: Any, work: Path) -> None:
    """Writes batches.json: per row its label, token ids and texts. TRL takes them in this order.

    The same rows make the same step on both sides. Within a step they are shuffled, since TRL's mismatched
    pairs are neighbours, and a prompt's two rows must not always be.
    """
    found = []
    for number, batch in enumerate(batches):
        shuffled = Random(f"{SEED} {number}").sample(list(batch), len(batch))
        found.append([described(row, tokenizer) for row in shuffled])
    (work / "batches.json").write_text(json.dumps(found))


def described(row: EncodedRow, tokenizer: Any) -> dict[str, Any]:
    """A row as plain values."""
    return {
        "label": row.label,
        "prompt": row.own.prompt,
        "completion": row.own.completion,
        "mismatched": row.mismatched.completion,
        "prompt_text": tokenizer.decode(row.own.prompt),
        "completion_text": tokenizer.decode(row.own.completion),
    }


# --- measured -----------------------------------------------------------------------------------


def config_of(job: dict[str, Any]) -> TrainConfig:
    """The settings of `kto train`."""
    names = ("data", "model", "max_length", "dtype", "micro_batch_tokens")
    options = {name: job[name] for name in names if job.get(name) is not None} | job.get("kto_options", {})
    return TrainConfig(**options, batch_size=job["batch_size"], cache=f"{job['work']}/cache")


def load(job: dict[str, Any]) -> Loaded:
    """Rows and model as `kto train` prepares them, the weights in memory of their own."""
    config = config_of(job)
    accelerator, screen = start_accelerator(), Screen(quiet=True)
    prepared = prepare(config, accelerator, screen)
    own_weights(prepared.model)
    return Loaded(config, prepared, make_scorer(prepared, accelerator, screen), accelerator, screen)


def own_weights(model: Any) -> None:
    """Copies weights that may lie in a file's pages, so that they count as loaded from the start."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


def cached(found: Loaded, rows: EncodedRows, cache: str) -> ReferenceLogps:
    """The reference's log-probs of rows, computed into (or read from) a cache folder."""
    config = replace(found.config, cache=cache)
    references, _ = reference_logps(found.prepared, rows, lambda: found.scorer, config, found.accelerator, found.screen)
    return references


def engine_of(found: Loaded, job: dict[str, Any]) -> TrainingEngine:
    """An engine with AdamW, as `kto train` makes it."""
    if found.config.compile:
        compile_layers(found.scorer)
    if found.config.gradient_checkpointing == "on":
        checkpoint_layers(found.scorer)
    if not job.get("packed", True):
        found.scorer.packing = None
    keep_float32_gradients(found.scorer)
    device = found.accelerator.device
    optimizer = make_optimizer("adamw", found.scorer.parameters(), learning_rate=job["learning_rate"], device=device)
    if not job.get("fused", True):
        optimizer = torch.optim.AdamW(found.scorer.parameters(), lr=job["learning_rate"], weight_decay=0.0)
    wrapped, optimizer = wrap(found.accelerator, found.scorer, optimizer)
    return TrainingEngine(
        found.accelerator, wrapped, optimizer, token_budget=found.prepared.token_budget, max_grad_norm=job["clip"]
    )


def take_step(
    engine: TrainingEngine, batch: EncodedRows, references: ReferenceLogps, job: dict[str, Any]
) -> tuple[StepOutput, dict[str, float]]:
    """One optimizer step and its metrics."""
    settings = LossSettings(job["beta"], lambda_d=1.0, lambda_u=1.0)
    output = engine.step(list(batch), references, settings, learning_rate=job["learning_rate"])
    labels = torch.from_numpy(batch.labels)
    metrics = step_metrics(output.log_ratios, output.mismatched_log_ratios, labels, settings, batch.prompt_ids)
    return output, metrics


def check(job: dict[str, Any]) -> dict[str, Any]:
    """One step of a policy that differs from its reference: kto's numbers and the naive ones."""
    found = load(job)
    batch = planned(found.prepared, job)[0]
    reference, policy = (plain_model(job, found.accelerator.device) for _ in range(2))
    naive.disturb(reference)
    naive.disturb(found.prepared.model)
    with tempfile.TemporaryDirectory() as cache:
        references = cached(found, batch, cache)
    found.prepared.model.load_state_dict(policy.state_dict())
    rows = [described(row, found.prepared.tokenizer) for row in batch]
    expected = naive.naive_step(policy, reference, rows, beta=job["beta"])
    output, metrics = take_step(engine_of(found, job), batch, references, job)
    got = {
        "loss": metrics["loss"],
        "z_ref": metrics["z_ref"],
        "log_ratios": output.log_ratios.tolist(),
        "mismatched_log_ratios": output.mismatched_log_ratios.tolist(),
        "gradient_norm": output.gradient_norm,
    }
    return {"kto": got, "naive": expected}


def plain_model(job: dict[str, Any], device: Any) -> Any:
    """The model as transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).to(device).eval()


def precompute(job: dict[str, Any]) -> dict[str, Any]:
    """What `kto precompute` does, into an empty cache."""
    found = load(job)
    memory = Memory()
    with tempfile.TemporaryDirectory() as cache:
        began = finished(found)
        cached(found, found.prepared.train, cache)
        seconds = finished(found) - began
    return {"seconds": seconds, "rows": len(found.prepared.train), "peak_bytes": memory.peak_bytes()}


def step(job: dict[str, Any]) -> dict[str, Any]:
    """What `kto train` does in a step, reference log-probs from the cache; the first step warms up."""
    if job.get("whole_rows"):
        logps.TILE, logps.TILE_VOCABULARY = 1 << 20, 1 << 30
    found = load(job)
    batches = planned(found.prepared, job)
    with tempfile.TemporaryDirectory() as cache:
        references = [cached(found, batch, cache) for batch in batches]
    engine = engine_of(found, job)
    memory, losses = Memory(), []
    for number, (batch, reference) in enumerate(zip(batches, references, strict=True)):
        if number == 1:
            first, later, began = memory.peak_bytes(), Memory(), finished(found)
        _, metrics = take_step(engine, batch, reference, job)
        losses.append(metrics["loss"])
    return {
        "seconds": (finished(found) - began) / (len(batches) - 1),
        "peak_bytes": max(first, later.peak_bytes() + later.start - memory.start),
        "losses": losses,
        "forward_tokens": sum(forward_tokens(engine, batch) for batch in batches[1:]) / (len(batches) - 1),
    }


def parts(job: dict[str, Any]) -> dict[str, float]:
    """Seconds of a step by kind of operation, after one that warms up."""
    found = load(job)
    first, second = planned(found.prepared, job)[:2]
    with tempfile.TemporaryDirectory() as cache:
        references = [cached(found, batch, cache) for batch in (first, second)]
    engine = engine_of(found, job)
    take_step(engine, first, references[0], job)
    return seconds_by_kind(lambda: take_step(engine, second, references[1], job))


def forward_tokens(engine: TrainingEngine, batch: EncodedRows) -> int:
    """What a step computes, in forward tokens, padding not counted."""
    budget, packed = engine.token_budget, engine.packs
    tokens = step_tokens(batch.own, batch.mismatched, token_budget=budget, packed=packed)
    return step_cost(*tokens)


def finished(found: Loaded) -> float:
    """The time at which the device has done all it was given."""
    if found.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
