"""The AUC among pairs of like length against every pair, resample by resample; and 50,000 rows in seconds."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.auc import (
    SIMILAR_TOKENS,
    auc,
    rank_scores,
    ranked_auc,
    similar_length_auc,
    similar_length_pairs,
    weighted_auc,
)
from kto_cli.core.statistics.estimates import resamples_for
from kto_cli.core.statistics.intervals import RESAMPLES
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.scores import Scores

ROW = st.tuples(st.integers(-3, 3), st.integers(1, 40), st.booleans(), st.integers(0, 3), st.integers(0, 3))


def every_pair(scores: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> float:
    """One resample: the weight of the like pairs that are won, ties half, over that of all like pairs."""
    won = total = 0.0
    for up in range(len(scores)):
        for down in range(len(scores)):
            pair = sorted((lengths[up].item(), lengths[down].item()))
            if labels[up] and not labels[down] and pair[1] <= SIMILAR_TOKENS * pair[0]:
                weight = (weights[up] * weights[down]).item()
                won += weight * ((scores[up] > scores[down]) + 0.5 * (scores[up] == scores[down])).item()
                total += weight
    return won / total if total else math.nan


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=24))
def test_every_resample_is_the_double_loops_to_the_last_bit(rows: list[tuple[int, int, bool, int, int]]) -> None:
    """Weights are whole, so sums are exact; ties in scores, in lengths and in both; classes that are missing."""
    scores, lengths, labels, first, second = (torch.tensor([row[part] for row in rows]) for part in range(5))
    weights = torch.stack([first, second]).double()
    found = similar_length_auc(similar_length_pairs(scores.double(), lengths, labels), weights).tolist()
    for draw, value in enumerate(found):
        expected = every_pair(scores, lengths, labels, weights[draw])
        assert value == expected or (math.isnan(value) and math.isnan(expected))


def test_the_edge_is_met_as_it_is_written() -> None:
    """6 <= 1.2 * 5 holds in float64, and so must count; 13 <= 1.2 * 10 does not. By hand: of desirable 5 (score 2) the
    like ones are 6 (score 1, won) and 5 (score 2, a tie): 1.5 of 2; 13 is like none but 11 and 15 (0 of 2)."""
    scores = torch.tensor([2.0, 1, 2, 1, 9, 9, -9])
    lengths = torch.tensor([5, 6, 5, 13, 11, 15, 10])
    labels = torch.tensor([True, False, False, True, False, False, False])
    found = similar_length_auc(similar_length_pairs(scores, lengths, labels), torch.ones(1, 7))
    assert found.item() == 1.5 / 4


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 700])
def test_any_number_of_different_lengths(count: int) -> None:
    """Blocks of 1, 2, 4, ... lengths must meet; a matrix of all pairs says the same."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, count + 1, (2 * count,), generator=generator)
    scores = torch.randint(-20, 20, (2 * count,), generator=generator).double()
    labels = torch.rand(2 * count, generator=generator) < 0.4
    labels[:2] = torch.tensor([True, False])
    weights = torch.randint(0, 4, (5, 2 * count), generator=generator).double()
    up, down = lengths[labels].double()[:, None], lengths[~labels].double()
    like = (torch.maximum(up, down) <= SIMILAR_TOKENS * torch.minimum(up, down)).double()
    wins = like * ((scores[labels][:, None] - scores[~labels]).sign() + 1) / 2
    both = [((weights[:, labels] @ each) * weights[:, ~labels]).sum(1) for each in (wins, like)]
    found = similar_length_auc(similar_length_pairs(scores, lengths, labels), weights)
    assert torch.equal(found.nan_to_num(-1), (both[0] / both[1]).nan_to_num(-1))


def test_one_length_is_the_plain_auc() -> None:
    scores = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round(decimals=1)
    labels, weights = torch.arange(300) % 3 == 0, torch.ones(1, 300, dtype=torch.float64)
    found = similar_length_auc(similar_length_pairs(scores, torch.full((300,), 9), labels), weights).item()
    assert found == ranked_auc(rank_scores(scores, labels), weights).item() == pytest.approx(auc(scores, labels))
    assert weighted_auc(scores.expand(1, -1), labels, weights).item() == found, "sorted anew in each draw"


def many(rows: int) -> Scores:
    """Two rows a prompt, lengths as of answers, log-ratios one third of a standard deviation apart."""
    generator = torch.Generator().manual_seed(0)
    desirable = torch.arange(rows) % 2 == 0
    lengths = torch.randint(5, 600, (rows,), generator=generator)
    log_ratios = 3 * torch.randn(rows, generator=generator) + 1.0 * desirable
    names = [str(row // 2) for row in range(rows)]
    return Scores(log_ratios, torch.randn(rows, generator=generator), desirable, lengths, names, names)


def test_how_often_is_resampled() -> None:
    """As often as can be up to 10,000 rows, 200 times for 50,000, never under 100; and it is said."""
    assert [resamples_for(rows) for rows in (1, 10_000, 50_000, 10**6)] == [RESAMPLES, RESAMPLES, 200, 100]
    found = validation_metrics(many(40), LossSettings(0.1, 1, 1))
    assert found["resamples"] == RESAMPLES


@pytest.mark.slow
def test_fifty_thousand_rows_take_seconds() -> None:
    """3 s of processor time were measured; a pair at a time it was minutes. Phi(1 / (3 sqrt 2)) = 0.5932."""
    began = time.process_time()
    found = validation_metrics(many(50_000), LossSettings(0.1, 1, 1))
    assert time.process_time() - began < 30
    assert found["auc"] == pytest.approx(0.5932, abs=0.008)
    assert found["auc_length_matched"] == pytest.approx(0.5932, abs=0.015)
    low, high = found["auc_interval"]  # type: ignore[misc]
    assert high - low == pytest.approx(2 * 1.645 * math.sqrt(1 / 12 * 2 / 25_000), rel=0.25)
