"""The step with the lowest validation loss, kept on disk until the run ends (`--keep-best`).

At the end its weights replace those of the last step, unless the last step is as good within noise. A run that was
killed finds it again with its scores, so that a resumed run decides as an unbroken one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kto_cli.core.statistics.comparison import loss_difference
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.shares import FEWEST_COMPARED
from kto_cli.core.statistics.verdict import Overfit
from kto_cli.model.distributed.start import freed_memory_returned
from kto_cli.model.logprobs.validation import quick_rows, scores_again, stored_scores
from kto_cli.training.run.checkpoints import latest_step, load_weights, save_best

LEAST_RISE = 0.01
"""Rise of the validation loss, relative to its lowest value, that is surely more than nothing: of the KTO loss a few
tenths of a nat."""


@dataclass(frozen=True)
class Validated:
    """Validation of one step."""

    step: int
    loss: float
    scores: Scores


def note_validation(run: Any, scores: Scores, loss: float | None) -> None:
    """Notes the scores of a step, and keeps its weights if its loss is the lowest so far; all processes must call."""
    if not run.settings.config.keep_best or loss is None or not math.isfinite(loss):
        return
    run.last_validated = Validated(run.counters.step, loss, scores)
    if run.best is not None and loss >= run.best.loss:
        return
    run.best = run.last_validated
    if run.counters.step < run.settings.total_steps:  # the weights of the last step are in memory
        state = {"step": run.best.step, "loss": loss, **stored_scores(scores)}
        save_best(run.directory, run.engine, run.model, run.writer, state)


def find_best(run: Any) -> None:
    """Finds the best step that a killed run kept; all processes must call."""
    if not run.settings.config.keep_best or not run.validation:
        return
    _, state, faults = latest_step(run.directory.best, run.engine.accelerator)
    for fault in faults:
        run.screen.warn(f"{fault} The best step so far is not known any more.")
    if state:
        rows = run.validation.take(quick_rows(len(run.validation), run.settings.config.seed))
        run.best = Validated(state["step"], state["loss"], scores_again(rows, state))


def take_best(run: Any) -> Overfit | None:
    """Puts the weights of the best step in place of the last one's, if that is surely worse; all processes must
    call."""
    best, last = run.best, run.last_validated
    if best is None or last is None or best.step >= last.step:
        return None
    with freed_memory_returned(run.engine.accelerator.device):
        low, _ = loss_difference(best.scores, last.scores, run.settings.loss)
    words = f"The validation loss was lowest after step {best.step} ({best.loss:.4g}; at the end {last.loss:.4g})"
    if len(set(best.scores.prompt_ids)) < FEWEST_COMPARED or not low > LEAST_RISE * best.loss:
        run.screen.note(f"{words}, but not surely by {LEAST_RISE:.0%}: the model of the last step is kept.")
        return None
    folder, _, faults = latest_step(run.directory.best, run.engine.accelerator)
    if folder is None:
        run.screen.warn(f"{words}. {' '.join(faults)} The model of the last step is kept.")
        return None
    load_weights(folder, run.model, trust_remote_code=run.settings.config.trust_remote_code)
    run.screen.note(f"{words}: the model of step {best.step} is kept (--keep-best).")
    return Overfit(best.step, last.step, best.loss, last.loss)


def described(kept: Overfit | None, total: int) -> dict[str, Any]:
    """Which step the finished model is of, for kto_config.json."""
    return {"step": total} if kept is None else {"step": kept.step, "overfit": kept._asdict()}
