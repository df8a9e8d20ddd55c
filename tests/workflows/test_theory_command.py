"""`kto theory`: its tables, its files, its errors."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import call, error_line

from kto_cli.core.theory.comparison import compare
from kto_cli.workflows import theory, theory_figure


@pytest.fixture(autouse=True)
def _few_worlds(monkeypatch):
    monkeypatch.setattr(theory, "compare", lambda: compare(worlds=4, steps=5))


def test_what_fails_in_the_paper_is_shown_as_failing(monkeypatch):
    """And nothing is wider than 80 columns, no word broken."""
    monkeypatch.setenv("COLUMNS", "80")
    ran = call("theory")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert all(len(line) <= 80 for line in lines if line[:1] in "┏┃┡│└")
    for name, last in (
        ("ppo-clip, A = +1, the paper's", "no"),
        ("ppo-clip, A = -1, the paper's", "no"),
        ("ppo-clip, A = +1, signed ratio", "yes"),
        ("ppo-clip, A = -1, signed ratio", "yes"),
        ("kto, undesirable, r = -q", "yes"),
    ):
        (line, *_) = (line for line in lines if name in line)
        assert line.rstrip("│ ").endswith(last), line


def test_json_is_one_object_and_what_the_file_has(workplace):
    ran = call("theory", "--json", "--out", "found")
    assert ran.json["theorem_4_3_v5"]["condition"] is True
    assert {one["loss"] for one in ran.json["halos"]} >= {"kto", "dpo", "slic", "ppo-clip"}
    assert json.loads(Path("found/theory.json").read_text()) == ran.json
    assert sorted(path.name for path in Path("found").iterdir()) == ["theory.json", "value_functions.svg"]


def test_the_figure_is_a_picture_of_the_functions(workplace):
    """All curves go through (0, 0) and are named; the same text each time."""
    drawn = theory_figure.figure()
    assert drawn == theory_figure.figure()
    ElementTree.fromstring(drawn)
    for name, (z, values) in theory_figure.curves().items():
        assert name in drawn
        assert values[z.abs().argmin()].item() == pytest.approx(0.0, abs=1e-12)


def test_a_folder_that_cannot_be_made_is_one_line(workplace):
    Path("taken").write_text("a file")
    assert "taken" in error_line(call("theory", "--out", "taken"))


OWN = """
import torch

def hinge(values, settings):
    return torch.relu(1 - settings.beta * values.signs * values.log_ratios)

def likelihood(values, settings):
    return -values.logps

def first_row(values, settings):
    return -values.logps[:1]

def wrong_gradient(values, settings):
    return -values.log_ratios + values.logps.detach()
"""


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("hinge", ("gradient", "order", "shift", "raised", "lowered")),
        ("likelihood", ("gradient", "order", "raised")),
        ("first_row", ("gradient", "raised", "lowered")),
        ("wrong_gradient", ("order", "raised")),
    ],
)
def test_a_loss_of_ones_own(workplace, name, held):
    module = f"own_{name}"
    Path(f"{module}.py").write_text(OWN)
    ran = call("theory", "--json", "--loss", f"{module}:{name}")
    found = ran.json
    assert "Running code of" in ran.err
    holds = {key for key in ("gradient", "order", "shift") if found[key] < 1e-6}
    holds |= {key for key in ("raised", "lowered") if found[key] == 1}
    assert holds == set(held)


def test_a_loss_that_is_none_is_one_line(workplace):
    assert "MODULE:FUNCTION" in error_line(call("theory", "--loss", "dpo"))
    assert "cannot be imported" in error_line(call("theory", "--loss", "nowhere:f"))
    assert "--out" in error_line(call("theory", "--loss", "a:b", "--out", "x"))
