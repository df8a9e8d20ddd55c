"""The cache folder, and its append-only files: one per process, so that several processes may write at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.files import make_folder, saying_disk_full, sync_folder
from kto_cli.common.model_config import ModelConfig


class Segment:
    """This process's file in a cache folder, created at the first write."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder = folder
        self._ending = ending
        self._path: Path | None = None

    def append(self, data: bytes) -> None:
        """Appends all the bytes or none, safe against a power cut.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be created.
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
    """A path that no other process uses; paths sort by time."""
    return folder / f"{time.time_ns():x}-{os.getpid()}{ending}"


def make_cache_folder(folder: Path) -> None:
    """Creates a folder of the cache.

    Raises:
        BadInput: it cannot be created.
    """
    try:
        make_folder(folder)
    except BadInput as error:
        raise BadInput(f"The cache folder cannot be used. {error.what}", "Give another with --cache DIR.") from error


def default_cache() -> Path:
    """$KTO_CACHE, or ~/.cache/kto."""
    return Path(os.environ.get("KTO_CACHE") or "~/.cache/kto").expanduser()


def cache_folder(config: ModelConfig) -> Path:
    """Folder of reference log-probs and tokenized rows."""
    return Path(config.cache) if config.cache else default_cache()
