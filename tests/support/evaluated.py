"""Runs to evaluate, made once: their data, their reference, and what a test of `kto eval` reads from their results."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import call, make_dataset, save_pico_llama

FEW = ("--max-new-tokens", 8, "--samples", 4)
SHORT = (*FEW, "--engine", "padded")
"""Flags for few and short answers, without continuous batching, which takes a second to end."""


def make_runs(folder: Path) -> Path:
    """In `folder`: `set` (40 prompts, 8 held out), `pico` (the reference), and runs on both: `a` of 3 steps at a high
    learning rate with a step kept, `b` of 1 step, `lora`."""
    with here(folder):
        save_pico_llama(Path("pico"))
        make_dataset(Path(), 40, validation=0.2)
        given = ("--data", "set", "--model", "pico", "--batch-size", 8, "--learning-rate", 0.02)
        for name, flags in {
            "a": ("--max-steps", 3, "--save-every", 2),
            "b": ("--max-steps", 1),
            "lora": ("--max-steps", 2, "--lora-r", 4),
        }.items():
            ran = call("train", *given, *flags, "--out", name)
            assert ran.code == 0, ran.err
    return folder


@contextmanager
def here(folder: Path) -> Iterator[None]:
    """Commands are typed in `folder`, whose `cache` they use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("KTO_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make_runs`, not to be changed."""
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def place(runs: Path, tmp_path: Path) -> Iterator[Path]:
    """The same runs, to be evaluated, with their cache."""
    folder = copy_of(runs, tmp_path / "runs")
    with here(folder):
        yield folder


def copy_of(runs: Path, folder: Path) -> Path:
    """The runs again, to be evaluated; they know where they lie."""
    return Path(shutil.copytree(runs, folder))


def samples(run: Path | str) -> list[dict[str, str]]:
    """Lines of samples.jsonl."""
    return lines(Path(run) / "eval/samples.jsonl")


def lines(path: Path) -> list[Any]:
    """Of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def part(run: Path | str, name: str) -> dict[str, Any]:
    """A part of the results."""
    found = json.loads((Path(run) / "eval" / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def digest(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
