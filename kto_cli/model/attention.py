"""Packed attention in the place of a model's own.

Transformers lets a model's attention be replaced by name. This one follows a `PackedLayout`: there is no mask over the
whole batch, and nothing is computed between tokens that do not see each other. It also stores the prompts' keys and
values, so that a later batch can continue them. layer_attention.py is what each layer then does.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kto_cli.core.prefix_tree import PackedLayout
from kto_cli.model.layer_attention import BY_SEGMENT, BY_TREE, packed_attention
from kto_cli.model.packed_pass import CURRENT, PackedPass, Past
from kto_cli.model.varlen_attention import KERNELS

NAME = "kto_packed"
"""Name of this attention in transformers."""
_KNOWN_LAYERS = ("full_attention", "sliding_attention")


class PackedAttention:
    """Switches a model to packed attention during a forward pass."""

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface
        from transformers.modeling_utils import PreTrainedModel

        AttentionInterface.register(NAME, packed_attention)
        modules = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
        self._configs = list({id(module.config): module.config for module in modules}.values())
        self._replaceable = all(module._can_set_attn_implementation() for module in modules)
        self._model = model
        self._attending: list[Any] = []
        """Modules that store keys and values, known after the first pass that does."""
        self._layers = model.config.get_text_config().num_hidden_layers
        self._planned: set[tuple[int | None, bool]] = set()
        """Plans that layers asked for, made before the next pass so that no layer waits for them."""
        self.fast = True
        """Segments are walked only where a layer can do nothing else."""
        self.ways: Counter[str] = Counter()
        """How many layers attended in which way in the last pass."""

    def refusal(self) -> str | None:
        """Why this kind of model cannot be packed, or None."""
        if not self._replaceable:
            return "its layers do not use transformers' attention interface"
        config = self._configs[0].get_text_config()
        kinds = sorted(set(getattr(config, "layer_types", None) or ()) - set(_KNOWN_LAYERS))
        if kinds:
            return f"it has {', '.join(kinds)} layers"
        if getattr(config, "attention_chunk_size", None):
            return "it attends in chunks"
        return None

    @property
    def reaches_all_layers(self) -> bool:
        """Whether every layer used packed attention in the last pass."""
        return self.ways.total() == self._layers

    def described(self, faults: Sequence[str]) -> str:
        """How layers attended in the last pass, where that is not as on every CPU.

        Args:
            faults: of faster ways that were tried.
        """
        if faults:
            return f"one call a segment, which is slow (the fast way was tried, but {faults[0]})"
        words = [
            ("one call a segment" if way == BY_SEGMENT else f"one call a layer, by the {way} kernel", count)
            for way, count in self.ways.items()
            if way != BY_TREE
        ]
        if len(self.ways) == 1 and words:
            return words[0][0]
        return ", ".join(f"{what} in {count} of {self._layers} layers" for what, count in words)

    @contextlib.contextmanager
    def __call__(self, layout: PackedLayout, past: Past | None, device: torch.device) -> Iterator[PackedPass]:
        """Context manager in which the model reads a packed batch with this layout."""
        current = PackedPass(layout, past, device, fast=self.fast)
        if past is not None and not layout.continues:
            past.tokens = layout.segments[-1].stop
        for key in self._planned if self.fast and device.type in KERNELS else ():
            current.plan(*key)
        with self._switched(current), self._stored(past, continues=layout.continues):
            yield current
        self.ways = Counter(current.ways)
        self._planned |= current.plans.keys()
        current.past = None  # a layer that is computed again stores nothing

    @contextlib.contextmanager
    def _stored(self, past: Past | None, *, continues: bool) -> Iterator[None]:
        """Hands out the keys and values of the batch that is continued, or collects those of one that will be."""
        if past is None:
            yield
            return
        for module, stored in zip(self._attending, past.layers, strict=True) if continues else ():
            module.packed_keys_and_values = stored
        try:
            yield
        finally:
            if not self._attending:
                modules = self._model.modules()
                self._attending = [module for module in modules if hasattr(module, "packed_keys_and_values")]
            layers = [module.__dict__.pop("packed_keys_and_values", None) for module in self._attending]
            if not continues:
                past.layers = layers

    @contextlib.contextmanager
    def _switched(self, current: PackedPass) -> Iterator[None]:
        before = [config._attn_implementation for config in self._configs]
        token = CURRENT.set(current)
        try:
            for config in self._configs:
                config._attn_implementation_internal = NAME
            yield
        finally:
            CURRENT.reset(token)
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = name

    def recompute_contexts(self) -> tuple[contextlib.AbstractContextManager[None], Any]:
        """For torch.utils.checkpoint: restores this pass's state when a layer is computed a second time."""
        current = CURRENT.get()
        if current is None:
            return contextlib.nullcontext(), contextlib.nullcontext()
        return contextlib.nullcontext(), self._switched(current)
