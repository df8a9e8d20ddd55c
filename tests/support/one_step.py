"""One float64 optimizer step of a pico model, as one process of a launch; saves what came out.

Run as `torchrun --nproc_per_node N tests/support/one_step.py OUT TOKEN_BUDGET ROWS [SEED]` by test_invariance.py and
test_distributed.py, which also import `take_step` for the one-process cases.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from pico import BUILDERS
from torch import nn

from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.distributed.gathering import full
from kto_cli.model.distributed.processes import is_sharded, to_devices, unwrapped, wrap
from kto_cli.model.layers import checkpoint_layers
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.lora import add_adapters
from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.offline_ppo_step import add_value_head
from kto_cli.training.setup import engine_for
from kto_cli.training.step import TrainingEngine

VOCABULARY = 50
SETTINGS = LossSettings(beta=0.1, lambda_d=1.0, lambda_u=1.33)
LEARNING_RATE = 1e-3


def pico_model(*, tied: bool = False) -> Any:
    """A Llama with weights large enough that every part matters, in float64.

    Its own norms compute in float32 whatever the model's dtype, so that a last bit may become 1e-8; torch's do not.
    """
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    extra = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "tie_word_embeddings": tied}
    model = BUILDERS["llama"](**sizes, **extra)
    for layer in model.model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = (nn.RMSNorm(16, eps=1e-6) for _ in range(2))
    model.model.norm = nn.RMSNorm(16, eps=1e-6)
    return model.double().eval()


def with_adapters(model: Any) -> Any:
    """LoRA on all its linear layers, with weights that change its output: all that learns, in float64."""
    config = TrainConfig(lora_r=2)
    adapted = add_adapters(model, config, base="pico")
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapted.double()


def learning(model: Any) -> dict[str, Any]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def some_rows(count: int) -> list[EncodedRow]:
    """Rows of ragged lengths, two or three of a prompt; every third is desirable."""
    draw = random.Random(1)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    rows = []
    prompts = [tokens(1, 12) for _ in range((count + 1) // 2)]
    for number in range(count):
        prompt = prompts[number * 3 // 7]
        own, borrowed = TokenSequence(prompt, tokens(1, 20)), TokenSequence(prompt, tokens(1, 20))
        rows.append(EncodedRow(str(number), number % 3 == 0, own, borrowed, str(number * 3 // 7)))
    return rows


def paired_rows(count: int) -> list[EncodedRow]:
    """Pairs of a desirable and an undesirable row of one prompt, in mixed order."""
    draw = random.Random(9)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    rows = []
    for number in range(count):
        pair = number // 2
        prompt = tokens(1, 12) if number % 2 == 0 else rows[-1].own.prompt
        own, borrowed = TokenSequence(prompt, tokens(1, 9)), TokenSequence(prompt, tokens(1, 9))
        rows.append(EncodedRow(str(number), number % 2 == pair % 2, own, borrowed, str(pair), f"pair {pair}"))
    draw.shuffle(rows)
    return rows


def tree_rows(count: int, seed: int) -> list[EncodedRow]:
    """Rows whose prompts continue one another up to five deep, as the turns of conversations behind a system prompt do.

    Completions begin like the prompts behind theirs, or like each other, or are equal.
    """
    draw = random.Random(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    paths: list[tuple[tuple[int, ...], ...]] = [(tokens(1, 9),)]
    for _ in range(count // 2):
        parent = draw.choice([path for path in paths if len(path) < 5])
        paths.append((*parent, tokens(1, 6)))
    pool = [tokens(1, 12) for _ in range(4)] + [path[-1] for path in paths]

    def completion() -> tuple[int, ...]:
        return draw.choice(pool) + tokens(0, 5)

    rows = []
    for number in range(count):
        prompt = sum(draw.choice(paths), ())
        own, borrowed = (TokenSequence(prompt, completion()) for _ in range(2))
        rows.append(EncodedRow(str(number), number % 3 == 0, own, borrowed, str(prompt)))
    return rows


def rows_of(count: int, seed: int | None) -> list[EncodedRow]:
    """`some_rows`; with a seed, `tree_rows`."""
    return some_rows(count) if seed is None else tree_rows(count, seed)


def some_references(count: int) -> ReferenceLogps:
    """Reference log-probs that are not the policy's, so that z_ref and the rewards are not 0."""
    generator = torch.Generator().manual_seed(2)
    own, mismatched = (-40 - 30 * torch.rand(2, count, generator=generator, dtype=torch.float64)).unbind()
    return ReferenceLogps(own, mismatched)


def make_engine(
    token_budget: int,
    *,
    tied: bool = False,
    max_grad_norm: float = 0.0,
    packed: bool = False,
    checkpointing: bool = False,
    lora: bool = False,
    loss: LossSettings = SETTINGS,
) -> tuple[Any, Any, TrainingEngine]:
    """The pico model, its optimizer, and an engine that drives them; of offline PPO a value head too."""
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    model = pico_model(tied=tied)
    if lora:
        with_adapters(model)
    scorer = to_devices(CompletionScorer(model), accelerator)
    if packed:
        checked = scorer.trust_or_fall_back([row.own for row in some_rows(6)])
        assert scorer.packs, checked.unpacked
    if checkpointing:
        assert checkpoint_layers(scorer) == 2
    optimizer = torch.optim.AdamW(learning(scorer).values(), lr=1.0, weight_decay=0.0)
    if loss.kind.per_token:
        add_value_head(scorer, optimizer, seed=0)
        scorer.value_head.double()
    wrapped, prepared = wrap(accelerator, scorer, optimizer)
    engine = engine_for(loss)(accelerator, wrapped, prepared, token_budget=token_budget, max_grad_norm=max_grad_norm)
    return model, optimizer, engine


def take_step(
    rows: list[EncodedRow],
    references: ReferenceLogps,
    *,
    token_budget: int,
    loss: LossSettings = SETTINGS,
    **switches: Any,
) -> dict[str, torch.Tensor]:
    """The optimizer's first moment after one step is (1 - beta1) times the (clipped) gradient."""
    model, optimizer, engine = make_engine(token_budget, loss=loss, **switches)
    output = engine.step(rows, references, loss, learning_rate=LEARNING_RATE)
    head = unwrapped(engine.scorer).value_head
    learned = learning(model) | ({f"value_head.{at}": each for at, each in learning(head).items()} if head else {})
    named = {f"weight.{name}": full(value.detach()).clone() for name, value in learning(model).items()}
    named["sharded"] = torch.tensor(is_sharded(engine.scorer))
    named |= {
        f"gradient.{name}": full(optimizer.state[parameter]["exp_avg"]).clone() / (1 - 0.9)
        for name, parameter in learned.items()
    }
    return {
        **named,
        **{
            f"measured.{name}": torch.tensor(number, dtype=torch.float64)
            for name, number in (output.measured or {}).items()
        },
        "log_ratios": output.log_ratios,
        "mismatched": output.mismatched_log_ratios,
        "norm": torch.tensor(output.gradient_norm, dtype=torch.float64),
    }


CASES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tied": True},
    "clipped": {"tied": True, "max_grad_norm": 0.1},
    "packed": {"packed": True},
    "packed, one pass": {"packed": True, "token_budget": 10_000},
    "checkpointing": {"checkpointing": True},
    "lora": {"lora": True},
    "all": {"packed": True, "token_budget": 10_000, "checkpointing": True, "lora": True, "tied": True},
}
"""What a launch tries, one after the other: its start takes longer than they do."""

if __name__ == "__main__":
    out, budget, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if sys.argv[4:] == ["losses"]:
        folder = Path(out).parent
        asked = json.loads((folder / "asked.json").read_text())
        references = ReferenceLogps(*torch.load(folder / "references.pt", weights_only=False))
        results = {
            name: take_step(
                paired_rows(count), references, token_budget=budget, packed=True, loss=LossSettings(**chosen)
            )
            for name, chosen in asked.items()
        }
        torch.save(results, f"{out}.{os.environ.get('RANK', '0')}")
        sys.exit()
    inputs = rows_of(count, int(sys.argv[4]) if len(sys.argv) > 4 else None), some_references(count)
    results = {name: take_step(*inputs, **{"token_budget": budget, **case}) for name, case in CASES.items()}
    torch.save(results, f"{out}.{os.environ.get('RANK', '0')}")
