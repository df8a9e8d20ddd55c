"""LoRA and DoRA through peft: fresh adapters on a model, those of a folder, saving, restoring, merging.

peft puts its layers into the model in place: whoever holds the model computes with them from then on. With the adapters
`off` it is its base again, which is how the reference is scored: no second copy of the model is needed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kto_cli.common import files
from kto_cli.common.errors import BadInput, BadModel, first_line
from kto_cli.common.train_config import ALL_LINEAR, TrainConfig

CONFIG = "adapter_config.json"
"""A folder with this file, and without config.json, holds an adapter."""
WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """The folder holds an adapter and not a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def is_adapted(model: Any) -> bool:
    """`model` is what `add_adapters` or `attach` gave, asked without importing peft (a full run has no use for it)."""
    return hasattr(model, "get_base_model")


def base_of(folder: Path) -> str:
    """The model an adapter folder was made for: a path or a Hub id.

    Raises:
        BadModel: its config is damaged or does not say.
    """
    try:
        config = files.read_json(folder / CONFIG, "the adapter's config")
    except BadInput as error:
        raise BadModel(error.what, "Copy the adapter folder again.") from error
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise BadModel(
            f"{folder / CONFIG} does not say which model the adapter is for.",
            "Write its folder or Hub id there as base_model_name_or_path.",
        )
    return base


def layers_to_adapt(model: Any, targets: str) -> list[str]:
    """Last names of the linear layers that `targets` (`all-linear`, or names with commas) means; never the head.

    Raises:
        BadInput: names a layer that is not there; lists those that are.
    """
    known = {name.rpartition(".")[2] for name in _linear_layers(model)}
    if not known:
        raise BadInput("This model has no linear layer that adapters can be put on.", "Train it without --lora-r.")
    if targets == ALL_LINEAR:
        return sorted(known)
    wanted = {name.strip() for name in targets.split(",")} - {""}
    unknown = sorted(wanted - known)
    if unknown or not wanted:
        raise BadInput(
            f"--lora-targets {targets}: this model has no linear layer named {', '.join(unknown) or 'nothing'} "
            "(embeddings and the output head are not adapted).",
            f"It has: {', '.join(sorted(known))}.",
        )
    return sorted(wanted)


def _linear_layers(model: Any) -> dict[str, Any]:
    """The linear layers of the model's body by their full names.

    Not those inside a state-space mixer: it reads their weights past them, so that an adapter would be half in use.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    mixers = tuple(f"{name}." for name, module in model.named_modules() if "MambaMixer" in type(module).__name__)
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and not name.startswith(mixers)
    }


def add_adapters(model: Any, config: TrainConfig, *, base: str) -> Any:
    """Fresh adapters on a model: its output is what it was, and from now on only they learn.

    Args:
        base: what whoever loads the adapter later is to load first.

    Returns:
        The peft model around `model`; the same weights and seed give the same adapters.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    assert config.lora_r is not None
    layers = layers_to_adapt(model, config.lora_targets)
    options = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.alpha,
        target_modules=layers,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in _linear_layers(model).values()),
    )
    with torch.random.fork_rng(), _without_warnings():
        torch.manual_seed(config.seed)
        adapted: Any = get_peft_model(model, options)
    options.base_model_name_or_path = base
    return adapted.eval()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """peft asks transformers in a way that is going out of use, once a run; nothing a user can fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def attach(model: Any, folder: Path) -> Any:
    """Puts the adapter in `folder` on its base model.

    Raises:
        BadModel: it is damaged, made for another model, or of a kind that does not live inside the layers.
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    try:
        options = PeftConfig.from_pretrained(str(folder), local_files_only=True)
        if options.is_prompt_learning:
            raise BadModel(
                f"The adapter in {folder} is a {options.peft_type.value} one.", "kto reads LoRA and its kin."
            )
        with _without_warnings():
            adapted: Any = PeftModel.from_pretrained(model, str(folder), config=options, local_files_only=True)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BadModel(
            f"The adapter in {folder} cannot be loaded: {first_line(error)}.", "Is it for this model?"
        ) from error
    return adapted.eval()


def tensors(model: Any) -> dict[str, Any]:
    """The adapters' own tensors, spread over processes or not, by the names under which `save` writes them."""
    from peft import get_peft_model_state_dict

    with _without_warnings():
        return dict(get_peft_model_state_dict(model, model.state_dict(keep_vars=True), save_embedding_layers=False))


def off(model: Any) -> contextlib.AbstractContextManager[Any]:
    """Within it, an adapted model computes as its base does; another one as ever."""
    return model.disable_adapter() if is_adapted(model) else contextlib.nullcontext()


def save(folder: Path, model: Any, weights: dict[str, Any] | None = None) -> None:
    """Writes adapter_config.json and adapter_model.safetensors; the base model is not written.

    `weights` stand in for the model's own state dict, where that is spread over processes.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    (folder / "README.md").unlink()  # peft's empty model card


def merged(model: Any) -> Any:
    """The base model with the adapters added to its weights, in place; a plain transformers model again."""
    return model.merge_and_unload()


def learning_parameters(model: Any) -> tuple[int, int]:
    """(numbers that learn, all numbers)."""
    learning, total = model.get_nb_trainable_parameters()
    return int(learning), int(total)
