"""Micro-batch size: found by trying, and halved when memory runs out.

Results do not depend on it, so a step that ran out of memory is repeated in smaller micro-batches and nothing else
changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from kto_cli.common.errors import OutOfMemory
from kto_cli.core.batches import pack, pad
from kto_cli.core.rows import TokenSequence
from kto_cli.model.distributed.processes import unwrapped_optimizer
from kto_cli.model.logprobs.micro_batch_size import SMALLEST, default_token_budget
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.tokens.store import EncodedRows

Result = TypeVar("Result")

LARGEST_ON_GPU = 131072
"""Most tokens tried on a GPU; on a CPU, which does not report that memory is full, the default is the most."""
LEAST_GAIN = 0.03
"""Gain in tokens per second, as a share, below which twice the tokens are not worth it."""
MARGIN = 0.1
"""Share of a GPU's memory that stays free, because micro-batches differ."""
STATE_BYTES = 12
"""Optimizer state of a trained parameter at most; it does not exist yet during the search."""


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


def choose_token_budget(scorer: CompletionScorer, rows: EncodedRows, accelerator: Any) -> int:
    """Token budget found with sequences like the longest row; the smallest of all processes."""
    device = accelerator.device
    longest = rows.own[int(rows.own.lengths.argmax())]
    reserved = None
    try:
        if device.type == "cuda":
            trained = sum(parameter.numel() for parameter in scorer.parameters() if parameter.requires_grad)
            spare = int(MARGIN * torch.cuda.get_device_properties(device).total_memory)
            reserved = torch.empty(STATE_BYTES * trained + spare, dtype=torch.uint8, device=device)
        largest = LARGEST_ON_GPU if device.type == "cuda" else default_token_budget(scorer.model.config, device)
        found = find_token_budget(lambda tokens: _seconds(scorer, longest, tokens), largest)
    except torch.OutOfMemoryError:
        found = SMALLEST // 2
    del reserved
    scorer.zero_grad(set_to_none=True)
    _release(device)
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


def within_memory(
    engine: Any,
    work: Callable[[], Result],
    *,
    longest: int,
    say: Callable[[str], None],
    relieve: Callable[[], bool] = lambda: False,
) -> Result:
    """Result of `work`, repeated with half the token budget whenever memory runs out before the update.

    With several processes there is no second try: the others wait inside a collective operation for the one
    that failed, and only ending the launch frees them.

    Args:
        longest: tokens of the longest row in it, which always goes through the model in one piece.
        relieve: called once micro-batches cannot get smaller; reduces the model's memory, if it can.

    Raises:
        OutOfMemory: memory ran out for good; says what to change.
    """
    while True:
        updating: list[bool] = []
        optimizer = unwrapped_optimizer(engine.optimizer)
        hook = optimizer.register_step_pre_hook(lambda *_, flag=updating: flag.append(True))
        try:
            return work()
        except torch.OutOfMemoryError as error:
            smallest = engine.token_budget <= longest
            if updating or engine.accelerator.num_processes > 1 or (smallest and not relieve()):
                raise OutOfMemory(
                    f"Out of memory with micro-batches of {engine.token_budget} tokens (longest row: {longest}).",
                    "Continue with --resume and a smaller --micro-batch-tokens; if one row is too long, start a "
                    "new run with --dtype bfloat16-pure or a smaller --max-length.",
                ) from error
        finally:
            hook.remove()
        # Outside `except`: the error's traceback held on to every tensor of the failed pass.
        engine.optimizer.zero_grad(set_to_none=True)
        _release(engine.accelerator.device)
        failed = f"Out of memory with micro-batches of {engine.token_budget} tokens: repeating the step with"
        if smallest:
            say(f"{failed} gradient checkpointing, from now on.")
            continue
        engine.token_budget //= 2
        say(f"{failed} {engine.token_budget}.")


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
