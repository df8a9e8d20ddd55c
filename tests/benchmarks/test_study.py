"""The study: its page is what the committed results say, and its cells are resumed by key."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("repository_on_path")


@pytest.fixture
def repository_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


def study(name: str) -> Any:
    return importlib.import_module(f"benchmarks.study.{name}")


def test_the_page_is_computed_from_the_results():
    page = study("page")
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_tables(text) == text
    assert {found["name"] for found in page.MARKED.finditer(text)} == page.all_tables().keys()


def test_a_changed_result_changes_the_page(monkeypatch, tmp_path):
    page = study("page")
    results = page.RESULTS.read_text(encoding="utf-8")
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results.jsonl")
    page.RESULTS.write_text(results.replace('"verdict": "collapsed"', '"verdict": "learned"'), encoding="utf-8")
    text = page.PAGE.read_text(encoding="utf-8")
    assert "learned (3)" in page.with_tables(text) != text


def test_counts_of_the_paper_are_those_of_the_authors_file():
    source = REPOSITORY.parent / "shared/data/halos/results.jsonl.gz"
    if not source.exists():
        pytest.skip("no shared data")
    paper = study("paper")
    assert [json.loads(line) for line in paper.COUNTS.read_text().splitlines()] == paper.counts(source)


def test_a_rate_and_a_difference():
    """84 of 256 is .328; with half of 16 ties .359. Beside 58 of 256 (.227): +.102.

    Its standard error is sqrt(.328 .672 / 256 + .227 .773 / 256) = .039.
    """
    paper = study("paper")
    one = {"duels": 256, "won": 84, "lost": 156}
    assert paper.share(one) == 84 / 256
    assert paper.share(one, ties=0.5) == 92 / 256
    gap, error = paper.difference(one, {"duels": 256, "won": 58, "lost": 180})
    assert (round(gap, 3), round(error, 3)) == (0.102, 0.039)


def test_cells_are_resumed_by_key_and_failed_ones_run_again(monkeypatch, tmp_path):
    cells = study("cells")
    ran: list[str] = []

    def measure(cell, place, deadline):
        ran.append(cell.key)
        failed = cell.seed == 1 and len(ran) < 4
        return {"seconds": 1.0} | ({"error": "out of memory"} if failed else {"verdict": "learned"})

    monkeypatch.setattr(cells, "measure", measure)
    place = cells.Place("model", tmp_path, tmp_path, tmp_path / "results.jsonl", "CPU")
    asked = [cells.Cell("table", "data", (("rate", 1e-5),), (), seed) for seed in range(3)]
    assert cells.run_cells(asked, place, jobs=1, seconds=60) == 1
    place.results.write_text(place.results.read_text() + '{"key": "table data', encoding="utf-8")
    assert cells.run_cells(asked, place, jobs=1, seconds=60) == 0
    assert ran == [one.key for one in asked] + [asked[1].key]
    assert cells.run_cells(asked[:1], place, jobs=1, seconds=60) == 0


def test_no_cell_begins_when_time_is_up(monkeypatch, tmp_path):
    cells = study("cells")
    monkeypatch.setattr(cells, "measure", lambda *_: pytest.fail("begun"))
    place = cells.Place("model", tmp_path, tmp_path, tmp_path / "results.jsonl", "CPU")
    cells.run_cells([cells.Cell("table", "data", (), ())], place, jobs=1, seconds=-1)
    assert not place.results.exists()


def test_keys_are_distinct():
    tables = study("tables").TABLES
    keys = [cell.key for make in tables.values() for cell in make()]
    assert len(keys) == len(set(keys))


@pytest.mark.long
def test_a_cell_trains_and_answers(tmp_path):
    """One cell: numbers of the validation, the curve, and what answers are like; no text of a row."""
    data, model = tmp_path / "data" / "hh1600", tmp_path / "model"
    raw = REPOSITORY / "sample_data" / "hh-rlhf"
    python("kto_cli", "binarize", "hh-rlhf", "--from", raw, "--limit", 64, "--out", data)
    python("kto_cli", "train", "--data", data, "--max-steps", 1, "--out", model)
    results = tmp_path / "results.jsonl"
    places = ("--model", model, "--data", data.parent, "--work", tmp_path / "work", "--results", results)
    python("benchmarks.study", "learning-rate", *places, "--cells", 1)
    found = json.loads(results.read_text())
    assert found["validation"]["rows"] > 0
    assert 0 <= found["answers"]["policy"]["ended"] <= 1
    assert found["curve"][-1]["step"] == found["steps"] == 2


def python(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
