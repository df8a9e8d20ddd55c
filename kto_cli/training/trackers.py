"""`--track`: each step's numbers in trackio, TensorBoard or wandb, through accelerate's trackers.

Each tracker runs in its own thread; if it fails or hangs, training continues without it.
The names under which trackers know a run are in OUT/tracking/runs.json.
"""

from __future__ import annotations

import io
import math
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen
from kto_cli.common.seals import read_sealed, write_sealed
from kto_cli.common.words import plural

FOLDER = "tracking"
"""In the run directory."""
WAITING = 10_000
"""Most steps queued for a tracker that is behind."""


def refuse_missing_trackers(names: Sequence[str]) -> None:
    """Trackers that are not installed are refused before anything is computed.

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


class TrackerThread:
    """One tracker, called in a thread of its own."""

    def __init__(self, name: str, tracked: TrackedRun, settings: Mapping[str, Any]) -> None:
        self.name = name
        self.opened: Opened | None = None
        self.fault = ""
        self.ready = threading.Event()
        self._steps: queue.Queue[tuple[int, dict[str, Any]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, args=(tracked, settings), name=f"kto-{name}", daemon=True)
        self._thread.start()

    def log(self, record: Mapping[str, Any]) -> None:
        """Queues a step's numbers; returns at once."""
        values = {name: value for name, value in flat(record).items() if name != "step" and not isinstance(value, str)}
        try:
            self._steps.put_nowait((record["step"], values))
        except queue.Full:
            self.fault = self.fault or f"is {plural(WAITING, 'step')} behind; further steps are not sent to it"

    def close(self) -> bool:
        """Waits until all steps are logged; True if they were."""
        try:
            self._steps.put(None, timeout=PATIENCE)
        except queue.Full:
            return False
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()

    def _run(self, tracked: TrackedRun, settings: Mapping[str, Any]) -> None:
        try:
            self.opened = OPENERS[self.name](tracked)
            if self.name not in tracked.known:
                self.opened.tracker.store_init_configuration(flat(settings))
            self.ready.set()
            while (queued := self._steps.get()) is not None:
                step, values = queued
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
    """Trackers of a run, opened and closed; in the main process alone.

    Args:
        out: the run directory. settings: of the run. done: steps before this process. recorded: see `TrackedRun`.

    Yields:
        the function to call with each step's record.
    """
    if not names:
        yield lambda record: None
        return
    tracked = TrackedRun(out / FOLDER, out.resolve().name, done, recorded, _known(out / FOLDER / "runs.json"))
    files.make_folder(tracked.folder)
    with redirect_stdout(io.StringIO()):  # trackers print there
        threads = [TrackerThread(name, tracked, settings) for name in names]
        for thread in threads:
            _report_opened(thread, screen)
    run_names = {thread.name: thread.opened.run_name for thread in threads if thread.opened}
    write_sealed(tracked.folder / "runs.json", {**tracked.known, **run_names})
    warned: set[str] = set()

    def log(record: Mapping[str, Any]) -> None:
        for thread in threads:
            thread.log(record)
            _warn_once(thread, warned, screen)

    try:
        yield log
    finally:
        with redirect_stdout(io.StringIO()):  # trackers print there
            late = [thread.name for thread in threads if not thread.close()]
        for thread in threads:
            _warn_once(thread, warned, screen)
        for name in late:
            screen.warn(f"{name} did not finish within {PATIENCE:g} s; its last steps may be missing there.")


def _known(path: Path) -> dict[str, str]:
    """The names of this run at its trackers.

    Raises:
        BadInput: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        return read_sealed(path, "the names of this run at its trackers")
    except BadInput as error:
        raise BadInput(error.what, "Remove it; the run then gets new names there.") from error


def _report_opened(thread: TrackerThread, screen: Screen) -> None:
    if not thread.ready.wait(PATIENCE):
        screen.warn(f"{thread.name} did not answer within {PATIENCE:g} s; training starts, steps are sent later.")
    elif thread.opened and not thread.fault:
        screen.note(f"Metrics are sent to {thread.name}: {thread.opened.location}")


def _warn_once(thread: TrackerThread, warned: set[str], screen: Screen) -> None:
    if thread.fault and thread.name not in warned:
        warned.add(thread.name)
        screen.warn(f"{thread.name} {thread.fault}. Training goes on; metrics.jsonl has every number.")


PROJECT = "kto"


PATIENCE = 45.0
"""Seconds that a run waits for a tracker at its start and at its end."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers need it."""

    folder: Path
    """OUT/tracking."""
    run: str
    """The name of --out."""
    done: int
    """Steps before this process."""
    recorded: int
    """The last step that metrics.jsonl held when this process began."""
    known: Mapping[str, str]
    """runs.json: the run's name in each tracker that has logged it before."""


@dataclass(frozen=True)
class Opened:
    """An opened tracker."""

    tracker: Any
    """One of accelerate.tracking."""
    run_name: str
    """The run's name in the tracker."""
    last_step: int
    """The last step it has."""
    location: str
    """Where its numbers are, for the user."""


Open = Callable[[TrackedRun], Opened]


def open_tensorboard(tracked: TrackedRun) -> Opened:
    """Event files in OUT/tracking."""
    from accelerate.tracking import TensorBoardTracker

    again = {"purge_step": tracked.done + 1} if "tensorboard" in tracked.known else {}
    tracker = TensorBoardTracker("", logging_dir=tracked.folder, **again)
    tracker.start()
    return Opened(tracker, tracked.run, tracked.done, f"event files; look with: tensorboard --logdir {tracked.folder}")


def open_trackio(tracked: TrackedRun) -> Opened:
    """A run in the project kto, where trackio keeps its own; a new one, unless this run is there already."""
    from accelerate.tracking import TrackioTracker

    resume = "allow" if "trackio" in tracked.known else "never"
    run = tracked.known.get("trackio", tracked.run)
    tracker = TrackioTracker(PROJECT, name=run, resume=resume, auto_log_cpu=False, auto_log_gpu=False)
    tracker.start()
    # Of a run it finds again, trackio goes on counting from the last step it has.
    known = getattr(tracker.tracker, "_next_step", 0) - 1 if resume == "allow" else 0
    url = tracker.tracker.url
    look = f"at {url}" if url else f"look with: trackio show --project {PROJECT}"
    return Opened(tracker, run, known, f"run {run} of project {PROJECT}; {look}")


def open_wandb(tracked: TrackedRun) -> Opened:
    """Online where wandb is logged in and answers, else in files of OUT/tracking/wandb."""
    import wandb
    from accelerate.tracking import WandBTracker

    quiet = wandb.Settings(console="off", silent=True, disable_git=True, init_timeout=PATIENCE / 2)
    asked: dict[str, Any] = {
        "name": tracked.run,
        "id": tracked.known.get("wandb", uuid.uuid4().hex[:12]),
        "resume": "allow",
        "dir": str(tracked.folder),
        "settings": quiet,
    }
    why = "as asked" if wandb.setup().settings.mode != "online" else ""
    tracker = None
    if not why and not wandb.login(prompt=False, verify=False):
        why = "as it is not logged in"
    if not why:
        try:
            tracker = WandBTracker(PROJECT, **asked)
            tracker.start()
        except wandb.Error as error:
            # wandb takes the id for used by the run that could not begin.
            tracker, asked["id"] = None, uuid.uuid4().hex[:12]
            why = f"as its server did not answer ({in_short(error)})"
    if tracker is None:
        tracker = WandBTracker(PROJECT, **asked, mode="offline")
        tracker.start()
    if why:
        location = f"offline, {why}; send it later with: wandb sync {tracked.folder / 'wandb'}/offline-run-*"
        return Opened(tracker, asked["id"], tracked.recorded, location)
    return Opened(tracker, asked["id"], tracker.tracker.step - 1, str(tracker.tracker.url))


OPENERS: dict[str, Open] = {"trackio": open_trackio, "tensorboard": open_tensorboard, "wandb": open_wandb}


def in_short(error: BaseException) -> str:
    """An error of any library in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
