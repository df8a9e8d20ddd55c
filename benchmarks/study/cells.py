"""Cells of a table: one training run each, several at a time; what is measured goes to a file of JSON lines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEPT = ("rows", "loss", "auc", "auc_length_adjusted", "margin_nats", "kl", "moved_nats", "log_ratio_desirable",
        "log_ratio_undesirable", "log_ratio_per_token_desirable", "log_ratio_per_token_undesirable")  # fmt: skip
"""Of the validation at the end, with the intervals."""
KEPT_OF_CURVE = ("loss", "z_ref", "reward_desirable", "reward_undesirable", "margin", "auc")
"""Of each validation during the run."""
KEPT_OF_ANSWERS = ("answers", "tokens_mean", "ended", "repetition", "distinct_3")
DIGITS = 5
"""Significant, of numbers kept."""


@dataclass(frozen=True)
class Cell:
    """One run: the table it belongs to, the data folder's name, what is varied, and the flags of `kto train`."""

    table: str
    data: str
    varied: tuple[tuple[str, str | float], ...]
    flags: tuple[str, ...]
    seed: int = 0
    samples: int = 0
    """Validation prompts that `kto eval` answers greedily; 0 runs no `kto eval`."""

    @property
    def key(self) -> str:
        """Name of the cell, by which a table is resumed."""
        return " ".join(
            [self.table, self.data, *(f"{name}={value}" for name, value in self.varied), f"seed={self.seed}"]
        )


@dataclass(frozen=True)
class Place:
    """Where cells run: the model, the folder with the data folders, that of the runs, and the file of results."""

    model: str
    data: Path
    work: Path
    results: Path
    device: str


def run_cells(cells: Sequence[Cell], place: Place, *, jobs: int, seconds: float) -> int:
    """Runs the cells that have no result yet, `jobs` at a time, in their order; none begins after `seconds`.

    Returns:
        Number of cells that failed.
    """
    done = {one["key"] for one in read_results(place.results) if "error" not in one}
    deadline, lock, failed = time.monotonic() + seconds, threading.Lock(), []

    def run(cell: Cell) -> None:
        if time.monotonic() > deadline:
            return
        result = {"key": cell.key, **asdict(cell), "device": place.device, **measure(cell, place, deadline)}
        result["varied"] = dict(cell.varied)
        with lock, place.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"{result['seconds']:6.1f} s  {cell.key}  {result.get('error') or result.get('verdict')}", flush=True)
        if "error" in result:
            failed.append(cell.key)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, [cell for cell in cells if cell.key not in done]))
    return len(failed)


def measure(cell: Cell, place: Place, deadline: float) -> dict[str, Any]:
    """What the run's own output and metrics say of it, and `kto eval` of its answers; or the error's last line."""
    run, began = place.work / cell.key.replace(" ", "_").replace("/", "-"), time.monotonic()
    shutil.rmtree(run, ignore_errors=True)
    data = ("--data", str(place.data / cell.data), "--cache", str(place.work / "cache"))
    train = ("train", *data, "--model", place.model, "--out", str(run), "--seed", str(cell.seed), *cell.flags)
    trained = kto(train)
    found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
    if "error" in trained:
        return found | trained
    found |= compact(trained) | {"curve": curve(run)}
    if cell.samples and time.monotonic() < deadline:
        asked = ("--samples", str(cell.samples), "--temperature", "0")
        found |= compact_answers(kto(("eval", str(run), *data, *asked)))
    shutil.rmtree(run, ignore_errors=True)
    return found


def kto(arguments: Sequence[str]) -> dict[str, Any]:
    """The JSON object that a command of kto prints, or {"error": last line}."""
    ran = subprocess.run([sys.executable, "-m", "kto_cli", *arguments, "--json"], capture_output=True, text=True)
    if ran.returncode:
        lines = (ran.stdout + ran.stderr).strip().splitlines() or [f"exit status {ran.returncode}"]
        return {"error": lines[-1][-400:]}
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def compact(trained: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the output of `kto train`: numbers and the verdict, no texts of rows."""
    kept = {name for key in KEPT for name in (key, f"{key}_interval")}
    validation = {name: rounded(value) for name, value in trained["validation"].items() if name in kept}
    return {
        "steps": trained["steps"],
        "rows_seen": trained["rows"],
        "verdict": trained["verdict"],
        "validation": validation,
    }


def compact_answers(evaluated: dict[str, Any]) -> dict[str, Any]:
    """What is kept of the output of `kto eval`: what the checkpoint's and the reference's answers are like."""
    if "error" in evaluated:
        return evaluated
    return {
        "answers": {
            side: {name: rounded(value) for name, value in evaluated["generations"]["models"][side].items()
                   if name in KEPT_OF_ANSWERS}
            for side in ("reference", "policy")
        }
    }  # fmt: skip


def curve(run: Path) -> list[dict[str, Any]]:
    """Validations during the run, by step."""
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {"step": one["step"]} | {name: rounded(one["validation"].get(name)) for name in KEPT_OF_CURVE}
        for one in steps
        if "validation" in one
    ]


def rounded(value: Any) -> Any:
    """Numbers, and those of a list, to `DIGITS` significant digits."""
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def read_results(path: Path) -> list[dict[str, Any]]:
    """Results of earlier runs; a line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
