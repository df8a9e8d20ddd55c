"""Commands killed at random instants; `tests/support/kills.py` does it as often as you like."""

from __future__ import annotations

import pytest
from kills import kill_all


@pytest.mark.slow
def test_twenty_kills_lose_nothing():
    assert sum(kill_all(20).values()) > 10, "most of them at work"
