"""The learning rate of a step, as a share of its peak: a pure function, so resuming needs no state."""

from __future__ import annotations

import math


def learning_rate_share(step: int, *, total: int, warmup: float, schedule: str) -> float:
    """Share of the peak learning rate at `step` (0-based) of `total`: linear warm-up, then the schedule.

    Args:
        warmup: a share of `total` if below 1, else a number of steps. The first step is never at 0.
        schedule: linear or cosine (both reach 0 only after the last step) or constant.
    """
    warm = round(warmup * total) if warmup < 1 else int(warmup)
    if step < warm:
        return (step + 1) / (warm + 1)
    passed = (step - warm) / max(1, total - warm)
    if schedule == "linear":
        return 1 - passed
    if schedule == "cosine":
        return (1 + math.cos(math.pi * passed)) / 2
    return 1.0
