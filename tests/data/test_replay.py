"""New rows after an earlier run: each row is looked at a few times, however many there are."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

from kto_cli.data.replay import chosen_rows


@dataclass
class CountedRow:
    """A row that counts how often its id is read."""

    number: int
    reads: int = 0

    @property
    def id(self) -> str:
        self.reads += 1
        return f"{self.number:016x}"

    @property
    def prompt_id(self) -> str:
        return f"{self.number // 2:016x}"


def test_no_row_is_compared_with_each_other_row():
    rows = [CountedRow(number) for number in range(800)]
    new = SimpleNamespace(train=rows[:200], validation=rows[200:400])
    old = SimpleNamespace(train=rows[400:600], validation=rows[300:400] + rows[600:])
    train, validation, counts = chosen_rows(new, old, share=0.5, seed=0)
    assert max(row.reads for row in rows) <= 4
    assert (len(train), len(validation), counts.old) == (300, 400, 100)
    assert len({row.number for row in validation}) == 400
