"""`kto train --compile`: the layers run through torch.compile, and the numbers stay those of the run without it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, save_pico_llama
from paths import conversations
from pico import build

from kto_cli.core.batches import Batch, continuation, pack
from kto_cli.model import layer_attention, varlen_attention
from kto_cli.model.attention import PackedAttention
from kto_cli.model.packed_pass import Past
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.varlen_kernels import FLASH
from kto_cli.training.trackers import flat

STEPS = 3
LAYERS = 2
TOLERANCE = 1e-5
"""Float32, and fused operations round elsewhere; 3e-6 was measured, of a z_ref."""
CLOCK = {"seconds", "rows_per_second", "tokens_per_second", "eta_seconds", "seal"}
"""What a step's record says of time."""


def has_compiler() -> bool:
    """A C++ compiler, which inductor needs on a CPU."""
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++", "c++")))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[object]]:
    """The functions handed to torch.compile; what it makes of them is kept for this test alone."""
    handed: list[object] = []
    compile_ = torch.compile

    def counting(function: Any, **settings: Any) -> Any:
        handed.append(function)
        return compile_(function, **settings)

    monkeypatch.setattr(torch, "compile", counting)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield handed
    torch._dynamo.reset()


def records(run: Path) -> list[dict[str, Any]]:
    """The run's steps, less what they say of time, the validation part as one number a name (its interval as two)."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    numbers = [{**line, **flat({"validation": line["validation"]})} for line in lines]
    return [{name: line[name] for name in line.keys() - CLOCK - {"validation"}} for line in numbers]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_layers_give_the_same_run(
    kto: Command, workplace: Path, pico_data: Path, compiled: list[object]
) -> None:
    """Each layer is handed over, Dynamo compiles every frame it meets, and three steps at a rate at which the loss
    falls end with the same metrics and weights."""
    from safetensors.torch import load_file

    frames = torch._dynamo.utils.counters["frames"]
    model = save_pico_llama(workplace / "pico", layers=LAYERS)
    given = ["--data", pico_data, "--model", model, "--max-steps", STEPS, "--batch-size", 8, "--learning-rate", 1e-3]
    assert kto("train", *given, "--out", "plain").code == 0
    assert (len(compiled), frames["total"]) == (0, 0)
    ran = kto("train", *given, "--out", "compiled", "--compile")
    assert (ran.code, len(compiled)) == (0, LAYERS), ran.err
    assert frames["ok"] == frames["total"] >= LAYERS

    plain = records(workplace / "plain")
    assert plain[-1]["validation/loss"] < 0.495, "it must learn, or equal numbers say little"
    assert records(workplace / "compiled") == [pytest.approx(step, rel=0, abs=TOLERANCE) for step in plain]
    weights = load_file(workplace / "plain/model.safetensors")
    others = load_file(workplace / "compiled/model.safetensors")
    assert weights.keys() == others.keys()
    assert max((weights[name] - others[name]).abs().max().item() for name in weights) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("family", "graphs"), [("llama", 1), pytest.param("gemma3", 2, marks=pytest.mark.long)])
def test_layers_on_a_gpu_are_whole_graphs(family: str, graphs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With flash attention, on the meta device, forward and backward: no graph breaks, and layers and batches of other
    segments share a graph (gemma3: one a kind of layer), whether keys and values are stored, read or neither."""
    meta = torch.device("meta")
    monkeypatch.setitem(varlen_attention.KERNELS, "meta", lambda query: FLASH)
    monkeypatch.setattr(varlen_attention, "_works", torch.compiler.assume_constant_result(lambda *_: True))
    monkeypatch.setattr(layer_attention, "_autocast", lambda part: part)  # there is none for this device
    scorer = CompletionScorer(build(family).bfloat16(), torch.bfloat16).to(meta)
    scorer.packing = PackedAttention(scorer.model)
    rows = [(conversations(seed), Past(torch.zeros(1, dtype=torch.int64, device=meta))) for seed in (3, 5, 7)]
    body = scorer.model.model

    def run(batch: Batch, past: Past | None) -> None:
        with scorer.packing(batch.layout, past, meta) as packed:
            output = body(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, packed=packed)
        if torch.is_grad_enabled():
            output.last_hidden_state.sum().backward()

    run(pack(rows[0][0])[0].to(meta), rows[0][1])  # as at the start: plans and modules are known from then on
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for layer in body.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True, backend="aot_eager")
    for some, past in rows:
        batch, prompts = pack(some)
        run(batch.to(meta), None)
        run(batch.to(meta), past)
        with torch.no_grad():
            run(continuation(some, prompts).to(meta), past)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3 * graphs
    torch._dynamo.reset()
