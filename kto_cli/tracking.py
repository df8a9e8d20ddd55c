"""`--track`: each step's numbers in trackio, TensorBoard or wandb, through accelerate's trackers.

A tracker is a guest. It lives in a thread of its own, may fail, be slow or hang, and the run goes on without it.
The names under which trackers know a run are in OUT/tracking/runs.json.
"""

from __future__ import annotations

import io
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.trackers import OPENERS, PATIENCE, Opened, Place, in_short

FOLDER = "tracking"
"""In the run directory."""
WAITING = 10_000
"""Steps kept for a tracker that is behind."""


def refuse_missing_trackers(names: Sequence[str]) -> None:
    """Before anything is computed.

    Raises:
        BadInput: one is not installed.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise BadInput(
            f"--track {', '.join(missing)}: not installed.", f"pip install {' '.join(missing)}, or leave it out."
        )


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested names joined by slashes, (low, high) as _low and _high; what is None or not finite is left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}/")
        elif isinstance(value, (list, tuple)) and len(value) == 2:
            found |= flat({f"{name}_low": value[0], f"{name}_high": value[1]}, before)
        elif isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            found[f"{before}{name}"] = value
    return found


class Guest:
    """A tracker in its thread."""

    def __init__(self, name: str, place: Place, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.opened: Opened | None = None
        self.fault = ""
        self.ready = threading.Event()
        self._steps: queue.Queue[tuple[int, dict[str, Any]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._live, args=(place, settings), name=f"kto-{name}", daemon=True)
        self._thread.start()

    def tell(self, record: Mapping[str, Any]) -> None:
        """A step's numbers; returns at once."""
        values = {name: value for name, value in flat(record).items() if name != "step" and not isinstance(value, str)}
        try:
            self._steps.put_nowait((record["step"], values))
        except queue.Full:
            self.fault = self.fault or f"is {WAITING:,} steps behind; what comes now is left out"

    def leave(self) -> bool:
        """Waits until all is told; True if it was."""
        try:
            self._steps.put(None, timeout=PATIENCE)
        except queue.Full:
            return False
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()

    def _live(self, place: Place, settings: Mapping[str, Any]) -> None:
        try:
            self.opened = OPENERS[self.name](place)
            if self.name not in place.known:
                self.opened.tracker.store_init_configuration(flat(settings))
            self.ready.set()
            while (told := self._steps.get()) is not None:
                step, values = told
                if step > self.opened.last_step:
                    self.opened.tracker.log(values, step=step)
            self.opened.tracker.finish()
        except Exception as error:  # noqa: BLE001  (whatever a tracker raises, the run goes on)
            self.fault = f"failed: {in_short(error)}"
        finally:
            self.ready.set()


@contextmanager
def tracking(
    names: Sequence[str], out: Path, settings: Mapping[str, Any], screen: Screen, *, done: int, recorded: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Tells the trackers of a run; for the main process alone.

    Args:
        out: the run directory. settings: of the run. done: steps before this process. recorded: see `Place`.

    Yields:
        what is to be called with each step's record.
    """
    if not names:
        yield lambda record: None
        return
    place = Place(out / FOLDER, out.resolve().name, done, recorded, _known(out / FOLDER / "runs.json"))
    files.make_folder(place.folder)
    with redirect_stdout(io.StringIO()):  # trackers greet and take leave there
        guests = [Guest(name, place, settings) for name in names]
        for guest in guests:
            _welcome(guest, screen)
    called = {guest.name: guest.opened.called for guest in guests if guest.opened}
    files.write_json(place.folder / "runs.json", {**place.known, **called})
    warned: set[str] = set()

    def tell(record: Mapping[str, Any]) -> None:
        for guest in guests:
            guest.tell(record)
            _warn_once(guest, warned, screen)

    try:
        yield tell
    finally:
        with redirect_stdout(io.StringIO()):  # trackers greet and take leave there
            late = [guest.name for guest in guests if not guest.leave()]
        for guest in guests:
            _warn_once(guest, warned, screen)
        for name in late:
            screen.warn(f"{name} did not finish within {PATIENCE:g} s; its last steps may be missing there.")


def _known(path: Path) -> dict[str, str]:
    return files.read_json(path, "the names of this run at its trackers") if path.is_file() else {}


def _welcome(guest: Guest, screen: Screen) -> None:
    if not guest.ready.wait(PATIENCE):
        screen.warn(f"{guest.name} did not answer within {PATIENCE:g} s; training begins, and tells it once it does.")
    elif guest.opened and not guest.fault:
        screen.note(f"Numbers go to {guest.name}: {guest.opened.says}")


def _warn_once(guest: Guest, warned: set[str], screen: Screen) -> None:
    if guest.fault and guest.name not in warned:
        warned.add(guest.name)
        screen.warn(f"{guest.name} {guest.fault}. Training goes on; metrics.jsonl has every number.")
