"""A chart as lines of text: curves in braille dots (or ASCII), a band, a level, axes with numbers, a legend.

Each line is a list of (text, role) pieces; the screen maps roles to colours. The second curve is dotted, so the curves
differ without colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

Row = list[tuple[str, str]]
"""Pieces of a line: (text, role); roles are title, axis, band, level, first, second, both."""
Interval = tuple[float, float, float]
"""(x, low, high)"""

LABEL = 8
"""Columns of the numbers to the left of a chart."""
ROUNDING = 1e-6
"""Differences that are none: float32 is exact to 6e-8 of a number, a sum of log-probs to about ten times that."""
LEAST_HEIGHT = 5
"""Fewest lines of a chart: title, three of drawing, x axis."""
# Braille patterns of Unicode: U+2800 + bits, one bit per dot of a cell of two by four dots, by (column, row).
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
BRAILLE = 0x2800
ASCII = {"first": "*", "second": "o", "both": "#"}


@dataclass(frozen=True)
class Line:
    """A curve: name and finite (x, y) points, x ascending."""

    name: str
    points: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Plot:
    """Content of a chart: at most two curves, a band behind them, and a horizontal line."""

    title: str
    lines: Sequence[Line]
    band: Sequence[Interval] = ()
    level: float | None = None
    share: bool = False
    """Show values in percent."""


@dataclass
class Canvas:
    """Dots of each curve, two by four per cell (one per cell in ASCII)."""

    columns: int
    rows: int
    unicode: bool
    dots: list[dict[tuple[int, int], int]] = field(default_factory=lambda: [{}, {}])
    """For each curve bits by (column, row)."""

    @property
    def per_cell(self) -> tuple[int, int]:
        """Dots per cell, across and down."""
        return (2, 4) if self.unicode else (1, 1)

    def put(self, curve: int, x: int, y: int) -> None:
        """Sets a dot of a curve; x from the left and y from the top, in dots."""
        across, down = self.per_cell
        cell = (x // across, y // down)
        self.dots[curve][cell] = self.dots[curve].get(cell, 0) | DOTS[x % across][y % down]


def draw(plot: Plot, width: int, height: int, *, unicode: bool = True) -> list[Row]:
    """A chart of exactly `height` lines (at least `LEAST_HEIGHT`) of at most `width` columns."""
    rows: list[Row] = [_title(plot, width, unicode)]
    columns, lines = width - LABEL - 1, height - 2
    bounds = _bounds(plot)
    if bounds is None:
        rows += [[(" " * (LABEL + 1) + "no number yet", "axis")]] + [[] for _ in range(lines)]
        return rows
    left, right, low, high = bounds
    canvas = Canvas(columns, lines, unicode)
    for index, line in enumerate(plot.lines[:2]):
        _trace(canvas, index, line.points, bounds)
    band = _band_rows(canvas, plot.band, bounds)
    level = None if plot.level is None else _row_of(plot.level, low, high, lines)
    edge = "│" if unicode else "|"
    labels = _labels(plot, low, high, lines)
    for row, cells in enumerate(_cells(canvas, band, level)):
        rows.append([(f"{labels.get(row, ''):>{LABEL}}{edge}", "axis"), *_merged(cells)])
    rows.append([(_x_axis(left, right, columns), "axis")])
    return rows


def _title(plot: Plot, width: int, unicode: bool) -> Row:
    """Title and legend: mark, name and last value of each curve; names are shortened to fit."""
    marks = ("━", "┄") if unicode else ("*", "o")
    lines = list(zip(("first", "second"), marks, plot.lines, strict=False))
    bounds = _bounds(plot)
    room = bounds[3] - bounds[2] if bounds else 0.0
    values = [_shown(line.points[-1][1], room, plot) if line.points else "-" for _, _, line in lines]
    several = len(lines) > 1
    for letters in (99, 5, 1):
        names = [_shortened(line.name, letters) + " " if several else "" for _, _, line in lines]
        pieces = [
            (f"  {mark} {name}{value}", role) for (role, mark, _), name, value in zip(lines, names, values, strict=True)
        ]
        if len(plot.title) + sum(len(text) for text, _ in pieces) <= width:
            return [(plot.title, "title"), *pieces]
    return [(plot.title[:width], "title")]


def _shortened(name: str, letters: int) -> str:
    """undesirable, undes. or U."""
    if len(name) <= letters:
        return name
    return f"{name[:letters].rstrip()}." if letters > 1 else name[0].upper()


def _bounds(plot: Plot) -> tuple[float, float, float, float] | None:
    """(left, right, low, high) with low < high, or None without points; a wide band is clipped, so that the curves
    keep a third of the height."""
    points = [point for line in plot.lines for point in line.points]
    if not points:
        return None
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + ([] if plot.level is None else [plot.level])
    least, most = min(ys), max(ys)
    room = (most - least) or math.inf
    low = max(min([least, *(low for _, low, _ in plot.band)]), least - room)
    high = min(max([most, *(high for _, _, high in plot.band)]), most + room)
    # All values are equal up to the rounding of float32: half the value above and below, or 0.5 around 0.
    if high - low <= ROUNDING * max(abs(low), abs(high), 1.0):
        room = abs(low) / 2 if abs(low) > ROUNDING else 0.5
        low, high = low - room, high + room
    if plot.share:
        low = max(0.0, low)
    return min(xs), max(xs), low, high


def _share_of(value: float, low: float, high: float) -> float:
    """Position of a value between two others, in [0, 1]; halved first, as their distance may overflow a float."""
    return 0.0 if high == low else min(1.0, max(0.0, (value / 2 - low / 2) / (high / 2 - low / 2)))


def _row_of(value: float, low: float, high: float, rows: int) -> int:
    """The row of a value, from the top."""
    return round((1 - _share_of(value, low, high)) * (rows - 1))


def _trace(canvas: Canvas, index: int, points: Sequence[tuple[float, float]], bounds: tuple[float, ...]) -> None:
    """Draws the mean of each column's points, joined by straight lines; the second curve is dotted."""
    left, right, low, high = bounds
    across, down = canvas.per_cell
    width, height = canvas.columns * across, canvas.rows * down
    previous: tuple[int, int] | None = None
    for column, mean in _means(width, points, left, right).items():
        current = (column, _row_of(mean, low, high, height))
        for x, y in _straight(previous or current, current):
            if index == 0 or not canvas.unicode or (x + y) % 4 < 2 or previous is None:  # two dots of four
                canvas.put(index, x, y)
        previous = current


def _means(columns: int, points: Sequence[tuple[float, float]], left: float, right: float) -> dict[int, float]:
    """Mean of the values in each column, by column."""
    found: dict[int, tuple[float, int]] = {}
    scale = (columns - 1) / ((right - left) or 1)
    for x, y in points:
        column = min(columns - 1, max(0, round((x - left) * scale)))
        mean, count = found.get(column, (0.0, 0))
        found[column] = (mean + (y - mean) / (count + 1), count + 1)
    return {column: mean for column, (mean, _) in found.items()}


def _straight(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots of a straight line, both ends included."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0))
    if not steps:
        return [start]
    return [(round(x0 + (x1 - x0) * n / steps), round(y0 + (y1 - y0) * n / steps)) for n in range(steps + 1)]


def _band_rows(canvas: Canvas, band: Sequence[Interval], bounds: tuple[float, ...]) -> dict[int, tuple[int, int]]:
    """(upper, lower) row of the band in each column: the mean of its points there, else the column before."""
    left, right, low, high = bounds
    means = [_means(canvas.columns, [(x, edges[side]) for x, *edges in band], left, right) for side in (0, 1)]
    found = {
        column: (_row_of(means[1][column], low, high, canvas.rows), _row_of(bottom, low, high, canvas.rows))
        for column, bottom in means[0].items()
    }
    if found:
        for column in range(min(found), max(found)):
            found.setdefault(column + 1, found[column])
    return found


def _cells(canvas: Canvas, band: dict[int, tuple[int, int]], level: int | None) -> list[list[tuple[str, str]]]:
    """(character, role) by row and column; curves cover the band, the band covers the level."""
    unicode = canvas.unicode
    cells = [[(" ", "")] * canvas.columns for _ in range(canvas.rows)]
    if level is not None:
        cells[level] = [("╌" if unicode else "-", "level")] * canvas.columns
    for column, (upper, lower) in band.items():
        for row in range(upper, lower + 1):
            cells[row][column] = ("░" if unicode else ":", "band")
    first, second = canvas.dots
    for column, row in {**first, **second}:
        cell = (column, row)
        role = "both" if cell in first and cell in second else "first" if cell in first else "second"
        dots = chr(BRAILLE | first.get(cell, 0) | second.get(cell, 0))
        cells[row][column] = (dots if unicode else ASCII[role], role)
    return cells


def _merged(cells: Sequence[tuple[str, str]]) -> Row:
    """Joins neighbours of the same role."""
    return [("".join(text for text, _ in group), role) for role, group in groupby(cells, key=itemgetter(1))]


def _labels(plot: Plot, low: float, high: float, rows: int) -> dict[int, str]:
    """Numbers of the y axis by row: the largest, the smallest, and the level if it has a row of its own."""
    labels = {0: _shown(high, high - low, plot), rows - 1: _shown(low, high - low, plot)}
    if plot.level is not None:
        labels.setdefault(_row_of(plot.level, low, high, rows), _shown(plot.level, high - low, plot))
    return labels


def _shown(value: float, room: float, plot: Plot) -> str:
    """A number of a chart whose values span `room`: of which a thousandth is 0."""
    return compact(0.0 if abs(value) < room / 1000 else value, share=plot.share)


def _x_axis(left: float, right: float, columns: int) -> str:
    """First step at the left end, last step at the right end."""
    first, last = f"step {left:.0f}", f"{right:.0f}" if right > left else ""
    return " " * (LABEL + 1) + first + last.rjust(columns - len(first))


def compact(value: float, *, share: bool = False) -> str:
    """A number in at most seven characters."""
    if share:
        return f"{value:.0%}"
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.0e}" if math.isfinite(value) else "-"


def bar(share: float, width: int, *, unicode: bool = True) -> Row:
    """Progress bar; share in [0, 1]."""
    full = min(width, max(0, int(share * width)))
    done, open_ = ("━", "╌") if unicode else ("=", "-")
    return [(done * full, "first"), (open_ * (width - full), "axis")]
