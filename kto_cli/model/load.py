"""Models and tokenizers: found, fingerprinted, loaded."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kto_cli.common import files
from kto_cli.common.errors import BadInput, BadModel, first_line
from kto_cli.model import lora
from kto_cli.model.precision import four_bit_settings, keep_differentiable

FALLBACK_TEMPLATE = (
    "{{ BOS }}{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '\\n\\nHuman: ' + message.content }}"
    "{% elif message.role == 'assistant' %}{{ '\\n\\nAssistant: ' + message.content + eos_token }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""Chat template for a model without one: the turn markers of hh-rlhf, the data of the KTO paper."""

_IGNORED_KEYS = (
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "_attn_implementation",
)
"""Keys of config.json that change no number."""


@dataclass(frozen=True)
class ModelSource:
    """A model folder on this machine, not loaded yet."""

    name: str
    """Name given by the user: a path, a Hub id, or "built-in"."""
    folder: Path
    fingerprint: str
    """Hash of the weights and of the config keys that change a number."""

    @property
    def on_hub(self) -> bool:
        """Whether `name` is a Hub id."""
        return self.name != "built-in" and not Path(self.name).expanduser().is_dir()


def locate_model(name: str | None) -> tuple[str, Path]:
    """(name, folder) of a local model, the built-in tiny model (None), or a model of the Hub, downloaded.

    Raises:
        BadModel: there is no such folder; it is not on the Hub, or the Hub cannot be reached.
    """
    if name is None:
        return "built-in", files.sample_data() / "model"
    folder = Path(name).expanduser()
    if folder.is_dir():
        return name, folder
    if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise BadModel(f"{name} is not a model folder.", "Give a folder with config.json and model.safetensors.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return name, Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError as error:
        raise BadModel(f"{name} is neither a folder nor a Hub id.", "Give a model folder with --model.") from error
    except HfHubHTTPError as error:
        raise BadModel(
            f"The Hub refused the model {name}: {first_line(error)}", "Check its name and your access."
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise BadModel(
            f"There is no folder {name}, and the Hub cannot be reached to look for a model of that name.",
            "Check the path, or give a local model folder.",
        ) from error


def fingerprint(folder: Path) -> str:
    """Hash of a model's content: its safetensors files and its config, without keys that change no number.

    Raises:
        BadModel: there are no safetensors weights or no config in the folder.
    """
    config = _read_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        other = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        hint = f"It has {other}; convert it to safetensors first." if other else "Is it a Hugging Face model folder?"
        raise BadModel(f"{folder} holds no model weights (*.safetensors).", hint)
    digest = hashlib.sha256(
        json.dumps({k: v for k, v in config.items() if k not in _IGNORED_KEYS}, sort_keys=True).encode()
    )
    for path in weights:
        digest.update(f"\n{path.name} {files.weights_sha256(path)}".encode())
    return digest.hexdigest()


def open_source(name: str | None, *, in_4bit: bool = False) -> ModelSource:
    """Locates and fingerprints a model; its 4-bit version has another fingerprint."""
    name, folder = locate_model(name)
    return ModelSource(name, folder, fingerprint(folder) + ("-nf4" if in_4bit else ""))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if lora.is_adapter(folder):
        raise BadModel(
            f"{folder} holds an adapter for {lora.base_of(folder)}, not a whole model.",
            "Merge it into that model first (kto train --merge does, or peft's merge_and_unload).",
        )
    if not path.is_file():
        raise BadModel(f"{folder} has no config.json.", "Is it a Hugging Face model folder?")
    try:
        config = files.read_json(path, "the model's config")
    except BadInput as error:
        raise BadModel(error.what, "Copy the model folder again.") from error
    if not isinstance(config, dict):
        raise BadModel(f"{path} is not a model config.", "Copy the model folder again.")
    return config


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
def load_tokenizer(folder: Path, *, chat_template: str | None, trust_remote_code: bool) -> tuple[Any, bool]:
    """Loads a tokenizer with a chat template; returns also whether that is the fallback template.

    Raises:
        BadModel: the folder has no usable tokenizer. BadInput: the template file cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise BadModel(f"The tokenizer in {folder} cannot be loaded: {first_line(error)}") from error
    if chat_template is not None:
        try:
            tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"The chat template {chat_template} cannot be read: {first_line(error)}.") from error
    if tokenizer.chat_template is not None:
        return tokenizer, False
    marked, plain = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    adds_bos = len(marked) > len(plain) and marked[0] == tokenizer.bos_token_id
    tokenizer.chat_template = FALLBACK_TEMPLATE.replace("{{ BOS }}", "{{ bos_token }}" if adds_bos else "")
    return tokenizer, True


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
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    loaded: Any
    quantization = {} if in_4bit is None else {"quantization_config": four_bit_settings(in_4bit)}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
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
        raise BadModel(
            f"The model in {folder} cannot be loaded: {first_line(error)}", "Copy the model folder again."
        ) from error
    model, info = loaded
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadModel(f"The model in {folder} lacks weights: {names}.", "Copy the model folder again.")
    if in_4bit is not None:
        keep_differentiable(model)
    return model.eval()


def context_length(model_config: Any) -> int | None:
    """Context length of the model in tokens; None if its config lacks it."""
    text = model_config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def greatest_length(asked: int | None, context: int | None) -> int:
    """Maximum length of prompt and completion in tokens: as asked, else the context length, at most 1024.

    Raises:
        BadInput: longer than the model's context.
    """
    if asked is not None and context is not None and asked > context:
        raise BadInput(
            f"--max-length {asked} is more than the {context} tokens this model takes.",
            f"Use {context} or less.",
        )
    return asked or min(1024, context or 1024)


def end_ids(model: Any) -> list[int]:
    """End-of-sequence token ids in the model's generation config or config."""
    ends = getattr(model.generation_config, "eos_token_id", None) or model.config.eos_token_id or []
    return [ends] if isinstance(ends, int) else list(ends)
