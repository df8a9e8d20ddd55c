"""Deterministic algorithms: the same bits on every run, needed to resume bit for bit.

torch can prefer them, and warn of an operation that has none, or require them, and raise. The backward passes of flash
and memory-efficient attention are deterministic only where that is required, so it is while they run. Training and
the reference pass require it if the model's operations allow it; generating answers does not: cumulative sums of floats
have no deterministic version on GPUs.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.screen import Screen
from kto_cli.core.batches import pack, pad
from kto_cli.core.rows import TokenSequence

NONE = re.compile(r"(\S+) does not have a deterministic implementation")
"""torch's words, in its warning and in its error."""


def prefer_determinism() -> None:
    """Deterministic algorithms wherever torch has them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def require_determinism(scorer: Any, sequences: Sequence[TokenSequence], screen: Screen) -> None:
    """Requires deterministic algorithms if a forward and backward pass over some sequences has them, else says so.

    The pass runs while torch only warns: an error in the middle of a backward pass would leave a sharded model in it.
    """
    prefer_determinism()
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        _pass_over(scorer, sequences)
    lacking = {found[1] for warning in raised if (found := NONE.search(str(warning.message)))}
    if lacking:
        screen.warn(
            f"No deterministic version of {', '.join(sorted(lacking))} on this device: two runs, or a resumed one, are "
            "equal up to rounding, not bit for bit."
        )
    else:
        torch.use_deterministic_algorithms(True)


@contextlib.contextmanager
def required_if_preferred() -> Iterator[None]:
    """Requires deterministic algorithms while operations run that have them, where they are only preferred."""
    if torch.compiler.is_compiling() or not torch.is_deterministic_algorithms_warn_only_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def _pass_over(scorer: Any, sequences: Sequence[TokenSequence]) -> None:
    """One forward pass, and the backward one if anything is trained; each gradient is freed as soon as it is there."""

    def free(parameter: Tensor) -> None:
        parameter.grad = None

    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(free) for parameter in trained]
    try:
        batch = pack(sequences)[0] if scorer.packs else pad(sequences)
        logps = scorer(*batch.to(next(scorer.parameters()).device))
        if logps.requires_grad:
            logps.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
        scorer.zero_grad(set_to_none=True)
