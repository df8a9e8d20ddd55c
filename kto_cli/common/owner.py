"""One owner of a folder at a time: a lock file that says which process on which machine writes there.

The lock is the operating system's (flock): it ends with its process, however that dies, and the file that is left of a
killed one is taken over. Some network file systems have no such locks; then that is said and the work goes on.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.files import FULL, make_folder, removing_empty, saying_disk_full

LOCK = ".lock"
"""Name of the lock file inside a folder that is written to in place."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_WAIT = 0.2
"""Seconds between two tries."""


class Occupied(BadInput):
    """Another process owns the folder."""


def beside(folder: Path) -> Path:
    """The lock file of a folder that is replaced as a whole."""
    return folder.with_name(f".{folder.name}{LOCK}")


@contextmanager
def owning(
    lock: Path,
    folder: Path,
    doing: str,
    *,
    waiting: Callable[[str], None] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Context manager that this process alone enters for `folder`, on all machines that see it.

    Args:
        lock: the lock file, in the folder or beside it; folders that are missing are created, and removed if empty.
        doing: what the owner does, for the others: "training in"; empty if for a moment only.
        waiting: called once with who the owner is, before waiting for it; without it an owner is an error.
        warn: called if the file system has no locks.

    Raises:
        Occupied: another process owns it. BadInput: the lock file cannot be written. DiskFull: no space left.
    """
    created = [above for above in lock.parents if not os.path.lexists(above)]
    make_folder(lock.parent, asked=folder)
    with removing_empty(created):
        handle = _acquire(lock, folder, doing, waiting, warn)
        try:
            yield
        finally:
            if handle is not None:
                with suppress(OSError):  # the folder may be gone, or its disk
                    lock.unlink()
                os.close(handle)


def _acquire(
    lock: Path, folder: Path, doing: str, waiting: Callable[[str], None] | None, warn: Callable[[str], None]
) -> int | None:
    """The locked file; None where there are no locks."""
    if os.name != "posix":
        return None
    import fcntl

    said = False
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in FULL:
                with saying_disk_full(folder):
                    raise
            raise BadInput(f"{folder} cannot be written to: {error.strerror}.", "Give another folder.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(lock)
            os.close(handle)
            if waiting is None:
                raise Occupied(
                    f"Another process is {doing} {folder}: {owner}.", "Wait for it, or give another folder."
                ) from None
            if not said:
                waiting(f"Another process is {doing} {folder} ({owner}): waiting for it.")
                said = True
            time.sleep(_WAIT)
            continue
        except OSError as error:
            os.close(handle)
            if error.errno not in _UNSUPPORTED:
                raise BadInput(f"{lock} cannot be locked: {error.strerror}.", "Give another folder.") from error
            warn(f"{folder} is on a file system without locks: see to it that no other process writes there.")
            return None
        if _is_still(lock, handle):
            if doing:
                with suppress(OSError):  # on a full disk the owner has no name
                    os.truncate(handle, 0)
                    os.write(handle, f"{_me()}\n".encode())
            return handle
        os.close(handle)  # its last owner removed it meanwhile


def _is_still(lock: Path, handle: int) -> bool:
    """Whether the locked file is the one that has the name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock))
    except FileNotFoundError:
        return False


def _me() -> str:
    command = " ".join(["kto", *sys.argv[1:2]])
    return f"process {os.getpid()} on {socket.gethostname()}, {command}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"


def _owner(lock: Path) -> str:
    """What the owner wrote about itself."""
    with suppress(OSError):
        text = lock.read_bytes()[:300].decode("utf-8", "replace").strip()
        if text:
            return text
    return "it has just begun"
