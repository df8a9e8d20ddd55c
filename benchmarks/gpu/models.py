"""Random models and rows, and a step as `kto train` takes it."""

from __future__ import annotations

import functools
import math
import os
import random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.timing import device
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.distributed.processes import unwrapped_optimizer, wrap
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.layers import checkpoint_layers, compile_layers
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.precision import keep_float32_gradients
from kto_cli.model.rounded_weights import RoundedWeights, rounded_weights
from kto_cli.model.scorer import CompletionScorer, ScorerCheck
from kto_cli.model.stored_dtypes import StoredDtypes
from kto_cli.training.offline_ppo_step import add_value_head
from kto_cli.training.optimizer import make_optimizer
from kto_cli.training.setup import engine_for
from kto_cli.training.step import StepOutput, TrainingEngine

TINY = os.environ.get("KTO_GPU_CHECK_TINY") == "1"
"""Every model has the smallest sizes: the checks themselves are tried, on any machine."""
LOSS = LossSettings(beta=0.1, lambda_d=1.0, lambda_u=1.0)
SIZES: dict[str, tuple[int, int, int, int, int, int]] = {
    # vocabulary, hidden, intermediate, layers, heads, key-value heads
    "tiny": (512, 64, 128, 2, 8, 2),
    "small": (2048, 256, 512, 4, 8, 2),
    "mid": (32000, 1024, 4096, 8, 16, 4),
    "1B": (128256, 2048, 8192, 16, 32, 8),
    "8B": (128256, 4096, 14336, 32, 32, 8),
}
CONTEXT = 4096


def sizes(name: str) -> dict[str, Any]:
    """LlamaConfig's sizes of a model; with `TINY` those of the smallest."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    values = SIZES["tiny" if TINY else name]
    return dict(zip((*names, "num_key_value_heads"), values, strict=True)) | {"tie_word_embeddings": name != "8B"}


def llama(name: str, dtype: torch.dtype = torch.float32, where: torch.device | str | None = None) -> Any:
    """Random weights, the same each time, made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(where or device()):
            model = LlamaForCausalLM(LlamaConfig(**sizes(name), max_position_embeddings=CONTEXT))
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def rows_of(count: int, seed: int, *, prompt: int = 75, completion: int = 65, most: int = 512) -> list[EncodedRow]:
    """`count` rows, a pair to a prompt, lengths spread as those of chats (log-normal)."""
    draw = random.Random(seed)

    def tokens(mean: int) -> tuple[int, ...]:
        length = max(2, min(most // 2, round(draw.lognormvariate(math.log(mean) - 0.25, 0.7))))
        return tuple(draw.randrange(3, 500) for _ in range(length))

    prompts = [tokens(prompt) for _ in range((count + 1) // 2)]
    completions = [tokens(completion) for _ in range(count)]
    return [
        EncodedRow(
            str(index),
            index % 2 == 0,
            TokenSequence(prompts[index // 2], completions[index]),
            TokenSequence(prompts[index // 2], completions[(index + 7) % count]),
            str(index // 2),
            str(index // 2),
        )
        for index in range(count)
    ]


class Way(NamedTuple):
    """How steps are computed."""

    dtype: torch.dtype = torch.bfloat16
    """Of matrix products."""
    budget: int = 16384
    """Tokens of a micro-batch."""
    packed: bool = True
    walk: bool = False
    """One attention call a segment, as on a CPU, in place of one a layer."""
    checkpointed: bool = False
    compiled: bool = False
    rounded: bool = False
    """The model's weights are those of a bfloat16 model: products take them rounded at random."""


class Made(NamedTuple):
    """An engine, and what its scorer's start-up check found."""

    engine: TrainingEngine
    scorer: CompletionScorer
    checked: ScorerCheck

    @property
    def said(self) -> dict[str, Any]:
        """What a check reports of it."""
        packs = self.scorer.packs
        return {"packs": packs, "unpacked": self.checked.unpacked, "attention": getattr(self.checked, "attention", "")}


@functools.cache
def accelerator() -> Any:
    """Started once a process, as kto's commands start."""
    return start_accelerator()


def make_engine(model: Any, way: Way, rows: list[EncodedRow], loss: LossSettings = LOSS) -> Made:
    """As `kto train` makes it: scorer checked, layers changed, optimizer, value head, accelerate's wrapping."""
    where = accelerator()
    where.free_memory()  # it keeps what it has wrapped
    scorer = CompletionScorer(model, way.dtype).to(where.device)
    order = sorted(rows, key=lambda row: row.own.length)
    checked = scorer.trust_or_fall_back([order[0].own, order[1].own, order[0].mismatched, order[-1].own])
    if not way.packed:
        scorer.packing = None
    if way.walk and scorer.packing is not None:
        scorer.packing.fast = False
    if way.compiled:
        compile_layers(scorer)
    if way.checkpointed:
        checkpoint_layers(scorer)
    keep_float32_gradients(scorer)
    optimizer = make_optimizer("adamw", scorer.parameters(), learning_rate=0.0, device=where.device)
    if loss.kind.per_token:
        add_value_head(scorer, optimizer, seed=0)
        scorer.value_head.to(torch.promote_types(way.dtype, torch.float32))
    wrapped, optimizer = wrap(where, scorer, optimizer)
    engine = engine_for(loss)(
        where, wrapped, optimizer, token_budget=way.budget, max_grad_norm=1.0, rounded=rounded_of(model, way)
    )
    return Made(engine, scorer, checked)


def rounded_of(model: Any, way: Way) -> RoundedWeights:
    """The model's linear layers, its weights made such as bfloat16 holds; or none."""
    if not way.rounded:
        return RoundedWeights()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return rounded_weights(model, way.dtype, StoredDtypes(torch.bfloat16, {}), seed=0)


def step(
    engine: TrainingEngine,
    rows: list[EncodedRow],
    references: ReferenceLogps | None = None,
    rate: float = 0.0,
    loss: LossSettings = LOSS,
) -> StepOutput:
    """One step; at a rate of 0 the weights stay."""
    zeros = torch.zeros(len(rows))
    return engine.step(rows, references or ReferenceLogps(zeros, zeros), loss, learning_rate=rate)


def step_with_gradient(
    engine: TrainingEngine,
    rows: list[EncodedRow],
    references: ReferenceLogps | None = None,
    loss: LossSettings = LOSS,
) -> tuple[StepOutput, Tensor]:
    """A step, and its gradient before clipping as one float32 vector on the CPU."""
    caught: list[Tensor] = []
    inner = unwrapped_optimizer(engine.optimizer)

    def catch(*_: Any) -> None:
        parameters = [each for group in inner.param_groups for each in group["params"] if each.grad is not None]
        caught.append(torch.cat([each.grad.detach().float().flatten().cpu() for each in parameters]))

    hook = inner.register_step_pre_hook(catch)
    try:
        output = step(engine, rows, references, loss=loss)
    finally:
        hook.remove()
    return output, caught[0] * max(1.0, output.gradient_norm)
