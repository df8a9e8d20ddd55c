"""The README.md of a run: numbers as a person writes them, a dash for what is not known."""

from __future__ import annotations

import math
from pathlib import Path

from conftest import call, make_dataset

from kto_cli.common.tables import LABELS, span


def test_a_card_has_no_nan_and_no_float_to_the_last_digit(pico, workplace: Path):
    """Validation rows of two prompts: the verdict is that they are too few."""
    make_dataset(workplace, 6, validation=0.2)
    flags = ("--lambda-d", 0.7 * 1.75, "--learning-rate", 0.1 + 0.2, "--max-steps", 1, "--batch-size", 4)
    trained = call("train", "--data", workplace / "set", "--model", pico, *flags, "--json")
    assert trained.json["validation"]["prompts"] == 2
    assert trained.json["verdict"] == "too few rows"
    card = (workplace / "checkpoint/README.md").read_text(encoding="utf-8")
    assert "| lambda_d, lambda_u | 1.225, 1 |" in card
    assert "| learning rate | 0.3 (" in card
    assert "nan" not in card.lower()
    for name, label in LABELS.items():
        assert (f"| {label} |" in card) == (name in trained.json["validation"])


def test_an_interval_that_is_not_known_is_a_dash():
    assert span([math.nan, math.nan]) == span([0.1, math.nan]) == "-"
    assert span([0.1, 1.2249999999999999]) == "0.1 to 1.225"
