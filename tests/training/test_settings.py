"""What a run reports of its settings."""

from __future__ import annotations

import pytest

from kto_cli.training.settings import step_rows


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
