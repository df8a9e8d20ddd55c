"""`kto train --dry-run`: steps, tokens, memory, disk and time of a run, and its problems; nothing is written to --out.

A few real steps at learning rate 0 are timed: of the batch with the most tokens (it decides the memory) and of
typical ones. Their reference log-probs and the tokenized rows go into the cache, where the run will find them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import readable
from kto_cli.core.objectives import needs_mismatched
from kto_cli.data.dataset import TRAIN, count_rows
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.prepare import Prepared, class_counts, prepare, warn_if_built_in
from kto_cli.model.stored_dtypes import stored_dtypes
from kto_cli.model.tokens.store import Sequences
from kto_cli.training.after import with_old_rows
from kto_cli.training.custom import announce_custom_loss
from kto_cli.training.dry_run import estimate
from kto_cli.training.dry_run.estimate import DiskNeed, TokenWork
from kto_cli.training.dry_run.probe import Probe, bytes_of, learning, take_probe, tokenizer_bytes
from kto_cli.training.dry_run.workload import (
    missing_sequences,
    missing_tokens,
    planned_work,
    run_tokens,
    unique_prompt_tokens,
)
from kto_cli.training.loss_flags import control_texts
from kto_cli.training.planned import needed_by
from kto_cli.training.run.run_dir import KEPT_STEPS, RunDir
from kto_cli.training.settings import RunSettings, resolve_options, run_settings
from kto_cli.training.units import trained_rows


def run(flags: Mapping[str, Any], *, config_file: str | None, screen: Screen) -> dict[str, Any]:
    """Estimates a run without starting it.

    Returns:
        `rows`, `steps`, `tokens`, `passes`, `parameters`, `memory`, `disk`, `seconds`, `problems` (empty).

    Raises:
        KtoError: what would stop the run; where several things would, after the table, named together.
    """
    config, _ = resolve_options(flags, config_file=config_file, resume=False)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    problems = _problems_of_out(RunDir(Path(config.out)))
    rows_from = with_old_rows(config, accelerator, screen)
    prepared = prepare(
        rows_from,
        accelerator,
        screen,
        merged=not config.adapters,
        control=control_texts(config),
    )
    warn_if_built_in(config, screen)
    prepared.train = trained_rows(prepared.train, config, screen)
    settings = run_settings(config, prepared, screen)
    announce_custom_loss(settings.loss, screen)
    probe, found = take_probe(prepared, settings, accelerator, screen)
    # after the probe, whose log-probs are in the cache now
    needed = needed_by(prepared.train, settings)
    missing, of_tokens = (lacking(prepared, needed, config) for lacking in (missing_sequences, missing_tokens))
    work = planned_work(prepared, settings, missing, of_tokens, packed=probe is not None and probe.packed)
    disk = _disk(prepared, settings, missing, of_tokens, probe)
    problems += found + _problems_of_disk(disk, config)
    result = _result(prepared, settings, work, probe, disk) | {"problems": problems}
    _show(screen, result)
    if problems:
        raise BadInput(f"This run would fail: {'; '.join(problems)}.", "Fix this first.", details=result)
    screen.say(f"No problems found.   Next: the same command without --dry-run (writes {config.out})")
    return result


def _problems_of_out(directory: RunDir) -> list[str]:
    try:
        directory.refuse_unless_free()
    except BadInput as error:
        return [error.what.removesuffix(".")]
    return []


# --- disk -------------------------------------------------------------------------------------


def _disk(
    prepared: Prepared, settings: RunSettings, missing: Sequences, of_tokens: Sequences, probe: Probe | None
) -> DiskNeed:
    """`missing`: those whose log-probs go into the cache; `of_tokens`: whose single tokens' do."""
    config, model = settings.config, prepared.model
    weights = bytes_of(learning(model) if config.adapters else model.parameters())
    finished = weights
    if not config.adapters or config.merge:
        finished = stored_dtypes(prepared.source.base).bytes_of(model)
    frames, more = (-(-int(some.lengths.sum()) // prepared.token_budget) for some in (missing, of_tokens))
    tokens = estimate.token_bytes(len(of_tokens), int(of_tokens.completion_lengths.sum()), more)
    return estimate.disk_need(
        weights=weights,
        finished=finished,
        optimizer=probe.memory["optimizer"] if probe else 2 * weights,
        tokenizer=tokenizer_bytes(prepared.source.base),
        reference=estimate.reference_bytes(len(missing), frames) + tokens,
        moving=bytes_of(learning(model)) if settings.steps_moved else 0,
        total_steps=settings.total_steps,
        save_every=settings.save_every,
        kept=KEPT_STEPS,
        keep_best=config.keep_best and len(prepared.validation) > 0 and settings.total_steps > settings.eval_every,
    )


def free_disk(path: Path) -> int:
    """Bytes that can still be written where `path` is or would be made."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _problems_of_disk(disk: DiskNeed, config: TrainConfig) -> list[str]:
    out, cache = Path(config.out), cache_folder(config)
    return estimate.problems_of_space(disk.out, free_disk(out), f"--out {out}") + estimate.problems_of_space(
        disk.reference_cache, free_disk(cache), f"the cache {cache}"
    )


# --- the result -----------------------------------------------------------------------------


def _result(
    prepared: Prepared, settings: RunSettings, work: TokenWork, probe: Probe | None, disk: DiskNeed
) -> dict[str, Any]:
    rows, out = prepared.train, Path(settings.config.out)
    desirable, undesirable = class_counts(rows, settings.kind.classes)
    parameters = list(prepared.model.parameters())
    epoch = int(rows.own.lengths.sum()), int(rows.mismatched.lengths.sum()) * needs_mismatched(settings.loss)
    dropped = count_rows(prepared.data.folder / TRAIN) - len(rows)
    eta = estimate.eta_seconds(work, probed_cost=probe.cost, probed_seconds=probe.seconds) if probe else None
    return {
        "rows": {"desirable": desirable, "undesirable": undesirable, "dropped": dropped},
        "validation_rows": len(prepared.validation),
        "steps": settings.total_steps,
        "tokens": {
            "own_per_epoch": epoch[0],
            "mismatched_per_epoch": epoch[1],
            "unique_prompts": unique_prompt_tokens(rows),
            "run": run_tokens(prepared, settings),
        },
        "passes": {
            "forward_backward_tokens": work.own,
            "forward_tokens": work.mismatched + work.validation,
            "reference_forward_tokens": work.reference,
            "moved_reference_forward_tokens": work.moved,
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


def _show(screen: Screen, result: dict[str, Any]) -> None:
    rows, tokens, passes, disk = (result[name] for name in ("rows", "tokens", "passes", "disk"))
    lines: list[list[Any]] = [
        ["rows (desirable, undesirable)", f"{rows['desirable']:,}, {rows['undesirable']:,}"],
        ["rows dropped", rows["dropped"]],
        ["optimizer steps", result["steps"]],
        ["tokens of an epoch: rows", tokens["own_per_epoch"]],
        ["   mismatched completions", tokens["mismatched_per_epoch"]],
        ["   distinct prompts", tokens["unique_prompts"]],
        ["tokens forward and backward", passes["forward_backward_tokens"]],
        ["tokens forward only", passes["forward_tokens"]],
        ["tokens forward, reference (not yet in the cache)", passes["reference_forward_tokens"]],
        ["tokens forward, reference that moves", passes["moved_reference_forward_tokens"]],
        ["parameters (trainable)", f"{result['parameters']['total']:,} ({result['parameters']['trainable']:,})"],
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
    screen.table("This run would need", ["", "about"], lines)


def _clock(seconds: float) -> str:
    """1:02:03"""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
