"""The authors' judged runs (ContextualAI/HALOs, branch legacy, results.jsonl, Apache-2.0), analysed again.

paper.jsonl holds counts and mean lengths of each run; `counts` makes it from the authors' file.
"""

from __future__ import annotations

import gzip
import json
import math
import statistics
from pathlib import Path
from typing import Any

from kto_cli.core.statistics.intervals import wilson

COUNTS = Path(__file__).with_name("paper.jsonl")
MODELS = ("pythia1-4b", "pythia2-8b", "pythia6-9b", "pythia12-0b", "llama7b", "llama13b", "llama30b")
METHODS = ("unaligned", "sft", "kto", "dpo", "sft+kto", "sft+dpo")


def counts(source: Path) -> list[dict[str, Any]]:
    """A run a line: duels, those won and lost, mean tokens of both sides."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        runs = [json.loads(line) for line in file]
    return [
        {
            "run": run["exp_name"],
            "duels": run["total"],
            "won": run["candidate"]["wins"],
            "lost": run["baseline"]["wins"],
            "length": round(statistics.mean(run["candidate"]["lengths"]), 1),
            "length_of_baseline": round(statistics.mean(run["baseline"]["lengths"]), 1),
        }
        for run in runs
    ]


def paper_tables() -> dict[str, str]:
    """Tables of the page by name, in Markdown."""
    lines = COUNTS.read_text(encoding="utf-8").splitlines()
    runs = {one["run"]: one for one in map(json.loads, lines)}
    return {"paper-rates": rates(runs), "paper-differences": differences(runs), "paper-imbalance": imbalance(runs)}


def rates(runs: dict[str, Any]) -> str:
    """Win rate of each method and model: ties lose, as the paper counts; ties half, as `kto eval` does; mean tokens."""
    head = "| | " + " | ".join(MODELS) + " |\n| --- |" + " ---: |" * len(MODELS)
    lines = []
    for method in METHODS:
        found = [runs[f"archangel_{method}_{model}"] for model in MODELS]
        lines.append(f"| {method} | " + " | ".join(map(rate_cell, found)) + " |")
    return "\n".join([head, *lines])


def rate_cell(run: dict[str, Any]) -> str:
    """Such as ".41 / .43, 286"."""
    return f"{share(run):.2f} / {share(run, ties=0.5):.2f}, {run['length']:.0f}".replace("0.", ".")


def share(run: dict[str, Any], ties: float = 0.0) -> float:
    """Of duels won; a tie counts as `ties`."""
    return float(run["won"] + ties * (run["duels"] - run["won"] - run["lost"])) / float(run["duels"])


def differences(runs: dict[str, Any]) -> str:
    """Differences of win rates (ties lose) with 90 % intervals and z, methods taken as independent samples."""
    compared = (("kto", "dpo"), ("sft+kto", "sft+dpo"), ("sft+kto", "sft"), ("kto", "sft"))
    head = "| | " + " | ".join(MODELS) + " |\n| --- |" + " ---: |" * len(MODELS)
    lines = []
    for one, other in compared:
        cells = [
            difference_cell(runs[f"archangel_{one}_{model}"], runs[f"archangel_{other}_{model}"]) for model in MODELS
        ]
        lines.append(f"| {one} minus {other} | " + " | ".join(cells) + " |")
    return "\n".join([head, *lines])


def difference_cell(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Such as "+.10 +- .06 (3.4)"."""
    gap, error = difference(one, other)
    return f"{gap:+.2f} ± {1.645 * error:.2f} ({gap / error:+.1f})".replace("0.", ".")


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """Difference of two win rates and its standard error."""
    rates = [share(run) for run in (one, other)]
    errors = [rate * (1 - rate) / run["duels"] for rate, run in zip(rates, (one, other), strict=True)]
    return rates[0] - rates[1], math.sqrt(sum(errors))


def imbalance(runs: dict[str, Any]) -> str:
    """Figure 6's runs: shares of the rows kept, weights, win rate with its Wilson interval, mean tokens."""
    found = [run for name, run in runs.items() if name.startswith("fracdata_kto")]
    lines = [
        "| desirable rows kept | weight | undesirable rows kept | weight | win rate | tokens |",
        "| ---: " * 6 + "|",
    ]
    for run in sorted(found, key=lambda run: run["run"]):
        parts = {part[:2]: float(part[2:]) for part in run["run"].split("_")[3:]}
        low, high = wilson(run["won"], run["duels"])
        cells = [f"{parts['FD']:.0%}", f"{parts['WD']:g}", f"{parts['FU']:.0%}", f"{parts['WU']:g}"]
        lines.append(
            "| " + " | ".join([*cells, f"{share(run):.3f} [{low:.3f}, {high:.3f}]", f"{run['length']:.0f}"]) + " |"
        )
    return "\n".join(lines)
