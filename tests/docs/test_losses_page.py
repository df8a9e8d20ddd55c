"""What docs/losses.md says of the theory is what the code computes; its example runs, its picture has every curve."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import REPOSITORY
from test_docs import section

from kto_cli.core.halos import check, random_units
from kto_cli.core.theory.comparison import compare
from kto_cli.core.theory.constructions import CONSTRUCTIONS, WITHOUT
from kto_cli.core.theory.gradients import MARGINS, gradient_weights, tail_words
from kto_cli.core.theory.theorems import equivalence, majority
from kto_cli.workflows.theory_figure import CURVES

PAGE = (REPOSITORY / "docs" / "losses.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """Cells of the table under a heading, without its head."""
    lines = [line for line in section(PAGE, title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_the_table_of_human_aware_losses():
    units = random_units()
    shown = {(loss, case): met for loss, case, met, _ in rows("### Which losses are human-aware (Definition 3.4)")}
    computed = {}
    for one in CONSTRUCTIONS:
        found = check(one, units)
        computed[one.loss, one.case] = "yes" if found.meets else "in v5" if found.meets_v5 else "no"
    assert shown == computed
    assert all(f"`{name}`" in PAGE for name in WITHOUT)


def test_the_example_runs():
    theory = section(PAGE, "## Theory that runs")
    (code,) = re.findall(r"^```python\n(.*?)^```", theory, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/losses.md", "exec"), {})


def test_the_table_of_gradient_weights():
    weights = gradient_weights()
    for first, *cells in rows("### What a row still teaches (Proposition 4.1)"):
        for name, cell in zip(weights, cells, strict=True):
            if first.startswith("to "):
                expected = tail_words(name, -1 if "-" in first else 1)
            else:
                expected = f"{weights[name][MARGINS.index(float(first))]:.2g}"
            assert cell.strip("`").replace("\\|", "|") == expected, (first, name)


def test_the_numbers_of_the_theorems():
    found = majority()
    assert "DPO {:.3f} / {:.3f}, KTO {:.3f} / {:.3f}".format(*found.dpo, *found.kto) in PAGE
    assert "by {:.1f} to {:.1f} in".format(*equivalence().values) in " ".join(PAGE.split())


def test_the_picture_has_every_curve():
    picture = (REPOSITORY / "docs" / "images" / "value_functions.svg").read_text(encoding="utf-8")
    assert all(name in picture for name, *_ in CURVES)


@pytest.mark.slow
def test_the_table_of_worlds():
    """Within 0.02, of which rounding is 0.005: those of another processor add up over 500 steps."""
    torch.set_num_threads(1)
    shown = rows("### KTO or DPO, when?")
    for outcome, (condition, *cells) in zip(compare(), shown, strict=True):
        assert condition == outcome.condition.words
        numbers = [float(number) for cell in cells for number in cell.split(" to ")]
        computed = [*(outcome.gains[name] for name in ("kto", "dpo", "bco", "sft")), *outcome.interval]
        assert numbers == pytest.approx(computed, abs=0.02)
