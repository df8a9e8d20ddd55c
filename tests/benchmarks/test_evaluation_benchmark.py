"""The clock of benchmarks/evaluation.py, and that what it wraps is still there; and what start-up leaves behind."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any

import pytest

from kto_cli.common.errors import BadModel
from kto_cli.model.load import gc_paused, load_tokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("evaluation")


@pytest.fixture
def tell(evaluation: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that is read from here: its one number is the time."""
    now = [0.0]
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: now[0])
    return now


def test_the_inner_part_counts_alone(evaluation: Any, tell: list[float]) -> None:
    """1 s before, 2 s in a, of them none in b within, 4 s in b, 8 s in a again, 16 s after: rest 17, a 10, b 4."""
    clock = evaluation.Clock()
    tell[0] = 1
    with clock.part("a"):
        tell[0] = 3
        with clock.part("b"):
            tell[0] = 7
        tell[0] = 15
    tell[0] = 31
    with clock.part("a"):
        pass
    assert clock.seconds == {evaluation.REST: 17, "a": 10, "b": 4}


def test_what_the_model_calls_is_the_models(evaluation: Any, tell: list[float]) -> None:
    """The checks run forward passes: they stay checks; an import within is an import; an error is no leak."""
    clock = evaluation.Clock()

    def passes(error: bool) -> None:
        tell[0] += 5
        if error:
            raise KeyError

    forward = clock.around(evaluation.ROWS, passes)
    with clock.part(evaluation.CHECKS):
        forward(False)
        with clock.part(evaluation.IMPORTS):
            tell[0] += 1
    with pytest.raises(KeyError):
        forward(True)
    with clock.part(evaluation.REST):
        pass
    assert clock.seconds == {
        evaluation.REST: 0,
        evaluation.CHECKS: 5,
        evaluation.ROWS: 5,
        evaluation.IMPORTS: 1,
    }
    assert clock.stack == [evaluation.REST]


def test_everything_it_wraps_is_there(evaluation: Any) -> None:
    for place in [place for places in evaluation.PARTS.values() for place in places]:
        module, _, name = place.partition(":")
        found: Any = importlib.import_module(f"kto_cli.{module}")
        for each in name.split("."):
            found = getattr(found, each)
        assert callable(found), place


def test_shares_outside_the_model(evaluation: Any) -> None:
    """10 s, 6 of them in passes over rows and 2 in checks: 20 % outside, 40 % if the checks count as such."""
    parts = {evaluation.ROWS: 6.0, evaluation.CHECKS: 2.0, evaluation.IMPORTS: 2.0}
    run = {"model": "tiny", "case": "after train", "seconds": 10.0, "plain_seconds": 10.0, "parts": parts}
    found = evaluation.summary([run], "tiny", "after train")
    assert found["outside"] == pytest.approx(0.2)
    assert found["outside_with_checks"] == pytest.approx(0.4)


def test_garbage_is_collected_again_after_loading(tmp_path: Path) -> None:
    """Also when loading fails, and not if it was off before."""
    assert gc.isenabled()
    with gc_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(BadModel):
        load_tokenizer(tmp_path, chat_template=None, trust_remote_code=False)
    assert gc.isenabled()
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
