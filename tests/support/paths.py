"""Packed batches of random conversations, and attention over them as a softmax over each token's own path."""

from __future__ import annotations

import random

import torch
from hypothesis import strategies
from torch import Tensor

from kto_cli.core.batches import Batch
from kto_cli.core.rows import TokenSequence

HEADS, KEY_HEADS, WIDTH = 4, 2, 8


def conversations(seed: int) -> list[TokenSequence]:
    """Up to 12 rows, each prompt new, repeated, or a continuation of another row; paths of up to 5 turns."""
    draw = random.Random(seed)

    def tokens() -> tuple[int, ...]:
        return tuple(draw.randint(1, 3) for _ in range(draw.randint(1, 7)))

    some = [TokenSequence(tokens(), tokens())]
    for _ in range(draw.randint(0, 11)):
        prompt, completion = draw.choice(some)
        root = draw.choice([(), prompt, prompt + completion])
        some.append(TokenSequence(root + tokens() if draw.random() < 0.7 or not root else root, tokens()))
    return some


@strategies.composite
def tries(draw: strategies.DrawFn) -> list[TokenSequence]:
    """Up to 10 rows over a few token ids: below another row's prompt, below its answer, or from a new root."""
    tokens = strategies.lists(strategies.integers(1, 3), min_size=1, max_size=5).map(tuple)
    some = [TokenSequence(draw(tokens), draw(tokens))]
    for _ in range(draw(strategies.integers(0, 9))):
        prompt, completion = draw(strategies.sampled_from(some))
        root = draw(strategies.sampled_from([(), prompt, prompt + completion]))
        some.append(TokenSequence(root + draw(tokens), draw(tokens)))
    return some


def heads(tokens: int, count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, count, tokens, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def operands(batch: Batch, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values of a batch, [1, heads, tokens, width]."""
    tokens = batch.input_ids.numel()
    counts = (HEADS, KEY_HEADS, KEY_HEADS)
    return [heads(tokens, count, 3 * seed + index, dtype) for index, count in enumerate(counts)]


def naive(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    batch: Batch,
    past: tuple[Tensor, Tensor] | None = None,
    window: int | None = None,
) -> Tensor:
    """One token at a time: softmax over its path, or over the last `window` tokens of it."""
    outputs = []
    for start, stop, prefix in batch.layout.segments:
        for token in range(start, stop):
            paths = []
            for own, before in zip((key, value), past or (key, value), strict=True):
                path = [(before if span.past else own)[:, :, span.start : span.stop] for span in prefix]
                path = torch.cat([*path, own[:, :, start : token + 1]], 2)[:, :, -(window or 0) :]
                paths.append(path.repeat_interleave(HEADS // KEY_HEADS, 1))
            weights = (query[:, :, token : token + 1] @ paths[0].transpose(2, 3) * WIDTH**-0.5).softmax(-1)
            outputs.append(weights @ paths[1])
    return torch.cat(outputs, 2)
