"""Work repeated in smaller micro-batches when memory runs out.

Results do not depend on the size of micro-batches, so nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from kto_cli.common.errors import OutOfMemory, is_out_of_memory
from kto_cli.model.logprobs.forward import DistributedScorer

Result = TypeVar("Result")

NEXT_STEP = (
    "Try --dtype bfloat16-pure, or a smaller --max-length, in all commands of this run; with several processes also a "
    "smaller --micro-batch-tokens."
)


def within_memory(
    scorer: DistributedScorer,
    work: Callable[[], Result],
    *,
    what: str,
    longest: int,
    say: Callable[[str], None],
    relieve: Callable[[], bool] = lambda: False,
    repeatable: Callable[[], bool] = lambda: True,
    next_step: str = NEXT_STEP,
) -> Result:
    """Result of `work`, repeated with half the scorer's token budget whenever memory runs out.

    With several processes there is no second try: the others wait inside a collective operation for the one
    that failed, and only ending the launch frees them.

    Args:
        what: names the work: "the step".
        longest: tokens of the longest row in it, which always goes through the model in one piece.
        relieve: called once micro-batches cannot get smaller; reduces the model's memory, if it can.
        repeatable: whether the work that failed can be done again.

    Raises:
        OutOfMemory: memory ran out for good; says what to change.
    """
    while True:
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smallest = scorer.token_budget <= longest
            several = scorer.accelerator.num_processes > 1
            if several or not repeatable() or (smallest and not relieve()):
                raise OutOfMemory(
                    f"Out of memory in {what}, with micro-batches of {scorer.token_budget} tokens (longest row: "
                    f"{longest}).",
                    next_step,
                ) from error
        # Outside `except`: the error's traceback held on to every tensor of the failed pass.
        release(scorer.accelerator.device)
        failed = f"Out of memory with micro-batches of {scorer.token_budget} tokens: repeating {what} with"
        if smallest:
            say(f"{failed} gradient checkpointing, from now on.")
            continue
        scorer.token_budget //= 2
        say(f"{failed} {scorer.token_budget}.")


def release(device: torch.device) -> None:
    """Gives memory that torch holds in reserve back to a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
