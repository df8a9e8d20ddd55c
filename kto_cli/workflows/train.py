"""`kto train`: rows and a model become an aligned model; resumable at any instant."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.screen import Screen
from kto_cli.common.seals import is_changed, write_sealed
from kto_cli.common.tables import metrics_table
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.common.train_config import TrainConfig
from kto_cli.common.words import plural
from kto_cli.core.objectives import RunningMean
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.verdict import Verdict, run_verdict
from kto_cli.evaluation.tables import comparison_table
from kto_cli.model import base_weights, lora
from kto_cli.model.distributed.gathering import gathered_weights, round_weights
from kto_cli.model.distributed.owned import owned
from kto_cli.model.distributed.processes import refuse_different_inputs, refuse_untested_combinations
from kto_cli.model.distributed.start import freed_memory_returned, start_accelerator
from kto_cli.model.linear_layers import layers_to_adapt
from kto_cli.model.logprobs.prepare import Prepared, prepare, warn_if_built_in
from kto_cli.model.logprobs.validation import score_rows
from kto_cli.model.source import ModelSource
from kto_cli.training.after import differences, note_last_model, report_filled, with_old_rows
from kto_cli.training.best_step import described as described_step
from kto_cli.training.best_step import find_best, take_best
from kto_cli.training.custom import announce_custom_loss
from kto_cli.training.loop import Counters, Run, run_steps, start_checkpointing
from kto_cli.training.loss_flags import control_texts
from kto_cli.training.record import describe, refuse_if_not_repeated, refuse_other_inputs
from kto_cli.training.run.checkpoints import latest_step, load_snapshot, stored_reference
from kto_cli.training.run.model_card import model_card
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.settings import RunSettings, resolve_options, run_settings
from kto_cli.training.setup import set_up
from kto_cli.training.trackers import tracking
from kto_cli.training.units import trained_rows


def run(
    flags: Mapping[str, Any],
    *,
    config_file: str | None,
    resume: bool,
    screen: Screen,
    on_record: Callable[[Mapping[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains.

    Args:
        flags: settings of the command line; they override those of the config file, which override defaults.

    Returns:
        `steps`, `rows`, `checkpoint`, `validation` (as `kto eval` gives it, or None), `verdict`, `warnings`.

    Raises:
        KtoError: bad input, data or model, a full disk, numbers that are not finite. Interrupted: Ctrl-C.
    """
    config, stored = resolve_options(flags, config_file=config_file, resume=resume)
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    if config_file is not None and is_changed(Path(config_file)):
        screen.warn(f"{config_file} is not as kto wrote it (its checksum differs): its settings are taken as they are.")
    directory = RunDir(Path(config.out))
    accelerator.wait_for_everyone()
    if stored is None and not directory.lock.exists():  # of a locked folder the owner says more
        directory.refuse_unless_free()
    with owned(accelerator, directory.lock, directory.folder, "training in", screen.warn):
        # once more: another process may have trained there until now
        config, stored = resolve_options(flags, config_file=config_file, resume=resume)
        if stored is None:
            directory.refuse_unless_free()
            if resume:
                screen.note(f"{directory.folder} has no run to resume: starting a new one.")
        return _train(config, stored, directory, accelerator, screen, on_record, config_file, flags)


def _train(
    config: TrainConfig,
    stored: dict[str, Any] | None,
    directory: RunDir,
    accelerator: Any,
    screen: Screen,
    on_record: Callable[[Mapping[str, Any]], None] | None,
    config_file: str | None,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The run, in a folder that this launch owns."""
    if config.after is not None:
        report_filled(config, screen)
    rows_from = with_old_rows(config, accelerator, screen)
    prepared = prepare(rows_from, accelerator, screen, merged=not config.adapters, control=control_texts(config))
    config = replace(config, template_date=prepared.template_date or config.template_date)
    if stored is not None and prepared.template_date:
        screen.note(f"Prompts hold the date {prepared.template_date}, as recorded in {directory.config}.")
    warn_if_built_in(config, screen)
    prepared.train = trained_rows(prepared.train, config, screen)
    settings = run_settings(config, prepared, screen)
    announce_custom_loss(settings.loss, screen)
    _report_what_learns(prepared, config, screen)  # before anything is computed that a wrong name would waste
    refuse_untested_combinations(accelerator.num_processes, config)
    described = describe(settings, prepared, accelerator.num_processes)
    refuse_different_inputs(
        accelerator, {name: described[name]["fingerprint"] for name in ("data", "reference")} | {"run": stored}
    )
    if config_file:
        refuse_if_not_repeated(config_file, described, given, screen)
    if stored is not None:
        refuse_other_inputs(stored, described, screen)
    this_run = set_up(prepared, settings, directory, accelerator, screen)
    described["chosen"]["micro_batch_tokens"] = this_run.engine.token_budget
    recorded = max((line["step"] for line in directory.read_metrics()), default=0) if config.track else 0
    _begin(this_run, described, stored, prepared.tokenizer.chat_template, screen)
    last_model = note_last_model(this_run) if config.after else None
    trackers = config.trackers if accelerator.is_main_process else ()
    done = this_run.counters.step
    with tracking(trackers, directory.folder, described, screen, done=done, recorded=recorded) as log:
        this_run.on_record = [log] if on_record is None or not accelerator.is_main_process else [log, on_record]
        run_steps(this_run)
    return _finish(this_run, prepared, screen, last_model)


def _report_what_learns(prepared: Prepared, config: TrainConfig, screen: Screen) -> None:
    source = prepared.source
    if config.continue_adapter and source.below is not None:
        screen.note(f"Going on with the adapter of {source.name}, on {source.below.words}.")
        return
    if config.lora_r is None:
        if source.below is not None:
            screen.note(f"The adapter of {source.name} is merged into {source.below.words}: all weights are trained.")
        return
    if source.adapters:
        screen.note(f"New adapters are added to {source.words}, which stays as it is.")
    layers = layers_to_adapt(prepared.model, config.lora_targets)
    screen.note(f"{'DoRA' if config.dora else 'LoRA'} adapters of rank {config.lora_r} on {', '.join(layers)}")


def _begin(
    this_run: Run, described: dict[str, Any], stored: dict[str, Any] | None, template: str, screen: Screen
) -> None:
    """Writes kto_config.json, as `described` or as `stored` by the run that is resumed, and the given chat template."""
    accelerator, directory = this_run.engine.accelerator, this_run.directory
    if stored is not None:
        _resume(this_run, stored, screen)
        find_best(this_run)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        directory.remove_partial_files()
        write_sealed(directory.config, described if stored is None else stored)
        if stored is None and this_run.settings.config.chat_template:
            directory.keep_template(template)
        if fault := directory.keep_metrics_up_to(this_run.counters.step):
            screen.warn(fault)


def _resume(this_run: Run, stored: dict[str, Any], screen: Screen) -> None:
    """Loads the newest valid checkpoint; without one, the run starts from its first step."""
    folder, state, faults = latest_step(this_run.directory.steps, this_run.engine.accelerator)
    for fault in faults:
        screen.warn(f"{fault} Falling back to the checkpoint before it.")
    if folder is None:
        screen.note("No complete checkpoint yet: starting from the first step.")
        return
    trusted = this_run.settings.config.trust_remote_code
    load_snapshot(folder, this_run.engine, this_run.model, trust_remote_code=trusted)
    if this_run.synced is not None:
        this_run.synced.load(stored_reference(folder))
    this_run.counters = Counters(step=state["step"], rows=state["rows"], tokens=state["tokens"])
    this_run.running = RunningMean(*state.get("running", ()))
    _restore_memory(this_run, state, stored, screen)
    screen.note(f"Resuming from {folder} (step {state['step']} of {this_run.settings.total_steps})")


def _restore_memory(this_run: Run, state: dict[str, Any], stored: dict[str, Any], screen: Screen) -> None:
    """What running out of memory changed stays changed: the same micro-batches give the same bits.

    A --micro-batch-tokens given now counts instead.
    """
    engine, given = this_run.engine, this_run.settings.config.micro_batch_tokens
    as_before = given in (stored["train"].get("micro_batch_tokens"), stored["chosen"].get("micro_batch_tokens"))
    before = state.get("micro_batch_tokens", engine.token_budget)
    if as_before and before < engine.token_budget:
        engine.token_budget = before
        screen.note(f"--micro-batch-tokens {before}, as since the run was short of memory")
    if state.get("checkpointing") and start_checkpointing(this_run):
        screen.note("Gradient checkpointing, as since the run was short of memory")


def _finish(this_run: Run, prepared: Prepared, screen: Screen, last_model: Scores | None) -> dict[str, Any]:
    """Scores all validation rows, reports the verdict, writes the finished model."""
    settings, directory = this_run.settings, this_run.directory
    kept = take_best(this_run)
    model = _as_written(this_run, prepared)
    validation, compared = None, None
    if this_run.validation:
        validation, compared = _validated(this_run, directory, screen, last_model)
    held = settings.total_steps if kept is None else kept.step
    steps = [line for line in directory.read_metrics() if line["step"] <= held]
    verdict = run_verdict(validation, steps, beta=settings.loss.beta, kept=kept)
    main = this_run.engine.accelerator.is_main_process
    weights = gathered_weights(model, keep=main)
    if main:
        card = model_card(settings, prepared, validation, verdict, step=held)
        end = {**described_step(kept, settings.total_steps), "verdict": verdict.word, "sentence": verdict.sentence}
        directory.finish(this_run.writer, model, card, weights, end=end)
    this_run.engine.accelerator.wait_for_everyone()
    if validation:
        metrics_table(screen, f"Validation rows after {plural(held, 'step')}", validation)
    if compared is not None:
        comparison_table(screen, "the last model", "the new one", len(this_run.validation), compared)
    below = prepared.below(settings.config)
    _show(screen, settings, verdict, directory, this_run.writer.stored.name_for(model), below)
    return {
        "steps": settings.total_steps,
        "kept_step": held,
        "rows": this_run.counters.rows,
        "checkpoint": str(directory.folder),
        "validation": validation,
        "verdict": verdict.word,
        "sentence": verdict.sentence,
        "warnings": verdict.warnings,
        **({} if compared is None else {"after": {"run": settings.config.after, "differences": compared}}),
    }


def _validated(
    this_run: Run, directory: RunDir, screen: Screen, last_model: Scores | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]] | None]:
    """Metrics of all validation rows, and their differences from those of the last run's model, if it is known."""
    engine, rows, references = this_run.engine, this_run.validation, this_run.validation_references
    with freed_memory_returned(engine.accelerator.device):
        with screen.progress("validation rows", len(rows.sequences), keeps=_continues(directory)):
            scores = score_rows(engine, rows, references, say=screen.warn, tick=screen.tick)
        compared = None if last_model is None else differences(this_run, last_model, scores)
        return validation_metrics(scores, this_run.settings.loss), compared


def _continues(directory: RunDir) -> str:
    steps = directory.steps.all()
    last = f"The last checkpoint is {steps[-1]}." if steps else "No checkpoint was written yet."
    return f"{last} Continue with: kto train --resume --out {directory.folder}"


def _as_written(this_run: Run, prepared: Prepared) -> Any:
    """The model with the weights it is written with: adapters merged if asked, rounded to the dtypes of the source.

    That comes before its last validation, whose numbers thus are those of the model that is written. Checkpoints hold
    the weights before it, so a resumed run goes on with all of their bits.
    """
    config, held, model = this_run.settings.config, prepared.precision.weights, this_run.model
    stored = this_run.writer.stored.of

    def dtype_of(name: str, weight: torch.Tensor) -> torch.dtype:
        return stored(name, weight) if held == torch.float32 else held

    if config.merge:
        model = base_weights.merged(model, lambda name, weight: round_weights({name: weight}, dtype_of, config.seed))
    if not lora.is_adapted(model):
        round_weights(dict(model.named_parameters()), stored, config.seed)
    return model


def _show(
    screen: Screen, settings: RunSettings, verdict: Verdict, directory: RunDir, dtype: str, below: ModelSource
) -> None:
    """The verdict, what was written, and the next command."""
    screen.say(verdict.sentence)
    for warning in verdict.warnings:
        screen.warn(warning)
    config = settings.config
    what = "Model" if not config.adapters else "Model, adapters merged into it" if config.merge else "Adapters"
    if what != "Adapters":
        what += f" ({dtype})"
    evaluated = shlex.join([str(directory.folder), *([str(config.after)] if config.after else [])])
    screen.say(f"{what}: {directory.folder}   Next: kto eval {evaluated}")
    if what == "Adapters" and below.adapters:
        screen.say(
            f"They belong on {below.words}: alone on its base they are another model. All in one: "
            f"kto export {directory.folder} --merge --to FOLDER"
        )
    if config.chat_template_kwargs:
        given = spelled_kwargs(config.chat_template_kwargs)
        screen.say(f'Served, each request must have "chat_template_kwargs": {given}')
