"""Models and tokenizers: loaded from their folders (source.py loads what stands on adapters)."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.errors import BadModel, first_line
from kto_cli.common.read import read_json, read_text
from kto_cli.common.words import plural
from kto_cli.model.folder import COPY_AGAIN, check_folder, has_tokenizer
from kto_cli.model.precision import four_bit_settings, keep_differentiable
from kto_cli.model.text_part import loading_class

FALLBACK_TEMPLATE = (
    "{{ BOS }}{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '\\n\\nHuman: ' + message.content }}"
    "{% elif message.role == 'assistant' %}{{ '\\n\\nAssistant: ' + message.content + eos_token }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Chat template for a model without one: the turn markers of hh-rlhf, the data of the KTO paper."""


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pauses garbage collection: imported and loaded objects stay, and each collection would visit all of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@gc_paused()
def load_tokenizer(folder: Path, *, chat_template: str | None, trust_remote_code: bool | None) -> tuple[Any, bool]:
    """Loads a tokenizer with a chat template; returns also whether that is the fallback template.

    Args:
        trust_remote_code: run the tokenizer's own Python code; None: this command never does.

    Raises:
        BadModel: the folder has no usable tokenizer. BadInput: the template file cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=bool(trust_remote_code)
        )
    except Exception as error:
        if has_tokenizer(folder) or NEEDS_CODE in str(error):
            raise _cannot_load("tokenizer", folder, error, trust_remote_code) from error
        tokenizer = None
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise BadModel(
            f"{folder} has no tokenizer, or one without a vocabulary.",
            "Copy tokenizer.json and tokenizer_config.json there from the model it was made from.",
        )
    if chat_template is not None:
        tokenizer.chat_template = read_text(Path(chat_template), "the chat template")
    elif tokenizer.chat_template is None:
        tokenizer.chat_template = _processors_template(folder)
    if tokenizer.chat_template is not None:
        _refuse_no_default(folder, tokenizer.chat_template)
        return tokenizer, False
    marked, plain = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    adds_bos = len(marked) > len(plain) and marked[0] == tokenizer.bos_token_id
    tokenizer.chat_template = FALLBACK_TEMPLATE.replace("{{ BOS }}", "{{ bos_token }}" if adds_bos else "")
    return tokenizer, True


def _processors_template(folder: Path) -> str | None:
    """The template of chat_template.json, where the processors of older image-text models have it."""
    path = folder / "chat_template.json"
    found = read_json(path, "the chat template") if path.is_file() else None
    template = found.get("chat_template") if isinstance(found, dict) else None
    return template if isinstance(template, str) else None


def _refuse_no_default(folder: Path, template: Any) -> None:
    """transformers takes the template named default, where there are several."""
    if isinstance(template, dict) and "default" not in template:
        raise BadModel(
            f"The tokenizer in {folder} has several chat templates ({', '.join(template)}), and none named default.",
            "Give one with --chat-template FILE.",
        )


NEEDS_CODE = "trust_remote_code"
"""Part of what transformers says of a model that comes with Python code of its own."""


def _cannot_load(what: str, folder: Path, error: Exception, trust_remote_code: bool | None) -> BadModel:
    """The error for a model or tokenizer that transformers cannot load, with the next step for its cause."""
    if NEEDS_CODE in str(error):
        code = ", ".join(sorted(path.name for path in folder.glob("*.py"))[:5]) or "not in the folder"
        never = "This command never runs it; kto train --dry-run --trust-remote-code does."
        return BadModel(
            f"The {what} in {folder} comes with Python code of its own ({code}).",
            never if trust_remote_code is None else "Read it; --trust-remote-code then runs it.",
        )
    causes = {
        "does not recognize this architecture": "Update transformers, or is it a model with Python code of its own?",
        "sentencepiece": "pip install sentencepiece tiktoken protobuf",
        "toggled on": "Remove attn_implementation from its config.json.",
        "Unrecognized configuration class": "kto trains what transformers loads as a causal language model.",
    }
    hint = next((step for words, step in causes.items() if words in str(error)), COPY_AGAIN)
    return BadModel(f"The {what} in {folder} cannot be loaded: {first_line(error)}.", hint)


@gc_paused()
def load_model(
    folder: Path,
    *,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    in_4bit: torch.dtype | None = None,
) -> Any:
    """Loads a causal language model in `dtype`, in evaluation mode (no dropout, also while training).

    Args:
        in_4bit: compute dtype of linear layers that are quantized to 4 bits; None: not quantized.

    Raises:
        BadModel: weights are missing, damaged or of another shape than in the config.
        BadInput: bitsandbytes is needed and not installed.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    check_folder(folder, in_4bit=in_4bit is not None)
    loaded: Any
    quantization = {} if in_4bit is None else {"quantization_config": four_bit_settings(in_4bit)}
    try:
        loaded = loading_class(_config(folder, trust_remote_code)).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **quantization,
        )
    except Exception as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise _cannot_load("model", folder, error, trust_remote_code) from error
    model, info = loaded
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadModel(f"The model in {folder} lacks weights: {names}.", COPY_AGAIN)
    _refuse_left_over(folder, sorted(info["unexpected_keys"]))
    if in_4bit is not None:
        keep_differentiable(model)
    keep_soft_cap(model)
    return model.eval()


def keep_soft_cap(model: Any) -> None:
    """Attention whose scores are capped, where the config asks for it (Gemma 2): transformers' sdpa before 5.21 leaves
    the cap out in silence, and its log-probs are wrong."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    if capped and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


OTHER_PARTS = re.compile(
    r"(^|\.)(v_head|value_head|score|reward_head|classifier|vision_\w+|visual|multi_modal_projector)\."
)
"""Weights beside the language model that it does not need: heads of reward models, the image part (text_part.py)."""


def _refuse_left_over(folder: Path, names: list[str]) -> None:
    """Weights that the config does not describe: a config of another model, or with fewer layers."""
    left = [name for name in names if not OTHER_PARTS.search(name)]
    if left:
        raise BadModel(
            f"{folder} holds {plural(len(left), 'weight')} that its config.json does not describe, and that would be "
            f"left over: {', '.join(left[:3])}{' ...' if len(left) > 3 else ''}.",
            COPY_AGAIN,
        )


def load_config(folder: Path, *, trust_remote_code: bool | None) -> Any:
    """The model's config as transformers has it.

    Raises:
        BadModel: it cannot be loaded.
    """
    try:
        return _config(folder, trust_remote_code)
    except Exception as error:
        raise _cannot_load("config", folder, error, trust_remote_code) from error


def _config(folder: Path, trust_remote_code: bool | None) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=bool(trust_remote_code))


def model_of_shapes(folder: Path, *, trust_remote_code: bool) -> Any:
    """The model that a config describes, on the meta device: its weights have shapes and take no memory.

    Raises:
        BadModel: the config cannot be loaded, or is not that of a causal language model.
    """
    config = load_config(folder, trust_remote_code=trust_remote_code)
    try:
        with torch.device("meta"):
            return loading_class(config).from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _cannot_load("config", folder, error, trust_remote_code) from error


def end_ids(model: Any) -> list[int]:
    """End-of-sequence token ids in the model's generation config or config."""
    ends = getattr(model.generation_config, "eos_token_id", None) or model.config.eos_token_id or []
    return [ends] if isinstance(ends, int) else list(ends)
