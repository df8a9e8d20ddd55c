"""Piece sizes of the batch plan: how many rows of one prompt and of one conversation are placed together, against what
that does to a batch.

    python benchmarks/pieces.py              # made group sizes, batches of 32
    python benchmarks/pieces.py --json

For each piece size: distinct prompts in a batch (mean and least), `effective` prompts (rows squared over the sum of
squared rows of a prompt: what is left for z_ref where rows of one prompt agree entirely), the tokens of a step for
prompts of 120 and completions of 80 tokens as a share of those without sharing, and the mean share of the peak
learning rate that rows of the rarest and of the most frequent prompts get (linear schedule, 10 % warm-up).
For conversations of rated turns, one row a turn, the same of conversations, with 60 tokens of a question and 80 of an
answer; each turn's prompt is all before it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from random import Random
from statistics import mean
from typing import Any

from kto_cli.core import pieces, plan

PIECES = (1, 2, 4, 8, 16, 10**6)
BATCH, EPOCHS = 32, 8
PROMPT_TOKENS, COMPLETION_TOKENS, TURN_TOKENS = 120, 80, 60


def main() -> None:
    """Prints a table for each shape of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = [measured(name, sizes, share, piece) for name, sizes, share in shapes() for piece in PIECES]
    found += [measured_turns(name, turns, piece) for name, turns in conversations() for piece in PIECES]
    if options.json:
        print(json.dumps(found))
        return
    for line in found:
        piece = "all" if line["piece"] == PIECES[-1] else line["piece"]
        print(
            f"{line['shape']:<44} {piece:>4}  {line['distinct']:5.1f} (least {line['least']:2.0f})  effective "
            f"{line['effective']:5.1f} (least {line['least_effective']:4.1f})  tokens {line['tokens']:.2f}  "
            f"rate {line['rate_rare']:.2f} / {line['rate_frequent']:.2f}"
        )


def shapes() -> Iterator[tuple[str, list[int], float]]:
    """Yields (name, rows of each prompt, share of desirable rows); half and half at random unless said."""
    random = Random(0)
    yield "pairs (hh-rlhf)", [2] * 4000, 0.0
    yield "4 answers a prompt (UltraFeedback)", [4] * 2000, 0.35
    yield "1 to 6 answers a prompt", [random.randint(1, 6) for _ in range(2000)], 0.5
    yield "2 to 60, heavy tail (SHP)", [min(60, 2 + int(random.paretovariate(1.1))) for _ in range(1200)], 0.5
    yield "3 questions asked 300 times, 1000 asked once", [300] * 3 + [1] * 1000, 0.5


def conversations() -> Iterator[tuple[str, list[int]]]:
    """Yields (name, rated turns of each conversation)."""
    random = Random(0)
    yield "5 rated turns a conversation", [5] * 1000
    yield "1 to 12 rated turns a conversation", [random.randint(1, 12) for _ in range(800)]


def measured_turns(name: str, turns: list[int], piece: int) -> dict[str, Any]:
    """Numbers of conversations with so many turns, placed in pieces of `piece` rows."""
    random = Random(1)
    of = [conversation for conversation, count in enumerate(turns) for _ in range(count)]
    depths = [turn for count in turns for turn in range(count)]
    labels = [random.random() < 0.5 for _ in of]
    pieces.CONVERSATION_PIECE = piece
    found, shared, apart = [], 0, 0
    rates: dict[int, list[float]] = {size: [] for size in set(turns)}
    for epoch in range(EPOCHS):
        batches = plan.plan_epoch(labels, list(range(len(of))), of, batch_size=BATCH, seed=0, epoch=epoch)
        for step, batch in enumerate(batches):
            found.append(Counter(of[row] for row in batch))
            apart += sum((depths[row] + 1) * (TURN_TOKENS + COMPLETION_TOKENS) for row in batch)
            deepest = {of[row]: 0 for row in batch}
            for row in batch:
                deepest[of[row]] = max(deepest[of[row]], depths[row])
            shared += sum((depth + 1) * TURN_TOKENS + depth * COMPLETION_TOKENS for depth in deepest.values())
            shared += COMPLETION_TOKENS * sum(depths[row] == deepest[of[row]] for row in batch)
            rate = plan.learning_rate_share(step, total=len(batches), warmup=0.1, schedule="linear")
            for row in batch:
                rates[turns[of[row]]].append(rate)
    pieces.CONVERSATION_PIECE = 8
    return numbers(name, piece, found, shared / apart, rates)


def measured(name: str, sizes: list[int], share: float, piece: int) -> dict[str, Any]:
    """Numbers of one shape and piece size, over some epochs. A share of 0 means pairs: one row of each class."""
    random = Random(1)
    prompts = [prompt for prompt, size in enumerate(sizes) for _ in range(size)]
    labels = [random.random() < share if share else row % 2 == 0 for row in range(len(prompts))]
    pieces.PIECE = piece
    found, rates = [], {size: [] for size in set(sizes)}
    for epoch in range(EPOCHS):
        batches = plan.plan_epoch(labels, prompts, batch_size=BATCH, seed=0, epoch=epoch)
        for step, batch in enumerate(batches):
            counts = Counter(prompts[row] for row in batch)
            found.append(counts)
            rate = plan.learning_rate_share(step, total=len(batches), warmup=0.1, schedule="linear")
            for prompt, count in counts.items():
                rates[sizes[prompt]] += [rate] * count
    rows, prompt_total = EPOCHS * len(prompts), sum(map(len, found))
    shared = prompt_total * PROMPT_TOKENS + rows * COMPLETION_TOKENS
    pieces.PIECE = 4
    return numbers(name, piece, found, shared / (rows * (PROMPT_TOKENS + COMPLETION_TOKENS)), rates)


def numbers(
    name: str, piece: int, batches: list[Counter[int]], tokens: float, rates: dict[int, list[float]]
) -> dict[str, Any]:
    """A line of the table, from the rows of each prompt or conversation in each batch."""
    distinct = [len(counts) for counts in batches]
    effective = [counts.total() ** 2 / sum(count * count for count in counts.values()) for counts in batches]
    return {
        "shape": name,
        "piece": piece,
        "distinct": mean(distinct),
        "least": min(distinct),
        "effective": mean(effective),
        "least_effective": min(effective),
        "tokens": tokens,
        "rate_rare": mean(rates[min(rates)]),
        "rate_frequent": mean(rates[max(rates)]),
    }


if __name__ == "__main__":
    main()
