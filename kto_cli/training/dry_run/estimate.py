"""Needs of a run, estimated from sizes known before it starts: pure functions.

Costs are in tokens through the model: a forward pass over a token costs 1, forward and backward 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kto_cli.common.words import readable
from kto_cli.core.packing import even_runs, packed_tokens
from kto_cli.core.prefix_order import lengths_of, prefix_order
from kto_cli.core.rows import TokenSequence

FORWARD, FORWARD_BACKWARD = 1, 3
RECORD_BYTES, FRAME_BYTES = 28, 24
"""Bytes in the reference cache: of a value, and of the frame around the values of a micro-batch."""
TOKENS_BYTES, TOKEN_BYTES = 20, 4
"""The same of the log-probs of single tokens: of a completion, and of each of its tokens."""
METRICS_BYTES = 900
"""Bytes of a line of metrics.jsonl, about."""


@dataclass(frozen=True)
class TokenWork:
    """Tokens that go through the model."""

    own: int
    """Forward and backward."""
    mismatched: int
    """Forward only, by the policy."""
    reference: int
    """Forward only, by the reference: what the cache lacks."""
    validation: int
    """Forward only: validation during the run and at its end."""
    moved: int = 0
    """Forward only, by a reference that has moved."""

    @property
    def step_cost(self) -> int:
        """Of all optimizer steps, in forward tokens."""
        return step_cost(self.own, self.mismatched)

    @property
    def cost(self) -> int:
        """Of everything, in forward tokens."""
        return self.step_cost + FORWARD * (self.reference + self.validation + self.moved)


def step_cost(own: int, mismatched: int) -> int:
    """Cost of a step in forward tokens."""
    return FORWARD_BACKWARD * own + FORWARD * mismatched


def step_tokens(
    own: Sequence[TokenSequence],
    mismatched: Sequence[TokenSequence],
    *,
    token_budget: int,
    packed: bool,
    own_first: bool = False,
) -> tuple[int, int]:
    """Tokens that one step of one process computes: (forward and backward, forward only).

    Packed, a shared prefix counts once a micro-batch; and prompts not again for the mismatched completions, where the
    rows fit into one.

    Args:
        mismatched: none where the loss does not read them.
        own_first: the loss needs the rows' own numbers first, which costs a pass unless they fit into one micro-batch.
    """
    first = forward_tokens(own, token_budget=token_budget, packed=packed)
    one_pass = packed and (first <= token_budget or len(own) == 1)
    if not mismatched:
        return first, first * (own_first and not one_pass)
    if not one_pass:
        return first, forward_tokens(mismatched, token_budget=token_budget, packed=packed)
    pairs = prefix_order(mismatched)
    prompts = [len(mismatched[index].prompt) for index in pairs.indices]
    lengths = zip(pairs.lengths, pairs.common, prompts, strict=True)
    return first, sum(length - max(common, prompt) for length, common, prompt in lengths)


def forward_tokens(sequences: Sequence[TokenSequence], *, token_budget: int, packed: bool) -> int:
    """Tokens that are computed when one process scores sequences."""
    if not packed:
        return sum(lengths_of(sequences)) - len(sequences)
    order = prefix_order(sequences)
    return packed_tokens(order, even_runs(order, token_budget))


def reference_bytes(sequences: int, micro_batches: int) -> int:
    """Bytes of new values in the reference cache."""
    return RECORD_BYTES * sequences + FRAME_BYTES * micro_batches


def token_bytes(sequences: int, tokens: int, micro_batches: int) -> int:
    """Bytes of new log-probs of single tokens there; `tokens` of the completions."""
    return TOKENS_BYTES * sequences + TOKEN_BYTES * tokens + FRAME_BYTES * micro_batches


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that a run will write."""

    reference_cache: int
    checkpoint: int
    """One checkpoint to resume from."""
    checkpoints: int
    """All that lie there at the same time at most: those that are kept and the one being written."""
    checkpoints_kept: int
    """All that stay."""
    model: int
    """The finished model."""
    metrics: int
    best: int
    """The weights of the best step; 0 where none is kept. Another one is written before it is removed."""

    @property
    def out(self) -> int:
        """Most bytes in the output folder at any time."""
        return self.checkpoints + max(self.model + self.best, 2 * self.best) + self.metrics

    @property
    def out_at_end(self) -> int:
        """Bytes in the output folder once the run is finished."""
        return self.checkpoints_kept + self.model + self.metrics


def disk_need(
    *,
    weights: int,
    finished: int,
    optimizer: int,
    tokenizer: int,
    reference: int,
    total_steps: int,
    save_every: int,
    kept: int,
    keep_best: bool,
    moving: int = 0,
) -> DiskNeed:
    """From bytes of the weights in a checkpoint and in the finished model, optimizer state, tokenizer files and new
    cache values; `moving`: of the weights of a reference that moves; `kept`: checkpoints that stay; `keep_best`: the
    best step is kept until the end."""
    checkpoint = weights + optimizer + tokenizer + moving
    saves = (total_steps - 1) // save_every
    return DiskNeed(
        reference_cache=reference,
        checkpoint=checkpoint,
        checkpoints=min(saves, kept + 1) * checkpoint,
        checkpoints_kept=min(saves, kept) * checkpoint,
        model=finished + tokenizer,
        metrics=METRICS_BYTES * total_steps,
        best=(weights + tokenizer) * keep_best,
    )


def eta_seconds(work: TokenWork, *, probed_cost: int, probed_seconds: float) -> float:
    """Time of all of `work` at the speed of the probed steps."""
    return probed_seconds * work.cost / probed_cost


def memory_parts(**parts: int) -> dict[str, int]:
    """Bytes by part, and their sum as `total`."""
    return {**parts, "total": sum(parts.values())}


def problems_of_space(needed: int, free: int, what: str) -> list[str]:
    """A problem to report if something does not fit."""
    if needed <= free:
        return []
    return [f"{what} needs {readable(needed)}, and {readable(free)} are free"]
