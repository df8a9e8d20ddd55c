"""What is printed: tables whose words are whole, numbers with their nouns, texts of any script, pip commands."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kto_cli
from kto_cli.common import install
from kto_cli.common.column_widths import column_widths
from kto_cli.common.config_file import read_config_file
from kto_cli.common.screen import Screen, visible
from kto_cli.common.tables import show_step
from kto_cli.common.words import plural

PACKAGE = Path(kto_cli.__file__).parent
LONG = "incomprehensibilities " * 3
NOUNS = "step|row|prompt|answer|call|comparison|question|document|verdict|token"


@given(
    st.lists(st.lists(st.text("abc ", max_size=40), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(20, 120),
)
def test_no_word_is_wider_than_its_column(columns, width):
    widths = column_widths(columns, width, len)
    longest = [max((len(word) for text in column for word in text.split()), default=0) for column in columns]
    if widths:
        assert all(given >= needed for given, needed in zip(widths, longest, strict=True))
        assert sum(widths) + 3 * len(widths) + 1 <= width
    else:
        assert sum(longest) + 3 * len(columns) + 1 > width


def test_long_texts_are_stacked_where_columns_would_be_narrow(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    Screen().texts("Answers", ["prompt", "reference", "policy", "other"], [["What?", LONG, "b", "c"]])
    written = capsys.readouterr().out
    assert written.count("incomprehensibilities") == 3
    assert "  policy     b" in written


def test_a_count_has_its_noun():
    assert [plural(count, "row") for count in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert plural(1, "try", "tries") == "1 try"


@pytest.mark.parametrize("room", ["evaluation", "training", "workflows", "common"])
def test_no_message_puts_a_plural_behind_any_number(room):
    """`{count} rows` reads "1 rows" one day: `plural` writes it. Rates and limits are never one."""
    never_one = (
        "tokens_per_second",
        "rows_per_second",
        "token_budget",
        "2 * prompts",
        "2 * pairs",
        "2 * comparisons",
        "direction",
        "longest",
        "max_length",
        "name",
        "join",
        "shown",
        "url",
        "path",
        "size",
        "len(prompts)",
    )
    found = []
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, text in zip(node.values, node.values[1:], strict=False):
                if not (isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant)):
                    continue
                count = ast.unparse(value.value)
                if re.match(rf" ({NOUNS})s\b", str(text.value)) and not any(word in count for word in never_one):
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {{{count}}}{text.value[:20]}")
    assert not found


@pytest.mark.parametrize(
    "text", ["👩\u200d👩\u200d👧", "می\u200cخواهم", "a\u00a0b", "a\u3000b", "\u200fשלום", "🫨", "é"]
)
def test_texts_of_any_script_are_printed_as_they_are(text):
    assert visible(text) == text


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x9b2J", "\r", "\x00", "\u2028", "\u202e", "\u2066", "\uffff", "\x7f", "\ud800"]
)
def test_what_moves_the_cursor_or_reorders_text_is_escaped(text):
    assert visible(text) != text
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202a-\u202e\u2066-\u2069\ud800-\udfff]", visible(text))


RECORD = {
    "step": 12, "loss": 0.4876, "z_ref": 12.34, "z_ref_se": 1.5, "z_ref_pairs": 8, "reward_desirable": -10.123,
    "reward_undesirable": -11.5, "margin": 1.377, "saturated": 0.25, "gradient_norm": 12.5, "learning_rate": 5e-4,
    "rows_per_second": 123.0, "tokens_per_second": 123456.0, "eta_seconds": 3725.0,
    "validation": {
        "loss": 0.49, "z_ref": 0.1, "reward_desirable": 0.2, "reward_undesirable": -0.1, "margin": 0.3, "auc": 0.61,
        "rows": 1,
    },
}  # fmt: skip


class Narrow:
    """A screen of 80 columns that keeps its lines."""

    def __init__(self) -> None:
        self.screen = Screen()
        self.lines: list[str] = []
        self.screen.line = self.lines.append  # type: ignore[method-assign]


def test_a_step_at_80_columns_loses_nothing(monkeypatch):
    """Gradient, rate, speed, time left and the validation AUC were truncated."""
    monkeypatch.setenv("COLUMNS", "80")
    narrow = Narrow()
    monkeypatch.setattr(narrow.screen, "fits", lambda width: False)
    show_step(narrow.screen, RECORD, 200, first=True)
    assert max(map(len, narrow.lines)) <= 80
    text = " ".join(" ".join(narrow.lines).split())
    for word in (
        "step 12/200",
        "loss 0.4876",
        "|grad| 12",
        "lr 5.0e-04",
        "123 rows/s",
        "123,456 tokens/s",
        "1:02:05 left",
    ):
        assert word in text
    assert "AUC 0.610 (1 row)" in text


def test_a_slow_step_has_a_speed(monkeypatch):
    """0.47 rows a second were shown as 0."""
    slow = {**RECORD, "rows_per_second": 0.466, "tokens_per_second": 8.27}
    for wide in (True, False):
        shown = Narrow()
        monkeypatch.setattr(shown.screen, "fits", lambda width, wide=wide: wide)
        show_step(shown.screen, slow, 200, first=True)
        assert re.search(r"\b0\.47\b.* 8\.3\b", " ".join(shown.lines))


def test_a_run_is_repeated_on_its_own_data(tmp_path):
    """A run without --data stores null; from another folder, --config trained on whatever lay there."""
    path = tmp_path / "kto_config.json"
    path.write_text(
        json.dumps({"train": {"beta": 0.2, "data": None}, "data": {"folder": "/data/mine", "fingerprint": "x"}})
    )
    assert read_config_file(path) == {"beta": 0.2, "data": "/data/mine"}
    data = {"folder": "/data/mine", "fingerprint": "x"}
    for named, folder, model in (
        ("../models/x", "/home/models/x", "/home/models/x"),
        ("org/x", "/cache/models--org--x/snapshots/1", "org/x"),
        (None, "/kto/sample_data/model", None),
    ):
        run = {"train": {"model": named}, "data": data, "reference": {"folder": folder}}
        path.write_text(json.dumps(run))
        assert read_config_file(path) == {"model": model, "data": "/data/mine"}
    path.write_text(json.dumps({"beta": 0.2, "data": "data/mine"}))
    assert read_config_file(path) == {"beta": 0.2, "data": "data/mine"}


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "https://host/kto.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
         "pip install 'kto[tasks] @ git+https://host/kto.git@abc'"),
        ({"url": "file:///gone"}, "pip install '.[tasks]' in the folder with kto's source"),
        ({"url": f"file://{PACKAGE.parent}", "dir_info": {"editable": True}},
         f"pip install -e '{PACKAGE.parent}[tasks]'"),
        ({}, f"pip install '{PACKAGE.parent}[tasks]'"),
    ],
)  # fmt: skip
def test_an_extra_comes_from_the_source_of_the_installation(monkeypatch, origin, command):
    """kto is not on PyPI, where another package may take its name."""
    monkeypatch.setattr(install, "_origin", lambda: origin)
    assert install.install_extra("tasks") == command


def test_no_message_installs_kto_from_pypi():
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py") if path.name != "install.py"]
    assert not [text for text in texts if re.search(r"pip install '?kto\[", text)]


@pytest.mark.parametrize("text", ["thumb: :thumbsup: 3, :-1: 2", "--desirable 'thumb == \":+1:\"'"])
def test_codes_of_emoji_are_shown_as_the_file_has_them(capsys, text):
    """A rule with 👍 in place of `:thumbsup:` does not fit the file when it is pasted."""
    screen = Screen()
    screen.note(text)
    screen.warn(text)
    assert capsys.readouterr().err.count(text) == 2


def test_a_screen_that_prints_nothing_lays_out_nothing(monkeypatch):
    """With --json, and in the second and later processes of a launch."""
    monkeypatch.setattr("rich.console.Console.print", lambda *_, **__: pytest.fail("it lays out a table"))
    for screen in (Screen(as_json=True), Screen(quiet=True)):
        screen.table("Rows", ("split", "rows"), [("train", 1)])
        screen.texts("Answers", ("base", "trained"), [("one", "other")])
