"""Files of rows: what a kill leaves of the last line is no row, and nobody's own file is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kto_cli.common.errors import BadInput
from kto_cli.common.row_file import append_rows, read_rows

ROWS = [{"prompt": "a", "n": 1}, {"prompt": "ä\n", "n": 2}]


def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path: Path):
    """A row whose end of line alone is missing is whole; of the second row, "ä" has two bytes."""
    path = tmp_path / "below" / "rows.jsonl"
    append_rows(path, ROWS[:1])
    first = path.stat().st_size
    append_rows(path, ROWS[1:])
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        found = read_rows(path, "rows")
        assert found.rows == ROWS[: (length >= first - 1) + (length >= len(whole) - 1)]
        assert found.ended == (length in (0, first, len(whole)))
        assert found.torn == (not found.ended and length not in (first - 1, len(whole) - 1))
        assert path.read_bytes() == whole[:length]


@pytest.mark.parametrize("text", ["a diary", '{"prompt": "a"\n', '{"prompt": "a"}\nmy own line', "\n"])
def test_any_other_damage_is_named(tmp_path: Path, text: str):
    path = tmp_path / "diary.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"Line {2 if 'own' in text else 1} of .* is damaged"):
        read_rows(path, "rows")
    assert path.read_text() == text
