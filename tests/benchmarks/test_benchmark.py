"""The floor's FLOPs against torch's own count on a pico Llama, and against arithmetic by hand."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROWS = [
    {"prompt": [1, 2, 3], "completion": [4, 5], "mismatched": [6], "label": True},
    {"prompt": [1, 2, 3], "completion": [6], "mismatched": [7], "label": False},
    {"prompt": [8], "completion": [7], "mismatched": [4, 5], "label": True},
]


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test, found as the benchmark finds it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("versus_trl.floor")
    for name in [name for name in sys.modules if name.split(".")[0] == "versus_trl"]:
        del sys.modules[name]


@pytest.fixture
def shape(floor: Any) -> Any:
    """Four query heads, two key-value heads: grouped attention must be counted as such."""
    return importlib.import_module("versus_trl.shapes").Shape("pico", 32, 48, 2, 4, 2, 131)


def counted(shape: Any, length: int, *, backward: bool) -> int:
    """What torch counts for one sequence through a Llama of this shape, the head at every position."""
    from torch.utils.flop_counter import FlopCounterMode

    # Eager attention's products are counted, the CPU's flash attention is not
    model = importlib.import_module("versus_trl.shapes").llama(shape, attn_implementation="eager")
    assert model.num_parameters() == shape.parameters
    with FlopCounterMode(display=False) as counter:
        logits = model(torch.arange(length)[None], use_cache=False).logits
        if backward:
            logits.sum().backward()
    # Not the products of the rotary embedding's angles, which some versions of transformers make by a matrix product
    rotary = [found for name, found in counter.get_flop_counts().items() if name.endswith("rotary_emb")]
    return counter.get_total_flops() - sum(sum(found.values()) for found in rotary)


def test_a_step_is_profiled_by_kind(floor: Any) -> None:
    """The head's products and softmax lie inside its function; everything together is the wall time."""
    from kto_cli.core.logps import Head, token_logps

    profile = importlib.import_module("versus_trl.step_profile")
    hidden, weight = torch.randn(64, 96, requires_grad=True), torch.randn(4096, 96, requires_grad=True)
    query = torch.randn(1, 4, 256, 24, requires_grad=True)

    def step() -> None:
        attended = torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
        values = token_logps(torch.tanh(hidden @ hidden.T @ hidden), torch.arange(64), Head(weight))
        (values.sum() + attended.sum()).backward()
        time.sleep(0.2)

    began = time.perf_counter()
    seconds = profile.seconds_by_kind(step)
    assert set(seconds) == set(profile.KINDS)
    assert 0.2 < sum(seconds.values()) < time.perf_counter() - began
    assert seconds[profile.OUTSIDE] >= 0.2
    used = (profile.LAYER_PRODUCTS, profile.HEAD_PRODUCTS, profile.HEAD_SOFTMAX, profile.ATTENTION, profile.POINTWISE)
    assert all(seconds[kind] > 0 for kind in used)


@pytest.mark.parametrize("length", [5, 16])
def test_forward_is_what_torch_counts(floor: Any, shape: Any, length: int) -> None:
    """Eager attention computes all length ** 2 pairs; the rest is equal."""
    flops = floor.forward_flops(shape, tokens=length, pairs=length**2, scored=length)
    assert flops.total() == counted(shape, length, backward=False)


def test_backward_is_twice_the_forward_as_torch_counts(floor: Any, shape: Any) -> None:
    sizes = {"tokens": 16, "pairs": 16**2, "scored": 16}
    flops = floor.forward_flops(shape, **sizes) + floor.backward_flops(shape, **sizes)
    assert flops.total() == counted(shape, 16, backward=True)


def test_work_counts_each_prompt_once(floor: Any) -> None:
    """Prompts of 3 and 1 tokens attend to 3*4/2 + 1 = 7 pairs. Completions: 2 tokens behind 3 are 2*3 + 3 = 9, one
    behind 3 is 4, one behind 1 is 2; mismatched: twice one behind 3, and two behind 1: 4 + 4 + (2 + 3) = 13."""
    assert floor.work_of(ROWS) == (4, 4, 4, 7, 15, 13)


def test_equal_mismatched_pairs_count_once(floor: Any) -> None:
    twice = [ROWS[0], {**ROWS[1], "mismatched": [6]}]
    assert floor.work_of(twice).mismatched == 1


def test_floor_trains_on_rows_and_only_scores_mismatched_pairs(floor: Any, shape: Any) -> None:
    """3 forwards' worth over prompts and completions, 1 over mismatched completions."""
    work = floor.work_of(ROWS)
    trained = floor.forward_flops(shape, tokens=8, pairs=22, scored=4).total()
    scored = floor.forward_flops(shape, tokens=4, pairs=13, scored=4).total()
    assert floor.floor_flops(shape, work).total() == 3 * trained + scored


def test_padded_work_pads_and_repeats_prompts(floor: Any, shape: Any) -> None:
    """Rows of 5, 4 and 2 tokens in micro-batches of 2: own 2 x 5 and 1 x 2 positions; completions rotated, 2 x 5
    (3 + 2 in the second row) and 1 x 2."""
    passes = {"own": 1, "mismatched": 2, "backward": 1}
    once = sum(
        floor.forward_flops(shape, tokens=tokens, pairs=pairs, scored=tokens).total()
        for tokens, pairs in ((10, 2 * 15), (2, 3))
    )
    assert floor.padded_flops(shape, ROWS, micro_batch=2, passes=passes, head_everywhere=True) == 5 * once


def test_every_product_of_the_floor_is_measured(floor: Any, shape: Any) -> None:
    rates = floor.gemm_rates(shape, tokens=8, length=4, dtype=torch.float32, device=torch.device("cpu"))
    assert floor.floor_seconds(floor.floor_flops(shape, floor.work_of(ROWS)), rates) > 0
