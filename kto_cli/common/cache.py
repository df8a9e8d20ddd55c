"""Files of a cache that one process appends to: each has its own, so that several may write at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.files import make_folder, saying_disk_full, sync_folder
from kto_cli.common.train_config import ModelConfig


class Segment:
    """This process's file in a folder, made when there is something to write."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder = folder
        self._ending = ending
        self._path: Path | None = None

    def append(self, data: bytes) -> None:
        """Whole or not at all, safe against a power cut.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        path, created = self._path, self._path is None
        if path is None:
            make_cache_folder(self.folder)
            path = self._path = new_path(self.folder, self._ending)
        with saying_disk_full(self.folder), path.open("ab") as file:
            start = file.tell()
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
        if created:
            sync_folder(self.folder)


def new_path(folder: Path, ending: str) -> Path:
    """A name no other process has, later ones after earlier ones."""
    return folder / f"{time.time_ns():x}-{os.getpid()}{ending}"


def make_cache_folder(folder: Path) -> None:
    """
    Raises:
        BadInput: it cannot be made.
    """
    try:
        make_folder(folder)
    except BadInput as error:
        raise BadInput(f"The cache folder cannot be used. {error.what}", "Give another with --cache DIR.") from error


def default_cache() -> Path:
    """$KTO_CACHE, or ~/.cache/kto."""
    return Path(os.environ.get("KTO_CACHE") or "~/.cache/kto").expanduser()


def cache_folder(config: ModelConfig) -> Path:
    """Where reference log-probs and tokenized rows are kept."""
    return Path(config.cache) if config.cache else default_cache()
