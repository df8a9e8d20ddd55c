"""Memory of training from the sizes of a model alone: what every prediction and default of kto is computed with.

Pure functions, compared with the peaks of real steps on a CPU. Nothing here was ever compared with a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

from kto_cli.core.logps import GPU_TILE, TILE
from kto_cli.model.activation_memory import FLOAT32, recomputed_bytes, saved_bytes, working_bytes
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: with a byte for each 64 of them, and a float32 number for each 256 of these."""
STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2 + 2 * 4 / 256, "paged-adamw-8bit": 2 + 2 * 4 / 256, "rmsprop": 4.0}
"""Bytes of optimizer state for a weight, as training/optimizer.py makes it."""
SMALLEST, MOST = 1024, 16384
"""Tokens of a micro-batch that are chosen unasked on a GPU: at least and at most. A step of 32 rows of chat then mostly
fits into one micro-batch."""
MARGIN = 0.1
"""Share of a GPU's memory that stays free: for CUDA itself, blocks between others, and because micro-batches differ."""
GATHERED = 2
"""Layers of a sharded model that are whole at once: one computes while the next one is gathered."""


class MemoryNeed(NamedTuple):
    """Bytes by part at the peak of a step; together no more than a device holds."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    """Weights rounded to the dtype of products, or gathered from other cards, for as long as a pass runs."""
    activations: int
    """Kept by the largest micro-batch for its backward pass."""
    working: int
    """Taken for a moment: by a layer, or by the head (its tile of logits, its weight gradient before it is added)."""
    reference: int = 0
    """A second copy of what is trained, where the reference moves."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


def memory_need(sizes: ModelSizes, options: MemoryOptions, tokens: int) -> MemoryNeed:
    """Bytes at the peak of a step with micro-batches of so many tokens, from the second step on.

    The last of several micro-batches is taken: all gradients are there, while its activations are.
    """
    learning = sizes.adapted * options.rank if options.rank else sizes.total - sizes.frozen
    learning *= options.learns
    copies = _copies(sizes, options)
    # Layers that are computed again narrow their weights again: not all are held.
    held = 0 if options.checkpointed and options.cards == 1 else copies
    return MemoryNeed(
        weights=int(_weights(sizes, options) / options.cards),
        gradients=FLOAT32 * learning // options.cards,
        optimizer=int(STATE_BYTES[options.optimizer] * learning / options.cards),
        reference=(FLOAT32 if options.rank else options.held) * learning // options.cards * options.synced,
        copies=held,
        activations=tokens * saved_bytes(sizes, options),
        working=max(
            copies - held + tokens * working_bytes(sizes, options),
            tokens * (recomputed_bytes(sizes, options) + working_bytes(sizes, options)),
            _head(sizes, options),
        ),
    )


def fitting_tokens(sizes: ModelSizes, options: MemoryOptions, device_bytes: float, *, longest: int = 0) -> int | None:
    """Most tokens of a micro-batch with which a step stays within a device less `MARGIN`: `MOST`, or a half, a quarter
    ... of it, down to `SMALLEST`; None if not even these fit.

    Args:
        longest: tokens of the longest row, which always goes through the model in one piece.
    """
    tokens = MOST
    while tokens >= SMALLEST:
        if memory_need(sizes, options, max(tokens, longest)).total <= (1 - MARGIN) * device_bytes:
            return tokens
        tokens //= 2
    return None


def _weights(sizes: ModelSizes, options: MemoryOptions) -> float:
    """Below adapters linear layers and a head of its own are held as they are multiplied (base_weights.py)."""
    below = options.compute if options.rank else options.held
    head = 0 if sizes.tied else sizes.head
    wide = options.held * (sizes.fused + sizes.other - head)
    adapters = FLOAT32 * sizes.adapted * options.rank
    return (NF4 if options.four_bit else below) * sizes.linear + below * head + wide + adapters


def _copies(sizes: ModelSizes, options: MemoryOptions) -> int:
    narrow = options.compute if options.mixed or options.rank else options.held
    if options.cards > 1:
        # Embeddings and head are whole while the model runs; gradients are summed in float32.
        layer = (sizes.linear + sizes.fused) // sizes.layers
        gathered = GATHERED * layer * narrow + options.held * sizes.other
        return gathered + (FLOAT32 * (layer + sizes.other) if options.full else 0)
    if options.rank or not options.mixed:
        return 0
    return options.compute * sizes.linear  # autocast keeps each weight as it was multiplied until the pass ends


def _head(sizes: ModelSizes, options: MemoryOptions) -> int:
    tile = 2 * FLOAT32 * (GPU_TILE if options.gpu else TILE)
    narrowed = options.compute * sizes.head if options.mixed and not (options.rank and not sizes.tied) else 0
    return tile + narrowed + (FLOAT32 * sizes.head if options.full else 0)
