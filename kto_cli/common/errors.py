"""Errors that a user can act on.

    KtoError                 one line on stderr: what is wrong, where, what to do next
    +-- BadInput             a file, a row, a setting or a folder cannot be used; exit status 1
    |   +-- BadFlag          a flag, or flags that do not go together; exit status 2, as for unknown flags
    +-- BadData              the rows cannot be learned from (one class only, one prompt only, nothing fits)
    +-- BadModel             the model folder is missing, damaged or of an unsupported kind
    +-- DiskFull             no space left to write
    +-- OutOfMemory          the device has too little memory
    +-- Diverged             a loss, a log-prob or a gradient is not a finite number
    +-- ServerFault          a server does not answer, or not as a chat server (evaluation/server/client.py)
    +-- OutOfCalls           the limit on requests to a judge is reached (evaluation/server/client.py)
    Interrupted              Ctrl-C or SIGTERM; exit status 130; says how to continue

Every other exception is a bug of kto and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping


class KtoError(Exception):
    """An error the user can fix: `what` happened and where, and the `next_step` that fixes it."""

    exit_status = 1

    def __init__(self, what: str, next_step: str = "", *, details: Mapping[str, object] | None = None) -> None:
        """`details`: what --json prints besides."""
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.details = dict(details or {})

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}".strip()


class BadInput(KtoError):
    """A file, a row, a setting or a folder cannot be used."""


class BadFlag(BadInput):
    """A flag has a value it cannot have, or does not go with another one."""

    exit_status = 2


class BadData(KtoError):
    """The rows are well-formed and still cannot be learned from."""


class BadModel(KtoError):
    """The model is missing, damaged or of an unsupported kind."""


class DiskFull(KtoError):
    """No space left on the device that is being written to."""


class OutOfMemory(KtoError):
    """The device has too little memory."""


class Diverged(KtoError):
    """A loss, a log-probability or a gradient is not a finite number."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the message says what is kept and how to continue."""

    exit_status = 130


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: torch's, of a GPU or of a CPU, or Python's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )


def first_line(error: BaseException) -> str:
    """The first line of an exception's message without its full stop, with the next one where it ends in a colon; the
    name of the exception's class if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).rstrip(".")
