"""Pico image-text checkpoints: model folders with the tokenizer and the processor files that such checkpoints have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conftest import SAMPLE

VOCAB, IMAGE = 2048, 7
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
QWEN_TOKENS = {"image_token_id": IMAGE, "video_token_id": 8, "vision_start_token_id": 9, "vision_end_token_id": 10}


def _made(config: str, model: str, *, text: dict[str, Any], vision: dict[str, Any], **more: Any) -> Any:
    import transformers

    settings = getattr(transformers, config)(text_config=TEXT | text, vision_config=vision, **more)
    return getattr(transformers, model)(settings)


def _rope(sections: list[int]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}


BUILDERS: dict[str, Callable[[], Any]] = {
    "gemma3": partial(
        _made,
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        text={"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        vision=VISION,
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
    ),
    "qwen2_5_vl": partial(
        _made,
        "Qwen2_5_VLConfig",
        "Qwen2_5_VLForConditionalGeneration",
        text={"rope_parameters": _rope([1, 1, 2])},
        vision=QWEN_VISION,
        **QWEN_TOKENS,
    ),
    "qwen3_vl": partial(
        _made,
        "Qwen3VLConfig",
        "Qwen3VLForConditionalGeneration",
        text={"rope_parameters": _rope([2, 1, 1])},
        vision={**QWEN_VISION, "deepstack_visual_indexes": [0], "num_position_embeddings": 4},
        **QWEN_TOKENS,
    ),
    "smolvlm": partial(
        _made,
        "SmolVLMConfig",
        "SmolVLMForConditionalGeneration",
        text={"model_type": "llama"},
        vision=VISION,
        image_token_id=IMAGE,
        scale_factor=2,
    ),
    "llava": partial(
        _made,
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        text={"model_type": "llama"},
        vision={"model_type": "clip_vision_model", "projection_dim": 16, **VISION},
        image_token_index=IMAGE,
    ),
    "mistral3": partial(
        _made,
        "Mistral3Config",
        "Mistral3ForConditionalGeneration",
        text={"model_type": "mistral", "sliding_window": 16},
        vision={"model_type": "pixtral", "head_dim": 8, **VISION},
        image_token_index=IMAGE,
    ),
    "gemma4": partial(
        _made,
        "Gemma4Config",
        "Gemma4ForConditionalGeneration",
        text={
            **{"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16},
            **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "num_kv_shared_layers": 0},
        },
        vision=VISION,
    ),
    "qwen3_5": partial(
        _made,
        "Qwen3_5Config",
        "Qwen3_5ForConditionalGeneration",
        text={
            **{"layer_types": ["linear_attention", "full_attention"], "head_dim": 16},
            **{"linear_num_value_heads": 2, "linear_num_key_heads": 2},
            **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
            "rope_parameters": {**_rope([1, 1, 2]), "partial_rotary_factor": 0.5},
        },
        vision={**QWEN_VISION, "num_position_embeddings": 4},
        **QWEN_TOKENS,
    ),
}
"""Family -> a function that builds a pico model of it."""
REFUSED: dict[str, Callable[[], Any]] = {
    "paligemma": partial(
        _made,
        "PaliGemmaConfig",
        "PaliGemmaForConditionalGeneration",
        text={"model_type": "gemma"},
        vision={"model_type": "siglip_vision_model", **VISION},
        image_token_index=IMAGE,
        projection_dim=16,
    ),
    "blip_2": partial(
        _made,
        "Blip2Config",
        "Blip2ForConditionalGeneration",
        text={"model_type": "opt", "ffn_dim": 32, "word_embed_proj_dim": 16},
        vision=VISION,
        qformer_config={**VISION, "encoder_hidden_size": 16},
    ),
}
"""Families that read no text alone as a causal language model does."""


def save_image_text(folder: Path, family: str, *, seed: int = 0) -> Path:
    """A model folder of a family."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = (BUILDERS | REFUSED)[family]().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.copy_(0.25 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SAMPLE / "model" / name, folder / name)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    return folder
