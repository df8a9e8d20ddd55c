"""The files of an eval folder. Each part of the results has one of its own and stays until it is computed anew:

metrics.json       validation rows: what `find_out` (validation.py) says of them
rows.parquet       the same, row by row
samples.jsonl      validation prompts with the answers of every model
generations.json   what those answers are like: length, endings, repetition
win_rate.json      win rate by a judge (judged.jsonl: every comparison; alpaca_eval/: for AlpacaEval's tools)
benchmarks.json    tasks of lm-eval
comparisons.json   this checkpoint against others
report.html        all of it

A part names what it is of (weights, reference, data), so that what is left from others is passed over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kto_cli.common import files

METRICS, ROWS, SAMPLES, REPORT = "metrics.json", "rows.parquet", "samples.jsonl", "report.html"
GENERATIONS, WIN_RATE, BENCHMARKS, COMPARISONS = (
    "generations.json",
    "win_rate.json",
    "benchmarks.json",
    "comparisons.json",
)
PARTS = (GENERATIONS, WIN_RATE, BENCHMARKS, COMPARISONS)
JUDGED_ANSWERS, ALPACA_EVAL = "judged.jsonl", "alpaca_eval"


def write_part(out: Path, name: str, of: str, content: dict[str, Any]) -> None:
    """One of `PARTS`, whole or not at all.

    Args:
        of: names what was evaluated, as metrics.json does.

    Raises:
        DiskFull: no space left.
    """
    with files.saying_disk_full(out):
        files.make_folder(out)
        files.write_json(out / name, {"of": of, **content})


def write_lines(out: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """A file of JSON lines, whole or not at all.

    Raises:
        DiskFull: no space left.
    """
    with files.saying_disk_full(out):
        files.make_folder(out)
        with files.replacing(out / name) as temporary:
            temporary.write_text(files.json_lines(rows), encoding="utf-8")


def forget_others(out: Path, of: str) -> None:
    """Removes answers of something else: samples.jsonl does not say what it is of, generations.json beside it does."""
    if not read_part(out, GENERATIONS, of):
        (out / SAMPLES).unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any]:
    """What is in a JSON file; empty where it is missing, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_part(out: Path, name: str, of: str | None) -> dict[str, Any]:
    """One of `PARTS`; empty where it is missing or of something else."""
    found = read_object(out / name)
    return found if of is not None and found.get("of") == of else {}
