"""Finding models, telling their weights apart, loading them and their tokenizers."""

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
"""For a model without a chat template: the turn markers of hh-rlhf, the KTO paper's data."""

_VOLATILE = (
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "_attn_implementation",
)


@dataclass(frozen=True)
class ModelSource:
    """A model folder on this machine, before anything is loaded from it."""

    name: str
    """What the user called it: a path, a Hub id, or "built-in"."""
    folder: Path
    fingerprint: str
    """Hash of the weights and of what in config.json changes a number."""

    @property
    def on_hub(self) -> bool:
        """`name` is a Hub id, not a place on this machine."""
        return self.name != "built-in" and not Path(self.name).expanduser().is_dir()


def locate_model(name: str | None) -> tuple[str, Path]:
    """Finds the folder of a model: a local one, the built-in tiny one (None), or the Hub's (downloaded).

    Raises:
        BadModel: there is no such folder, or the Hub has it not or cannot be reached.
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
    """Names a model by content: its safetensors files' bytes and its config, less what changes no number.

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
        json.dumps({k: v for k, v in config.items() if k not in _VOLATILE}, sort_keys=True).encode()
    )
    for path in weights:
        digest.update(f"\n{path.name} {files.weights_sha256(path)}".encode())
    return digest.hexdigest()


def open_source(name: str | None, *, in_4bit: bool = False) -> ModelSource:
    """Locates and fingerprints a model; in 4 bits it is another model than in full."""
    called, folder = locate_model(name)
    return ModelSource(called, folder, fingerprint(folder) + ("-nf4" if in_4bit else ""))


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
def collecting_later() -> Iterator[None]:
    """No garbage collection meanwhile: what is imported and loaded stays, and each would walk over all of it again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@collecting_later()
def load_tokenizer(folder: Path, *, chat_template: str | None, trust_remote_code: bool) -> tuple[Any, bool]:
    """Loads a tokenizer with a chat template; the flag says whether it is our fallback.

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


@collecting_later()
def load_model(
    folder: Path,
    *,
    trust_remote_code: bool = False,
    dtype: torch.dtype = torch.float32,
    in_4bit: torch.dtype | None = None,
) -> Any:
    """Loads a causal language model in `dtype`, in evaluation mode (no dropout, also while training).

    Args:
        in_4bit: hold the linear layers in 4 bits and multiply in this dtype.

    Raises:
        BadModel: weights are missing, damaged or of another shape than the config says.
        BadInput: 4 bits were asked for, and bitsandbytes is not installed.
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
    """The most tokens the model was made for, or None where its config does not say."""
    text = model_config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def greatest_length(asked: int | None, context: int | None) -> int:
    """Most tokens of prompt and completion: as asked, else what the model takes, at most 1024.

    Raises:
        BadInput: more than the model takes.
    """
    if asked is not None and context is not None and asked > context:
        raise BadInput(
            f"--max-length {asked} is more than the {context} tokens this model takes.",
            f"Use {context} or less.",
        )
    return asked or min(1024, context or 1024)


def end_ids(model: Any) -> list[int]:
    """Token ids that end a turn, as the model itself says."""
    ends = getattr(model.generation_config, "eos_token_id", None) or model.config.eos_token_id or []
    return [ends] if isinstance(ends, int) else list(ends)
