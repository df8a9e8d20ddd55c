"""DESIGN invariants 4 and 5: killed at any instant, a run ends with the bits of one that never was."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import call, make_dataset, spawn

STEPS = 24
TIMINGS = {"seconds", "rows_per_second", "tokens_per_second", "eta_seconds", "seal"}
"""What a clock measured, and the checksum of the line."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """80 rows to learn from."""
    return make_dataset(tmp_path_factory.mktemp("resume"), 48, validation=0.1)


def words(data: Path, model: Path, home: Path) -> list[object]:
    """A run of its own: own folder, own cache; small micro-batches, so that there are many instants."""
    return [
        *("train", "--data", data, "--model", model, "--out", home / "run", "--cache", home / "cache"),
        *("--batch-size", 8, "--epochs", 4, "--max-steps", STEPS, "--save-every", 2, "--eval-every", 5),
        *("--learning-rate", 1e-3, "--micro-batch-tokens", 100),
    ]


def outcome(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """The hash of the weights, and metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), kept


@pytest.fixture(scope="module")
def unbroken(data, pico, tmp_path_factory) -> tuple[str, list[dict[str, Any]]]:
    """The run that nobody kills."""
    home = tmp_path_factory.mktemp("unbroken")
    process = spawn(*words(data, pico, home))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    return outcome(home / "run")


def segments(home: Path) -> int:
    """Bytes in the reference cache."""
    return sum(path.stat().st_size for path in (home / "cache" / "reference").glob("*/*.segment"))


def half_written(home: Path) -> bool:
    """A checkpoint is being written."""
    steps = home / "run" / "steps"
    return steps.is_dir() and any(path.name.startswith(".step-") for path in steps.iterdir())


def lines_written(home: Path) -> int:
    """Steps recorded so far."""
    metrics = home / "run" / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def kill_when(process: Any, reached: Callable[[], bool], *, delay: float = 0.0) -> bool:
    """SIGKILL as soon as `reached()`, plus `delay` seconds; False if the process ended before."""
    while process.poll() is None:
        if reached():
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
    process.communicate()
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "instant",
    [
        "precompute",
        "any",
        "final model",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("first step", "checkpoint", "later checkpoint")),
    ],
)
def test_killed_and_resumed_is_the_same_run(unbroken, data, pico, tmp_path, instant):
    """SIGKILL at an instant, `--resume`: the weights' hash and every recorded number are the unbroken run's."""
    draw = random.Random(instant)
    instants: dict[str, tuple[Callable[[], bool], float]] = {
        "precompute": (lambda: segments(tmp_path) > 600, 0.0),
        "first step": (lambda: lines_written(tmp_path) >= 1, 0.0),
        "checkpoint": (lambda: half_written(tmp_path), 0.0),
        "later checkpoint": (lambda: lines_written(tmp_path) >= 8 and half_written(tmp_path), draw.uniform(0, 0.004)),
        "any": (lambda: lines_written(tmp_path) >= 3, draw.uniform(0, 0.4)),
        "final model": (lambda: (tmp_path / "run" / ".finished.tmp").exists(), 0.0),
    }
    reached, delay = instants[instant]
    for _ in range(3):  # a busy machine may let it slip past the instant
        if kill_when(spawn(*words(data, pico, tmp_path)), reached, delay=delay):
            break
        for left in (tmp_path / "run", tmp_path / "cache"):
            if left.exists():
                left.rename(tmp_path / f"{left.name}-{time.time_ns()}")
    else:
        pytest.fail(f"never caught it at: {instant}")
    assert not (tmp_path / "run" / "config.json").exists(), "a killed run must not look finished"
    result = call(*words(data, pico, tmp_path), "--resume")
    assert result.code == 0, result.err
    assert outcome(tmp_path / "run") == unbroken
    assert not list((tmp_path / "run").rglob(".*")), "something half-written is left"


@pytest.mark.long
def test_killed_twice(unbroken, data, pico, tmp_path):
    """Killed, resumed, killed again, resumed."""
    assert kill_when(spawn(*words(data, pico, tmp_path)), lambda: lines_written(tmp_path) >= 4)
    again = spawn(*words(data, pico, tmp_path), "--resume")
    assert kill_when(again, lambda: lines_written(tmp_path) >= 9)
    assert call(*words(data, pico, tmp_path), "--resume").code == 0
    assert outcome(tmp_path / "run") == unbroken


@pytest.mark.slow
def test_a_resumed_run_keeps_the_date_of_its_template(data, pico, tmp_path):
    """Begun with a date of 2025 and killed; resumed today with an empty cache: the weights of the run nobody killed."""
    template = tmp_path / "dated.jinja"
    template.write_text(
        "{{ strftime_now('%d %b %Y') }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    homes = [tmp_path / "whole", tmp_path / "killed"]
    given = [[*words(data, pico, home), "--chat-template", template] for home in homes]
    day = ["--template-date", "2025-02-03"]
    assert call(*given[0], *day).code == 0
    assert kill_when(spawn(*given[1], *day), lambda: lines_written(homes[1]) >= 3)
    given[1][given[1].index("--cache") + 1] = tmp_path / "another cache"
    result = call(*given[1], "--resume")
    assert result.code == 0, result.err
    assert "the date 2025-02-03, as recorded in" in " ".join(result.err.split())
    assert outcome(homes[0] / "run")[0] == outcome(homes[1] / "run")[0]


@pytest.mark.slow
def test_killed_precompute_redoes_only_what_was_not_stored(data, pico, tmp_path):
    """What was stored before the kill is not computed again, and nothing is lost or counted twice."""
    command = ["precompute", "--data", data, "--model", pico, "--cache", tmp_path / "cache", "--micro-batch-tokens", 64]
    assert kill_when(spawn(*command), lambda: segments(tmp_path) > 1500)
    stored = call(*command, "--json").json
    assert 0 < stored["cached"] < stored["sequences"]
    assert stored["cached"] + stored["computed"] == stored["sequences"]
    assert call(*command, "--json").json["computed"] == 0


@pytest.mark.slow
def test_damaged_newest_checkpoint_is_said_and_the_one_before_it_used(unbroken, data, pico, tmp_path):
    """A flipped byte in the newest checkpoint's weights: said by name; the run still ends with the same bits."""
    process = spawn(*words(data, pico, tmp_path))
    assert kill_when(process, lambda: lines_written(tmp_path) >= 9)
    newest = sorted((tmp_path / "run" / "steps").glob("step-*"))[-1] / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    result = call(*words(data, pico, tmp_path), "--resume")
    assert result.code == 0
    assert str(newest) in result.err.replace("\n", "")
    assert "damaged" in result.err
    assert outcome(tmp_path / "run") == unbroken


def test_damaged_cache_is_said_and_computed_again(data, pico, tmp_path):
    """A flipped byte in the cache: said, that part computed again, and the values are what they were."""
    from kto_cli.model.identity import fingerprint, numbers_identity
    from kto_cli.model.logprobs.reference_cache import ReferenceCache

    command = [
        "precompute",
        "--data",
        data,
        "--model",
        pico,
        "--cache",
        tmp_path / "cache",
        "--micro-batch-tokens",
        300,
    ]
    total = call(*command, "--json").json["sequences"]
    segment = next((tmp_path / "cache").rglob("*.segment"))
    sound = segment.read_bytes()
    cache = ReferenceCache(tmp_path / "cache", numbers=numbers_identity(fingerprint(pico), "torch.float32"))
    keys = numpy.unique(_records(b"".join(cache._frames(sound)[0]))["key"])
    before = cache.read(keys)
    segment.write_bytes(sound[: len(sound) // 2] + bytes([sound[len(sound) // 2] ^ 1]) + sound[len(sound) // 2 + 1 :])
    again = call(*command, "--json")
    assert "damaged" in again.err
    assert 0 < again.json["computed"] < total
    assert [values.tolist() for values in cache.read(keys)] == [values.tolist() for values in before]
    assert call(*command, "--json").json["computed"] == 0


def _records(payload: bytes) -> Any:
    from kto_cli.model.logprobs.reference_cache import _RECORD

    return numpy.frombuffer(payload, _RECORD)
