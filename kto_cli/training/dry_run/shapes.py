"""Whether a run fits a card, predicted from the model's sizes alone: pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kto_cli.common.words import plural
from kto_cli.model.memory_need import MARGIN, SMALLEST, MemoryNeed, fitting_tokens, memory_need
from kto_cli.model.model_sizes import MemoryOptions, ModelSizes

CARDS = (2, 4, 8, 16, 32, 64)
"""Numbers of cards that are tried where one is too small."""
USUAL_RANK = 16
"""Of the adapters that are predicted where a run has none."""


@dataclass(frozen=True)
class Prediction:
    """A way to train on cards of a given memory."""

    options: MemoryOptions
    tokens: int | None
    """Of a micro-batch; None: not even the smallest fits one card."""
    cards: int | None
    """Over which the run must be sharded to fit; None: more than `CARDS`, or it cannot be sharded."""
    need: MemoryNeed
    """On one card, with these tokens or the fewest."""

    @property
    def fits(self) -> bool:
        """Whether one card is enough."""
        return self.tokens is not None

    @property
    def words(self) -> str:
        """The tokens of a micro-batch, or how many cards it takes."""
        if self.tokens is not None:
            return plural(self.tokens, "token")
        return f"{plural(self.cards, 'card')} (FSDP2)" if self.cards else "does not fit"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "lora_r": self.options.rank or None,
            "weight_bytes": self.options.held,
            "load_in_4bit": self.options.four_bit,
            "gradient_checkpointing": self.options.checkpointed,
            "micro_batch_tokens": self.tokens,
            "cards": 1 if self.fits else self.cards,
            "bytes": self.need.total,
        }


def predict(
    sizes: ModelSizes, options: MemoryOptions, card: float, *, longest: int, asked: int | None = None
) -> Prediction:
    """What a run takes of a card.

    Args:
        card: bytes of its memory, of which `MARGIN` stays free.
        longest: tokens of the longest row.
        asked: tokens of a micro-batch, where they are given.
    """
    if asked:
        tokens = asked if memory_need(sizes, options, max(asked, longest)).total <= (1 - MARGIN) * card else None
    else:
        tokens = fitting_tokens(sizes, options, card, longest=longest)
    need = memory_need(sizes, options, max(tokens or asked or SMALLEST, longest))
    return Prediction(options, tokens, None if tokens else _cards(sizes, options, card, longest), need)


def _cards(sizes: ModelSizes, options: MemoryOptions, card: float, longest: int) -> int | None:
    """The fewest cards that hold a sharded run; 4-bit and all-bfloat16 weights are not sharded."""
    if options.four_bit or options.held == options.compute < 4:
        return None
    sharded = (count for count in CARDS if fitting_tokens(sizes, options._replace(cards=count), card, longest=longest))
    return next(sharded, None)


def other_ways(options: MemoryOptions) -> Iterator[tuple[str, MemoryOptions]]:
    """(flags, options) of ways to train the same model, each with gradient checkpointing and without: all weights, in
    bfloat16 too, adapters, adapters over 4 bits."""
    rank = options.rank or USUAL_RANK
    full = options._replace(rank=0, four_bit=False)
    ways = [("all weights", full)]
    if options.mixed and options.optimizer == "adamw":  # no other optimizer takes bfloat16 weights
        ways.append(("all weights, --dtype bfloat16-pure", full._replace(held=options.compute)))
    ways += [
        (f"--lora-r {rank}", options._replace(rank=rank, four_bit=False)),
        (f"--lora-r {rank} --load-in-4bit", options._replace(rank=rank, four_bit=True)),
    ]
    for flags, way in ways:
        yield flags, way._replace(checkpointed=False)
        yield f"{flags}, --gradient-checkpointing on", way._replace(checkpointed=True)
