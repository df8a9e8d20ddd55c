"""The parts of examples/three_weeks.py that run no command; its weeks are in test_three_weeks.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from weeks_script import script

__all__ = ["script"]


def test_folders_are_those_of_the_place_where_the_script_starts(script, tmp_path, monkeypatch, capsys):
    """Its commands run in the new folder; logs that are not there are named before the first."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    assert script.settings_of(["--model", "mine"]).start == ("--model", str(tmp_path / "mine"))
    assert script.settings_of(["--model", "OWNER/NAME"]).start == ("--model", "OWNER/NAME")
    for folder in ("mine", "nowhere"):
        with pytest.raises(SystemExit):
            script.settings_of(["--quick", "--logs", folder])
        assert f"{folder} has no halueval/general_data.json" in capsys.readouterr().err


def test_rows_are_taken_from_all_over_a_log(script):
    """Three of seven are those at 0, 7 / 3 and 14 / 3; of few rows all are taken."""
    assert script.evenly(list("abcdefg"), 3) == ["a", "c", "e"]
    assert script.evenly(list("ab"), 3) == ["a", "b"]
    assert script.evenly([], 3) == []
