"""1B in bfloat16: seconds a step, tokens a second, share of the card's peak, memory."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.driver import REPOSITORY
from benchmarks.gpu.models import SIZES, TINY, Way, accelerator, llama, make_engine, rows_of, step
from benchmarks.gpu.timing import device, free_memory, peak_gb, reset_peak, synchronize
from kto_cli.core.rows import EncodedRow

PEAK_TFLOPS = 989
"""Of an H100's matrix products in bfloat16; shares of it are comparable, whatever the card."""
LONG = {"prompt": 250, "completion": 250, "most": 1024}
"""Rows of 500 tokens."""
WAYS: tuple[tuple[str, Way, dict[str, int]], ...] = (
    ("one call a layer", Way(), {}),
    ("one call a layer, weights rounded at random", Way(rounded=True), {}),
    ("one call a segment", Way(walk=True), {}),
    ("micro-batches of 4,096", Way(budget=4096), {}),
    ("padded", Way(packed=False), {}),
    ("rows of 500 tokens, micro-batches of 8,192", Way(budget=8192), LONG),
    ("rows of 500 tokens", Way(), LONG),
    ("rows of 500 tokens, checkpointed", Way(checkpointed=True), LONG),
    ("compiled", Way(compiled=True), {}),
)
COUNT, STEPS = (8, 2) if TINY else (32, 6)
"""Rows of a step, and steps that are timed."""


def run() -> None:
    """One way after the other; the first step of each warms up, and a first way all of them."""
    accelerator()
    timed(llama("1B"), Way(), [rows_of(COUNT, 90 + number) for number in range(3)], {})
    free_memory()
    for name, way, lengths in WAYS:
        with check(f"1B: {name}") as found:
            if way.compiled and device().type != "cuda":
                found |= {"ok": None, "why": "not compiled on a CPU"}
                continue
            batches = [rows_of(COUNT, 100 + number, **lengths) for number in range(STEPS + 1)]
            timed(llama("1B"), way, batches, found)
            found["floor_tflops_per_s"] = round(sum(map(floor_flops, batches[1:])) / sum(found["all_s"]) / 1e12, 1)
            found["share_of_peak"] = round(found["floor_tflops_per_s"] / PEAK_TFLOPS, 3)
        torch._dynamo.reset()
        free_memory()


def timed(model: Any, way: Way, batches: list[list[EncodedRow]], found: dict[str, Any]) -> None:
    """Steps over the batches, into `found`."""
    made = make_engine(model, way, batches[0])
    reset_peak()
    times = []
    for rows in batches:
        synchronize()
        began = time.perf_counter()
        step(made.engine, rows, rate=1e-6)
        synchronize()
        times.append(time.perf_counter() - began)
    tokens = sum(row.own.length + row.mismatched.length for rows in batches[1:] for row in rows)
    found |= made.said | {
        "first_s": round(times[0], 3),
        "step_s": round(statistics.median(times[1:]), 4),
        "all_s": [round(each, 4) for each in times[1:]],
        "tokens_per_s": round(tokens / sum(times[1:])),
        **peak_gb(),
    }


def floor_flops(rows: list[EncodedRow]) -> int:
    """The least that a step over these rows multiplies (benchmarks/versus_trl/floor.py)."""
    if str(REPOSITORY / "benchmarks") not in sys.path:
        sys.path.append(str(REPOSITORY / "benchmarks"))
    from versus_trl import floor
    from versus_trl.shapes import Shape

    vocabulary, hidden, intermediate, layers, heads, key_value_heads = SIZES["tiny" if TINY else "1B"]
    shape = Shape("1B", hidden, intermediate, layers, heads, key_value_heads, vocabulary)
    described = [
        {"prompt": row.own.prompt, "completion": row.own.completion, "mismatched": row.mismatched.completion}
        for row in rows
    ]
    return int(floor.floor_flops(shape, floor.work_of(described)).total())
