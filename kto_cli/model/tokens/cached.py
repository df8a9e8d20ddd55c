"""Token store of a dataset: opened from the cache folder, or tokenized into it first.

The name of a store is a hash of everything that determines its tokens: the rows, the tokenizer's files and the versions
of the libraries that read them, the chat template, its arguments and the date it writes, the control texts, the
end-of-turn tokens, the maximum length, and the store's format.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.cache import make_cache_folder, owning_in_cache
from kto_cli.common.errors import BadInput
from kto_cli.common.owner import beside
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import spelled_kwargs
from kto_cli.data.dataset import TRAIN, DataDir, count_rows, read_columns
from kto_cli.model.identity import tokenizer_identity
from kto_cli.model.tokens.build_store import write_store
from kto_cli.model.tokens.encoder import Encoder
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.store import MANIFEST, VERSION, EncodedRows, TokenStore
from kto_cli.model.tokens.store_files import open_store

UNCHANGED = "The dataset is unchanged; the same command tokenizes it again."
_BATCH = 512
"""Rows read at once."""


def tokenized_rows(
    root: Path, data: DataDir, file: str, encoder: Encoder, tokenizer_folder: Path, accelerator: Any, screen: Screen
) -> tuple[EncodedRows, EncodingReport]:
    """Tokenized rows of one of the dataset's files, and the report of truncated and dropped rows.

    The first process of each machine tokenizes them if the cache lacks them; the others wait.

    Args:
        root: the cache folder. file: train.parquet or validation.parquet.

    Raises:
        BadData: see `write_store`. BadInput: the cache folder cannot be used. DiskFull: no space left in it.
    """
    total = count_rows(data.folder / file)
    if not total:
        return EncodedRows(), EncodingReport()
    folder = root / "tokens" / store_name(data.fingerprint, file, encoder, tokenizer_folder)
    write = partial(_write, data, file, total, encoder, screen)
    try:
        if accelerator.is_local_main_process:
            open_or_write(folder, write, screen)
    finally:
        accelerator.wait_for_everyone()
    store, report = open_or_write(folder, write, screen)
    return EncodedRows([store]), report


def store_name(dataset: str, file: str, encoder: Encoder, tokenizer_folder: Path) -> str:
    """32 hex digits: hash of everything that determines the store's tokens."""
    parts = [
        VERSION,
        dataset,
        file,
        tokenizer_identity(tokenizer_folder, encoder.tokenizer),
        str(encoder.date),
        encoder.ends,
        encoder.max_length,
    ]
    if encoder.template_kwargs:  # without any, names are those of stores made before there were any
        parts.append(spelled_kwargs(encoder.template_kwargs))
    if any(encoder.control):
        parts.append(["control", *encoder.control])
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def open_or_write(folder: Path, write: Any, screen: Screen) -> tuple[TokenStore, EncodingReport]:
    """Opens a store, after writing it if it is missing or damaged; one process writes at a time.

    Args:
        write: fills an empty folder.
    """
    if (folder / MANIFEST).exists():
        try:
            return open_store(folder)
        except BadInput as error:
            screen.warn(f"The tokenized rows in the cache cannot be used ({error.what}) They are tokenized again.")
    make_cache_folder(folder.parent)
    with owning_in_cache(beside(folder), folder, "tokenizing rows into", screen.note):
        try:
            return open_store(folder)  # another process may have written it meanwhile
        except BadInput:
            with files.replacing_folder(folder) as temporary:
                write(temporary)
    return open_store(folder)


def _write(data: DataDir, file: str, total: int, encoder: Encoder, screen: Screen, folder: Path) -> None:
    """Tokenizes rows into an empty folder.

    Raises:
        BadInput: the dataset was replaced meanwhile.
    """
    path, what = data.folder / file, "training" if file == TRAIN else "validation"
    with screen.progress(f"tokenizing {what} rows", total, keeps=UNCHANGED):
        write_store(folder, partial(read_columns, path, size=_BATCH), encoder, tick=screen.tick)
    if files.file_sha256(path) != data.manifest["files"][file]:
        raise BadInput(f"{path} was replaced while it was read.", "Run the same command again.")
