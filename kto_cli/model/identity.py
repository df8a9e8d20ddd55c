"""Identity of a model and of its arithmetic: everything that decides a log-prob, a token or an answer.

Cached log-probs, token stores, stored answers, results of an evaluation and a resumed run are all named by these:

    fingerprint()          the weights, the index that names them, the config, the model's own Python code
    adapted_fingerprint()  that of a model below an adapter, with the adapter's
    tokenizer_identity()   the tokenizer's files, its template and the libraries that read them
    numbers_identity()     a fingerprint with the dtype and the version of transformers, whose code computes
"""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.read import read_json
from kto_cli.model import lora
from kto_cli.model.folder import INDEX, WEIGHTS, read_config, weights_files

_IGNORED_KEYS = (
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "_attn_implementation",
)
"""Keys of config.json that change no number."""
_IGNORED_OF_ADAPTERS = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
"""Keys of adapter_config.json that change no number."""
_NOT_TOKENIZERS = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.index.json")
_NOR_THESE = ("README*", "LICENSE*", "NOTICE*", "*.md", "*.png", "*.jpg", "metrics.jsonl", "kto_config.json", ".*")
"""Files of a model folder that no tokenizer reads; any other may be one of its files, whatever its name."""


def fingerprint(folder: Path) -> str:
    """Hash of a model's content: weights and their index, config without keys that change no number, own code.

    Raises:
        BadModel: there are no safetensors weights or no config in the folder.
    """
    config = read_config(folder)
    digest = hashlib.sha256(
        json.dumps({k: v for k, v in config.items() if k not in _IGNORED_KEYS}, sort_keys=True).encode()
    )
    for path in weights_files(folder):
        digest.update(f"\n{path.name} {files.weights_sha256(path)}".encode())
    if "auto_map" in config:
        for name, path in files.files_below(folder).items():
            if path.suffix == ".py":
                digest.update(f"\n{name} {files.file_sha256(path)}".encode())
    if (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file():
        digest.update(f"\n{INDEX} {files.file_sha256(folder / INDEX)}".encode())
    return digest.hexdigest()


def adapted_fingerprint(below: str, folder: Path) -> str:
    """Hash of an adapter's content and of the model below it; what follows a dash in that one's fingerprint stays."""
    config = read_json(folder / lora.CONFIG, "the adapter's config", constants=True)
    kept = {name: value for name, value in config.items() if name not in _IGNORED_OF_ADAPTERS}
    digest = hashlib.sha256(f"{plain(below)}\n{json.dumps(kept, sort_keys=True)}".encode())
    for path in sorted(folder.glob("adapter_model*")):
        digest.update(f"\n{path.name} {files.weights_sha256(path)}".encode())
    return digest.hexdigest() + below[len(plain(below)) :]


def plain(fingerprint: str) -> str:
    """A fingerprint without what follows a dash: 4 bits, or merged adapters."""
    return fingerprint.partition("-")[0]


def numbers_identity(fingerprint: str, dtype: str) -> str:
    """Name of a model's log-probs: its fingerprint, the dtype, and the transformers whose code computes it.

    torch is not part of it: its versions differ by rounding, as machines do.
    """
    return f"{fingerprint} {dtype} transformers {version('transformers')}"


def tokenizer_identity(folder: Path, tokenizer: Any) -> list[Any]:
    """What decides the tokens of a text and the text of tokens, as JSON: files, chat template, library versions."""
    below = folder.iterdir() if folder.is_dir() else ()  # a tokenizer that was made in memory has no folder
    found = sorted(
        path
        for path in below
        if path.is_file() and not any(fnmatch(path.name, pattern) for pattern in (*_NOT_TOKENIZERS, *_NOR_THESE))
    )
    return [
        [(path.name, files.file_sha256(path)) for path in found],
        [version("transformers"), version("tokenizers")],
        tokenizer.chat_template,
    ]
