"""Files that are never half-written: atomic replacement, content hashes, JSON lines. Standard library only."""

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
    """Turns "no space left", whichever library reports it, into one clear line.

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
    """Makes a folder and those above it, where they are missing; `asked` is what the error names instead.

    Raises:
        BadInput: it cannot be made there. DiskFull: no space left.
    """
    with saying_disk_full(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
            raise BadInput(
                f"The folder {asked or folder} cannot be made: {error.strerror}.", "Give another place."
            ) from error


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut (where the system can sync a folder)."""
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
    """A temporary path beside `path` to write to; on success it takes `path`'s place in one step.

    Raises:
        DiskFull: no space left; the temporary file is gone and an earlier `path` is as it was.
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
    """A temporary folder beside `folder` to fill; on success it takes `folder`'s place.

    Files are synced before the rename, so a folder with its final name is always whole. A folder
    that was there before goes away only once the new one is complete. Of what fails nothing stays, no folder above
    it either.

    Raises:
        BadInput: another process is writing it. DiskFull: no space left; an earlier folder is as it was.
    """
    made = [above for above in folder.parents if not os.path.lexists(above)]
    temporary = folder.with_name(f".{folder.name}.tmp")
    retired = folder.with_name(f".{folder.name}.old")
    with saying_disk_full(folder), _none_left(made), _claimed(temporary, folder):
        _bring_back(retired, folder)
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
            _bring_back(retired, folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(retired, ignore_errors=True)


def _bring_back(retired: Path, folder: Path) -> None:
    """The earlier folder takes its place again, if nothing is there: a process was killed between the two renames."""
    if retired.exists() and not folder.exists():
        os.replace(retired, folder)


@contextmanager
def _none_left(made: list[Path]) -> Iterator[None]:
    """Of these folders, the inner first, those go at the end that are empty."""
    try:
        yield
    finally:
        with suppress(OSError):  # one that is not empty stays, and those above it
            for above in made:
                above.rmdir()


@contextmanager
def _claimed(temporary: Path, folder: Path) -> Iterator[None]:
    """Makes `temporary` anew, for this process alone: what a killed process left there goes, what a living one is
    writing stays. It is gone at the end."""
    if temporary.exists():
        with _held(temporary, folder):
            shutil.rmtree(temporary, ignore_errors=True)
    make_folder(temporary, asked=folder)
    with _held(temporary, folder):
        try:
            yield
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _held(temporary: Path, folder: Path) -> Iterator[None]:
    """Holds a lock on a folder, which ends with the process at the latest (where the system can lock one)."""
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
    """Only one process at a time is inside; the others wait. The file `path` stays (where the system can lock one)."""
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
    """Reads a JSON file that this tool wrote; `what` names it in the error.

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
    """`value` with NaN and infinities as null: JSON has neither."""
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


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
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
    """16 hex digits that name a list of texts; no two different lists share the joined form."""
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
