"""Live view of training: curves redrawn in place, or a line of numbers per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kto_cli.common.chart_panels import PANELS, Panel, validation_records
from kto_cli.common.screen import Screen
from kto_cli.common.tables import clock, show_step, step_words
from kto_cli.common.text_chart import LEAST_HEIGHT, Line, Plot, Row, bar, draw

SHOWN = tuple(panel for panel in PANELS if panel.name != "saturated")
"""All but the saturated rows, which are among the numbers below the curves."""
MOST_POINTS = 128
"""Points in memory per curve (up to twice as many at times); in longer runs a point is the mean of several steps."""
SIDE_BY_SIDE = ((3, 150), (2, 76), (1, 0))
"""(charts side by side, least columns of the terminal)."""
MOST_HEIGHT = 16
"""Lines of a chart at most."""
FIXED = 2
"""Lines below the charts: numbers, progress bar."""
ECHO = 4
"""Columns free at the end of the last line for the terminal's ^C, which on a new line would shift the redrawn frame."""
Show = Callable[[dict[str, Any]], None]


@dataclass
class Series:
    """A curve's points, binned so that memory does not grow with the run."""

    bins: list[tuple[float, ...]] = field(default_factory=list)
    """(step, values...): means of `size` points; the last bin has `filled` points."""
    size: int = 1
    filled: int = 0

    def add(self, *point: float) -> None:
        """Adds a step and its values, unless one of them is not finite."""
        if not all(map(math.isfinite, point)):
            return
        if not self.bins or self.filled == self.size:
            if len(self.bins) == 2 * MOST_POINTS:
                pairs = zip(self.bins[::2], self.bins[1::2], strict=True)
                self.bins = [tuple((a + b) / 2 for a, b in zip(*pair, strict=True)) for pair in pairs]
                self.size *= 2
            self.bins.append(point)
            self.filled = 1
            return
        self.filled += 1
        self.bins[-1] = tuple(mean + (new - mean) / self.filled for mean, new in zip(self.bins[-1], point, strict=True))


@dataclass
class History:
    """Curves of the records so far."""

    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    """By (panel, curve); the curve "band" is a panel's band."""
    last: dict[str, Any] = field(default_factory=dict)
    """The last record."""

    def add(self, record: dict[str, Any]) -> None:
        """Adds a line of metrics.jsonl."""
        self.last = record
        for panel in SHOWN:
            for name, key in panel.training:
                self._put(panel, name, record, key)
            if panel.spread:
                middle, half = _number(record.get("z_ref_mean")), _number(record.get(panel.spread))
                self._series(panel, "band").add(record["step"], middle - half, middle + half)
        for found in validation_records([record]):
            for panel in SHOWN:
                for name, key in panel.validation:
                    self._put(panel, name, found, key)
                low, high = found.get(panel.interval or "") or (math.nan, math.nan)
                self._series(panel, "band").add(record["step"], _number(low), _number(high))

    def plot(self, panel: Panel) -> Plot:
        """The panel's chart of the records so far."""
        names = [name for name, _ in (*panel.training, *panel.validation)]
        lines = [Line(name, [(step, value) for step, value in self._series(panel, name).bins]) for name in names]
        band = [(step, low, high) for step, low, high in self._series(panel, "band").bins]
        return Plot(panel.short, lines, band, panel.level, panel.share)

    def _put(self, panel: Panel, name: str, line: dict[str, Any], key: str) -> None:
        self._series(panel, name).add(line["step"], _number(line.get(key)))

    def _series(self, panel: Panel, name: str) -> Series:
        return self.series.setdefault((panel.name, name), Series())


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


@contextmanager
def watching(
    screen: Screen, total: int, *, done: int, earlier: Callable[[], Iterable[dict[str, Any]]], validation: bool
) -> Iterator[Show]:
    """Context manager that shows a run's steps.

    Args:
        total: steps of the run. done: steps before this process. earlier: reads the records of those steps.
        validation: whether there are validation rows.

    Yields:
        A function to call with the record of each step.
    """
    if not screen.draws_curves:
        with screen.progress("training", total, done=done):

            def print_line(record: dict[str, Any]) -> None:
                show_step(screen, record, total, first=record["step"] == done + 1)
                screen.tick()

            yield print_line
        return
    history = History()
    for record in earlier():
        history.add(record)
    with screen.redrawn(lambda *size: frame(history, total, *size, validation=validation)) as redraw:
        redraw()

        def show(record: dict[str, Any]) -> None:
            history.add(record)
            redraw()

        yield show


def frame(history: History, total: int, width: int, height: int, unicode: bool, *, validation: bool) -> list[Row]:
    """At most `height` lines of at most `width` columns: charts side by side, numbers, progress bar."""
    panels = [panel for panel in SHOWN if validation or panel.training]
    across = next(count for count, needed in SIDE_BY_SIDE if width >= needed)
    down = min(-(-len(panels) // across), (height - FIXED) // LEAST_HEIGHT)
    rows: list[Row] = []
    if down:
        columns, lines = (width - 2 * (across - 1)) // across, min(MOST_HEIGHT, (height - FIXED) // down)
        plots = [history.plot(panel) for panel in panels[: across * down]]
        drawn = [draw(plot, columns, lines, unicode=unicode) for plot in plots]
        for start in range(0, len(drawn), across):
            rows += [_beside(pieces, columns) for pieces in zip(*drawn[start : start + across], strict=True)]
    return [*rows, *_below(history.last, total, width, unicode)]


def _beside(pieces: Iterable[Row], columns: int) -> Row:
    """One line of several charts side by side."""
    line: Row = []
    for row in pieces:
        if line:
            line.append(("  ", ""))
        line += row
        line.append((" " * (columns - sum(len(text) for text, _ in row)), ""))
    return line


def _below(record: dict[str, Any], total: int, width: int, unicode: bool) -> list[Row]:
    """The step's other numbers, and a progress bar."""
    step = record.get("step", 0)
    words = step_words(record) if record else ["waiting for the first step"]
    ends = f"training {step:,}/{total:,} ", f" {clock(record['eta_seconds'])} left" if record else ""
    room = max(0, width - ECHO - sum(map(len, ends)))
    numbers = "   ".join(words)[:width]
    return [[(numbers, "")], [(ends[0], ""), *bar(step / total, room, unicode=unicode), (ends[1], "")]]
