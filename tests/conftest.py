"""What the tests share: no network, no cache outside a temporary folder, a pico model, small data, the CLI in-process.

The environment is set before any test module is imported, because huggingface_hub reads it at import.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE = REPOSITORY / "sample_data"
_NUMBERS = itertools.count()
_CACHES = tempfile.TemporaryDirectory(prefix="kto-tests-")
os.environ["KTO_CACHE"] = f"{_CACHES.name}/kto"  # of fixtures that serve several tests; each test has its own
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# A run in the background of a shell starts with Ctrl-C ignored; the tests of it, and the processes they start, need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Pico models gain nothing from threads, and on busy cores each operation waits for the slowest of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")


class Ran(NamedTuple):
    """What one command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; anything else there is a failure."""
        assert self.code == 0, self.err
        value = json.loads(self.out)
        assert isinstance(value, dict)
        assert self.out.count("\n") == 1, "one line, one object"
        return value


Command = Callable[..., Ran]


def error_line(ran: Ran) -> str:
    """The one line of error of a command that was refused, the last on stderr; stdout is empty or, with --json, has an
    object with the same words. Exit status 2 for flags, 1 for all else."""
    assert ran.code in (1, 2), f"exit status {ran.code}: {ran.err[-500:]}"
    assert "Traceback" not in ran.out + ran.err
    errors = [line for line in ran.err.split("\n") if line.startswith("error:")]
    assert len(errors) == 1, ran.err[-500:]
    assert ran.err.endswith(errors[0] + "\n"), "the error is the last thing printed"
    if ran.out.startswith("{"):
        found = json.loads(ran.out)
        assert {"error", "exit", "next"} <= set(found)
        assert found["exit"] == ran.code
        assert found["error"].split("\n")[0].strip() in ran.err
    return errors[0]


@pytest.fixture(autouse=True)
def _nothing_leaves_the_test(monkeypatch):
    """The reference cache and Hugging Face's own are in a folder that only this test has; it is made by who writes
    there, as one of pytest's for each of thousands of tests takes a search through all of them."""
    away = Path(_CACHES.name, f"test-{next(_NUMBERS)}")
    monkeypatch.setenv("KTO_CACHE", str(away / "kto"))
    monkeypatch.setenv("HF_HOME", str(away / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module", autouse=True)
def _charts_where_they_are_looked_at(request):
    """Charts of a report are empty, but in modules marked `charts`: to draw them takes longer than all else of an
    evaluation of a pico model."""
    from kto_cli.evaluation.report import charts

    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("charts") is None:
            patch.setattr(charts, "drawn", lambda name, paint, height: '<svg viewBox="0 0 270 170"/>')
        yield


def call(*words: object) -> Ran:
    """`kto WORDS` in this process. A bug (any exception but an exit) is raised, as it would show a traceback."""
    from typer.testing import CliRunner

    from kto_cli.cli.app import app

    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def spawn(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    """`kto WORDS` in a process of its own, running."""
    return subprocess.Popen(
        [sys.executable, "-m", "kto_cli", *(str(word) for word in words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def call_in_process_of_its_own(*words: object, cwd: Path | None = None, **environment: str) -> Ran:
    """`kto WORDS` in a process of its own, finished."""
    process = spawn(*words, cwd=cwd, **environment)
    out, err = process.communicate(timeout=280)
    return Ran(process.returncode, out, err)


@pytest.fixture
def kto() -> Command:
    """The command line, in-process."""
    return call


@pytest.fixture
def kto_process() -> Command:
    """The command line as a process."""
    return call_in_process_of_its_own


@pytest.fixture
def kto_started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The command line as a process that is still running; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[str]:
        started.append(spawn(*words, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder that commands are typed in."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def save_pico_llama(folder: Path, *, seed: int = 0, layers: int = 1, context: int = 256) -> Path:
    """A Llama of so many layers and 16 channels with the built-in tokenizer: 0.15 MB, a millisecond a row."""
    import shutil

    import torch
    from pico import BUILDERS

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BUILDERS["llama"](
            **sizes, vocab_size=2048, num_key_value_heads=1, max_position_embeddings=context, tie_word_embeddings=True
        )
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SAMPLE / "model" / name, folder / name)
    return folder


def write_lines(path: Path, rows: list[Any]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(count: int) -> list[dict[str, str]]:
    """Pairs with a prompt of their own each and answers of several lengths."""
    things = ("fern", "kettle", "bicycle", "parrot", "violin", "map", "lantern")
    return [
        {
            "prompt": f"How do I look after {things[number % 7]} number {number}?",
            "chosen": f"Gladly. Keep {things[number % 7]} {number} dry" + " and warm" * (number % 4) + ".",
            "rejected": f"Go away with your {things[number % 7]} {number}" + ", please" * (number % 3) + "!",
        }
        for number in range(count)
    ]


def pairs_on_both_sides(count: int, validation: float) -> list[dict[str, str]]:
    """`count` of `pairs`, of which the share `validation` (to one pair, at least two) are for validation."""
    from kto_cli.data.pipeline.parsed_row import keys
    from kto_cli.data.pipeline.split import below_threshold

    many = pairs(20 * count)
    held = below_threshold(keys([pair["prompt"] for pair in many]), validation, seed=0).tolist()
    left = {True: max(2, round(validation * count)), False: count - max(2, round(validation * count))}
    chosen = []
    for pair, side in zip(many, held, strict=True):
        if left[side]:
            left[side] -= 1
            chosen.append(pair)
    return chosen


def make_dataset(folder: Path, count: int, *, validation: float) -> Path:
    """`count` pairs, binarized, with exactly the share `validation` of them for validation."""
    source = write_lines(folder / "pairs.jsonl", pairs_on_both_sides(count, validation))
    assert call("binarize", source, "--out", folder / "set", "--validation", validation).code == 0
    return folder / "set"


@pytest.fixture(scope="session")
def pico(tmp_path_factory) -> Path:
    """A pico model folder; not to be changed (copy it)."""
    return save_pico_llama(tmp_path_factory.mktemp("model") / "pico")


@pytest.fixture(scope="session")
def pico_data(tmp_path_factory) -> Path:
    """A dataset of 32 rows to learn from and 8 held out; not to be changed (copy it)."""
    return make_dataset(tmp_path_factory.mktemp("data"), 20, validation=0.2)


@pytest.fixture
def given(pico, pico_data) -> list[str]:
    """The flags that name the pico model and its data."""
    return ["--data", str(pico_data), "--model", str(pico)]
