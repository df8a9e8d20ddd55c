"""One step of each loss against TRL 1.16's trainer, where TRL is installed; and the page's table against the script."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
from conftest import REPOSITORY
from test_docs import section

from kto_cli.core.loss_kinds import LOSSES

PAGE = (REPOSITORY / "benchmarks" / "README.md").read_text(encoding="utf-8")
TITLE = "## One step of each loss against TRL: losses_vs_trl.py"
CLOSE = 1e-4
"""Share of an update that float32's rounding of weights and log-probs moves it by, ten times."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("losses_vs_trl")


def shown() -> dict[str, list[str]]:
    lines = [line for line in section(PAGE, TITLE).splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return {name: rest for name, *rest in cells}


def test_the_page_has_the_cases_of_the_script(script):
    """Where nothing differs by design the measured difference is rounding."""
    table = shown()
    assert list(table) == list(script.CASES)
    for name, case in script.CASES.items():
        trainer, sgd, adamw, _, difference = table[name]
        assert f"`{case.theirs['loss_type']}`" in trainer
        assert difference == (case.difference or "-")
        assert max(float(sgd), float(adamw)) < CLOSE or difference != "-"
    named = set(re.findall(r"`([a-z-]+)`", section(PAGE, TITLE).split("No peer")[1]))
    tried = {case.settings.loss for case in script.CASES.values()}
    assert tried | named == set(LOSSES), "every loss is compared, or named as without a peer"


def test_the_settings_agree(script):
    """A pair is one unit on both sides; both weights, beta and tau are given alike."""
    for case in script.CASES.values():
        settings, theirs = case.settings, case.theirs
        assert theirs["beta"] == (settings.ipo_tau if settings.loss == "ipo" else settings.beta)
        if settings.kind.is_unpaired:
            assert (theirs["desirable_weight"], theirs["undesirable_weight"]) == (settings.lambda_d, settings.lambda_u)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kto", "apo-zero-unpaired", "dpo", "ipo", "apo-zero", "apo-down", "nca"])
def test_a_step_of_trl_is_a_step_of_kto(name, script):
    pytest.importorskip("trl")
    found, (ours, theirs) = script.compare(script.CASES[name])
    assert max(found.values()) < CLOSE
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours > 0.1 or name != "kto", "the reference point is in the loss"
