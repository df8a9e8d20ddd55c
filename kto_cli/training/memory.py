"""Memory of training: the micro-batch size found by trying, and a step that ran out of memory done again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from kto_cli.core.batches import pack, pad
from kto_cli.core.rows import TokenSequence
from kto_cli.model.distributed.processes import unwrapped_optimizer
from kto_cli.model.logprobs.micro_batch_size import cpu_token_budget
from kto_cli.model.logprobs.out_of_memory import release, within_memory
from kto_cli.model.memory_need import MARGIN, SMALLEST
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.training.optimizer import state_bytes

Result = TypeVar("Result")

LARGEST_ON_GPU = 131072
"""Most tokens tried on a GPU; on a CPU, which does not report that memory is full, the default is the most."""
LEAST_GAIN = 0.03
"""Gain in tokens per second, as a share, below which twice the tokens are not worth it."""


def find_token_budget(seconds: Callable[[int], float], largest: int) -> int:
    """Number of tokens beyond which a micro-batch gets no faster, or memory runs out.

    Args:
        seconds: time of a forward and backward pass over so many tokens; raises torch.OutOfMemoryError.
    """
    best, best_rate, tokens = 0, 0.0, SMALLEST
    while tokens <= largest:
        try:
            rate = tokens / seconds(tokens)
        except torch.OutOfMemoryError:
            break
        if rate < best_rate * (1 + LEAST_GAIN):
            break
        best, best_rate, tokens = tokens, rate, 2 * tokens
    return best or SMALLEST // 2


def choose_token_budget(scorer: CompletionScorer, rows: EncodedRows, accelerator: Any, optimizer: str) -> int:
    """Token budget found with sequences like the longest row; the smallest of all processes.

    The scorer is as it will be trained: with adapters, checkpointing, compiled layers. Gradients arise while trying;
    the state of the `optimizer` (--optimizer) does not, so room is kept for it.
    """
    device = accelerator.device
    longest = rows.own[int(rows.own.lengths.argmax())]
    reserved = None
    try:
        if device.type == "cuda":
            spare = int(MARGIN * torch.cuda.get_device_properties(device).total_memory)
            state = state_bytes(optimizer, scorer.parameters())
            reserved = torch.empty(state + spare, dtype=torch.uint8, device=device)
        largest = LARGEST_ON_GPU if device.type == "cuda" else cpu_token_budget(scorer.model.config)
        found = find_token_budget(lambda tokens: _seconds(scorer, longest, tokens), largest)
    except torch.OutOfMemoryError:
        found = SMALLEST // 2
    del reserved
    scorer.zero_grad(set_to_none=True)
    release(device)
    return int(accelerator.gather(torch.tensor([found], device=device)).min())


def _seconds(scorer: CompletionScorer, longest: TokenSequence, tokens: int) -> float:
    """Time of the second of two forward and backward passes over so many tokens without shared prompts."""
    device = next(scorer.parameters()).device
    prompt, completion = longest
    # A first token of its own makes each prompt another one; any token id will do.
    distinct = [TokenSequence((turn, *prompt[1:]), completion) for turn in range(max(1, tokens // longest.length))]
    batch = (pack(distinct)[0] if scorer.packs else pad(distinct)).to(device)
    taken = 0.0
    for _ in range(2):
        began = time.perf_counter()
        scorer(*batch).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - began
    return taken * tokens / batch.input_ids.numel()


def step_within_memory(
    engine: Any,
    work: Callable[[], Result],
    *,
    longest: int,
    say: Callable[[str], None],
    relieve: Callable[[], bool] = lambda: False,
) -> Result:
    """`within_memory` for an optimizer step, which is repeated if memory ran out before the update.

    Raises:
        OutOfMemory: memory ran out for good; says what to change.
    """
    updating: list[bool] = []

    def attempt() -> Result:
        engine.optimizer.zero_grad(set_to_none=True)  # what a failed attempt left
        return work()

    with contextlib.ExitStack() as hooks:
        if engine.accelerator.num_processes == 1:
            optimizer = unwrapped_optimizer(engine.optimizer)
            hooks.callback(optimizer.register_step_pre_hook(lambda *_: updating.append(True)).remove)
        return within_memory(
            engine,
            attempt,
            what="the step",
            longest=longest,
            say=say,
            relieve=relieve,
            repeatable=lambda: not updating,
            next_step="Continue with --resume and a smaller --micro-batch-tokens; if one row is too long, start a new "
            "run with --dtype bfloat16-pure or a smaller --max-length.",
        )
