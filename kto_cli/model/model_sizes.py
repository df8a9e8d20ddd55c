"""Sizes of a model, and the settings that decide how many bytes they take in training."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from kto_cli.common.model_config import ModelConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.linear_layers import layers_to_adapt, linear_layers
from kto_cli.model.precision import Precision
from kto_cli.model.text_part import text_part


class ModelSizes(NamedTuple):
    """Sizes of a decoder model, real or on the meta device."""

    hidden: int
    inner: int
    """Width of the MLP; of a mixture of experts that of all experts a token goes through."""
    layers: int
    query: int
    """heads * width of a head."""
    key: int
    """key heads * width of a head; values have as many."""
    heads: int
    experts: int
    """Experts a token goes through; 0: no mixture."""
    norms: int
    """Norms of the hidden states in a layer."""
    head_norms: bool
    """Queries and keys are normalized (Qwen 3, Gemma 3)."""
    wide_norms: bool
    """Norms multiply by their weight in float32 (Gemma)."""
    linear: int
    """Weights in the layers that matrix products are taken of."""
    inputs: int
    """Sum of the input widths of a layer's linear modules."""
    fused: int
    """Weights of experts that are one tensor a layer: autocast leaves them, and adapters do not go onto them."""
    other: int
    """All other weights: embeddings, norms, a head of its own."""
    frozen: int
    """Weights among these that never learn: of images and sounds."""
    vocabulary: int
    tied: bool
    """The head's weight is that of the embeddings."""
    adapted: int
    """Sum of the input and output widths of all adapted linear modules: weights of adapters of rank 1."""
    adapted_inputs: int
    """Sum of the input widths of the adapted linear modules of a layer."""
    adapted_modules: int
    """Adapted linear modules of a layer."""

    @property
    def total(self) -> int:
        """All weights."""
        return self.linear + self.fused + self.other

    @property
    def head(self) -> int:
        """Weights of the head, which may be those of the embeddings."""
        return self.vocabulary * self.hidden

    @classmethod
    def of(cls, model: Any, targets: str | None = None) -> ModelSizes:
        """Sizes of a causal language model of transformers, whose weights are not read.

        Args:
            targets: of adapters, as --lora-targets; None: there are none.

        Raises:
            BadInput: no linear layer has such a name.
        """
        config = model.config.get_text_config()
        layers, hidden = config.num_hidden_layers, config.hidden_size
        heads = getattr(config, "num_attention_heads", None) or 1
        width = _head_width(config) or hidden // heads
        experts = getattr(config, "num_experts_per_tok", None) or 0
        adapted = set(layers_to_adapt(model, targets)) if targets else set()
        widths = {name: _widths(module) for name, module in linear_layers(model).items()}
        chosen = [pair for name, pair in widths.items() if name.rpartition(".")[2] in adapted]
        rest = _outside_linear_layers(model)
        fused = sum(parameter.numel() for parameter in rest if parameter.ndim == 3)
        output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
        norms = [len(module.weight) for module in model.modules() if _is_norm(module)]
        return cls(
            hidden=hidden,
            inner=_inner(config, experts),
            layers=layers,
            query=heads * width,
            key=(getattr(config, "num_key_value_heads", None) or heads) * width,
            heads=heads,
            experts=experts,
            norms=norms.count(hidden) // layers,
            head_norms=width != hidden and norms.count(width) >= 2 * layers,
            wide_norms=str(config.model_type).startswith("gemma"),
            linear=sum(into * out for into, out in widths.values()),
            inputs=sum(into for into, _ in widths.values()) // layers,
            fused=fused,
            other=sum(parameter.numel() for parameter in rest) - fused,
            frozen=_frozen(model),
            vocabulary=embeddings.weight.shape[0],
            tied=output is None
            or output.weight is embeddings.weight
            or bool(getattr(model.config, "tie_word_embeddings", False)),
            adapted=sum(into + out for into, out in chosen),
            adapted_inputs=sum(into for into, _ in chosen) // layers,
            adapted_modules=len(chosen) // layers,
        )


def _head_width(config: Any) -> int | None:
    """Channels of an attention head; the most of any layer where layers differ (Gemma 4)."""
    try:
        found: int | None = getattr(config, "head_dim", None)
    except RuntimeError:  # transformers asks for the layer then
        found = max(each.head_dim for each in config.per_layer_config)
    return found


def _widths(module: Any) -> tuple[int, int]:
    """(input, output) width of a linear module; transformers' Conv1D has them as the shape of its weight."""
    shape = module.weight.shape
    return getattr(module, "in_features", shape[0]), getattr(module, "out_features", shape[-1])


def _outside_linear_layers(model: Any) -> list[Any]:
    """Parameters that no linear layer has. (4-bit weights are packed: only their modules know how many there are.)"""
    within = {id(each) for module in linear_layers(model).values() for each in module.parameters(recurse=False)}
    return [parameter for parameter in model.parameters() if id(parameter) not in within]


def _frozen(model: Any) -> int:
    text = text_part(model)
    kept = (f"{text}.", "lm_head.") if text else ("",)
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(kept))


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 1 and "Norm" in type(module).__name__


def _inner(config: Any, experts: int) -> int:
    own: int = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * config.hidden_size
    if not experts:
        return own
    shared = getattr(config, "shared_expert_intermediate_size", None) or 0
    return experts * (getattr(config, "moe_intermediate_size", None) or own) + shared


class MemoryOptions(NamedTuple):
    """What decides how many bytes a model of given sizes takes."""

    held: int
    """Bytes of a weight that is not narrowed: 4, or 2 with bfloat16-pure."""
    compute: int
    """Bytes of a number in matrix products."""
    learns: bool = True
    """There is a backward pass."""
    rank: int = 0
    """Of adapters; 0: all weights learn."""
    four_bit: bool = False
    checkpointed: bool = False
    optimizer: str = "adamw"
    synced: bool = False
    """The reference moves."""
    cards: int = 1
    """Over which weights, gradients and optimizer state are sharded (FSDP2, ZeRO-3)."""
    gpu: bool = True

    @property
    def mixed(self) -> bool:
        """Products are taken of narrower numbers than the weights are held in."""
        return self.compute < self.held

    @property
    def full(self) -> bool:
        """All weights learn."""
        return self.learns and not self.rank

    @classmethod
    def of(cls, config: ModelConfig, precision: Precision, *, gpu: bool = True, cards: int = 1) -> MemoryOptions:
        """Those of a command's settings; only `kto train` has a backward pass."""
        options = cls(
            held=precision.weights.itemsize,
            compute=precision.compute.itemsize,
            learns=False,
            four_bit=config.load_in_4bit,
            cards=cards,
            gpu=gpu,
        )
        if not isinstance(config, TrainConfig):
            return options
        return options._replace(
            learns=True,
            rank=config.lora_r or 0,
            checkpointed=config.gradient_checkpointing == "on",
            optimizer=config.optimizer,
            synced=config.sync_every is not None,
        )
