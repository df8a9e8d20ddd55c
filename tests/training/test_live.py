"""Curves in the terminal: what is drawn against naive loops, in a real terminal, and what it costs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import re
import signal
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.cli.app import app
from kto_cli.common.chart_panels import PANELS
from kto_cli.common.text_chart import LABEL, Line, Plot, bar, compact, draw
from kto_cli.training.live import MOST_POINTS, SHOWN, History, Series, frame
from kto_cli.training.step import TrainingEngine

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
numbers = st.floats(-1e300, 1e300, allow_nan=False)


def record(step: int, *, look: bool = False) -> dict:
    """A line of metrics.jsonl, with numbers that are functions of the step."""
    seen = {"rows": 8, "loss": 0.4, "z_ref": 0.5, "reward_desirable": 0.1, "reward_undesirable": -0.1, "margin": 0.2}
    seen |= {"auc": 0.7, "auc_interval": [0.6, 0.8]}
    return {
        "step": step,
        "loss": 0.5 - step / 1e7,
        "z_ref": 1.0,
        "z_ref_mean": 1.0,
        "z_ref_se": 0.25,
        "z_ref_pairs": 8,
        "reward_desirable": step / 1e6,
        "reward_undesirable": math.nan if step % 2 else -step / 1e6,
        "margin": 0.1,
        "saturated": 0.03,
        "gradient_norm": 1.5,
        "learning_rate": 1e-4,
        "rows_per_second": 12.0,
        "tokens_per_second": 3456.0,
        "eta_seconds": 3723.0,
        **({"validation": seen} if look else {}),
    }


def curve(plot: Plot, width: int, height: int, *, unicode: bool = True) -> list[str]:
    """The lines of a chart, without roles."""
    return ["".join(text for text, _ in row) for row in draw(plot, width, height, unicode=unicode)]


def marks(lines: list[str], mark: str) -> set[tuple[int, int]]:
    """(column, row from the top) of each cell with the mark, the drawing's own."""
    return {
        (column, row)
        for row, line in enumerate(lines[1:-1])
        for column, char in enumerate(line[LABEL + 1 :])
        if char == mark
    }


# --- drawing ----------------------------------------------------------------------------------


def test_a_diagonal_is_a_diagonal():
    """Eleven points from (0, 0) to (10, 10) on eleven columns and rows: cell (n, 10 - n), and nothing else."""
    lines = curve(Plot("line", [Line("a", [(n, n) for n in range(11)])]), LABEL + 1 + 11, 13, unicode=False)
    assert marks(lines, "*") == {(n, 10 - n) for n in range(11)}
    assert lines[1].startswith(f"{'10.0':>{LABEL}}|")
    assert lines[11].startswith(f"{'0.000':>{LABEL}}|")
    assert lines[-1].split() == ["step", "0", "10"]
    assert lines[0] == "line  * 10.0", "one curve needs no name, and its last value is said"


def test_braille_dots_are_where_the_values_are():
    """Two dots across and four down a cell: a line from the lower left to the upper right dot of one cell."""
    lines = curve(Plot("line", [Line("a", [(0, 0), (1, 1)])]), LABEL + 2, 3)
    assert lines[1][LABEL + 1] == chr(0x2800 | 0x40 | 0x04 | 0x10 | 0x08)


def test_points_of_one_column_are_their_mean():
    points = [(step, 10.0 * (step // 10)) for step in range(100)]
    jagged = [(step, value + (4 if step % 2 else -4)) for step, value in points]
    ends = [Line("ends", [(0, -4.0), (99, 94.0)])]
    pictures = [
        curve(Plot("x", [Line("a", chosen), *ends]), LABEL + 1 + 10, 12, unicode=False) for chosen in (points, jagged)
    ]
    assert pictures[0][1:] == pictures[1][1:]


def test_two_curves_are_told_apart_without_colour():
    flat = [[(x, y) for x in range(40)] for y in (0.0, 1.0)]
    lines = curve(Plot("r", [Line("desirable", flat[1]), Line("undesirable", flat[0])]), 60, 8)
    assert lines[0] == "r  ━ desirable 1.000  ┄ undesirable 0.000"
    dots = [sum((ord(char) - 0x2800).bit_count() for char in line[LABEL + 1 :] if char != " ") for line in lines[1:-1]]
    assert dots[0] == 2 * (60 - LABEL - 1), "the first curve is whole"
    assert 0.4 < dots[-1] / dots[0] < 0.6, "the second has every other dot"
    lines = curve(Plot("r", [Line("desirable", flat[1]), Line("undesirable", flat[0])]), 60, 8, unicode=False)
    assert marks(lines, "*") == {(x, 0) for x in range(51)}
    assert marks(lines, "o") == {(x, 5) for x in range(51)}


def test_names_give_way_before_numbers_do():
    plot = Plot("rewards", [Line("desirable", [(1, -0.034)]), Line("undesirable", [(1, -0.754)])])
    titles = [curve(plot, width, 6)[0] for width in (60, 45, 38, 20)]
    assert titles == [
        "rewards  ━ desirable -0.034  ┄ undesirable -0.754",
        "rewards  ━ desir. -0.034  ┄ undes. -0.754",
        "rewards  ━ D -0.034  ┄ U -0.754",
        "rewards",
    ]


def test_band_and_level():
    """Eleven rows from -1 to 1, one per 0.2: a band of 0.4 to 0.8 is rows 1 to 3, the level 0 is row 5."""
    plot = Plot("z", [Line("a", [(0, -1), (10, 1)])], [(x, 0.4, 0.8) for x in range(11)], level=0)
    lines = curve(plot, LABEL + 1 + 11, 13, unicode=False)
    line = marks(lines, "*")
    assert marks(lines, ":") == {(x, y) for x in range(11) for y in (1, 2, 3)} - line
    assert marks(lines, "-") >= {(x, 5) for x in range(11)} - line
    assert lines[6].startswith(f"{'0.000':>{LABEL}}|"), "the level has its number"


def test_a_wide_band_leaves_the_curve_a_third():
    plot = Plot("z", [Line("a", [(0, 0.0), (10, 1.0)])], [(0, -50, 50), (10, -50, 50)])
    lines = curve(plot, 40, 14, unicode=False)
    assert lines[1].split("|")[0].strip() == "2.000"
    assert lines[-2].split("|")[0].strip() == "-1.000"


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 10**7), numbers), max_size=40), max_size=2),
    st.lists(st.tuples(st.integers(0, 10**7), numbers, numbers), max_size=10),
    st.integers(30, 120),
    st.integers(5, 30),
    st.booleans(),
    st.one_of(st.none(), numbers),
)
def test_a_chart_always_fits(series, band, width, height, unicode, level):
    """Exactly as many lines as asked, none wider; in ASCII no other character; every finite value."""
    lines = [Line("long name", sorted(dict(points).items())) for points in series]
    band = sorted((x, min(a, b), max(a, b)) for x, a, b in {x: (x, a, b) for x, a, b in band}.values())
    drawn = curve(Plot("a title", lines, band, level), width, height, unicode=unicode)
    assert len(drawn) == height
    assert max(map(len, drawn)) <= width
    assert unicode or all(line.isascii() for line in drawn)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0.000"), (-0.1234, "-0.123"), (9.9996, "10.000"), (123.45, "123.5"), (1e-5, "1e-05"), (-12345.0, "-1e+04")],
)
def test_numbers_are_short(value, said):
    assert compact(value) == said
    assert compact(0.126, share=True) == "13%"


@pytest.mark.parametrize("most", [2e-8, 3.0])
def test_rounding_is_no_number_on_an_axis(most: float):
    """-1e-8 is what float32 leaves of 0: before the first update, and as the least of larger values."""
    plot = Plot("rewards", [Line("up", [(1, -1e-8), (2, most)]), Line("down", [(1, 0.0), (2, -1e-8)])], level=0)
    assert not [line for line in curve(plot, 76, 8) if "e-" in line]


def test_an_axis_of_shares_starts_at_0():
    for values in ((0.0, 0.0), (0.3, 0.3), (0.0, 0.2)):
        plot = Plot("saturated", [Line("training", list(enumerate(values)))], level=0, share=True)
        assert curve(plot, 76, 8)[-2].startswith("      0%")


def test_bar():
    assert [text for text, _ in bar(0.25, 8, unicode=False)] == ["==", "------"]
    assert sum(len(text) for text, _ in bar(1.7, 8)) == 8


# --- what is kept -----------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3000))
def test_a_series_is_the_means_of_equal_parts(count):
    series = Series()
    values = [float((7 * n) % 101) for n in range(count)]
    for step, value in enumerate(values, 1):
        series.add(step, value)
    size = series.size
    assert len(series.bins) <= 2 * MOST_POINTS
    assert size == max(1, 2 ** math.ceil(math.log2(count / (2 * MOST_POINTS))))
    for index, (step, mean) in enumerate(series.bins):
        part = range(index * size, min(count, (index + 1) * size))
        assert mean == pytest.approx(sum(values[n] for n in part) / len(part))
        assert step == pytest.approx(sum(n + 1 for n in part) / len(part))


def test_what_is_not_a_number_is_dropped():
    history = History()
    for step in range(1, 5):
        history.add(record(step, look=step == 4))
    plots = {panel.name: history.plot(panel) for panel in PANELS if panel in SHOWN}
    assert [len(line.points) for line in plots["rewards"].lines] == [4, 2]
    assert plots["auc"].band == [(4, 0.6, 0.8)]
    assert plots["z_ref"].band[0] == (1, 0.75, 1.25)
    assert plots["validation_rewards"].lines[1].points == [(4, -0.1)]
    history.add(record(5, look=True) | {"validation": {"auc": None, "auc_interval": [None, None], "loss": 0.3}})
    assert len(history.plot(PANELS[5]).lines[0].points) == 1


def test_memory_and_cost_do_not_grow():
    history = History()
    tracemalloc.start()
    for step in range(1, 2_001):
        history.add(record(step))
    before = tracemalloc.get_traced_memory()[0]
    for step in range(2_001, 6_001):
        history.add(record(step))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000
    began = time.process_time()
    for _ in range(5):
        frame(history, 50_000, 119, 39, True, validation=True)
    assert (time.process_time() - began) / 5 < 0.1, "some milliseconds, on a quiet machine"


@pytest.mark.parametrize(
    ("size", "charts", "across"), [((79, 23), 6, 2), ((119, 39), 6, 2), ((199, 49), 6, 3), ((79, 16), 4, 2)]
)
def test_as_many_charts_as_fit(size, charts, across):
    history = History()
    for step in range(1, 40):
        history.add(record(step, look=step % 10 == 0))
    lines = ["".join(text for text, _ in row) for row in frame(history, 100, *size, True, validation=True)]
    assert len(lines) <= size[1]
    assert max(map(len, lines)) <= size[0]
    shown = [panel.short for panel in SHOWN if any(panel.short in line for line in lines)]
    assert len([line for line in lines if line.count("step ") == across]) == charts // across
    assert shown[:charts] == [panel.short for panel in SHOWN][: len(shown)]
    assert "saturated 3%   |grad| 1.5   lr 1.0e-04   12 rows/s   3,456 tokens/s" in lines[-2]
    assert lines[-1].startswith("training 39/100 ━")
    assert lines[-1].endswith("1:02:03 left")
    assert len(lines[-1]) <= size[0] - len("^C"), "its echo on a line of its own would shift the redrawn frame"


def test_without_validation_rows_no_chart_waits_for_them():
    lines = ["".join(text for text, _ in row) for row in frame(History(), 9, 119, 39, True, validation=False)]
    assert not [line for line in lines if "validation AUC" in line]
    assert "waiting for the first step" in lines[-2]


# --- in a terminal ----------------------------------------------------------------------------


@pytest.fixture
def in_a_terminal(monkeypatch) -> Callable[..., tuple[int, str]]:
    """`kto WORDS` with stdout and stderr on a terminal of a size: (exit status, everything written)."""

    def run(*words: object, columns: int = 100, rows: int = 30, encoding: str = "utf-8") -> tuple[int, str]:
        ours, theirs = pty.openpty()
        written: list[bytes] = []

        def read() -> None:
            with contextlib.suppress(OSError):  # the other end is closed
                while data := os.read(ours, 65536):
                    written.append(data)

        reader = threading.Thread(target=read)
        reader.start()
        for name, value in (("TERM", "xterm-256color"), ("COLUMNS", str(columns)), ("LINES", str(rows))):
            monkeypatch.setenv(name, value)
        with open(theirs, "w", encoding=encoding, errors="backslashreplace") as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            with pytest.raises(SystemExit) as ended:
                app([str(word) for word in words])
        reader.join()
        os.close(ours)
        return int(ended.value.code or 0), b"".join(written).decode()

    return run


SHORT = ("--batch-size", 8, "--max-steps", 4, "--learning-rate", "1e-3")


def test_curves_in_a_terminal(in_a_terminal, workplace, given):
    code, written = in_a_terminal("train", *given, *SHORT, "--out", "run")
    assert code == 0, written
    shown = ANSI.sub("", written)
    assert "validation AUC" in shown
    assert "⠉" in shown or "⠤" in shown or "⣀" in shown
    assert "rewards  ━ desir" in shown
    assert "training 4/4 ━" in shown, "the last frame is the last step's"
    assert shown.count("before training, model and reference agree") == 1, "what is noted meanwhile stays, once"
    assert shown.rindex("training 4/4") < shown.index("Validation rows after 4 steps")
    assert written.rindex("\x1b[?25h") > written.rindex("training 4/4"), "the cursor comes back"
    records = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in records] == [1, 2, 3, 4]


def test_ascii_without_colour(in_a_terminal, workplace, given, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    code, written = in_a_terminal("train", *given, *SHORT, "--out", "run", encoding="ascii")
    assert code == 0, written
    frames = written[written.index("validation AUC") : written.rindex("training 4/4")]
    assert frames.isascii()
    assert "\\u" not in frames, "nothing that ASCII has no character for"
    assert re.search(r"\|[#*o]", ANSI.sub("", frames))
    assert not re.search(r"\x1b\[[0-9;]*(3[0-7]|38|9[0-7])[0-9;]*m", frames), "no colour"


@pytest.mark.parametrize(("words", "size"), [(("--no-curves",), (100, 30)), ((), (79, 30)), (("--json",), (100, 30))])
def test_lines_where_curves_are_not_wanted_or_do_not_fit(in_a_terminal, workplace, given, words, size):
    code, written = in_a_terminal("train", *given, *SHORT, "--out", "run", *words, columns=size[0], rows=size[1])
    assert code == 0, written
    assert "validation AUC" not in written
    assert "z_ref +- SE (n)" in ANSI.sub("", written)


def test_ctrl_c_warnings_and_going_on(in_a_terminal, workplace, given, monkeypatch):
    """What is said while curves are drawn stays above them; a resumed run draws the earlier steps too."""
    whole, calls = TrainingEngine.step, []

    def step(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            sys.stderr.write("a library speaks\n")
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(TrainingEngine, "step", step)
    code, written = in_a_terminal("train", *given, *SHORT, "--out", "run")
    shown = ANSI.sub("", written)
    assert code == 130
    assert shown.count("a library speaks") == 1
    assert shown.rindex("training 2/4") < shown.index("Stopped after step 2 of 4; its checkpoint is saved.")
    code, written = in_a_terminal("train", "--resume", "--out", "run")
    assert code == 0, written
    first = ANSI.sub("", written)
    first = first[first.index("validation AUC") : first.index("training 2/4")]
    assert re.search(r"step 1 +2\b", first), "the curves begin where the run did"


def test_a_pipe_gets_lines(kto, workplace, given):
    ran = kto("train", *given, *SHORT, "--out", "run")
    assert "z_ref +- SE (n)" in ran.err
    assert "\x1b" not in ran.err
    assert "validation AUC" not in ran.err


def test_the_choice_of_curves_is_not_a_setting(kto, workplace, given):
    assert kto("train", *given, *SHORT, "--out", "run", "--no-curves").code == 0
    assert "curves" not in json.loads(Path("run/kto_config.json").read_text())["train"]


def test_a_look_has_the_interval_of_its_auc(kto, workplace, given):
    assert kto("train", *given, *SHORT, "--out", "run").code == 0
    looks = [json.loads(line).get("validation") for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for seen in filter(None, looks):
        low, high = seen["auc_interval"]
        assert 0 <= low <= high <= 1
        assert low - 0.05 <= seen["auc"] <= high + 0.05
