"""The verdict in simulations: noise is hardly ever called learned, and constructed cases get their word.

The default run is a part of the study; `-m long` runs 200 of each; `python -m tests.support.verdict_study` prints the
words, with as many resamples as a real run takes.
"""

from __future__ import annotations

import pytest
from support.verdict_study import CASES, NOISE, NOISE_ROWS, words_of_case, words_of_noise

from kto_cli.core.statistics import estimates, permutation


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """100 and 200 instead of 1,000 and 2,000: edges of intervals vary more, but are where they are on average."""
    monkeypatch.setattr(estimates, "RESAMPLES", 100)
    monkeypatch.setattr(permutation, "PERMUTATIONS", 200)


@pytest.mark.parametrize("kind", NOISE)
def test_noise_is_hardly_ever_called_learned(kind: str):
    """At most 2.5 % of 75 runs are expected; 7 or more have a chance of 0.4 %."""
    assert sum(words_of_noise(kind, count, 25)["learned"] for count in (4, 10, 50)) < 7


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_each_case_gets_its_word(case):
    assert words_of_case(case, 6)[CASES[case]] >= 5


@pytest.mark.long
@pytest.mark.parametrize("kind", NOISE)
def test_of_200_runs_of_noise_at_most_one_in_20_is_called_learned(kind: str):
    for count in NOISE_ROWS:
        assert words_of_noise(kind, count, 200)["learned"] <= 10, count


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_at_least_95_percent_of_200_runs_of_a_case_get_its_word(case):
    assert words_of_case(case, 200)[CASES[case]] >= 190
