"""Seconds of a call: by events on a GPU, by the clock elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def device() -> torch.device:
    """The GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any], least: float = 0.15) -> float:
    """Median time of a call, after three that warm up; on a CPU the second of two."""
    if not torch.cuda.is_available():
        work()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    for _ in range(3):
        work()
    synchronize()
    times: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < least or len(times) < 5:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def free_memory() -> None:
    """Gives cached blocks back, so that the next measurement begins alike."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def peak_gb() -> dict[str, float | None]:
    """Peaks since the last reset, in GB."""
    if not torch.cuda.is_available():
        return {"peak_GB": None, "reserved_GB": None}
    return {
        "peak_GB": round(torch.cuda.max_memory_allocated() / 1e9, 1),
        "reserved_GB": round(torch.cuda.max_memory_reserved() / 1e9, 1),
    }


def reset_peak() -> None:
    """Starts a new measurement of the peak."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
