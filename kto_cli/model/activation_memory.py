"""Bytes of activations for each token of a micro-batch, from sizes alone.

What autograd keeps of a decoder layer as transformers writes it (norms in float32, gated MLP, rotated queries and keys)
and of packed attention: derived tensor by tensor, compared with the bytes that passes of seven kinds of models keep.
"""

from __future__ import annotations

from kto_cli.model.model_sizes import MemoryOptions, ModelSizes

FLOAT32, BFLOAT16 = 4, 2
"""Bytes of a number."""


def saved_bytes(sizes: ModelSizes, options: MemoryOptions) -> int:
    """Bytes that autograd keeps of a token from its forward pass, all layers and the end of the model."""
    if not options.learns:
        return 0
    inputs = options.held * sizes.hidden
    return sizes.layers * (inputs if options.checkpointed else _layer(sizes, options)) + _end(sizes, options)


def _end(sizes: ModelSizes, options: MemoryOptions) -> int:
    """The last norm: its input in float32 and the normalized numbers; its output where the head reads it."""
    return sizes.hidden * (FLOAT32 + _normalized(sizes, options, options.held) + options.compute)


def _layer(sizes: ModelSizes, options: MemoryOptions) -> int:
    """Bytes that autograd keeps of a token in one decoder layer."""
    heads, hidden, width = sizes.query + sizes.key, sizes.hidden, options.compute
    # A norm keeps its input in float32, and what it normalized if its weight learns.
    norms = sizes.norms * hidden * (FLOAT32 + _normalized(sizes, options, options.held))
    norms += sizes.head_norms * heads * (FLOAT32 + _normalized(sizes, options, width))
    # Attention keeps queries, keys, values, its output, and a log-sum-exp a head.
    attention = width * 2 * heads + FLOAT32 * sizes.heads
    return norms + attention + _gated(sizes, options) + _linear_inputs(sizes, options)


def _gated(sizes: ModelSizes, options: MemoryOptions) -> int:
    """act(gate) * up keeps gate, act(gate) and up. Experts in one tensor are not computed under autocast; their outputs
    are kept for the router's gradient, their inputs for their own."""
    if not sizes.fused:
        return 3 * options.compute * sizes.inner
    own = sizes.inner + sizes.experts * sizes.hidden if options.full else 0
    return options.held * (3 * sizes.inner + sizes.experts * sizes.hidden + own)


def _normalized(sizes: ModelSizes, options: MemoryOptions, stream: int) -> int:
    """Bytes of a normalized number, kept for the gradient of the norm's weight."""
    return (FLOAT32 if sizes.wide_norms else stream) * options.full


def _linear_inputs(sizes: ModelSizes, options: MemoryOptions) -> int:
    """Inputs of linear modules that autograd keeps of a token: those whose weights or adapters learn.

    Autocast, and peft for float32 adapters over bfloat16 weights, cast them for each module anew. The output of
    attention is kept anyway; on a CPU it is not contiguous, so that its module reads a copy.
    """
    shared = 2 * sizes.hidden + (0 if sizes.fused else sizes.inner) + (0 if options.gpu else sizes.query)
    if not options.rank:
        inputs = max(sizes.inputs, shared) - (sizes.query if options.gpu else 0)
        return options.compute * (inputs if options.mixed else shared)
    adapters = FLOAT32 if options.held == BFLOAT16 else options.compute
    inputs = sizes.adapted_inputs if options.held != options.compute or options.held == BFLOAT16 else shared
    return adapters * (min(inputs, sizes.adapted_inputs) + options.rank * sizes.adapted_modules)


def recomputed_bytes(sizes: ModelSizes, options: MemoryOptions) -> int:
    """Bytes of a token in the layer that is computed again, or, before that, of keys and values that are continued."""
    if not (options.checkpointed and options.learns):
        return 0
    return max(_layer(sizes, options), sizes.layers * 2 * options.compute * sizes.key)


def working_bytes(sizes: ModelSizes, options: MemoryOptions) -> int:
    """Bytes that a token takes for a moment: a layer's gradients, or a layer of the pass without gradient."""
    stream = 2 * options.held * sizes.hidden
    attention = 2 * FLOAT32 * (sizes.query + sizes.key)
    return stream + max(attention, 4 * options.compute * sizes.inner)
