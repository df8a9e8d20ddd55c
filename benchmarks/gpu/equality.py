"""Every way of computing a step, against one row at a time in float64 on the CPU."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import LOSS, TINY, Way, llama, make_engine, rows_of, step, step_with_gradient
from benchmarks.gpu.timing import device
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model import lora
from kto_cli.model.load import load_model
from kto_cli.model.logprobs.reference import ReferenceLogps

WAYS = {
    "float32": Way(torch.float32),
    "float32, padded": Way(torch.float32, packed=False),
    "float32, a call a segment": Way(torch.float32, walk=True),
    "float32, checkpointed": Way(torch.float32, checkpointed=True),
    "float32, micro-batches of 300": Way(torch.float32, budget=300),
    "bfloat16": Way(),
    "bfloat16, padded": Way(packed=False),
    "bfloat16, a call a segment": Way(walk=True),
    "bfloat16, checkpointed": Way(checkpointed=True),
    "bfloat16, micro-batches of 300": Way(budget=300),
    "bfloat16, compiled": Way(compiled=True),
    "bfloat16, compiled and checkpointed": Way(compiled=True, checkpointed=True),
}
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Relative error of the gradient."""


class Exact(NamedTuple):
    """A step in float64."""

    log_ratios: Tensor
    mismatched: Tensor
    gradient: Tensor


def run() -> None:
    """All ways, then weights in bfloat16, adapters, and 4-bit weights."""
    rows = rows_of(8 if TINY else 16, 1, prompt=40, completion=35)
    before, moved = weights()
    references = ReferenceLogps(
        *(logps(before, [getattr(row, kind) for row in rows]) for kind in ("own", "mismatched"))
    )
    exact: Exact | None = None
    with check("one row at a time, float64, CPU") as found:
        exact = naive(moved, rows, references)
        found |= {"norm": exact.gradient.norm().item(), "mismatched_mean": exact.mismatched.mean().item()}
    if exact is None:
        return
    for name, way in WAYS.items():
        if not (way.compiled and device().type == "cpu"):
            compare(f"step: {name}", moved, way, rows, references, exact, torch.float32)
    compare("step: bfloat16 weights", moved, Way(), rows, references, exact, torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        adapters(moved, dtype, rows, references)
    four_bits(moved, rows, references)


def weights() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the reference and of the policy, which float32 can hold."""
    model = llama("small", torch.float32, "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return before, {name: value.clone() for name, value in model.state_dict().items()}


def with_weights(values: dict[str, Tensor], dtype: torch.dtype, where: Any = None) -> Any:
    """A model with these weights."""
    model = llama("small", dtype, where)
    model.load_state_dict(values)
    return model


def logp(model: Any, sequence: TokenSequence) -> Tensor:
    """Summed log-prob of a completion, by the full softmax."""
    ids = torch.tensor([[*sequence.prompt, *sequence.completion]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(sequence.prompt) - 1 : -1]
    return logits.double().log_softmax(-1).gather(-1, ids[0, len(sequence.prompt) :, None]).sum()


def logps(values: dict[str, Tensor], sequences: list[TokenSequence]) -> Tensor:
    """[sequences] in float64 on the CPU."""
    model = with_weights(values, torch.float64, "cpu")
    with torch.no_grad():
        return torch.stack([logp(model, sequence) for sequence in sequences])


def naive(values: dict[str, Tensor], rows: list[EncodedRow], references: ReferenceLogps) -> Exact:
    """The step of Eq. 7 and 8, one row after the other."""
    model = with_weights(values, torch.float64, "cpu")
    with torch.no_grad():
        mismatched = torch.stack([logp(model, row.mismatched) for row in rows]) - references.mismatched
    z_ref, ratios = mismatched.mean().clamp(min=0), []
    for row, reference in zip(rows, references.own, strict=True):
        ratio = logp(model, row.own) - reference
        sign = 1 if row.label else -1
        ((1 - torch.sigmoid(LOSS.beta * sign * (ratio - z_ref))) / len(rows)).backward()
        ratios.append(ratio.detach())
    return Exact(torch.stack(ratios), mismatched, torch.cat([each.grad.flatten() for each in model.parameters()]))


def compare(
    name: str,
    values: dict[str, Tensor],
    way: Way,
    rows: list[EncodedRow],
    references: ReferenceLogps,
    exact: Exact,
    held: torch.dtype,
) -> None:
    """A step in one way; `held` is the dtype of its weights."""
    with check(name) as found:
        made = make_engine(with_weights(values, torch.float32).to(held), way, rows)
        output, gradient = step_with_gradient(made.engine, rows, references)
        error = (gradient.double() - exact.gradient).norm() / exact.gradient.norm()
        found |= made.said | {
            "log_ratio_max_error": (output.log_ratios.double() - exact.log_ratios).abs().max().item(),
            "mismatched_max_error": (output.mismatched_log_ratios.double() - exact.mismatched).abs().max().item(),
            "gradient_relative_error": error.item(),
        }
        found["ok"] = error.item() < LIMITS[way.dtype] and made.scorer.packs == way.packed


def adapters(values: dict[str, Tensor], dtype: torch.dtype, rows: list[EncodedRow], references: ReferenceLogps) -> None:
    """Adapters learn, and without them the model is the reference again."""
    with check(f"LoRA, {str(dtype).removeprefix('torch.')}") as found:
        adapted = lora.add_adapters(with_weights(values, torch.float32), TrainConfig(lora_r=8), base="small")
        engine = make_engine(adapted.get_base_model(), Way(dtype), rows).engine
        before = step(engine, rows, references).log_ratios
        for _ in range(3):
            step(engine, rows, references, rate=1e-2)
        found["moved"] = (step(engine, rows, references).log_ratios - before).abs().max().item()
        with lora.as_reference(adapted):
            again = engine.log_probs([row.own for row in rows]) - references.own
        found["off_again"] = (again - before).abs().max().item()
        found["ok"] = found["moved"] > 10 * max(found["off_again"], 1e-6)


def four_bits(values: dict[str, Tensor], rows: list[EncodedRow], references: ReferenceLogps) -> None:
    """Packed and padded batches of a 4-bit model give one gradient."""
    with check("4-bit weights, packed against padded") as found:
        if importlib.util.find_spec("bitsandbytes") is None:
            found |= {"ok": None, "why": "bitsandbytes is not installed"}
            return
        gradients = []
        with tempfile.TemporaryDirectory() as folder:
            with_weights(values, torch.float32, "cpu").save_pretrained(folder)
            model = load_model(Path(folder), in_4bit=torch.bfloat16)
        adapted = lora.add_adapters(model, TrainConfig(lora_r=8, load_in_4bit=True), base="small")
        for packed in (True, False):
            made = make_engine(adapted.get_base_model(), Way(packed=packed), rows)
            gradients.append(step_with_gradient(made.engine, rows, references)[1])
            found[f"packed {packed}"] = made.said
        found["relative_difference"] = ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()
        found["ok"] = found["relative_difference"] < LIMITS[torch.bfloat16]
