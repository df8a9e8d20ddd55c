"""One float64 optimizer step of a pico model, as one process of a launch; saves what came out.

Run as `accelerate launch --num_processes N tests/one_step.py OUT TOKEN_BUDGET ROWS` by test_invariance.py, which also
imports `take_step` for the one-process cases.
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
from kto_cli.engine import Engine, References
from kto_cli.scoring import CompletionScorer

VOCABULARY = 50
SETTINGS = {"beta": 0.1, "lambda_d": 1.0, "lambda_u": 1.33}
LEARNING_RATE = 1e-3


def pico_model() -> Any:
    """A Llama with weights large enough that every part matters, in float64."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1}
    return BUILDERS["llama"](**sizes, vocab_size=VOCABULARY, initializer_range=0.3).double().eval()


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


def make_engine(token_budget: int) -> tuple[Any, Any, Engine]:
    """The pico model, its optimizer, and an engine that drives them."""
    accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
    model = pico_model()
    scorer = CompletionScorer(model)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=1.0, weight_decay=0.0)
    wrapped, prepared = accelerator.prepare(scorer, optimizer)
    return model, optimizer, Engine(accelerator, wrapped, prepared, token_budget=token_budget, max_grad_norm=0.0)


def take_step(rows: list[EncodedRow], references: References, *, token_budget: int) -> dict[str, torch.Tensor]:
    """The optimizer's first moment after one step is (1 - beta1) times the gradient."""
    model, optimizer, engine = make_engine(token_budget)
    output = engine.step(rows, references, learning_rate=LEARNING_RATE, **SETTINGS)
    named = {f"weight.{name}": value.detach().clone() for name, value in model.named_parameters()}
    moments = [optimizer.state[parameter]["exp_avg"] for parameter in model.parameters()]
    named |= {
        f"gradient.{name}": moment.clone() / (1 - 0.9)
        for (name, _), moment in zip(model.named_parameters(), moments, strict=True)
    }
    return {
        **named,
        "log_ratios": output.log_ratios,
        "mismatched": output.mismatched_log_ratios,
        "norm": torch.tensor(output.gradient_norm, dtype=torch.float64),
    }


if __name__ == "__main__":
    out, budget, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    result = take_step(some_rows(count), some_references(count), token_budget=budget)
    torch.save(result, f"{out}.{os.environ.get('RANK', '0')}")
