"""Settings of a run: checked before anything is loaded, and what is reported of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kto_cli.common.errors import BadFlag
from kto_cli.training.settings import resolve_options, step_rows


@pytest.mark.parametrize(
    ("rows", "batch_size", "words"),
    [
        (64, 32, "32 rows"),
        (33, 32, "16 or 17 rows (at most 32, all steps alike)"),
        (20, 32, "20 rows (at most 32, all steps alike)"),
        (1, 1, "1 row"),
        (1599, 32, "31 or 32 rows (at most 32, all steps alike)"),
    ],
)
def test_rows_of_a_step_in_words(rows: int, batch_size: int, words: str):
    assert step_rows(rows, batch_size) == words


def test_settings_of_a_file_that_do_nothing_are_refused_first(tmp_path: Path):
    """No data or model is looked at yet."""
    file = tmp_path / "c.yaml"
    file.write_text("data: nowhere\nipo_tau: 0.2\n", encoding="utf-8")
    with pytest.raises(BadFlag, match="--ipo-tau does nothing with --loss kto"):
        resolve_options({}, config_file=str(file), resume=False)
