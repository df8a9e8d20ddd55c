"""One step under torch's profiler: kernels and their time, and how often the host waits."""

from __future__ import annotations

import collections
import time

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import TINY, Way, accelerator, llama, make_engine, rows_of, step
from benchmarks.gpu.timing import device, free_memory, synchronize

LONGEST = 12
"""Kernels that are named, those that take most time."""


def run() -> None:
    """One call a layer, and one a segment."""
    accelerator()
    for walk in (False, True):
        with check(f"profile: one call a {'segment' if walk else 'layer'}") as found:
            batches = [rows_of(8 if TINY else 32, 200 + number) for number in range(3)]
            made = make_engine(llama("1B"), Way(walk=walk), batches[0])
            for rows in batches[:2]:
                step(made.engine, rows, rate=1e-6)
            synchronize()
            kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device().type == "cuda" else [])
            began = time.perf_counter()
            with profile(activities=kinds) as profiled:
                step(made.engine, batches[2], rate=1e-6)
                synchronize()
            found["wall_s_with_profiler"] = round(time.perf_counter() - began, 3)
            found |= made.said | summary(profiled)
            del made
            free_memory()


def summary(profiled: profile) -> dict[str, object]:
    """Counts of kernels and of CUDA's calls, milliseconds, and the kernels that take most; on a CPU of operations."""
    events = profiled.events() or []
    on_device = [event for event in events if str(event.device_type).endswith("CUDA")]
    calls = collections.Counter(event.name for event in events if event.name.startswith("cuda"))
    times: dict[str, list[float]] = collections.defaultdict(list)
    for event in on_device:
        times[event.name[:70]].append(event.device_time)
    longest = sorted(times.items(), key=lambda item: -sum(item[1]))[:LONGEST]
    return {
        "operations": sum(event.name.startswith("aten::") for event in events),
        "kernels": len(on_device),
        "kernel_ms": round(sum(map(sum, times.values())) / 1e3, 1),
        "calls": dict(calls.most_common(8)),
        "longest": [(name, len(each), round(sum(each) / 1e3, 2)) for name, each in longest],
    }
