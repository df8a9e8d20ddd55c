"""The report's section on saturation: shares by class, and the rows most at odds with their label.

Both are read from what `core/statistics/breakdown.py` computed: metrics.json has the shares, rows.parquet the rows.
"""

from __future__ import annotations

from typing import Any

import numpy

from kto_cli.common.screen import number
from kto_cli.evaluation.report.evidence import Evidence, as_floats, is_number, part, texts_of
from kto_cli.evaluation.report.numbers import Grid, is_known_interval, shown

ODD_ROWS = 3
"""Rows listed of each class."""
EXCERPT = 220
"""Characters shown of a text; of a longer prompt the last ones."""
COLUMNS = {"rows": "rows", "saturated_right": "saturated, learned", "saturated_wrong": "saturated, against its label"}


def saturation_grid(evidence: Evidence) -> Grid | None:
    """Rows and saturated shares of each class; None where metrics.json has none."""
    classes = part(evidence.metrics, "by_class")
    rows = [
        [name, shown(one["rows"]), *(_share(one, key) for key in COLUMNS if key != "rows")]
        for name in classes
        if COLUMNS.keys() <= (one := part(classes, name)).keys()
    ]
    source = f"{evidence.results_folder}/metrics.json: metrics.by_class"
    return Grid(["class", *COLUMNS.values()], rows, source) if rows else None


def _share(one: dict[str, Any], key: str) -> str:
    """A share with its interval."""
    interval = one.get(f"{key}_wilson")
    text = f"{one[key]:.1%}" if is_number(one[key]) else "-"
    return f"{text} ({interval[0]:.1%} to {interval[1]:.1%})" if is_known_interval(interval) else text


def odd_rows(evidence: Evidence) -> Grid | None:
    """The rows whose reward contradicts their label most: check their labels first."""
    rows = evidence.rows
    if rows is None:
        return None
    labels, rewards = rows["label"].astype(bool), as_floats(rows["reward"])
    wrong = ~rows["right_side"].astype(bool) & (as_floats(rows["gradient_weight"]) < 1) & numpy.isfinite(rewards)
    order: list[int] = []
    for label in (True, False):
        ranked = numpy.argsort(rewards if label else -rewards, kind="stable")
        order += [index for index in ranked.tolist() if wrong[index] and labels[index] == label][:ODD_ROWS]
    texts = texts_of(part(evidence.results, "data").get("folder"), [str(rows["id"][index]) for index in order])
    lines = []
    for index in order:
        prompt, answer = texts.get(str(rows["id"][index]), ("", "(the dataset is not there any more)"))
        lines.append(
            [
                str(rows["origin"][index]),
                "desirable" if labels[index] else "undesirable",
                number(float(rewards[index])),
                _last(prompt),
                _first(answer),
            ]
        )
    source = f"{evidence.results_folder}/rows.parquet: reward, label, right_side"
    return Grid(["raw line", "label", "reward", "prompt", "answer"], lines, source) if lines else None


def _first(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[:EXCERPT] + " ..."


def _last(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else "... " + words[-EXCERPT:]
