"""The cache folder, and its append-only files and records: one file per process, so that several may write at once."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.files import append_synced, make_folder, saying_disk_full, sync_folder
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.owner import Occupied, owning
from kto_cli.common.read import parse_json, read_bytes
from kto_cli.common.secrets import scrub_all


class AppendFile:
    """This process's file in a cache folder, created at the first write."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder = folder
        self._ending = ending
        self._path: Path | None = None

    def append(self, data: bytes) -> Path:
        """Appends all the bytes or none, safe against a power cut; returns the file.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be created.
        """
        path, created = self._path, self._path is None
        if path is None:
            make_cache_folder(self.folder)
            path = self._path = new_path(self.folder, self._ending)
        with naming_the_cache(), saying_disk_full(self.folder):
            append_synced(path, data)
        if created:
            sync_folder(self.folder)
        return path


class RecordStore:
    """An append-only store of JSON records, one file per process; each line has a checksum keyed with the owner.

        {"key": ..., "value": ..., "check": ...}

    A line that is truncated (by a killed process), damaged or of another owner is skipped and counted. A record is safe
    once `append` returns. Threads may share a store; other processes' records are seen by the next `read`.
    """

    def __init__(self, parent: Path, owner: object) -> None:
        """
        Args:
            parent: its folder has one sub-folder for each owner. owner: all that makes the records its own, as JSON.
        """
        self._seal = hashlib.blake2b(json.dumps(owner, sort_keys=True).encode(), digest_size=32).digest()
        self.folder = parent / self._seal.hex()[:32]
        self._file = AppendFile(self.folder, ".jsonl")
        self._lock = threading.Lock()
        self.damaged = 0
        """Lines skipped by the last `read`."""

    def key(self, text: str) -> str:
        """32 hex digits that name a text in this store."""
        return hashlib.blake2b(text.encode(), key=self._seal, digest_size=16).hexdigest()

    def read(self) -> list[tuple[str, Any]]:
        """All valid records (key, value), files in the order of their creation."""
        self.damaged = 0
        found = []
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = [line for line in read_bytes(path, "records of the cache").split(b"\n") if line]
            except BadInput:
                self.damaged += 1
                continue
            sound = [record for record in map(self._valid, lines) if record is not None]
            self.damaged += len(lines) - len(sound)
            found += sound
        return found

    def append(self, records: Iterable[tuple[str, Any]]) -> None:
        """Stores some (key, value), all or none, without secrets in the values.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be created.
        """
        lines = b"".join(self._line(key, scrub_all(value)) for key, value in records)
        with self._lock:
            self._file.append(lines)

    def _line(self, key: str, value: Any) -> bytes:
        record = {"key": key, "value": value, "check": self._check(key, value)}
        return json.dumps(record).encode() + b"\n"

    def _check(self, key: str, value: Any) -> str:
        text = json.dumps([key, value], sort_keys=True)
        return hashlib.blake2b(text.encode(), key=self._seal, digest_size=8).hexdigest()

    def _valid(self, line: bytes) -> tuple[str, Any] | None:
        try:
            record = parse_json(line.decode("utf-8"))
            key, value = record["key"], record["value"]
            return (key, value) if record["check"] == self._check(key, value) else None
        except (ValueError, KeyError, TypeError):
            return None


def new_path(folder: Path, ending: str) -> Path:
    """A path that no other process uses; paths sort by time."""
    return folder / f"{time.time_ns():x}-{os.getpid()}{ending}"


def make_cache_folder(folder: Path) -> None:
    """Creates a folder of the cache.

    Raises:
        BadInput: it cannot be created.
    """
    with naming_the_cache():
        make_folder(folder)


@contextmanager
def naming_the_cache() -> Iterator[None]:
    """Context manager that adds to an error of writing that it is the cache's, and how to use another.

    Raises:
        BadInput: the cache cannot be used.
    """
    try:
        yield
    except Occupied:
        raise
    except BadInput as error:
        raise BadInput(f"The cache folder cannot be used. {error.what}", "Give another with --cache DIR.") from error


@contextmanager
def owning_in_cache(lock: Path, folder: Path, doing: str, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager that one process at a time enters; others wait, and `say` who is waited for.

    Raises:
        BadInput: the cache cannot be written to.
    """
    with ExitStack() as held:
        with naming_the_cache():
            held.enter_context(owning(lock, folder, doing, waiting=say, warn=say))
        yield


def default_cache() -> Path:
    """$KTO_CACHE, or ~/.cache/kto."""
    return Path(os.environ.get("KTO_CACHE") or "~/.cache/kto").expanduser()


def cache_folder(config: ModelConfig) -> Path:
    """Folder of reference log-probs and tokenized rows."""
    return Path(config.cache) if config.cache else default_cache()
