"""Errors: the first line of any exception's message."""

from __future__ import annotations

import pytest

from kto_cli.common.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("No such file.\nTraceback ..."), "No such file"),
        (ValueError("\n\n  second \n"), "second"),
        (ValueError(""), "ValueError"),
        (ValueError("\n"), "ValueError"),
        (KeyError(), "KeyError"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line
