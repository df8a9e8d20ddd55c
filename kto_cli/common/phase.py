"""A long phase of a command: how far it is, said where no progress bar can be drawn, and what a stop keeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kto_cli.common.errors import Interrupted

PAUSE = 30.0
"""Seconds between two lines."""
KEPT = "What was finished is kept; run the same command again (train: with --resume)."
"""What a stop keeps where a phase says nothing else."""


STORED = "What was computed is stored. Run the same command again to continue."


class Phase:
    """A phase with so many parts; the number may be unknown."""

    def __init__(self, what: str, total: int | None, done: int = 0, keeps: str = "") -> None:
        self.what, self.total, self.done, self.keeps = what, total, done, keeps
        self._before = done
        self._began = self._advanced = time.monotonic()

    def advance(self, count: int) -> None:
        """Counts parts that are finished."""
        self.done += count
        self._advanced = time.monotonic()

    def line(self) -> str:
        """Where it is: "reference log-probs: 1,200 of 8,196 (15 %), about 12 min left".

        The time left is that of the parts left, less what the part under way has taken: it never grows while one is.
        """
        now = time.monotonic()
        seconds = now - self._began
        if not self.total:
            count = f"{self.done:,}, " if self.done else ""
            return f"{self.what}: {count}{_duration(seconds)} so far"
        line = f"{self.what}: {self.done:,} of {self.total:,} ({self.done / self.total:.0%})"
        new = self.done - self._before
        if not new:
            return f"{line}, {_duration(seconds)} so far"
        part = (self._advanced - self._began) / new
        left = part * (self.total - self.done) - min(part, now - self._advanced)
        return f"{line}, about {_duration(left)} left"

    @contextmanager
    def told(self, say: Callable[[str], None]) -> Iterator[None]:
        """Context manager that says where the phase is, twice a minute."""
        ended = threading.Event()

        def tell() -> None:
            while not ended.wait(PAUSE):
                say(self.line())

        thread = threading.Thread(target=tell, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Context manager in which Ctrl-C and SIGTERM say what they keep.

        Raises:
            Interrupted: the phase was stopped.
        """
        try:
            yield
        except KeyboardInterrupt:
            place = f", at {self.done:,} of {self.total:,}" if self.total else ""
            raise Interrupted(f"Stopped: {self.what}{place}. {self.keeps or KEPT}") from None


def _duration(seconds: float) -> str:
    """So long, in the largest unit that is not 0."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return (
        f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
    )  # hours from an hour and a half on
