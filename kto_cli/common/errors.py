"""What a user can fix.

    KtoError                 one line on stderr: what is wrong, where, what to do next; exit status 1
    +-- BadInput             a file, a row, a flag or a folder is not what it must be
    +-- BadData              the rows cannot be learned from (one class only, one prompt only, nothing fits)
    +-- BadModel             the model folder is missing, damaged or of a kind that cannot be used
    +-- DiskFull             nothing more can be written
    +-- Diverged             a loss or a gradient is not a number
    Interrupted              Ctrl-C; exit status 130; says how to go on

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class KtoError(Exception):
    """A fault the user can fix: `what` happened and where, and the `next_step` that fixes it."""

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}".strip()


class BadInput(KtoError):
    """A file, a row, a flag or a folder is not what it must be."""


class BadData(KtoError):
    """The rows are well-formed and still cannot be learned from."""


class BadModel(KtoError):
    """The model is missing, damaged or of a kind that cannot be used."""


class DiskFull(KtoError):
    """No space left on the device that is being written to."""


class OutOfMemory(KtoError):
    """The device has too little memory for what was asked of it."""


class Diverged(KtoError):
    """A loss, a log-probability or a gradient is not a finite number."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the message says what is kept and how to go on."""
