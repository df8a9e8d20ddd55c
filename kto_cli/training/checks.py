"""Checks of a step's numbers: they are finite, and before the first update policy and reference agree."""

from __future__ import annotations

import math
from typing import Any

import torch

from kto_cli.common.errors import Diverged
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.core.rows import EncodedRow
from kto_cli.model.distributed.processes import unwrapped
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.step import StepOutput


def refuse_nonfinite(output: StepOutput, rows: list[EncodedRow], *, step: int, directory: RunDir) -> None:
    """Stops a run at its first number that is not finite, and names the rows.

    Raises:
        Diverged
    """
    bad = ~output.log_ratios.isfinite()
    if len(output.mismatched_log_ratios):
        bad |= ~output.mismatched_log_ratios.isfinite()
    if not bad.any() and math.isfinite(output.gradient_norm):
        return
    named = [row for row, is_bad in zip(rows, bad.tolist(), strict=True) if is_bad] or rows
    names = ", ".join(row.id for row in named[:5]) + (" ..." if len(named) > 5 else "")
    what = "log-prob" if bad.any() else "gradient"
    kept = directory.steps.all()
    state = f"The last checkpoint is {kept[-1]}" if kept else "No checkpoint was written yet"
    raise Diverged(
        f"Step {step}: the {what} is not a finite number for {plural(len(named), 'row')}: {names}. "
        f"The model was not updated with it. {state}.",
        "Check these rows; try a lower --learning-rate or --dtype float32.",
    )


def distance_at_start(output: StepOutput, scorer: Any, screen: Screen, *, at_reference: bool) -> dict[str, float]:
    """How far the policy is from the reference before the first update, for the record.

    Args:
        at_reference: it starts there; else --reference names another model.
    """
    if at_reference:
        return {"noise_floor": check_noise_floor(output, scorer, screen)}
    others = output.mismatched_log_ratios
    ratios, what = (others, "mismatched completion") if len(others) else (output.log_ratios, "row")
    kl = ratios.mean().item()
    screen.note(
        f"Before training, the KL from the reference is estimated at {kl:.3g} nats per completion (mean log-ratio of "
        f"the first step's {plural(len(ratios), what)}; it can be below 0)."
    )
    return {"kl_at_start": kl}


def check_noise_floor(output: StepOutput, scorer: Any, screen: Screen) -> float:
    """Largest log-ratio before the first update: policy and reference are equal then, so it is numerical noise."""
    noise = torch.cat([output.log_ratios, output.mismatched_log_ratios]).abs().max().item()
    full = getattr(unwrapped(scorer), "dtype", torch.float32) == torch.float32
    limit = 1e-3 if full else 1.0
    if noise <= limit:
        screen.note(
            f"Check passed: before training, model and reference agree (largest difference {noise:.1e} nats per row)."
        )
    else:
        screen.warn(
            f"Before training, model and reference should agree, but a row differs by {noise:.1e} nats (limit "
            f"{limit:g}): the cached reference may be another model, or the arithmetic too coarse."
        )
    return noise
