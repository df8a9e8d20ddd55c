"""Cost against rows and tokens: binarize, precompute and a few steps of training, from 1k to 64k synthetic rows.

    python benchmarks/scaling.py                       # writes benchmarks/scaling.svg
    python benchmarks/scaling.py --most-rows 4096 --svg /tmp/scaling.svg --json

Every command runs as a person runs it, in a process of its own, with a pico model so that kto's own work shows;
seconds and peak memory are of the whole process, imports (torch among them) included. Rows are short or long (four
times the words), and there are as many words in the most long rows as in the most short ones. A straight line is
fitted to each command's seconds over its rows; `worst` is the largest distance of a measurement from it, as a share
of the largest measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("binarize", "precompute", "train")
WORDS = {"short": 12, "long": 48}
"""Words of a completion."""
STEPS = 4
LEAST_ROWS = 1024
COLOURS = {"binarize": "#0072b2", "precompute": "#d55e00", "train": "#009e73"}


def main() -> None:
    """Measures every size, fits lines, draws them."""
    options = arguments()
    if options.write_model:
        write_pico(Path(options.write_model))
        return
    points = []
    with tempfile.TemporaryDirectory(prefix="kto-scaling-") as folder:
        model = Path(folder) / "model"
        # A process's peak counts what its parent held when it began, so this one must stay small.
        run([sys.executable, __file__, "--write-model", str(model)])
        for length, words in WORDS.items():
            rows, most = LEAST_ROWS, options.most_rows * WORDS["short"] // words
            while rows <= most:
                points += measured(rows, length, words, model)
                rows *= 2
    lines = [line(points, command, length) for command in COMMANDS for length in WORDS]
    Path(options.svg).write_text(drawing(points, lines))
    if options.json:
        print(json.dumps({"points": points, "lines": lines}))
        return
    for found in lines:
        print(
            f"{found['command']}, {found['length']} rows: {1000 * found['seconds_per_row']:.3f} ms a row, off the line "
            f"by {found['worst']:.1%} at most; peak {found['least_mib']:,.0f} to {found['most_mib']:,.0f} MiB"
        )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--most-rows", type=int, default=65536, help="of short rows; default 65536")
    parser.add_argument("--svg", default=str(ROOT / "benchmarks" / "scaling.svg"), help="where the plot goes")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    parser.add_argument("--write-model", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.most_rows < 4 * LEAST_ROWS:
        parser.error(f"--most-rows {options.most_rows} is too few for a line; give {4 * LEAST_ROWS} or more")
    return options


# --- measuring ----------------------------------------------------------------------------------


def write_pico(folder: Path) -> None:
    """A Llama of one narrow layer, with the built-in model's tokenizer."""
    from transformers import AutoTokenizer
    from versus_trl.shapes import Shape, write_model

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "sample_data" / "model")
    write_model(Shape("pico", 32, 64, 1, 2, 2, len(tokenizer)), tokenizer, folder)


def measured(rows: int, length: str, words: int, model: Path) -> list[dict[str, Any]]:
    """The three commands over a dataset of so many rows."""
    found = []
    with tempfile.TemporaryDirectory(prefix="kto-scaling-rows-") as folder:
        work = Path(folder)
        (work / "rows.jsonl").write_text("\n".join(synthetic(rows, words)))
        common = ["--data", str(work / "data"), "--model", str(model), "--cache", str(work / "cache")]
        words_of = {
            "binarize": [str(work / "rows.jsonl"), "--out", str(work / "data")],
            "precompute": common,
            "train": [*common, "--out", str(work / "checkpoint"), "--max-steps", str(STEPS)],
        }
        for command in COMMANDS:
            seconds, peak = run([sys.executable, "-m", "kto_cli", command, *words_of[command]])
            found.append({"command": command, "length": length, "rows": rows, "seconds": seconds, "mib": peak})
            print(f"{command}, {rows:,} {length} rows: {seconds:.1f} s, {peak:,.0f} MiB", file=sys.stderr, flush=True)
    return found


def synthetic(rows: int, words: int) -> list[str]:
    """JSON lines: distinct prompts, completions of random words, labels in turn; the same ones every time."""
    random = Random(0)
    vocabulary = ["the", "a", "cat", "dog", "house", "tree", "walks", "sees", "under", "red", "old", "river", "and"]
    return [
        json.dumps(
            {
                "prompt": f"What happens in story {row}?",
                "completion": " ".join(random.choices(vocabulary, k=words)),
                "label": row % 2 == 0,
            }
        )
        for row in range(rows)
    ]


def run(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MiB) of a process."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read().decode()}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# --- what it comes to ---------------------------------------------------------------------------


def line(points: list[dict[str, Any]], command: str, length: str) -> dict[str, Any]:
    """The straight line of least squares through seconds over rows, and how far the points lie from it."""
    mine = [point for point in points if (point["command"], point["length"]) == (command, length)]
    rows, seconds = [point["rows"] for point in mine], [point["seconds"] for point in mine]
    mean_rows, mean_seconds = sum(rows) / len(rows), sum(seconds) / len(rows)
    spread = sum((value - mean_rows) ** 2 for value in rows)
    slope = sum((x - mean_rows) * (y - mean_seconds) for x, y in zip(rows, seconds, strict=True)) / max(1e-9, spread)
    start = mean_seconds - slope * mean_rows
    worst = max(abs(start + slope * x - y) for x, y in zip(rows, seconds, strict=True)) / max(seconds)
    peaks = [point["mib"] for point in mine]
    return {
        "command": command,
        "length": length,
        "seconds_per_row": slope,
        "seconds_at_start": start,
        "worst": worst,
        "least_mib": min(peaks),
        "most_mib": max(peaks),
    }


# --- the plot -----------------------------------------------------------------------------------

PANEL, HIGH, MARGIN = 420, 300, 60


def drawing(points: list[dict[str, Any]], lines: list[dict[str, Any]]) -> str:
    """Two panels over rows: seconds with the fitted lines, and peak memory."""
    most = max(point["rows"] for point in points)
    parts = []
    for number, (what, title) in enumerate((("seconds", "seconds"), ("mib", "peak memory, MiB"))):
        top = 1.05 * max(point[what] for point in points)
        left = MARGIN + number * (PANEL + 1.5 * MARGIN)
        parts += frame(left, title, most, top)
        for found in lines:
            mine = [p for p in points if (p["command"], p["length"]) == (found["command"], found["length"])]
            places = [(left + PANEL * p["rows"] / most, MARGIN + HIGH * (1 - p[what] / top)) for p in mine]
            parts += series(places, COLOURS[found["command"]], dashed=found["length"] == "long")
    parts += legend()
    wide, high = int(2 * PANEL + 3.5 * MARGIN), int(HIGH + 2.6 * MARGIN)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{wide}" height="{high}" fill="white"/>', *parts, "</svg>\n"])


def frame(left: float, title: str, most: float, top: float) -> list[str]:
    """A panel's box, its title and four ticks on both axes."""
    parts = [
        f'<rect x="{left}" y="{MARGIN}" width="{PANEL}" height="{HIGH}" fill="none" stroke="#999"/>',
        f'<text x="{left}" y="{MARGIN - 10}" font-size="14">{title}</text>',
    ]
    for tick in range(5):
        x, y = left + PANEL * tick / 4, MARGIN + HIGH * (1 - tick / 4)
        rows, value = most * tick // 4, top * tick / 4
        label = f"{value:,.0f}" if top >= 10 else f"{value:.1f}"
        parts.append(f'<text x="{x}" y="{MARGIN + HIGH + 16}" text-anchor="middle">{rows:,}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    return parts


def series(places: list[tuple[float, float]], colour: str, *, dashed: bool) -> list[str]:
    """Points and what joins them."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>', *dots]


def legend() -> list[str]:
    """Colours are commands; dashes are long rows."""
    y = MARGIN + HIGH + 45
    parts = [
        f'<text x="{MARGIN + 110 * place}" y="{y}" fill="{colour}">● {command}</text>'
        for place, (command, colour) in enumerate(COLOURS.items())
    ]
    return [
        *parts,
        f'<text x="{MARGIN + 340}" y="{y}">over rows; solid: short rows, dashed: four times the words</text>',
    ]


if __name__ == "__main__":
    main()
