"""A model folder, checked before anything is loaded: what it holds, and why kto cannot train it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.common.read import read_json
from kto_cli.model import lora
from kto_cli.model.written_files import SETTINGS, check_files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""All weights, or the names of the files that they are in; the former first."""
POINTER = b"version https://git-lfs"
"""First bytes of a file that Git LFS has not fetched."""
TOKENIZER_FILES = ("tokenizer*.json", "vocab*", "merges*", "*.model", "*.tiktoken", "*.spm", "tekken.json")
COPY_AGAIN = "Copy the model folder again."


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder.

    Raises:
        BadModel: the folder holds an adapter, or no config that can be read.
    """
    path = folder / "config.json"
    if lora.is_adapter(folder):
        raise BadModel(
            f"{folder} holds an adapter for {lora.base_of(folder)}, not a whole model.",
            f"Here it takes a whole one: merge it first (kto export {folder} --merge --to FOLDER).",
        )
    if not path.is_file() and (folder / SETTINGS).is_file():
        raise BadModel(f"The run in {folder} is not finished.", f"Finish it: kto train --resume --out {folder}")
    if not path.is_file():
        raise BadModel(f"{folder} has no config.json.", "Is it a Hugging Face model folder?")
    try:
        config = read_json(path, "the model's config", constants=True)
    except BadInput as error:
        raise BadModel(error.what, COPY_AGAIN) from error
    if not isinstance(config, dict):
        raise BadModel(f"{path} is not a model config.", COPY_AGAIN)
    return config


def check_folder(folder: Path, *, in_4bit: bool = False) -> None:
    """Refuses a folder that holds no complete causal language model with weights that can be trained.

    Args:
        in_4bit: adapters are trained over weights of 4 bits.

    Raises:
        BadModel: says what it holds instead, or lacks, and what to do. BadInput: kto wrote it, and a file has changed.
    """
    config = read_config(folder)
    _refuse_two_models(folder)
    _refuse_other_kinds(folder, config)
    _refuse_quantized(folder, config, in_4bit=in_4bit)
    for path in _pointers(folder):
        raise BadModel(f"{path} is a Git LFS pointer, not the file itself.", "Run `git lfs pull` in the folder.")
    weights_files(folder)
    _refuse_missing_shards(folder)
    check_files(folder)


def _refuse_two_models(folder: Path) -> None:
    """transformers would load the adapter's base in place of the weights that lie there."""
    if (folder / lora.CONFIG).is_file():
        raise BadModel(
            f"{folder} holds both a whole model and an adapter ({lora.CONFIG}).",
            "Move one of them to a folder of its own.",
        )


def _refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    if config.get("is_encoder_decoder"):
        raise BadModel(
            f"{folder} holds an encoder-decoder model ({config.get('model_type')}).",
            "kto trains decoder models (causal language models).",
        )
    kinds = [str(kind) for kind in config.get("architectures") or ()]
    if kinds and all(kind.endswith(("ForSequenceClassification", "ForTokenClassification")) for kind in kinds):
        raise BadModel(
            f"{folder} holds a classifier or reward model ({', '.join(kinds)}), not a language model.",
            "Give a causal language model; `kto eval --judge-model` takes a reward model.",
        )


def _refuse_quantized(folder: Path, config: dict[str, Any], *, in_4bit: bool) -> None:
    """Quantized weights have no gradient; only 4-bit weights of bitsandbytes can lie below adapters (QLoRA)."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(found, dict):
        return
    method = str(found.get("quant_method") or "bitsandbytes")
    four_bits = method == "bitsandbytes" and bool(found.get("load_in_4bit"))
    plain = method == "bitsandbytes" and not four_bits and not found.get("load_in_8bit")  # left by a dequantized model
    if plain or (four_bits and in_4bit):
        return
    bits = "4 bits" if four_bits else f"{found['bits']} bits" if "bits" in found else "quantized form"
    adapters = "Train adapters over them with --lora-r 16 --load-in-4bit, or give" if four_bits else "Give"
    later = "" if four_bits else " (--lora-r 16 --load-in-4bit makes that small while it loads)"
    raise BadModel(
        f"The weights in {folder} are stored in {bits} ({method}), and such weights cannot be trained.",
        f"{adapters} the model it was made from, in 16 bits{later}.",
    )


def _pointers(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < 1024:  # a pointer has three short lines
            with path.open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    yield path


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads, as far as they are there.

    Others may lie beside them: a checkpoint's optimizer state and moving reference, the same weights in another layout.

    Raises:
        BadModel: there are none.
    """
    found = sorted(folder.glob("*.safetensors"))
    named = {WEIGHTS} if (folder / WEIGHTS).is_file() else _named_by_index(folder)
    found = [path for path in found if path.name in named] or found
    if not found:
        other = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".gguf")))
        hint = f"It has {other}; convert it to safetensors first." if other else "Is it a Hugging Face model folder?"
        raise BadModel(f"{folder} holds no model weights (*.safetensors).", hint)
    return found


def _refuse_missing_shards(folder: Path) -> None:
    named = _named_by_index(folder)
    if outside := sorted(str(name) for name in named if Path(str(name)).name != name):
        raise BadModel(f"{folder / INDEX} names weights outside of the folder: {outside[0]}.", COPY_AGAIN)
    if missing := sorted(name for name in named if not (folder / name).is_file()):
        raise BadModel(
            f"{folder} lacks {len(missing)} of its {len(named)} files of weights: {', '.join(missing[:3])}.",
            "Copy them there; a model of the Hub is completed by the same command.",
        )


def _named_by_index(folder: Path) -> set[Any]:
    if not (folder / INDEX).is_file():
        return set()
    index = read_json(folder / INDEX, "the index of the weights")
    return set(index.get("weight_map", {}).values()) if isinstance(index, dict) else set()


def has_tokenizer(folder: Path) -> bool:
    """Whether any file of a tokenizer is there."""
    return any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES)
