"""Numbers with their intervals on one scale, with a line at guessing or at no difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kto_cli.common.screen import number
from kto_cli.common.words import UNSAFE
from kto_cli.evaluation.report.charts import LINE, PLAIN, TEXT, Chart, draw
from kto_cli.evaluation.report.numbers import Grid

FRAME, ROW = 0.75, 0.27
"""Inches: axis and label, and each row."""


@dataclass(frozen=True)
class Measured:
    """One row of the chart."""

    name: str
    value: float
    interval: Sequence[float]


def interval_chart(
    name: str, title: str, caption: str, rows: Sequence[Measured], *, line: float, axis: str, source: str
) -> Chart | None:
    """Marks are estimates, bars their 90 % intervals; None without rows.

    Args:
        name: id of the drawing, unique on the page.
        line: position of the vertical line. axis: label of the scale.
    """
    if not rows:
        return None

    def paint(axes: Any) -> None:
        for index, row in enumerate(rows):
            axes.plot(row.interval, [index, index], color=PLAIN, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot([row.value], [index], color=PLAIN, marker="D", markersize=5)
        axes.axvline(line, color=TEXT, linewidth=0.7)
        axes.set_yticks(range(len(rows)), [_in_two_lines(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_color(LINE)

    cells = [[row.name, number(row.value), f"{number(row.interval[0])} to {number(row.interval[1])}"] for row in rows]
    described = " ".join(f"{called}: {value}, 90 % interval {interval}." for called, value, interval in cells)
    svg = draw(name, title, described, paint, height=FRAME + ROW * max(2, len(rows)))
    return Chart(title, caption, svg, Grid(["", "value", "90 % interval"], cells, source))


def _in_two_lines(text: str, most: int = 22) -> str:
    """A label on two lines, broken at the space nearest its middle; the table below the chart has the full text."""
    text = UNSAFE.sub(" ", text)
    text = text if len(text) <= 2 * most else f"{text[: 2 * most - 1]}…"
    spaces = [index for index, char in enumerate(text) if char == " "]
    if len(text) <= most or not spaces:
        return text
    middle = min(spaces, key=lambda index: abs(index - len(text) / 2))
    return f"{text[:middle]}\n{text[middle + 1 :]}"
