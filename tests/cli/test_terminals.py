"""Terminals that cannot do much: ASCII, no colour, no cursor. Everything stays readable, and nothing breaks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

PLAIN = {
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "dumb": {"TERM": "dumb"},
    "no colour": {"NO_COLOR": "1", "FORCE_COLOR": ""},
}
CSV = "question,answer,ok\n" + "".join(
    f"Wie geht's {n}?,Gut {n} — wirklich,{str(n % 2 == 0).lower()}\n" for n in range(24)
)


@pytest.mark.parametrize("kind", PLAIN)
def test_help_notes_tables_and_errors_are_readable(kind, tmp_path):
    (tmp_path / "log.csv").write_text(CSV, encoding="utf-8")
    environment = {**os.environ, **PLAIN[kind], "PYTHONPATH": str(REPOSITORY), "COLUMNS": "80"}
    ascii_only = kind in ("C locale", "ASCII")
    binarize = ["binarize", "log:log.csv", "--label-column", "ok", "--prompt-column", "question"]
    binarize += ["--completion-column", "answer"]
    for words, status in ((["train", "--help"], 0), (binarize, 0), (["binarize", "missing-é.csv"], 1), (["--bad"], 2)):
        ran = subprocess.run(
            [sys.executable, "-m", "kto_cli", *words], capture_output=True, cwd=tmp_path, env=environment, timeout=120
        )
        assert ran.returncode == status, ran.stderr.decode()
        shown = ran.stdout + ran.stderr
        assert shown.strip()
        assert b"\x1b" not in shown
        assert b"Traceback" not in shown
        if ascii_only:
            assert shown.isascii()
            assert b"\\xb7" not in shown, "a bullet is a dash there"


def test_an_error_breaks_between_words(monkeypatch):
    """At 40 columns of a terminal no word but a path is cut."""
    import io

    from rich.console import Console

    from kto_cli.common import screen
    from kto_cli.common.errors import BadInput

    out = io.StringIO()
    monkeypatch.setattr(
        screen, "Console", lambda **options: Console(file=out, force_terminal=True, width=40, color_system=None)
    )
    error = BadInput("The folder data/mine cannot be created because something is in the way.", "Use another folder.")
    assert screen.print_error(error, as_json=False) == 1
    lines = out.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines) == f"error: {error}"
