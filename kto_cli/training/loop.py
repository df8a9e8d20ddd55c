"""The training loop: which rows, which learning rate, what is recorded, when to save and when to stop.

What a step computes is in step.py, where files are in run/run_dir.py. The state of a run is the model, the optimizer
and three counters; everything else is a pure function of the step.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from kto_cli.common.errors import BadModel, Interrupted
from kto_cli.common.screen import Screen
from kto_cli.core.objectives import RunningMean, needs_mismatched
from kto_cli.core.pieces import RowLists
from kto_cli.core.plan import learning_rate_share
from kto_cli.core.rows import EncodedRow
from kto_cli.core.statistics.metrics import step_metrics, validation_loss
from kto_cli.model.distributed.processes import unwrapped
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.logprobs.validation import quick_metrics, quick_rows, score_rows
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.validation_rows import ValidationRows
from kto_cli.training.best_step import Validated, note_validation
from kto_cli.training.checks import distance_at_start, refuse_nonfinite
from kto_cli.training.live import Show, watching
from kto_cli.training.memory import step_within_memory
from kto_cli.training.planned import batches_of_epoch, steps_of_epoch
from kto_cli.training.run.checkpoints import save_snapshot
from kto_cli.training.run.model_folder import ModelWriter
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.settings import RunSettings
from kto_cli.training.step import StepOutput, TrainingEngine, values_of
from kto_cli.training.synced_reference import SyncedReference


@dataclass
class Counters:
    """Counts of a run so far."""

    step: int = 0
    rows: int = 0
    tokens: int = 0
    """Of rows and, where the loss reads them, of their mismatched completions, without padding."""


@dataclass
class Run:
    """A run ready to start or to resume."""

    settings: RunSettings
    rows: EncodedRows
    references: ReferenceLogps
    validation: ValidationRows
    validation_references: ReferenceLogps
    engine: TrainingEngine
    model: Any
    writer: ModelWriter
    directory: RunDir
    screen: Screen
    counters: Counters
    synced: SyncedReference | None = None
    """The reference, where it moves."""
    starts_at_reference: bool = True
    """The policy equals the reference before the first update: no --reference names another model."""
    best: Validated | None = None
    """The step with the lowest validation loss so far, with --keep-best."""
    last_validated: Validated | None = None
    running: RunningMean = field(default_factory=RunningMean)
    """Of all rows so far, for the reference point `mean-reward`."""
    checkpointing: bool = False
    """Activations are recomputed because memory ran out."""
    begins: deque[float] = field(default_factory=deque)
    """When the last steps began, for the estimate of the time left."""
    on_record: Sequence[Callable[[dict[str, Any]], None]] = ()
    """Called with each step's record: trackers, and the caller's own function."""

    def references_of(self, batch: list[int], rows: Sequence[EncodedRow]) -> ReferenceLogps:
        """What the next step, over these rows, compares with; all processes must call."""
        stored = self.references.take(batch)
        if self.synced is None:
            return stored
        return self.synced.of_step(self.counters.step, rows, stored, self.engine)


def run_steps(run: Run) -> None:
    """Training from the counters' step to the last, with checkpoints.

    Raises:
        Diverged: a number is not finite; nothing was updated with it, earlier checkpoints stay.
        Interrupted: Ctrl-C; the state after the last step is saved.
    """
    settings = run.settings
    per_epoch, planned, batches = steps_of_epoch(run.rows, settings), -1, RowLists()
    with (
        interrupt_flag() as stop,
        watching(
            run.screen,
            settings.total_steps,
            done=run.counters.step,
            earlier=run.directory.read_metrics,
            validation=bool(run.validation),
        ) as show,
    ):
        while run.counters.step < settings.total_steps:
            epoch, index = divmod(run.counters.step, per_epoch)
            if epoch != planned:
                with freed_memory_returned(run.engine.accelerator.device):
                    planned, batches = epoch, RowLists(batches_of_epoch(run.rows, settings, epoch))
            interrupted = _one_step(run, batches[index], stop, show)
            if interrupted:
                _save(run)
                raise Interrupted(
                    f"Stopped after step {run.counters.step} of {settings.total_steps}; its checkpoint is saved. "
                    f"Continue with: kto train --resume --out {run.directory.folder}"
                )


def _one_step(run: Run, batch: list[int], stop: threading.Event, show: Show) -> bool:
    """One optimizer step, its record, and the validation and checkpoint due after it; True if asked to stop."""
    settings, config = run.settings, run.settings.config
    rows = [run.rows[index] for index in batch]
    began = time.perf_counter()
    run.begins.append(began)
    rate = settings.learning_rate * learning_rate_share(
        run.counters.step, total=settings.total_steps, warmup=config.warmup, schedule=config.schedule
    )
    output = step_within_memory(
        run.engine,
        lambda: run.engine.step(
            rows,
            run.references_of(batch, rows),
            settings.loss,
            learning_rate=rate,
            running=run.running,
            stop_asked=stop.is_set,
        ),
        longest=max(max(row.own.length, row.mismatched.length) for row in rows),
        say=run.screen.warn,
        relieve=lambda: start_checkpointing(run),
    )
    references = run.references_of(batch, rows)
    refuse_nonfinite(output, rows, step=run.counters.step + 1, directory=run.directory)
    seconds = time.perf_counter() - began
    mismatched = needs_mismatched(settings.loss)
    tokens = sum(row.own.length + mismatched * row.mismatched.length for row in rows)
    run.running = output.given.running
    run.counters.step += 1
    run.counters.rows += len(rows)
    run.counters.tokens += tokens
    record: dict[str, Any] = {**asdict(run.counters), **_metrics(run, output, rows, references)}
    if run.synced is not None:
        record["reference_step"] = settings.reference_step(run.counters.step - 1)
    record |= {
        "gradient_norm": output.gradient_norm,
        "learning_rate": rate,
        "seconds": seconds,
        "rows_per_second": len(rows) / seconds,
        "tokens_per_second": tokens / seconds,
        "eta_seconds": _seconds_a_step(run, seconds) * (settings.total_steps - run.counters.step),
    }
    if run.counters.step == 1:
        record |= distance_at_start(output, run.engine.scorer, run.screen, at_reference=run.starts_at_reference)
    last = run.counters.step == settings.total_steps
    if run.validation and (last or run.counters.step % settings.eval_every == 0):
        record["validation"] = _validate(run)
    show(record)
    if run.engine.accelerator.is_main_process:
        run.directory.append_metrics(record)
    for call in run.on_record:
        call(record)
    if not last and run.counters.step % settings.save_every == 0:
        _save(run)
    return output.interrupted and not last


def _seconds_a_step(run: Run, last: float) -> float:
    """Mean over the last steps before this one, with the validation and checkpoints behind them: over ten, or as many
    as lie between two validations. The first step knows only of itself (`last`)."""
    while len(run.begins) > 1 + max(10, run.settings.eval_every):
        run.begins.popleft()
    steps = len(run.begins) - 1
    return (run.begins[-1] - run.begins[0]) / steps if steps else last


def start_checkpointing(run: Run) -> bool:
    """Turns on gradient checkpointing if it is `auto`, off so far, and possible with this model."""
    if run.settings.config.gradient_checkpointing != "auto" or run.checkpointing:
        return False
    try:
        checkpoint_layers(unwrapped(run.engine.scorer))
    except BadModel:
        return False
    run.checkpointing = True
    return True


def _metrics(run: Run, output: StepOutput, rows: Sequence[EncodedRow], references: ReferenceLogps) -> dict[str, float]:
    labels, prompts = torch.tensor([row.label for row in rows]), [row.prompt_id for row in rows]
    values = values_of(rows, references, run.settings.loss, dtype=output.log_ratios.dtype)
    return step_metrics(
        output.log_ratios,
        output.mismatched_log_ratios,
        labels,
        run.settings.loss,
        prompts,
        values=values._replace(logps=values.references + output.log_ratios),
        given=output.given,
        measured=output.measured,
    )


def _validate(run: Run) -> dict[str, Any]:
    """Metrics of (some) validation rows during training."""
    chosen = quick_rows(len(run.validation), run.settings.config.seed)
    rows = run.validation.take(chosen)
    with freed_memory_returned(run.engine.accelerator.device), run.engine.rounded:
        scores = score_rows(run.engine, rows, run.validation_references.take(chosen), say=run.screen.warn)
        found = quick_metrics(scores, validation_loss(scores, run.settings.loss), beta=run.settings.loss.beta)
    note_validation(run, scores, found.get("loss"))
    return found


def _save(run: Run) -> None:
    """Writes a checkpoint; all processes must call."""
    memory = {"micro_batch_tokens": run.engine.token_budget, "checkpointing": run.checkpointing}
    state = asdict(run.counters) | memory | ({"running": list(run.running)} if run.running.rows else {})
    reference = {} if run.synced is None else run.synced.weights
    save_snapshot(run.directory, run.engine, run.model, run.writer, state, reference)


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set a flag, and training stops after the current step; a second signal stops at once."""
    asked = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
