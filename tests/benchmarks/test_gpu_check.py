"""The GPU check: what its driver makes of groups, and every group on a CPU with the smallest models."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module under test, found as its command finds it."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    yield importlib.import_module("benchmarks.gpu.driver")
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


WORKS = """
from benchmarks.gpu.checks import check
with check("adds up") as found:
    found["sum"] = 3
with check("raises"):
    raise ValueError("no kernel")
with check("absent") as found:
    found["ok"] = None
"""
DIES = "import sys; print('not a check'); sys.exit('Segmentation fault')"


def test_a_check_is_a_line_whatever_happens(driver, capsys):
    check = importlib.import_module("benchmarks.gpu.checks").check
    with check("raises") as found:
        found["before"] = 1
        raise ValueError("no kernel")
    with check("well"):
        pass
    output, errors = capsys.readouterr()
    raised, well = (json.loads(line.removeprefix(driver.MARK)) for line in output.splitlines())
    assert (raised["ok"], raised["before"], raised["error"]) == (False, 1, "ValueError: no kernel")
    assert "Traceback" in errors
    assert well["ok"] is True


@pytest.mark.parametrize(
    ("programs", "well"), [({"facts": "", "speed": ""}, True), ({"facts": WORKS, "speed": DIES}, False)]
)
def test_checks_and_deaths_of_groups_are_kept(driver, programs, well, monkeypatch, tmp_path, capsys):
    """Lines that are no checks are not; stderr is kept beside; each check is a line of the table."""
    monkeypatch.setattr(driver, "command_of", lambda name, *, tiny: [sys.executable, "-c", programs[name]])
    assert driver.run_all(100, tmp_path, ("facts", "speed"), tiny=True) is well
    kept = [json.loads(line) for line in (tmp_path / "checks.jsonl").read_text().splitlines()]
    table = capsys.readouterr().out.partition(" checks in ")[2]
    if well:
        assert kept == []
        return
    assert [(one["group"], one["check"], one["ok"]) for one in kept] == [
        ("facts", "adds up", True),
        ("facts", "raises", False),
        ("facts", "absent", None),
        ("speed", "its process ended well", False),
    ]
    assert "no kernel" in (tmp_path / "facts.err").read_text()
    assert "Segmentation fault" in kept[-1]["stderr"]
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["ok", "FAIL", "-", "FAIL"]


def test_without_time_nothing_is_begun(driver, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(driver, "command_of", lambda name, *, tiny: pytest.fail("begun"))
    assert driver.run_all(driver.LEAST_SECONDS - 1, tmp_path, ("lora",), tiny=True)
    assert "no time left for lora" in capsys.readouterr().out


def test_every_group_has_a_module_and_a_line_in_the_readme(driver):
    text = (REPOSITORY / "benchmarks/gpu/README.md").read_text(encoding="utf-8")
    about = (REPOSITORY / "benchmarks/gpu/__init__.py").read_text(encoding="utf-8")
    for name in driver.GROUPS:
        assert (REPOSITORY / f"benchmarks/gpu/{name}.py").is_file()
        assert f"| `{name}` |" in text
        assert f"{name}.py" in about


@pytest.mark.long
def test_groups_run_on_a_cpu(driver, tmp_path):
    """The quick ones of all that needs no GPU, at the smallest sizes; equality is really checked."""
    quick = ("facts", "equality", "draws", "speed")
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--only", ",".join(quick)]
    command += ["--seconds", "250", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:]
    found = [json.loads(line) for line in Path(tmp_path / "checks.jsonl").read_text().splitlines()]
    assert {one["group"] for one in found} == set(quick)
    assert sum(one["ok"] is True for one in found) > 10
    assert all(one["took_s"] >= 0 for one in found)
