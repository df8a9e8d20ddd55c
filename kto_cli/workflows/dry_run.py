"""`kto train --dry-run`: what a run would do, need and take, and what would stop it; nothing is written to --out.

A few real steps at learning rate 0 are timed: of the batch with the most tokens (it decides the memory) and of
typical ones. Their reference log-probs and the tokenized rows go into the cache, where the run will find them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch

from kto_cli import estimates
from kto_cli.config import TrainConfig
from kto_cli.core.weights import choose_weights
from kto_cli.data_dir import TRAIN, count_rows
from kto_cli.display import Screen
from kto_cli.engine import References
from kto_cli.errors import BadInput, Diverged
from kto_cli.estimates import DiskNeed, Work, readable
from kto_cli.footprint import SavedForBackward, bytes_of, free_memory, learning, logits_tile_bytes, tokenizer_bytes
from kto_cli.held_out import GLANCE_ROWS
from kto_cli.preparation import (
    Prepared,
    cache_folder,
    class_counts,
    open_cache,
    prepare,
    say_if_built_in,
    start_accelerator,
    stored_logps,
)
from kto_cli.run_dir import KEPT_STEPS, RunDir
from kto_cli.token_store import EncodedRows
from kto_cli.training import Run, Settings, fill_in, refuse_nonfinite
from kto_cli.workflows.train import resolve, say_settings, set_up

TYPICAL_STEPS = 2
"""Timed steps, after the one that is looked at for memory (it also warms up)."""


@dataclass(frozen=True)
class Probe:
    """What a few real steps showed."""

    cost: int
    """Forward tokens that the timed steps are worth."""
    seconds: float
    noise_floor: float
    """Largest log-ratio of a row, nats: the weights are the reference's."""
    memory: dict[str, int]
    """Bytes by part."""
    packed: bool
    """Micro-batches are packed."""


def run(flags: Mapping[str, Any], *, config_file: str | None, screen: Screen) -> dict[str, Any]:
    """Looks ahead.

    Returns:
        `rows`, `steps`, `tokens`, `passes`, `parameters`, `memory`, `disk`, `seconds`, `problems` (empty).

    Raises:
        KtoError: what would stop the run; where several things would, after the table, named together.
    """
    config, _ = resolve(flags, config_file=config_file, resume=False)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    problems = _problems_of_out(RunDir(Path(config.out)))
    prepared = prepare(config, accelerator, screen)
    say_if_built_in(config, screen)
    counts = class_counts(prepared.train)
    weights = choose_weights(*counts, lambda_d=config.lambda_d, lambda_u=config.lambda_u)
    settings = fill_in(config, weights, rows=len(prepared.train), parameters=prepared.model.num_parameters())
    say_settings(screen, settings, *counts)
    missing = _missing(prepared, settings)
    probe, found = _probe(prepared, settings, accelerator, screen)
    work = planned_work(prepared, settings, missing, packed=probe is not None and probe.packed)
    disk = _disk(prepared, settings, missing, probe)
    problems += found + _problems_of_disk(disk, config)
    result = _result(prepared, settings, work, probe, disk, counts) | {"problems": problems}
    _show(screen, result)
    if problems:
        screen.json(result)
        raise BadInput(f"This run would fail: {'; '.join(problems)}.", "Mend that first.")
    screen.say(f"Nothing stands in its way.   Next: the same command without --dry-run (writes {config.out})")
    return result


def _problems_of_out(directory: RunDir) -> list[str]:
    try:
        directory.refuse_unless_free()
    except BadInput as error:
        return [error.what.removesuffix(".")]
    return []


def _missing(prepared: Prepared, settings: Settings) -> Any:
    """[missing] lengths of the sequences the reference cache lacks."""
    both = (prepared.train + prepared.held_out).sequences
    keys, first = numpy.unique(both.keys, return_index=True)
    stored = stored_logps(open_cache(prepared, settings.config), keys, both.completion_lengths[first])
    return both.lengths[first][stored.isnan().numpy()]


def planned_work(prepared: Prepared, settings: Settings, missing: Any, *, packed: bool) -> Work:
    """The tokens that the whole run computes; `missing` as `_missing` gives it."""
    held_out = prepared.held_out
    own = mismatched = 0
    for times, batch in _batches(prepared, settings):
        both = _step_tokens(prepared.train.take(batch), prepared.token_budget, packed=packed)
        own, mismatched = own + times * both[0], mismatched + times * both[1]
    looks = -(-settings.total_steps // settings.eval_every) if len(held_out) else 0
    share = min(1.0, GLANCE_ROWS / max(1, len(held_out)))
    return Work(
        own=own,
        mismatched=mismatched,
        reference=int(missing.sum()),
        held_out=int(held_out.sequences.lengths.sum() * (1 + looks * share)),
    )


def _step_tokens(rows: EncodedRows, token_budget: int, *, packed: bool) -> tuple[int, int]:
    return estimates.step_tokens(rows.own.outline, rows.mismatched.outline, token_budget=token_budget, packed=packed)


def _batches(prepared: Prepared, settings: Settings) -> list[tuple[int, list[int]]]:
    config = settings.config
    labels = prepared.train.labels.tolist()
    prompts = prepared.train.prompts.tolist() if config.group_prompts else None
    planned = estimates.planned_batches(
        labels, prompts, batch_size=config.batch_size, seed=config.seed, total_steps=settings.total_steps
    )
    return list(planned)


# --- a few real steps -------------------------------------------------------------------------


def _probe(prepared: Prepared, settings: Settings, accelerator: Any, screen: Screen) -> tuple[Probe | None, list[str]]:
    """Takes the steps, or says why they cannot be taken."""
    longest, typical = _batches_to_probe(prepared, settings)
    chosen = [row for batch in (longest, *typical) for row in batch]
    few = replace(prepared, train=prepared.train.take(chosen), held_out=EncodedRows())
    try:
        this_run = set_up(few, settings, RunDir(Path(settings.config.out)), accelerator, screen)
        needed = 3 * bytes_of(learning(this_run.model))
        if problems := estimates.problems_of_space(
            needed, free_memory(accelerator.device), "memory for gradients and AdamW's two moments"
        ):
            return None, problems
        with screen.progress("a step at learning rate 0", 1), (saved := SavedForBackward()):
            _step(this_run, slice(0, len(longest)))
            screen.tick()
        seconds, noise, start = 0.0, 0.0, len(longest)
        for batch in typical:
            began = time.perf_counter()
            noise = max(noise, _step(this_run, slice(start, start + len(batch))))
            seconds += time.perf_counter() - began
            start += len(batch)
    except torch.OutOfMemoryError:
        return None, ["the memory is exceeded by its longest batch (try a smaller --micro-batch-tokens)"]
    except Diverged as error:
        return None, [error.what.removesuffix(".")]
    packed = this_run.engine.packs
    costs = [
        estimates.step_cost(*_step_tokens(prepared.train.take(batch), prepared.token_budget, packed=packed))
        for batch in typical
    ]
    return Probe(sum(costs), seconds, noise, _memory(this_run, saved.most), packed), []


def _batches_to_probe(prepared: Prepared, settings: Settings) -> tuple[list[int], list[list[int]]]:
    """The rows of the step with the most tokens, and those of the steps in the middle."""
    tokens = prepared.train.sequences.lengths.reshape(2, -1).sum(0)
    batches = sorted((batch for _, batch in _batches(prepared, settings)), key=lambda batch: int(tokens[batch].sum()))
    middle = max(0, (len(batches) - TYPICAL_STEPS) // 2)
    return batches[-1], batches[middle : middle + TYPICAL_STEPS]


def _step(this_run: Run, span: slice) -> float:
    """One step that changes no weight; returns the largest log-ratio.

    Raises:
        Diverged: a number is not finite.
    """
    settings, rows = this_run.settings, list(this_run.rows[span])
    output = this_run.engine.step(
        rows,
        References(this_run.references.own[span], this_run.references.mismatched[span]),
        beta=settings.config.beta,
        lambda_d=settings.weights.lambda_d,
        lambda_u=settings.weights.lambda_u,
        learning_rate=0.0,
    )
    refuse_nonfinite(output, rows, step=1, directory=this_run.directory)
    return torch.cat([output.log_ratios, output.mismatched_log_ratios]).abs().max().item()


def _memory(this_run: Run, activations: int) -> dict[str, int]:
    parameters = list(this_run.model.parameters())
    optimizer = getattr(this_run.engine.optimizer, "optimizer", this_run.engine.optimizer)
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return estimates.memory_parts(
        weights=bytes_of(parameters),
        gradients=bytes_of(learning(this_run.model)),
        optimizer=bytes_of(states),
        activations=activations,
        logits_tile=logits_tile_bytes(this_run.model),
    )


# --- disk -------------------------------------------------------------------------------------


def _disk(prepared: Prepared, settings: Settings, missing: Any, probe: Probe | None) -> DiskNeed:
    """`missing`: [sequences] lengths of those whose log-probs go into the cache."""
    weights = bytes_of(learning(prepared.model))  # a checkpoint holds what learns
    frames = -(-int(missing.sum()) // prepared.token_budget)
    return estimates.disk_need(
        weights=weights,
        optimizer=probe.memory["optimizer"] if probe else 2 * weights,
        tokenizer=tokenizer_bytes(prepared.source.folder),
        reference=estimates.reference_bytes(len(missing), frames),
        total_steps=settings.total_steps,
        save_every=settings.save_every,
        kept=KEPT_STEPS,
    )


def free_disk(path: Path) -> int:
    """Bytes that can still be written where `path` is or would be made."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _problems_of_disk(disk: DiskNeed, config: TrainConfig) -> list[str]:
    out, cache = Path(config.out), cache_folder(config)
    return estimates.problems_of_space(disk.out, free_disk(out), f"--out {out}") + estimates.problems_of_space(
        disk.reference_cache, free_disk(cache), f"the cache {cache}"
    )


# --- what is said -----------------------------------------------------------------------------


def _result(
    prepared: Prepared, settings: Settings, work: Work, probe: Probe | None, disk: DiskNeed, counts: tuple[int, int]
) -> dict[str, Any]:
    rows, out = prepared.train, Path(settings.config.out)
    parameters = list(prepared.model.parameters())
    epoch = int(rows.own.lengths.sum()), int(rows.mismatched.lengths.sum())
    left_out = count_rows(prepared.data.folder / TRAIN) - len(rows)
    eta = estimates.eta_seconds(work, probed_cost=probe.cost, probed_seconds=probe.seconds) if probe else None
    return {
        "rows": {"desirable": counts[0], "undesirable": counts[1], "left_out": left_out},
        "held_out_rows": len(prepared.held_out),
        "steps": settings.total_steps,
        "tokens": {
            "own_per_epoch": epoch[0],
            "mismatched_per_epoch": epoch[1],
            "unique_prompts": unique_prompt_tokens(rows),
            "run": _run_tokens(prepared, settings),
        },
        "passes": {
            "forward_backward_tokens": work.own,
            "forward_tokens": work.mismatched + work.held_out,
            "reference_forward_tokens": work.reference,
        },
        "parameters": {
            "total": sum(parameter.numel() for parameter in parameters),
            "trainable": sum(parameter.numel() for parameter in learning(prepared.model)),
        },
        "memory": probe and probe.memory,
        "disk": {**asdict(disk), "out": disk.out, "out_at_end": disk.out_at_end, "free_out": free_disk(out)},
        "noise_floor": probe and probe.noise_floor,
        "tokens_per_second": probe and probe.cost / probe.seconds,
        "seconds": eta,
    }


def _run_tokens(prepared: Prepared, settings: Settings) -> int:
    """Of all rows and mismatched pairs of all steps, as metrics.jsonl counts them."""
    tokens = prepared.train.sequences.lengths.reshape(2, -1).sum(0)
    return sum(times * int(tokens[batch].sum()) for times, batch in _batches(prepared, settings))


def unique_prompt_tokens(rows: EncodedRows) -> int:
    """Tokens of the prompts when rows that share one count it once."""
    first = numpy.unique(rows.prompts, return_index=True)[1]
    return int(rows.own.prompt_lengths[first].sum())


def _show(screen: Screen, result: dict[str, Any]) -> None:
    rows, tokens, passes, disk = (result[name] for name in ("rows", "tokens", "passes", "disk"))
    lines: list[list[Any]] = [
        ["rows (desirable, undesirable)", f"{rows['desirable']:,}, {rows['undesirable']:,}"],
        ["rows left out", rows["left_out"]],
        ["optimizer steps", result["steps"]],
        ["tokens of an epoch: rows", tokens["own_per_epoch"]],
        ["   mismatched pairs", tokens["mismatched_per_epoch"]],
        ["   distinct prompts", tokens["unique_prompts"]],
        ["tokens forward and backward", passes["forward_backward_tokens"]],
        ["tokens forward only", passes["forward_tokens"]],
        ["tokens forward, reference (not in the cache)", passes["reference_forward_tokens"]],
        ["parameters (that learn)", f"{result['parameters']['total']:,} ({result['parameters']['trainable']:,})"],
    ]
    lines += [[f"memory: {name.replace('_', ' ')}", readable(size)] for name, size in (result["memory"] or {}).items()]
    lines += [
        ["disk: reference cache", readable(disk["reference_cache"])],
        ["disk: a checkpoint", readable(disk["checkpoint"])],
        ["disk: --out at most", readable(disk["out"])],
        ["disk: --out in the end", readable(disk["out_at_end"])],
        ["disk: free there", readable(disk["free_out"])],
        ["time", "-" if result["seconds"] is None else _clock(result["seconds"])],
    ]
    screen.table("What this run would take", ["", "about"], lines)


def _clock(seconds: float) -> str:
    """1:02:03"""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
