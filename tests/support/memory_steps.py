"""Models whose memory is predicted, and a real step of each: its peak beside the prediction.

Run as `python tests/support/memory_steps.py NAME TOKENS` by test_memory_need.py: a process of its own, because what
others freed would be used again unseen. Prints both in bytes, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model import base_weights
from kto_cli.model.distributed.processes import wrap
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.lora import add_adapters
from kto_cli.model.memory_need import memory_need
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes
from kto_cli.model.precision import PRECISIONS, keep_float32_gradients
from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.optimizer import make_optimizer
from kto_cli.training.step import TrainingEngine

LENGTH = 256
"""Tokens of a row, half of them its prompt."""


class Case(NamedTuple):
    """A model and how it is trained."""

    kind: str
    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    dtype: str = "float32"
    rank: int | None = None
    checkpointing: str = "off"
    more: tuple[tuple[str, int], ...] = ()
    """Further settings of its config."""


WIDE_HEADS = (("head_dim", 32),)
MIXTURE = (("head_dim", 16), ("moe_intermediate_size", 64), ("num_experts", 8), ("num_experts_per_tok", 2))
CASES = {
    "llama": Case("Llama", 64, 160, 4, 4, 2, 512),
    "llama, autocast": Case("Llama", 64, 160, 4, 4, 2, 512, "bfloat16"),
    "llama, pure": Case("Llama", 64, 160, 4, 4, 2, 512, "bfloat16-pure"),
    "llama, adapters": Case("Llama", 64, 160, 4, 4, 2, 512, rank=4),
    "llama, adapters, autocast": Case("Llama", 64, 160, 4, 4, 2, 512, "bfloat16", rank=4),
    "llama, adapters, pure": Case("Llama", 64, 160, 4, 4, 2, 512, "bfloat16-pure", rank=4),
    "llama, checkpointed": Case("Llama", 64, 160, 4, 4, 2, 512, checkpointing="on"),
    "qwen 3, autocast": Case("Qwen3", 64, 192, 3, 4, 1, 512, "bfloat16", more=WIDE_HEADS),
    "gemma 3, pure": Case("Gemma3", 64, 256, 3, 4, 2, 512, "bfloat16-pure", more=WIDE_HEADS),
    "a mixture of experts, autocast": Case("Qwen3Moe", 64, 160, 3, 4, 2, 512, "bfloat16", more=MIXTURE),
    "29M": Case("Llama", 384, 1536, 12, 6, 6, 2048),
    "SmolLM2-135M, adapters": Case("Llama", 576, 1536, 30, 9, 3, 49152, rank=16),
    "Qwen 2, wide, checkpointed": Case("Qwen2", 896, 4864, 6, 14, 2, 32000, checkpointing="on"),
}


class Made(NamedTuple):
    """A case's scorer, as `kto train` sets it up, and what its memory is predicted from."""

    scorer: CompletionScorer
    sizes: ModelSizes
    options: MemoryOptions


def some_rows(count: int, vocabulary: int) -> list[EncodedRow]:
    """Rows that share nothing."""
    draw = random.Random(0)

    def tokens() -> tuple[int, ...]:
        return tuple(draw.randrange(3, vocabulary) for _ in range(LENGTH // 2))

    rows = []
    for number in range(count):
        prompt = tokens()
        sequences = TokenSequence(prompt, tokens()), TokenSequence(prompt, tokens())
        rows.append(EncodedRow(str(number), number % 2 == 0, *sequences, str(number)))
    return rows


def make(case: Case) -> Made:
    """The sizes are those of a model on the meta device, as the prediction has them."""
    config, precision = TrainConfig(lora_r=case.rank, gradient_checkpointing=case.checkpointing), PRECISIONS[case.dtype]  # type: ignore[arg-type]
    model_config = getattr(transformers, f"{case.kind}{'Text' if case.kind == 'Gemma3' else ''}Config")(
        hidden_size=case.hidden,
        intermediate_size=case.inner,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        num_key_value_heads=case.key_heads,
        vocab_size=case.vocabulary,
        tie_word_embeddings=True,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **dict(case.more)},
    )
    kind = getattr(transformers, f"{case.kind}ForCausalLM")
    with torch.device("meta"):
        sizes = ModelSizes.of(kind(model_config), config.lora_targets if case.rank else None)
    torch.manual_seed(0)
    model = kind(model_config).to(precision.weights).eval()
    if case.rank:
        adapted = add_adapters(model, config, base="made")
        if precision.compute != precision.weights:
            base_weights.narrow_base(adapted, precision.compute, exactly=False)
    scorer = CompletionScorer(model, precision.compute)
    rows = some_rows(4, case.vocabulary)
    scorer.trust_or_fall_back([rows[0].own, rows[1].own, rows[0].mismatched, rows[2].own])
    assert scorer.packs
    if case.checkpointing == "on":
        checkpoint_layers(scorer)
    keep_float32_gradients(scorer)
    return Made(scorer, sizes, MemoryOptions.of(config, precision, gpu=False))


def peak_of_a_step(case: Case, tokens: int) -> tuple[int, int]:
    """(bytes at the peak of a step of two micro-batches, above weights and optimizer state; the prediction)."""
    from benchmarks.process_memory import Memory

    accelerator = start_accelerator()
    made = make(case)
    # Blocks go back to the system when they are freed: kept, they lie between others and the peak is of both.
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD
    ctypes.CDLL(None).mallopt(-1, 1 << 16)  # M_TRIM_THRESHOLD
    optimizer = make_optimizer("adamw", made.scorer.parameters(), learning_rate=0.0, device=accelerator.device)
    wrapped, optimizer = wrap(accelerator, made.scorer, optimizer)
    engine = TrainingEngine(accelerator, wrapped, optimizer, token_budget=tokens, max_grad_norm=1.0)

    def step(count: int) -> None:
        zeros = torch.zeros(count)
        rows = some_rows(count, case.vocabulary)
        engine.step(rows, ReferenceLogps(zeros, zeros), LossSettings(0.1, 1.0, 1.0), learning_rate=0.0)

    step(2)
    memory = Memory()
    step(2 * tokens // LENGTH)
    need = memory_need(made.sizes, made.options, tokens)
    return memory.peak_bytes(), need.total - need.weights - need.optimizer


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    print(json.dumps(peak_of_a_step(CASES[sys.argv[1]], int(sys.argv[2]))))
