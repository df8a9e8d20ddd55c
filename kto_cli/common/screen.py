"""Output of the commands: results on stdout, everything else on stderr. The only module that prints.

Each workflow gets a `Screen`. With `--json` it prints one object on stdout at the end and nothing else there; a quiet
one (of the second and later processes of a launch) prints nothing.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table

from kto_cli.common.column_widths import column_widths
from kto_cli.common.errors import Interrupted, KtoError
from kto_cli.common.files import finite
from kto_cli.common.phase import Phase
from kto_cli.common.secrets import scrub, scrub_all
from kto_cli.common.text_chart import Row
from kto_cli.common.words import printable

ROLES = {
    "title": Style(bold=True),
    "axis": Style(dim=True),
    "band": Style(dim=True),
    "level": Style(dim=True),
    "first": Style(color="cyan"),
    "second": Style(color="yellow"),
    "both": Style(color="green"),
}
"""Styles of the parts of a chart, which differ without colour too."""
LEAST_WIDTH, LEAST_HEIGHT = 80, 24
"""Smallest terminal on which curves are drawn."""
LEAST_TEXT = 24
"""Columns of the terminal for each of several texts side by side."""
LEAST_PAUSE = 0.25
"""Least seconds between two drawings; and, of all time, the share that drawing takes at most:"""
DRAWING_SHARE = 0.005


def visible(text: str) -> str:
    """`text` without secrets, with control characters (other than line ends and tabs) and Rich's markup escaped."""
    return escape(printable(scrub(text), "\n\t"))


def print_error(error: KtoError | Interrupted, *, as_json: bool) -> int:
    """Reports an error: one line on stderr (three if a caret points into the second), with `as_json` also an object
    with `error`, `next` and `exit` on stdout. Returns the exit status."""
    console = _console(stderr=True)
    lines = str(error).split("\n")
    text = ("\n" if any(line.strip() == "^" for line in lines) else " ").join(lines)
    mark = "[bold red]error:[/]" if isinstance(error, KtoError) else "[bold yellow]![/]"
    console.print(f"{mark} {visible(text)}", soft_wrap=not console.is_terminal)
    if as_json:
        found: dict[str, Any] = {"error": str(error), "next": ""}
        if isinstance(error, KtoError):
            found = {**error.details, "error": error.what, "next": error.next_step}
        sys.stdout.write(
            json.dumps(scrub_all(finite({**found, "exit": error.exit_status})), ensure_ascii=_ascii_only()) + "\n"
        )
        sys.stdout.flush()
    return error.exit_status


def _ascii_only() -> bool:
    """Whether JSON on stdout must escape other characters."""
    return not (sys.stdout.encoding or "utf-8").lower().startswith("utf")


def stdout_kept_free() -> AbstractContextManager[Any]:
    """Redirects stdout to stderr, for libraries that print: stdout is for results."""
    return redirect_stdout(sys.stderr)


def _console(**options: Any) -> Console:
    """A console; characters that its stream cannot encode are escaped, and `:thumbsup:` of a file stays as it is."""
    stream = sys.stderr if options.get("stderr") else sys.stdout
    if not (stream.encoding or "utf-8").lower().startswith("utf") and isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(highlight=False, emoji=False, **options)


class Screen:
    """Notes, progress and results of a workflow."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False, curves: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.curves = curves
        """Whether curves are drawn, if the terminal can."""
        self._out = _console(quiet=quiet or as_json)
        self._err = _console(stderr=True, quiet=quiet)
        self._phase: Phase | None = None
        self._advance: Callable[[int], None] | None = None

    # --- stderr: notes and progress -----------------------------------------------------------

    def note(self, *texts: str) -> None:
        """Decisions or actions of kto, a line each; stderr."""
        bullet = "·" if self._err.encoding.startswith("utf") else "-"
        for text in texts:
            self._err.print(f"[dim]{bullet}[/] {visible(text)}", soft_wrap=not self._err.is_terminal)

    def warn(self, *texts: str) -> None:
        """Warnings, a line each; stderr."""
        for text in texts:
            self._err.print(f"[bold yellow]![/] {visible(text)}", soft_wrap=not self._err.is_terminal)

    def heading(self, text: str) -> None:
        """The title of a part of a longer job; stderr."""
        self._err.print(f"\n[bold]{visible(text)}[/]")

    @contextmanager
    def progress(self, what: str, total: int | None, *, done: int = 0, keeps: str = "") -> Iterator[None]:
        """A phase advanced by `tick`: a progress bar on stderr if that is a terminal, else a line twice a minute.

        Args:
            total: may be unknown. keeps: what is kept if the phase is stopped.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; says what is kept.
        """
        phase, outer = Phase(what, total, done, keeps), self._phase
        drawn = self._bar(phase) if self._err.is_terminal else phase.told(self.note)
        self._phase = phase
        try:
            with phase.stoppable(), nullcontext() if self.quiet else drawn:
                yield
        finally:
            self._phase = outer

    @contextmanager
    def _bar(self, phase: Phase) -> Iterator[None]:
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._err,
            transient=True,
        )
        task = bar.add_task(visible(phase.what), total=phase.total, completed=phase.done)
        with bar:
            self._advance = lambda count: bar.advance(task, count)
            try:
                yield
            finally:
                self._advance = None

    def tick(self, count: int = 1) -> None:
        """Advances the open phase."""
        if self._phase is not None:
            self._phase.advance(count)
        if self._advance is not None:
            self._advance(count)

    @property
    def draws_curves(self) -> bool:
        """Whether curves are wanted, and stderr is a terminal that is large enough and can redraw."""
        able = self._err.is_interactive and not self._err.is_dumb_terminal and self._err.file.isatty()
        large = self._err.width >= LEAST_WIDTH and self._err.height >= LEAST_HEIGHT
        return self.curves and not self.quiet and able and large

    @contextmanager
    def redrawn(self, draw: Callable[[int, int, bool], list[Row]]) -> Iterator[Callable[[], None]]:
        """A drawing on stderr that is redrawn in place, notes above it; the last one stays.

        Args:
            draw: from columns, lines and whether the terminal knows Unicode to rows of (text, role of `ROLES`).

        Yields:
            a function that requests a new drawing, which is made if the last one is long enough ago.
        """
        unicode = self._err.encoding.startswith("utf")
        due = 0.0
        with Live(console=self._err, auto_refresh=False, vertical_overflow="crop") as live:

            def now() -> None:
                nonlocal due
                began = time.perf_counter()
                live.update(_segments(draw(self._err.width - 1, self._err.height - 1, unicode)), refresh=True)
                ended = time.perf_counter()
                due = ended + max(LEAST_PAUSE, (ended - began) / DRAWING_SHARE)

            try:
                yield lambda: now() if time.perf_counter() >= due else None
            finally:
                now()

    def fits(self, width: int) -> bool:
        """Whether a line of so many columns fits on stderr; where that is no terminal, any does."""
        return width <= self._err.width or not self._err.is_terminal

    def line(self, text: str) -> None:
        """A line of numbers on stderr, above an open progress bar."""
        self._err.print(text, markup=False, soft_wrap=True)

    def cells(self, cells: Sequence[str]) -> None:
        """Numbers with their names on stderr, in as many lines as they need; no cell is broken."""
        lines = [""]
        for cell in cells:
            if lines[-1] and len(lines[-1]) + 2 + len(cell) > self._err.width:
                lines.append("  ")
            lines[-1] += f"  {cell}" if lines[-1].strip() else cell
        for line in lines:
            self.line(line)

    # --- stdout: results -----------------------------------------------------------------

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of results on stdout; cells are shown as text, never read as markup. No word is broken."""
        if self._out.quiet:
            return
        cells = [[visible(number(cell)) for cell in row] for row in rows]
        names = [visible(column) for column in columns]
        widths = column_widths([*zip(names, *cells, strict=True)], self._out.width, cell_len)
        if not widths:
            self._stacked(title, names, cells)
            return
        table = Table(title=visible(title), title_justify="left", title_style="bold", header_style="dim")
        for index, (name, width) in enumerate(zip(names, widths, strict=True)):
            table.add_column(name, justify="right" if index else "left", overflow="fold", width=width)
        for row in cells:
            table.add_row(*row)
        self._out.print(table)

    def _stacked(self, title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table whose words do not fit beside each other: each row as lines of name and value."""
        self._out.print(f"[bold]{visible(title)}[/]")
        for first, *others in rows:
            self._out.print(f"[bold]{first}[/]")
            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="dim")
            grid.add_column(overflow="fold")
            for name, text in zip(names[1:], others, strict=True):
                if text:
                    grid.add_row(f"  {name}", text)
            self._out.print(grid)

    def texts(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Longer texts on stdout, side by side where each has room."""
        if self._out.quiet:
            return
        if self._out.width // len(columns) < LEAST_TEXT:
            self._stacked(title, [*map(visible, columns)], [[*map(visible, row)] for row in rows])
            return
        table = Table(
            title=visible(title), title_justify="left", title_style="bold", header_style="dim", show_lines=True
        )
        for column in columns:
            table.add_column(visible(column), overflow="fold", ratio=1)
        for row in rows:
            table.add_row(*(visible(cell) for cell in row))
        self._out.print(table)

    def say(self, text: str) -> None:
        """A sentence of the result, on stdout."""
        self._out.print(visible(text), soft_wrap=not self._out.is_terminal)

    def json(self, value: dict[str, Any]) -> None:
        """The result as one JSON object on stdout, with --json."""
        if self.as_json and not self.quiet:
            sys.stdout.write(json.dumps(scrub_all(finite(value)), ensure_ascii=_ascii_only()) + "\n")
            sys.stdout.flush()


def _segments(rows: Sequence[Row]) -> Segments:
    found = []
    for row in rows:
        found += [Segment(text, ROLES.get(role)) for text, role in row]
        found.append(Segment.line())
    return Segments(found[:-1])


def number(value: Any) -> str:
    """A cell: floats with four significant digits, integers with thousands separators."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "-"
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
