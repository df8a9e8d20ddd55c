"""State of one forward pass over a packed batch, which the model's attention modules read."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.batches import Prompt
from kto_cli.core.prefix_tree import PackedLayout
from kto_cli.core.transfer import to_device
from kto_cli.model.varlen_plan import Plan, make_plan


@dataclass
class Past:
    """Keys, values and outputs of a packed batch's prompts, for its continuation; no gradient flows through them."""

    prompt_ends: Tensor
    """[prompts] index of the last token of each prompt in the packed batch."""
    tokens: int = 0
    """Of the packed batch."""
    layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Keys and values of each attention module, [1, heads, tokens, width]. While a pass runs, each module holds its own
    as `packed_keys_and_values`: for an attribute torch.compile neither breaks a graph nor compiles a layer again."""
    outputs: Tensor | None = None
    """[prompts, hidden] output of the body at `prompt_ends`."""

    @classmethod
    def of(cls, prompts: dict[tuple[int, ...], Prompt], device: torch.device) -> Past:
        """For a packed batch with these prompts, the second result of `pack`."""
        return cls(to_device(torch.tensor([prompt.last for prompt in prompts.values()]), device))


class PackedPass:
    """State of one packed forward pass, an argument of the model's attention modules.

    Not a tuple, dict or dataclass: wrappers that shard a model copy those among a module's arguments.
    """

    def __init__(self, layout: PackedLayout, past: Past | None, device: torch.device, *, fast: bool) -> None:
        self.layout = layout
        self.past = past
        self.device = device
        self.fast = fast
        """Segments are walked only where a layer can do nothing else."""
        self.masks: dict[tuple[Any, ...], Tensor] = {}
        """Of `segment_attention`, by shape, shared by all layers."""
        self.plans: dict[tuple[int | None, bool], Plan] = {}
        """Of `varlen_attention`, by window and whether the kernel merges."""
        self.ways: list[str] = []
        """How each attention layer that ran attended."""

    def plan(self, window: int | None, merges: bool) -> Plan:
        """The plan of layers with this window, the same for all of them."""
        key = window, merges
        if key not in self.plans:
            self.plans[key] = self.make_plan(*key)
        return self.plans[key]

    @torch.compiler.disable
    def make_plan(self, window: int | None, merges: bool) -> Plan:
        """A plan on the device."""
        past = self.past.tokens if self.past is not None and self.layout.continues else 0
        gradient = torch.is_grad_enabled()
        return make_plan(self.layout, window=window, merges=merges, past=past, gradient=gradient).to(self.device)


CURRENT: ContextVar[PackedPass | None] = ContextVar("packed attention", default=None)
"""For models that do not hand a further argument of theirs to their attention."""
