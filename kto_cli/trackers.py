"""How each tracker of `--track` is opened: through accelerate's classes, under a name it finds again.

A resumed run does steps again that a tracker may have been told of before it was killed. TensorBoard drops its events
from the first such step on (`purge_step`). trackio and wandb are told only what comes after the last step they know;
wandb offline knows none of an earlier process's, so there it is what comes after the last line of metrics.jsonl.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "kto"
PATIENCE = 45.0
"""Seconds that a run waits for a tracker, when it starts and when it ends."""


@dataclass(frozen=True)
class Place:
    """The run a tracker is told of."""

    folder: Path
    """OUT/tracking."""
    run: str
    """The name of --out."""
    done: int
    """Steps before this process."""
    recorded: int
    """The last step that metrics.jsonl held when this process began."""
    known: Mapping[str, str]
    """runs.json: what each tracker calls the run, where it was told of it before."""


@dataclass(frozen=True)
class Opened:
    """A tracker that answers."""

    tracker: Any
    """One of accelerate.tracking."""
    called: str
    """What it calls the run."""
    last_step: int
    """The last step it knows."""
    says: str
    """Where its numbers are."""


Open = Callable[[Place], Opened]


def open_tensorboard(place: Place) -> Opened:
    """Event files in OUT/tracking."""
    from accelerate.tracking import TensorBoardTracker

    again = {"purge_step": place.done + 1} if "tensorboard" in place.known else {}
    tracker = TensorBoardTracker("", logging_dir=place.folder, **again)
    tracker.start()
    return Opened(tracker, place.run, place.done, f"event files; look with: tensorboard --logdir {place.folder}")


def open_trackio(place: Place) -> Opened:
    """A run in the project kto, where trackio keeps its own; a new one, unless this run is there already."""
    from accelerate.tracking import TrackioTracker

    resume = "allow" if "trackio" in place.known else "never"
    run = place.known.get("trackio", place.run)
    tracker = TrackioTracker(PROJECT, name=run, resume=resume, auto_log_cpu=False, auto_log_gpu=False)
    tracker.start()
    # Of a run it finds again, trackio goes on counting from the last step it has.
    known = getattr(tracker.tracker, "_next_step", 0) - 1 if resume == "allow" else 0
    url = tracker.tracker.url
    look = f"at {url}" if url else f"look with: trackio show --project {PROJECT}"
    return Opened(tracker, run, known, f"run {run} of project {PROJECT}; {look}")


def open_wandb(place: Place) -> Opened:
    """Online where wandb is logged in and answers, else in files of OUT/tracking/wandb."""
    import wandb
    from accelerate.tracking import WandBTracker

    quiet = wandb.Settings(console="off", silent=True, disable_git=True, init_timeout=PATIENCE / 2)
    asked: dict[str, Any] = {
        "name": place.run,
        "id": place.known.get("wandb", uuid.uuid4().hex[:12]),
        "resume": "allow",
        "dir": str(place.folder),
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
        says = f"offline, {why}; send it later with: wandb sync {place.folder / 'wandb'}/offline-run-*"
        return Opened(tracker, asked["id"], place.recorded, says)
    return Opened(tracker, asked["id"], tracker.tracker.step - 1, str(tracker.tracker.url))


OPENERS: dict[str, Open] = {"trackio": open_trackio, "tensorboard": open_tensorboard, "wandb": open_wandb}


def in_short(error: BaseException) -> str:
    """An error of any library, in a line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
