"""`kto binarize` over many synthetic rows: seconds, rows a second and peak memory, by number of processes.

    python benchmarks/binarize_scale.py                            # 200,000 rows, 1 and 2 processes
    python benchmarks/binarize_scale.py --rows 2000000 --workers 1

Each line has a prompt of 5 to 30 words, an answer of 5 to 60 and a label; no two prompts are alike. The command runs
as people type it, findings, split and files included; the peak is that of its largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LETTERS = "abcdefghijklmnopqrstuvwxyz"
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Writes the rows, runs the command, prints a line for each number of processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kto-binarize-") as work:
        lines = Path(work, "rows.jsonl")
        write_rows(lines, options.rows)
        print(f"{options.rows:,} rows, {lines.stat().st_size / 2**20:,.0f} MiB")
        for workers in options.workers:
            seconds, peak = run(lines, Path(work, f"data-{workers}"), workers)
            rate = options.rows / seconds
            print(f"{workers} processes: {seconds:7.1f} s  {rate:8,.0f} rows/s  peak so far {peak / 2**20:6,.0f} MiB")


def write_rows(path: Path, count: int) -> None:
    """Random words, the same in every run."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(5000)]
    with path.open("w") as file:
        for number in range(count):
            prompt = f"Question {number}: {' '.join(draw.choices(words, k=draw.randint(5, 30)))}"
            answer = " ".join(draw.choices(words, k=draw.randint(5, 60)))
            file.write(json.dumps({"prompt": prompt, "completion": answer, "label": draw.random() < 0.5}) + "\n")


def run(lines: Path, out: Path, workers: int) -> tuple[float, int]:
    """(seconds, the largest peak in bytes of any command so far)."""
    command = [sys.executable, "-m", "kto_cli", "binarize", str(lines), "--out", str(out), "--workers", str(workers)]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--json"], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
