"""One float64 optimizer step of a pico model, as one process of a launch; saves what came out.

Run as `accelerate launch --num_processes N tests/one_step.py OUT TOKEN_BUDGET ROWS` by test_invariance.py and
test_distributed.py, which also import `take_step` for the one-process cases.
"""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from pico import BUILDERS

from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.distributed import is_sharded, place, whole, wrap
from kto_cli.engine import Engine, References
from kto_cli.scoring import CompletionScorer

VOCABULARY = 50
SETTINGS = {"beta": 0.1, "lambda_d": 1.0, "lambda_u": 1.33}
LEARNING_RATE = 1e-3


def pico_model(*, tied: bool = False) -> Any:
    """A Llama with weights large enough that every part matters, in float64."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    extra = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "tie_word_embeddings": tied}
    return BUILDERS["llama"](**sizes, **extra).double().eval()


def some_rows(count: int) -> list[EncodedRow]:
    """Rows of ragged lengths; every third is desirable."""
    draw = random.Random(1)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    rows = []
    for number in range(count):
        prompt = tokens(1, 12)
        own, borrowed = TokenSequence(prompt, tokens(1, 20)), TokenSequence(prompt, tokens(1, 20))
        rows.append(EncodedRow(str(number), number % 3 == 0, own, borrowed, str(number)))
    return rows


def some_references(count: int) -> References:
    """Reference log-probs that are not the policy's, so that z_ref and the rewards are not 0."""
    generator = torch.Generator().manual_seed(2)
    own, mismatched = (-40 - 30 * torch.rand(2, count, generator=generator, dtype=torch.float64)).unbind()
    return References(own, mismatched)


def make_engine(token_budget: int, *, tied: bool = False, max_grad_norm: float = 0.0) -> tuple[Any, Any, Engine]:
    """The pico model, its optimizer, and an engine that drives them."""
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    model = pico_model(tied=tied)
    scorer = place(CompletionScorer(model), accelerator)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=1.0, weight_decay=0.0)
    wrapped, prepared = wrap(accelerator, scorer, optimizer)
    engine = Engine(accelerator, wrapped, prepared, token_budget=token_budget, max_grad_norm=max_grad_norm)
    return model, optimizer, engine


def take_step(
    rows: list[EncodedRow],
    references: References,
    *,
    token_budget: int,
    tied: bool = False,
    max_grad_norm: float = 0.0,
) -> dict[str, torch.Tensor]:
    """The optimizer's first moment after one step is (1 - beta1) times the (clipped) gradient."""
    model, optimizer, engine = make_engine(token_budget, tied=tied, max_grad_norm=max_grad_norm)
    output = engine.step(rows, references, learning_rate=LEARNING_RATE, **SETTINGS)
    named = {f"weight.{name}": whole(value.detach()).clone() for name, value in model.named_parameters()}
    named["spread"] = torch.tensor(is_sharded(engine.scorer))
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in model.parameters()]
    named |= {
        f"gradient.{name}": whole(moment).clone() / (1 - 0.9)
        for (name, _), moment in zip(model.named_parameters(), moments, strict=True)
    }
    return {
        **named,
        "log_ratios": output.log_ratios,
        "mismatched": output.mismatched_log_ratios,
        "norm": torch.tensor(output.gradient_norm, dtype=torch.float64),
    }


CASES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tied": True},
    "clipped": {"tied": True, "max_grad_norm": 0.1},
}
"""What a launch tries, one after the other: its start takes longer than they do."""

if __name__ == "__main__":
    out, budget, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    inputs = some_rows(count), some_references(count)
    results = {name: take_step(*inputs, token_budget=budget, **case) for name, case in CASES.items()}
    torch.save(results, f"{out}.{os.environ.get('RANK', '0')}")
