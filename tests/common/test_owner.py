"""One owner of a folder at a time; a lock ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

from kto_cli.common.owner import LOCK, Occupied, owning

HOLD = """
import sys, time
from pathlib import Path
from kto_cli.common.owner import owning
folder = Path(sys.argv[1])
with owning(folder / ".lock", folder, "training in"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns tmp_path/run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_owner_is_named_and_a_killed_one_owns_nothing(tmp_path, holder):
    folder = tmp_path / "run"
    with pytest.raises(Occupied) as error, owning(folder / LOCK, folder, "training in"):
        raise AssertionError("never here")
    assert f"Another process is training in {folder}: process {holder.pid} on {os.uname().nodename}" in str(error.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (folder / LOCK).exists(), "the file of a killed owner stays"
    with owning(folder / LOCK, folder, "training in"):
        assert f"process {os.getpid()}" in (folder / LOCK).read_text()
    assert not (folder / LOCK).exists(), "nothing is left"


def test_who_waits_is_told_for_whom(tmp_path, holder):
    folder, said = tmp_path / "run", []

    def told(text: str) -> None:
        said.append(text)
        holder.kill()

    with owning(folder / LOCK, folder, "writing", waiting=told):
        pass
    assert len(said) == 1
    assert str(holder.pid) in said[0]


def test_a_folder_that_was_there_stays(tmp_path):
    with owning(tmp_path / "a" / LOCK, tmp_path / "a", "writing"):
        (tmp_path / "a/file").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_long_phase_says_where_it_is(monkeypatch):
    """60 of 100 parts took a minute, so 40 take two thirds of one."""
    from kto_cli.common import phase

    monkeypatch.setattr(phase, "PAUSE", 0.01)
    said: list[str] = []
    one = phase.Phase("reference log-probs", 120, done=20)
    with one.told(said.append):
        one._began -= 60
        one.advance(60)
        time.sleep(0.1)
    assert "reference log-probs: 80 of 120 (67%), about 40 s left" in said


def test_the_time_left_does_not_grow_while_a_part_is_under_way(monkeypatch):
    """Two of five parts took 10 s each, so three take 30 s; what the third has taken is off, up to 10 s."""
    from kto_cli.common import phase

    now = [0.0]
    monkeypatch.setattr(phase.time, "monotonic", lambda: now[0])
    one, said = phase.Phase("training", 5), []
    for seconds, finished in ((8, 0), (10, 1), (20, 1), (26, 0), (80, 0)):
        now[0] = float(seconds)
        if finished:
            one.advance(finished)
        said.append(one.line().partition("%), ")[2])
    assert said == ["8 s so far", "about 40 s left", "about 30 s left", "about 24 s left", "about 20 s left"]


def test_a_stopped_phase_says_what_it_keeps():
    from kto_cli.common.errors import Interrupted
    from kto_cli.common.phase import Phase

    reading = Phase("reading", 9, done=3, keeps="Nothing was written.")
    with pytest.raises(Interrupted, match=r"Stopped: reading, at 3 of 9\. Nothing was written\."), reading.stoppable():
        raise KeyboardInterrupt
