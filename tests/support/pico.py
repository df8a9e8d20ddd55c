"""Pico models for tests: real architectures, a few thousand random weights, built in-process in milliseconds.

Weights are large enough that a wrong position, mask, scale or cap changes log-probs by whole nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.rows import TokenSequence
from kto_cli.model.load import keep_soft_cap

VOCAB = 131
CONTEXT = 128
SIZES = {"vocab_size": VOCAB, "hidden_size": 32}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
SPECIAL = {**ENDS, "pad_token_id": 0}


def _llama_like(config: str, model: str, **extra: Any) -> Any:
    import transformers

    settings = {
        **SIZES,
        **SPECIAL,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
    }
    return getattr(transformers, model)(getattr(transformers, config)(**settings | extra))


def _gpt2(**extra: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    return GPT2LMHeadModel(GPT2Config(**sizes | ENDS | extra))


def _gpt_neo() -> Any:
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    return GPTNeoForCausalLM(
        GPTNeoConfig(
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=8,
            max_position_embeddings=CONTEXT,
            **SIZES,
            **ENDS,
        )
    )


def _opt() -> Any:
    """Its embeddings are narrower than its body, which projects its output back before the head."""
    from transformers import OPTConfig, OPTForCausalLM

    return OPTForCausalLM(
        OPTConfig(
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=16,
            max_position_embeddings=CONTEXT,
            **SIZES,
            **SPECIAL,
        )
    )


def _bloom() -> Any:
    """ALiBi: takes no position ids."""
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(n_layer=2, n_head=4, **SIZES, **SPECIAL))


def _with_experts(config: str, model: str, **extra: Any) -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    built = _llama_like(config, model, **experts | extra)
    built.set_experts_implementation("eager")  # the grouped product has no float64
    return built


def _mamba() -> Any:
    """State-space layers: no attention at all."""
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(num_hidden_layers=2, state_size=4, **SIZES, **SPECIAL))


BUILDERS: dict[str, Callable[..., Any]] = {
    "llama": partial(_llama_like, "LlamaConfig", "LlamaForCausalLM"),
    "gpt2": _gpt2,
    "qwen3": partial(_llama_like, "Qwen3Config", "Qwen3ForCausalLM", head_dim=8),
    "mistral": partial(_llama_like, "MistralConfig", "MistralForCausalLM", sliding_window=8),
    "gemma2": partial(
        _llama_like,
        "Gemma2Config",
        "Gemma2ForCausalLM",
        head_dim=8,
        sliding_window=8,
        final_logit_softcapping=5.0,
        attn_logit_softcapping=5.0,
    ),
    "gemma3": partial(
        _llama_like,
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        head_dim=8,
        sliding_window=8,
        final_logit_softcapping=5.0,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "cohere": partial(_llama_like, "CohereConfig", "CohereForCausalLM", logit_scale=0.25),
    "granite": partial(_llama_like, "GraniteConfig", "GraniteForCausalLM", logits_scaling=4.0),
    "mixtral": partial(_with_experts, "MixtralConfig", "MixtralForCausalLM"),
    "phi": partial(_llama_like, "PhiConfig", "PhiForCausalLM", num_key_value_heads=4),
    "gpt_neox": partial(_llama_like, "GPTNeoXConfig", "GPTNeoXForCausalLM"),
    "gpt_neo": _gpt_neo,
    "opt": _opt,
    "bloom": _bloom,
    "phi3": partial(_llama_like, "Phi3Config", "Phi3ForCausalLM", sliding_window=8),
    "mamba": _mamba,
    "lfm2": partial(_llama_like, "Lfm2Config", "Lfm2ForCausalLM", layer_types=["conv", "full_attention"]),
    "jamba": partial(
        _with_experts,
        "JambaConfig",
        "JambaForCausalLM",
        attn_layer_period=2,
        attn_layer_offset=1,
        use_mamba_kernels=False,
        num_experts=2,
    ),
    "gpt_oss": partial(_with_experts, "GptOssConfig", "GptOssForCausalLM", head_dim=8, sliding_window=8),
}
"""Family -> a function that builds a pico model of it; keyword arguments go to the config where it takes them."""


def build(family: str, *, seed: int = 0, **extra: Any) -> Any:
    """A pico model with random weights (the same for the same seed), float32, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # some families draw their biases
        model = BUILDERS[family](**extra)
    keep_soft_cap(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.25 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model.eval()


def sequences(
    lengths: Sequence[tuple[int, int]] = ((3, 9), (25, 4), (1, 1), (6, 30), (12, 17)),
    *,
    vocab: int = VOCAB,
    seed: int = 0,
) -> list[TokenSequence]:
    """Random sequences of (prompt, completion) tokens; ragged, and longer than a window of 8."""
    generator = torch.Generator().manual_seed(seed)

    def some(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, vocab, (count,), generator=generator).tolist())

    return [TokenSequence(some(prompt), some(completion)) for prompt, completion in lengths]


def naive_logps(model: Any, of: Sequence[TokenSequence]) -> Tensor:
    """What a scorer must give: one sequence at a time, no padding, no positions, the model's own logits, a softmax over
    all of them in float64; [sequences], with gradient."""
    values = []
    for prompt, completion in of:
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
        logps = logits.log_softmax(-1)
        values.append(
            torch.stack([logps[len(prompt) - 1 + place, token] for place, token in enumerate(completion)]).sum()
        )
    return torch.stack(values)
