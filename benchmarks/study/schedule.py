"""Order of the trials: rates are chosen first, then the seeds that count; several at a time, resumed by key."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.cells import read_results
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.trials import AS_IT_IS, SEEDS, SFT, STARTS, TUNING_SEED, Bench, Condition, Trial
from benchmarks.study.worlds import World, builtin, stories
from kto_cli.common.errors import KtoError

STARTING = {"base": "the model", "sft": "the model after SFT"}
QUICK_PAIRS, QUICK_PROMPTS = 32, 16


@dataclass(frozen=True)
class Setup:
    """What a process needs to make the bench: where, and which world."""

    work: Path
    model: Path | None = None
    texts: Path | None = None
    quick: bool = False

    @property
    def name(self) -> str:
        """The world's, by which its results are known."""
        return "stories" if self.model else "builtin-quick" if self.quick else "builtin"

    def world(self) -> World:
        """The stories, or the built-in world, smaller if quick."""
        if self.model is not None and self.texts is not None:
            return stories(self.work, self.model, self.texts)
        world = builtin(self.work)
        if self.quick:
            sizes = {"train": QUICK_PAIRS, "validation": QUICK_PROMPTS, "test": QUICK_PROMPTS}
            return replace(
                world, name=self.name, splits={name: world.splits[name][:size] for name, size in sizes.items()}
            )
        return world


class Results:
    """Results of one world, in a file of JSON lines."""

    def __init__(self, path: Path, world: str) -> None:
        self.path, self.world = path, world
        self.known = {one["key"]: one for one in read_results(path) if one["world"] == world and "error" not in one}

    def add(self, trial: Trial, found: dict[str, Any]) -> None:
        """Appends a result."""
        condition = trial.condition
        named = {"table": condition.table, "name": condition.name, "rate": trial.rate, "seed": trial.seed}
        one = {"key": trial.key(self.world), "world": self.world, **named, **found}
        if "error" not in one:
            self.known[one["key"]] = one
        self._write(one)

    def add_start(self, name: str, found: dict[str, Any]) -> None:
        """Appends what a model that conditions start from answers."""
        key = start_key(self.world, name)
        self.known[key] = {"key": key, "world": self.world, "table": STARTS, "name": name, "seed": AS_IT_IS, **found}
        self._write(self.known[key])

    def _write(self, one: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")
        said = one.get("error") or f"reward {one['reward']:+.3f}"
        print(f"{one['seconds']:6.1f} s  {one['key']}  {said}", flush=True)

    def best_rate(self, full_name: str) -> float | None:
        """The rate with the largest reward on validation prompts; None before one was tried."""
        found = [
            one for one in self.known.values()
            if f"{one['table']} / {one['name']}" == full_name and one["seed"] == TUNING_SEED
        ]  # fmt: skip
        return max(found, key=lambda one: (one["reward"], one["rate"]))["rate"] if found else None


def run(table: str, setup: Setup, path: Path, *, jobs: int, seconds: float, most: int | None = None) -> int:
    """Runs the trials of a table that have no result yet, of its first `most` conditions; none begins after `seconds`.

    Returns:
        Number of trials that failed.
    """
    setup.work.mkdir(parents=True, exist_ok=True)
    bench = _bench(setup)
    results, deadline, failed = Results(path, bench.world.name), time.monotonic() + seconds, 0
    wanted = with_rates_of(QUESTIONS[table]()[:most])
    if setup.quick:
        wanted = [replace(one, rates=one.rates[1:2]) for one in wanted]
    with contextlib.ExitStack() as stack:
        mapped = (
            map if jobs == 1 else stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))).map
        )
        for phase in (tuning_of_sft, tuning, counting_quick if setup.quick else counting):
            todo = [one for one in phase(wanted, results) if one.key(results.world) not in results.known]
            sft_rate = results.best_rate(SFT.full_name) or 0.0
            bench.prepare([trial.condition for trial in todo], sft_rate)
            if sft_rate:
                _measure_starts(bench, results, sft_rate)
            given = ((setup, trial, sft_rate, deadline) for trial in todo)
            for trial, found in zip(todo, mapped(_measured, given), strict=True):
                if found:
                    results.add(trial, found)
                    failed += "error" in found
    return failed


def _measure_starts(bench: Bench, results: Results, sft_rate: float) -> None:
    for name, said in STARTING.items():
        if start_key(results.world, said) not in results.known:
            results.add_start(said, bench.measure_start(name, sft_rate))


def start_key(world: str, name: str) -> str:
    """Name of the result of a model that conditions start from."""
    return f"{world}: {STARTS} / {name}"


def with_rates_of(wanted: Sequence[Condition]) -> list[Condition]:
    """The conditions, and before them those whose rate or result they need."""
    known = {one.full_name: one for make in QUESTIONS.values() for one in make()}
    found: dict[str, Condition] = {}

    def add(one: Condition) -> None:
        for name in {one.rate_of, one.against} - {"", *found}:
            add(known[name])
        found.setdefault(one.full_name, one)

    for one in wanted:
        add(one)
    return list(found.values())


def tuning_of_sft(wanted: Iterable[Condition], results: Results) -> list[Trial]:
    """Trials of the rates of the SFT that others start from."""
    return tuning([SFT], results)


def tuning(wanted: Iterable[Condition], results: Results) -> list[Trial]:
    """Trials of all rates."""
    return [Trial(one, rate, TUNING_SEED) for one in wanted for rate in one.rates]


def counting(wanted: Iterable[Condition], results: Results, seeds: Sequence[int] = SEEDS) -> list[Trial]:
    """Trials at the chosen rates."""
    chosen = [(one, results.best_rate(one.full_name if one.rates else one.rate_of)) for one in wanted]
    return [Trial(one, rate, seed) for one, rate in chosen if rate is not None for seed in seeds]


def counting_quick(wanted: Iterable[Condition], results: Results) -> list[Trial]:
    """Those of the first seed."""
    return counting(wanted, results, SEEDS[:1])


@cache
def _bench(setup: Setup) -> Bench:
    torch.set_num_threads(1)
    return Bench(setup.world(), setup.work)


def _measured(given: tuple[Setup, Trial, float, float]) -> dict[str, Any]:
    """The result of a trial; empty if its time is up."""
    setup, trial, sft_rate, deadline = given
    if time.monotonic() > deadline:
        return {}
    try:
        return _bench(setup).measure(trial, sft_rate)
    except KtoError as error:
        return {"seconds": 0.0, "error": str(error)}
