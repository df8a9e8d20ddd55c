"""Atomic writes of files and folders, content hashes; the built-in sample data."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, DiskFull, KtoError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a limit on the size of a file (ulimit -f)."""
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ESTALE)


@contextmanager
def saying_disk_full(where: Path) -> Iterator[None]:
    """Context manager that turns what an operating system refuses to write, through any library, into one clear error.

    Raises:
        DiskFull: the device that holds `where` is full. BadInput: it cannot be written to.
    """
    try:
        yield
    except KtoError:
        raise
    except Exception as error:
        number = _error_number(error)
        if number in FULL:
            reason = "No space left on the device" if number != errno.EFBIG else "The limit on file sizes is reached"
            raise DiskFull(
                f"{reason} while writing {where}.",
                "Nothing finished is lost; free some space and run the same command again.",
            ) from error
        if number in _NOT_WRITABLE:
            path = getattr(error, "filename", None) or where
            raise BadInput(f"{path} cannot be written: {os.strerror(number)}.", "Give another path.") from error
        raise


def _error_number(error: Exception) -> int | None:
    """The system's number of an error; libraries in Rust give it in words only, those in C++ sometimes."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"(?:os error|errno:?) (\d+)", str(error))
    if found:
        return int(found[1])
    return errno.ENOSPC if "No space left" in str(error) else None


def make_folder(folder: Path, *, asked: Path | None = None) -> None:
    """Creates a folder and its parents.

    Args:
        asked: the folder to name in an error, instead of `folder`.

    Raises:
        BadInput: it cannot be created. DiskFull: no space left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        with saying_disk_full(folder):
            if error.errno in FULL:
                raise
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


def append_synced(path: Path, data: bytes) -> None:
    """Appends all the bytes or none; once it returns they survive a power cut."""
    with path.open("ab") as file:
        start = file.tell()
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(start)
            raise


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
    after that; if the process is killed between the two renames, `restore_folder` puts it back. A failure leaves
    nothing behind, no new parent folders either. The caller sees to it that nobody else writes there (owner.py).

    Raises:
        DiskFull: no space left; an earlier folder is unchanged.
    """
    created = [above for above in folder.parents if not os.path.lexists(above)]
    temporary, retired = being_written(folder), being_replaced(folder)
    with saying_disk_full(folder), removing_empty(created):
        restore_folder(folder)
        remove(temporary)
        make_folder(temporary, asked=folder)
        try:
            yield temporary
            _put_in_place(temporary, folder, retired)
        finally:
            remove(temporary)


def _put_in_place(temporary: Path, folder: Path, retired: Path) -> None:
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            sync_file(path)
    sync_folder(temporary)
    remove(retired)
    if os.path.lexists(folder):
        os.replace(folder, retired)
    try:
        os.replace(temporary, folder)
    except OSError:
        os.replace(retired, folder)
        raise
    sync_folder(folder.parent)
    remove(retired)


def being_written(folder: Path) -> Path:
    """The name of a folder until it is complete."""
    return folder.with_name(f".{folder.name}.tmp")


def being_replaced(folder: Path) -> Path:
    """The name of an earlier folder while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def restore_folder(folder: Path) -> bool:
    """Puts an earlier folder back if a process was killed between the two renames of `replacing_folder`."""
    retired = being_replaced(folder)
    if os.path.lexists(folder) or not retired.is_dir():
        return False
    with saying_disk_full(folder):
        os.replace(retired, folder)
    return True


def remove(path: Path) -> None:
    """Removes a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def removing_empty(folders: list[Path]) -> Iterator[None]:
    """Context manager that removes those of the folders, innermost first, that are empty at the end."""
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that is not empty stays, and its parents
            for folder in folders:
                folder.rmdir()


def give_usual_mode(paths: Iterable[Path]) -> None:
    """Lets others read files as far as the umask allows: safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in paths:
        path.chmod(0o666 & ~mask)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json_lines(rows), encoding="utf-8")


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
    return _sha256_of(path.resolve(), state_of(path))


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, state: tuple[int, ...]) -> str:
    return file_sha256(path)


def state_of(path: Path) -> tuple[int, ...]:
    """Size, times and inode of a file: while they stay, what was made of it within this process stands."""
    seen = path.stat()
    return seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino


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
