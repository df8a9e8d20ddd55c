"""Atomic writes of files and folders, locks, content hashes, JSON; the built-in sample data."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, DiskFull


@contextmanager
def saying_disk_full(where: Path) -> Iterator[None]:
    """Context manager that turns "no space left", from any library, into one clear error.

    Raises:
        DiskFull: the device that holds `where` is full.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error) or "os error 28" in str(error):
            raise DiskFull(
                f"No space left on the device while writing {where}.",
                "Nothing finished is lost; free some space and run the same command again.",
            ) from error
        raise


def make_folder(folder: Path, *, asked: Path | None = None) -> None:
    """Creates a folder and its parents.

    Args:
        asked: the folder to name in an error, instead of `folder`.

    Raises:
        BadInput: it cannot be created. DiskFull: no space left.
    """
    with saying_disk_full(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
            raise BadInput(
                f"The folder {asked or folder} cannot be created: {error.strerror}.", "Give another path."
            ) from error


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut (on systems that can sync a folder)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Makes the bytes of `path` survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path; on success it atomically replaces `path`.

    Raises:
        DiskFull: no space left; the temporary file is removed and an earlier `path` unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with saying_disk_full(path):
            make_folder(path.parent)
            yield temporary
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Context manager that yields a temporary folder to fill; on success it replaces `folder`.

    Files are synced before the rename, so a folder with its final name is complete. An earlier folder is removed only
    after that. A failure leaves nothing behind, no new parent folders either.

    Raises:
        BadInput: another process is writing it. DiskFull: no space left; an earlier folder is unchanged.
    """
    created = [above for above in folder.parents if not os.path.lexists(above)]
    temporary = folder.with_name(f".{folder.name}.tmp")
    retired = folder.with_name(f".{folder.name}.old")
    with saying_disk_full(folder), _removing_empty(created), _claimed(temporary, folder):
        _restore(retired, folder)
        yield temporary
        for path in sorted(temporary.rglob("*")):
            if path.is_file():
                sync_file(path)
        sync_folder(temporary)
        shutil.rmtree(retired, ignore_errors=True)
        if folder.exists():
            os.replace(folder, retired)
        try:
            os.replace(temporary, folder)
        except OSError:
            _restore(retired, folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(retired, ignore_errors=True)


def _restore(retired: Path, folder: Path) -> None:
    """Restores the earlier folder if a process was killed between the two renames."""
    if retired.exists() and not folder.exists():
        os.replace(retired, folder)


@contextmanager
def _removing_empty(folders: list[Path]) -> Iterator[None]:
    """Context manager that removes those of the folders, innermost first, that are empty at the end."""
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that is not empty stays, and its parents
            for folder in folders:
                folder.rmdir()


@contextmanager
def _claimed(temporary: Path, folder: Path) -> Iterator[None]:
    """Context manager that creates and locks `temporary` for this process, and removes it at the end.

    The remains of a killed process are removed first; the lock protects those of a living one.
    """
    if temporary.exists():
        with _folder_lock(temporary, folder):
            shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary, asked=folder)
    with _folder_lock(temporary, folder):
        try:
            yield
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _folder_lock(temporary: Path, folder: Path) -> Iterator[None]:
    """Context manager that locks a folder, until the process ends at the latest (on systems with file locks)."""
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(temporary, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"Another process is writing {folder}.", "Wait for it, or give another folder.") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context manager that one process enters at a time. The lock file `path` stays (on systems with file locks)."""
    if os.name != "posix":
        yield
        return
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file; `what` describes it in the error.

    Raises:
        BadInput: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing ({what}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is damaged ({what}): {error}.") from error


def finite(value: Any) -> Any:
    """`value` with NaN and infinities replaced by None, as JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def json_lines(rows: Iterable[dict[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows)


def files_below(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path in it ("additional_chat_templates/tool_use.jinja")."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def weights_sha256(path: Path) -> str:
    """Hex SHA-256 of a file of weights, computed once per process while size, times and inode stay the same."""
    seen = path.stat()
    return _sha256_of(path.resolve(), seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, *_: int) -> str:
    return file_sha256(path)


def text_hash(*parts: str) -> str:
    """Hash of a list of texts, 16 hex digits; joined as JSON, so that different lists differ."""
    return hashlib.blake2b(json.dumps(parts, ensure_ascii=True).encode(), digest_size=8).hexdigest()


def sample_data() -> Path:
    """The built-in sample: inside the installed package, or beside it in a checkout.

    Raises:
        BadInput: the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "sample_data", package.parent / "sample_data"):
        if (folder / "model").is_dir() or (folder / "hh-rlhf").is_dir():
            return folder
    raise BadInput("This installation of kto lacks its built-in sample data.", "Reinstall the package.")
