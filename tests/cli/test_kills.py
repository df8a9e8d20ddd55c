"""Commands killed at random instants; `tests/support/kills.py` does it as often as you like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).resolve().parents[1] / "support/kills.py"


@pytest.mark.parametrize("count", [pytest.param(8, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.long)])
def test_kills_lose_nothing(count: int):
    """In a process of its own with one thread: it forks, and a fork in a process with OpenMP's threads may hang."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(KILLS.parents[2])}
    done = subprocess.run(
        [sys.executable, KILLS, "--count", str(count)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, re.findall(r"(\d+) of them at work", done.stdout))) > count // 2, done.stdout
