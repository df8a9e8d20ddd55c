"""LoRA and DoRA adapters through peft: added, saved, attached from a folder (base_weights.py merges).

peft changes the model in place. A model may have several adapters, whose outputs add up: those it starts from, frozen,
and the one that learns. Within `as_reference` it computes without the latter, so the reference is scored without a
second copy of the model.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.errors import BadInput, BadModel, first_line
from kto_cli.common.read import open_tensors, read_json
from kto_cli.common.train_config import ALL_LINEAR, TrainConfig
from kto_cli.model.linear_layers import layers_to_adapt, linear_layers
from kto_cli.model.text_part import text_part

CONFIG = "adapter_config.json"
"""File that marks an adapter folder, in the absence of a model's weights."""
WEIGHTS = "adapter_model.safetensors"
USUAL_RANK = 16
"""Of adapters that do not say theirs."""
LEARNS = "default"
"""peft's name of the adapter that learns; frozen ones below it are stage1, stage2 and so on."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter, not a full model. Some tools leave the base's config.json beside it."""
    whole = any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    return (folder / CONFIG).is_file() and not whole


def is_adapted(model: Any) -> bool:
    """Whether `add_adapters` or `attach` made this model; does not import peft."""
    return hasattr(model, "get_base_model")


def base_of(folder: Path) -> str:
    """Base model of an adapter folder: a path or a Hub id.

    Raises:
        BadModel: its config is damaged or names no base model.
    """
    try:
        config = read_json(folder / CONFIG, "the adapter's config", constants=True)
    except BadInput as error:
        raise BadModel(error.what, "Copy the adapter folder again.") from error
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(base, str) or not base:
        raise BadModel(
            f"{folder / CONFIG} does not name the adapter's base model.",
            "Add its folder or Hub id there as base_model_name_or_path.",
        )
    return base


def add_adapters(model: Any, config: TrainConfig, *, base: str) -> Any:
    """Adds new adapters to a model, or to peft's model around it. Its output does not change, and only they learn.

    Args:
        base: path or Hub id of the model below them, written to the adapter's config.

    Returns:
        The peft model around `model`. The same weights and seed give the same adapters.

    Raises:
        BadInput: the model has adapters of another kind, which new ones cannot be added to.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    assert config.lora_r is not None
    inner = model.get_base_model() if is_adapted(model) else model
    layers: list[str] | str = layers_to_adapt(inner, config.lora_targets)
    if text := text_part(inner):  # names alone would hit layers of the vision tower too
        layers = rf"{re.escape(text)}\.(?:.*\.)?(?:{'|'.join(map(re.escape, layers))})"
    options = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.alpha,
        target_modules=layers,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear_layers(inner).values()),
    )
    with torch.random.fork_rng(), _without_warnings():
        torch.manual_seed(config.seed)
        if is_adapted(model):
            _refuse_to_stack(model, config)
            model.add_adapter(LEARNS, options)
            adapted: Any = _activated(model, learns=LEARNS)
        else:
            adapted = get_peft_model(model, options)
    options.base_model_name_or_path = base
    return adapted.eval()


def _refuse_to_stack(model: Any, config: TrainConfig) -> None:
    """DoRA's norms are of the base's weights when it learns and of those with the first adapter when it is merged."""
    kind = model.peft_type.value
    if kind != "LORA":
        raise BadInput(f"New adapters cannot be added to a {kind} adapter.", "Leave out --lora-r: it is merged then.")
    if config.dora:
        raise BadInput("--dora cannot be added to an adapter.", "Leave out --dora, or merge the adapter first.")


def _activated(model: Any, *, learns: str | None) -> Any:
    """peft's model with all of its adapters on, of which at most one learns."""
    model.base_model.set_adapter(list(model.peft_config), inference_mode=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learns is not None and f".{learns}." in f"{name}." and "original_module" not in name)
    return model


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides a FutureWarning: peft uses a deprecated interface of transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def attach(model: Any, folder: Path, *, learns: bool = False) -> Any:
    """Adds the adapter in `folder` to the model it belongs on, or to peft's model around it, beside those it has.

    Args:
        learns: it goes on learning; else it is frozen, as all others are.

    Returns:
        The peft model, with all its adapters on.

    Raises:
        BadModel: it is damaged, made for another model, or a kind of adapter outside the layers (prompt tuning).
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    name = LEARNS if learns else f"stage{len(model.peft_config) + 1 if is_adapted(model) else 1}"
    try:
        refuse_other_vocabulary(model, folder)
        options = PeftConfig.from_pretrained(str(folder), local_files_only=True)
        if options.is_prompt_learning:
            raise BadModel(
                f"The adapter in {folder} is a {options.peft_type.value} one.", "kto reads LoRA and its kin."
            )
        with _without_warnings():
            if is_adapted(model):
                adapted: Any = model
                adapted.load_adapter(str(folder), name, local_files_only=True)
            else:
                adapted = PeftModel.from_pretrained(
                    model, str(folder), adapter_name=name, config=options, local_files_only=True
                )
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BadModel(
            f"The adapter in {folder} cannot be loaded: {first_line(error)}.", "Is it for this model?"
        ) from error
    return _activated(adapted, learns=name if learns else None).eval()


def refuse_other_vocabulary(model: Any, folder: Path) -> None:
    """Refuses an adapter that was trained after tokens were added: its embeddings are larger than its base's on disk.

    Raises:
        BadModel: with both sizes.
    """
    if not (folder / WEIGHTS).is_file():
        return
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    with open_tensors(folder / WEIGHTS, "the adapters") as file:
        for name in file.keys():  # noqa: SIM118  (not a mapping)
            layer, shape = name.removeprefix("base_model.model."), tuple(file.get_slice(name).get_shape())
            if layer in own and len(shape) == 2 and own[layer] != shape:
                raise BadModel(
                    f"The adapter in {folder} holds {layer} for {shape[0]:,} tokens, and its base model has "
                    f"{own[layer][0]:,}: it was trained after tokens were added.",
                    "Save the base model with these tokens (resize_token_embeddings), or merge the adapter where it "
                    "was trained.",
                )


def tensors(model: Any) -> dict[str, Any]:
    """The adapters' tensors, sharded or not, by the names in adapter_model.safetensors."""
    from peft import get_peft_model_state_dict

    with _without_warnings():
        return dict(get_peft_model_state_dict(model, model.state_dict(keep_vars=True), save_embedding_layers=False))


@contextlib.contextmanager
def as_reference(model: Any) -> Iterator[None]:
    """Context manager within which the adapter that learns is off; a no-op for a model without any.

    Adapters below it stay on. peft calls a model's adapters disabled only when all of them are.
    """
    if not is_adapted(model):
        yield
        return
    if below := [name for name in model.peft_config if name != LEARNS]:
        model.base_model.set_adapter(below, inference_mode=True)
        try:
            yield
        finally:
            _activated(model, learns=LEARNS)
        return
    with model.disable_adapter():
        yield


def save(folder: Path, model: Any, weights: dict[str, Any] | None = None) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, of the adapter that learns alone.

    Args:
        weights: state dict to write instead of the model's own, if that is sharded.
    """
    chosen = [LEARNS] if LEARNS in model.peft_config else None
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights, selected_adapters=chosen)
    (folder / "README.md").unlink()  # peft's empty model card


def name_base(model: Any, base: str) -> None:
    """Sets what the config of the adapter that learns calls the model below it."""
    model.peft_config[LEARNS].base_model_name_or_path = base


def as_new(config: TrainConfig, folder: Path, model: Any) -> TrainConfig:
    """The settings with which new adapters on a model would have the size of the one in `folder`."""
    options = read_json(folder / CONFIG, "the adapter's config", constants=True)
    targets, rank = options.get("target_modules"), options.get("r")
    names = {str(name).rpartition(".")[2] for name in targets} if isinstance(targets, list) else set()
    known = {name.rpartition(".")[2] for name in linear_layers(model)}
    return replace(
        config,
        continue_adapter=False,
        lora_r=rank if isinstance(rank, int) and rank > 0 else USUAL_RANK,
        lora_targets=",".join(sorted(names & known)) or ALL_LINEAR,
    )


def trainable_parameters(model: Any) -> tuple[int, int]:
    """(trainable parameters, all parameters)."""
    trainable, total = model.get_nb_trainable_parameters()
    return int(trainable), int(total)
