"""--track: what trackers were told, read back from their own files, is metrics.jsonl; and no tracker stops a run."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from test_run_dir import FINISHED, Killed, train_until_killed_in

from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import TRACKERS, TrainConfig
from kto_cli.training import trackers
from kto_cli.training.trackers import OPENERS, Opened, TrackedRun, flat, refuse_missing_trackers

SHORT = ("--batch-size", 8, "--max-steps", 4, "--save-every", 2, "--eval-every", 2, "--learning-rate", "1e-3")


def told(run: str = "run") -> dict[str, dict[int, float]]:
    """What a tracker should have been told: by name, value by step."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for text in Path(run, "metrics.jsonl").read_text().splitlines():
        record = json.loads(text)
        for name, value in record.items():
            if name != "step" and isinstance(value, (int, float)):
                found[name][record["step"]] = value
        for name, value in record.get("validation", {}).items():
            if isinstance(value, list) and None not in value:
                found[f"validation/{name}_low"][record["step"]], found[f"validation/{name}_high"][record["step"]] = (
                    value
                )
            elif isinstance(value, (int, float)):
                found[f"validation/{name}"][record["step"]] = value
    assert {"loss", "z_ref_se", "validation/auc", "validation/auc_interval_low", "noise_floor"} <= set(found)
    return dict(found)


class Notebook:
    """A tracker as accelerate's are, which writes down what it is told."""

    def __init__(self, *, fails_at: int | None = None, seconds: float = 0.0) -> None:
        self.steps: list[int] = []
        self.config: dict[str, Any] = {}
        self.fails_at, self.seconds, self.finished = fails_at, seconds, False

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, Any], step: int) -> None:
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in values.values())
        if step == self.fails_at:
            raise ConnectionError("the line\nis cut")
        time.sleep(self.seconds)
        self.steps.append(step)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def notebook(monkeypatch):
    """Puts a notebook in trackio's place; gives what makes one."""

    def put(*, last_step: int = 0, **how: Any) -> Notebook:
        book = Notebook(**how)
        monkeypatch.setitem(OPENERS, "trackio", lambda place: Opened(book, place.run, last_step, "in a notebook"))
        return book

    monkeypatch.setattr(trackers, "find_spec", lambda name: name)
    return put


# --- words ------------------------------------------------------------------------------------


def test_flat():
    nested = {
        "step": 3,
        "z": None,
        "nan": math.nan,
        "validation": {"auc": 0.5, "auc_interval": [0.25, 0.75]},
        "on": True,
    }
    nested |= {"none": {"interval": [None, 1.0]}, "what": "words", "list": [1, 2, 3]}
    assert flat(nested) == {
        "step": 3,
        "validation/auc": 0.5,
        "validation/auc_interval_low": 0.25,
        "validation/auc_interval_high": 0.75,
        "on": True,
        "none/interval_high": 1.0,
        "what": "words",
    }


def test_names():
    assert TrainConfig(track="wandb, tensorboard,wandb").trackers == ("wandb", "tensorboard")
    assert TrainConfig().trackers == ()
    for wrong in ("mlflow", "wandb,,trackio", ""):
        with pytest.raises(BadInput, match="trackio, tensorboard, wandb"):
            TrainConfig(track=wrong)
    assert set(OPENERS) == set(TRACKERS)


def test_a_tracker_that_is_not_installed_is_said_at_once(kto, workplace, given, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else name)
    refuse_missing_trackers(["trackio"])
    for more in ((), ("--dry-run",)):
        ran = kto("train", *given, "--out", "run", "--track", "trackio,wandb", *more)
        assert ran.code == 1
        assert "pip install wandb" in ran.err
        assert "trackio" not in ran.err
    assert not Path("run").exists()
    assert kto("train", *given, "--track", "mlflow").code == 2


# --- a fake one -------------------------------------------------------------------------------


def test_each_step_once_and_the_settings(kto, workplace, given, notebook):
    book = notebook()
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "trackio", "--json")
    assert ran.json["steps"] == 4
    assert book.steps == [1, 2, 3, 4]
    assert book.finished
    assert book.config["train/learning_rate"] == 1e-3
    assert book.config["chosen/total_steps"] == 4
    assert "Metrics are sent to trackio: in a notebook" in ran.err
    assert {path.name for path in Path("run").iterdir()} == FINISHED | {"tracking"}
    assert json.loads(Path("run/tracking/runs.json").read_text())["trackio"] == "run"


def test_a_tracker_that_fails_is_said_once_and_changes_nothing(kto, workplace, given, notebook):
    book = notebook(fails_at=2)
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "trackio")
    assert ran.code == 0, ran.err
    assert book.steps == [1]
    assert ran.err.count("! trackio failed: the line is cut. Training goes on") == 1
    assert kto("train", *given, *SHORT, "--out", "alone").code == 0
    assert Path("run/model.safetensors").read_bytes() == Path("alone/model.safetensors").read_bytes()


def test_a_tracker_that_cannot_begin(kto, workplace, given, notebook, monkeypatch):
    def refuse(place: TrackedRun) -> Opened:
        raise OSError("no such place")

    notebook()
    monkeypatch.setitem(OPENERS, "trackio", refuse)
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "trackio")
    assert ran.code == 0, ran.err
    assert "Metrics are sent to" not in ran.err
    assert ran.err.count("! trackio failed: no such place.") == 1


@pytest.mark.parametrize("when", ["beginning", "logging"])
def test_a_tracker_that_hangs_does_not_hang_the_run(kto, workplace, given, notebook, monkeypatch, when):
    for module in (trackers, trackers):
        monkeypatch.setattr(module, "PATIENCE", 0.3)
    release = threading.Event()
    book = notebook()
    if when == "beginning":
        monkeypatch.setitem(OPENERS, "trackio", lambda place: release.wait(60) and Opened(book, "run", 0, ""))
    else:
        monkeypatch.setattr(book, "log", lambda values, step: release.wait(60))
    began = time.monotonic()
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "trackio")
    release.set()
    assert ran.code == 0, ran.err
    assert time.monotonic() - began < 30
    assert ("did not answer within 0.3 s" in ran.err) == (when == "beginning")
    assert "trackio did not finish within 0.3 s" in ran.err


def test_steps_of_a_slow_tracker_do_not_slow_the_run(notebook):
    """A hundred steps at 5 ms each: telling returns at once, and all arrive."""
    book = notebook(seconds=0.005)
    guest = trackers.TrackerThread("trackio", TrackedRun(Path(), "run", 0, 0, {}), {})
    began = time.perf_counter()
    for step in range(1, 101):
        guest.log({"step": step, "loss": 0.5})
    assert time.perf_counter() - began < 0.1
    assert guest.close()
    assert book.steps == list(range(1, 101))


def test_a_resumed_run_tells_what_is_new_and_may_change_trackers(kto, workplace, given, notebook):
    """Killed in step 4 after saving step 2; the tracker knows steps to 3."""
    first = notebook()
    train_until_killed_in(4, *given, *SHORT, "--out", "run", "--track", "trackio")
    assert first.steps == [1, 2, 3]
    second = notebook(last_step=3)
    assert kto("train", "--resume", "--out", "run", "--track", "trackio").code == 0
    assert second.steps == [4]
    assert second.config == {}, "its settings are there"
    train_until_killed_in(4, *given, *SHORT, "--out", "other")
    assert kto("train", "--resume", "--out", "other", "--track", "trackio").code == 0


# --- the real ones ----------------------------------------------------------------------------


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.extra
def test_tensorboard_has_metrics_jsonl(kto, workplace, given):
    pytest.importorskip("tensorboard")
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "tensorboard")
    assert ran.code == 0, ran.err
    assert "tensorboard --logdir run/tracking" in ran.err
    found = events(Path("run/tracking"))
    assert {tag: [(step, pytest.approx(value)) for step, value in by.items()] for tag, by in told().items()} == found


@pytest.mark.extra
def test_tensorboard_of_a_resumed_run_has_each_step_once(kto, workplace, given):
    pytest.importorskip("tensorboard")
    train_until_killed_in(4, *given, *SHORT, "--out", "run", "--track", "tensorboard")
    assert [step for step, _ in events(Path("run/tracking"))["loss"]] == [1, 2, 3]
    assert kto("train", "--resume", "--out", "run").code == 0
    found = events(Path("run/tracking"))
    assert {tag: [(step, pytest.approx(value)) for step, value in by.items()] for tag, by in told().items()} == found


@pytest.mark.slow
def test_trackio_has_metrics_jsonl_after_a_resume(kto_process, kto_started, workplace, given):
    """In processes of their own: trackio reads its folder's name when it is imported."""
    pytest.importorskip("trackio")
    place = {"TRACKIO_DIR": str(workplace / "trackio"), "HF_HUB_OFFLINE": "1"}
    more = ("--out", "run", "--track", "trackio")
    long = ("--epochs", 100, "--max-steps", 400, "--save-every", 20)
    process = kto_started("train", *given, *SHORT, *more, *long, cwd=workplace, **place)
    while not Path("run/metrics.jsonl").exists() or Path("run/metrics.jsonl").read_text().count("\n") < 30:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    assert kto_process("train", "--resume", "--out", "run", cwd=workplace, **place).code == 0
    (database,) = [path for path in (workplace / "trackio").glob("*.db") if "kto" in path.name]
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    steps = [step for step, _ in rows]
    assert steps == list(range(1, 401))
    wanted = told()
    for step, metrics in rows:
        for name, value in json.loads(metrics).items():
            if "second" not in name:  # of the steps done twice the first measure stays
                assert value == wanted[name][step], (step, name)


def test_wandb_without_a_login_is_offline(kto, workplace, given, monkeypatch):
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(workplace))
    ran = kto("train", *given, *SHORT, "--out", "run", "--track", "wandb", "--json")
    assert ran.json["steps"] == 4
    assert "offline, as it is not logged in; send it later with: wandb sync run/tracking/wandb/offline-run-*" in ran.err
    (folder,) = Path("run/tracking/wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    assert history_of(file) == [
        {name: by[step] for name, by in told().items() if step in by} | {"_step": step} for step in (1, 2, 3, 4)
    ]


def history_of(file: Path) -> list[dict[str, Any]]:
    """A .wandb file is a LevelDB log after seven bytes: blocks of 32 KiB, parts of (crc 4, length 2, kind 1, bytes)."""
    from wandb.proto import wandb_internal_pb2

    data, place, whole, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        part = data[place + 7 : place + 7 + length]
        place += 7 + length
        whole = part if kind in (1, 2) else whole + part
        if kind not in (1, 4):  # 1: whole, 2: first, 3: middle, 4: last
            continue
        record = wandb_internal_pb2.Record()
        record.ParseFromString(whole)
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.append({name: value for name, value in items.items() if name not in ("_timestamp", "_runtime")})
    return found


def test_killed_is_not_caught():
    """The helper of these tests ends a run as a kill does."""
    assert not issubclass(Killed, Exception)
