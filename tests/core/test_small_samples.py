"""Statistics that hold at any number of rows: the permutation test, score intervals, trimmed means, equal lengths."""

from __future__ import annotations

import itertools
import math
from functools import partial
from statistics import NormalDist

import numpy
import pytest
import torch
from scipy import stats
from support.verdict_study import Draw, half, rows_of

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics import estimates, permutation
from kto_cli.core.statistics.auc import (
    auc,
    auc_share,
    similar_length_counts,
    similar_length_pairs,
    weighted_auc,
)
from kto_cli.core.statistics.equal_length import margin_at_equal_length
from kto_cli.core.statistics.intervals import (
    cluster_numbers,
    copies_in_class,
    mean_interval,
    resample_weights,
    student,
    wilson,
)
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.permutation import chance_of_auc, least_chance
from kto_cli.core.statistics.robust import Trimmed, within_fences
from kto_cli.core.statistics.shares import all_pairs, auc_variance, share_of, share_variance

# --- the permutation test -----------------------------------------------------------------------


def arrangements(labels: list[bool], prompts: list[int]) -> set[tuple[bool, ...]]:
    """All ways to give out the labels: prompts of one size change places, and so do the rows of a prompt."""
    members = [[row for row, each in enumerate(prompts) if each == prompt] for prompt in sorted(set(prompts))]
    found = set()
    for order in itertools.permutations(range(len(members))):
        if any(len(members[a]) != len(members[b]) for a, b in enumerate(order)):
            continue
        for inside in itertools.product(*(itertools.permutations(members[donor]) for donor in order)):
            given = [False] * len(labels)
            for rows, donors in zip(members, inside, strict=True):
                for row, donor in zip(rows, donors, strict=True):
                    given[row] = labels[donor]
            found.add(tuple(given))
    return found


LAYOUTS = {
    "single rows": ([1, 0, 1, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6]),
    "pairs": ([1, 0, 0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2, 3, 3]),
    "one label a prompt": ([1, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3]),
    "mixed": ([1, 0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 2, 3]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_p_is_the_share_of_all_arrangements(layout: str):
    """By enumeration. 2,000 draws of a share of 0.5 have a standard deviation of 0.011."""
    labels, prompts = ([bool(each) for each in LAYOUTS[layout][0]], LAYOUTS[layout][1])
    values = torch.tensor([3.0, 1.0, 1.0, 2.5, 2.0, 0.0, 4.0, -1.0][: len(labels)])
    ways = arrangements(labels, prompts)
    observed = auc(values, torch.tensor(labels))
    reached = sum(auc(values, torch.tensor(way)) >= observed - 1e-12 for way in ways)
    found = chance_of_auc(values, torch.tensor(labels), torch.tensor(prompts))
    assert found == pytest.approx(reached / len(ways), abs=0.045)
    assert least_chance(torch.tensor(labels), torch.tensor(prompts)) == pytest.approx(1 / len(ways))


def test_least_p_by_hand():
    """2 + 2 rows: 1 / 6. 3 + 3: 1 / 20. 4 + 4: 1 / 70. Pairs of 5 and 6 prompts: 1 / 32, 1 / 64."""
    lone = [least_chance(half(2 * each), torch.arange(2 * each)) for each in (2, 3, 4)]
    assert lone == pytest.approx([1 / 6, 1 / 20, 1 / 70])
    paired = [least_chance(half(2 * each), torch.arange(2 * each) // 2) for each in (5, 6)]
    assert paired == pytest.approx([1 / 32, 1 / 64])


def test_copies_of_rows_add_no_evidence():
    """20 rows with a p of 0.02 each given ten times within their prompts: as 20 rows, not as 200."""
    draw = Draw(5)
    values, labels = draw.normal(20) + 1.2 * half(20), half(20)
    once = chance_of_auc(values, labels, torch.arange(20))
    copied = chance_of_auc(values.repeat(10), labels.repeat(10), torch.arange(20).repeat(10))
    assert copied == pytest.approx(once, abs=0.02)
    assert chance_of_auc(values.repeat(10), labels.repeat(10), torch.arange(200)) < once / 5


def test_p_of_one_class_is_not_known():
    assert math.isnan(chance_of_auc(torch.randn(5), torch.ones(5, dtype=torch.bool), torch.arange(5)))


# --- intervals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 10, 100])
def test_student_is_scipys(freedom: int):
    assert student(freedom) == pytest.approx(stats.t.ppf(0.95, freedom), rel=1e-3)


def test_a_score_interval_of_independent_rows_is_wilsons():
    for won in (0, 3, 10):
        variance = partial(share_variance, trials=10)
        found = share_of(won / 10, math.nan, variance, prompts=10, copies=1.0)
        assert found.interval() == pytest.approx(wilson(won, 10), abs=1e-9)


def test_p_of_a_share_is_that_of_its_score():
    """8 of 10 trials: (0.8 - 0.5) / sqrt(0.25 / 10) = 1.897 standard deviations; four copies of each halve it."""
    variance = partial(share_variance, trials=10)
    once, copied = (share_of(0.8, math.nan, variance, prompts=1, copies=each) for each in (1.0, 4.0))
    assert once.chance() == pytest.approx(1 - NormalDist().cdf(1.897), abs=1e-4)
    assert copied.chance() == pytest.approx(1 - NormalDist().cdf(0.9487), abs=1e-4)


def test_where_one_class_varies_more_p_is_that_of_the_interval(monkeypatch):
    """10 undesirable rows with five times the spread of 90 desirable ones: the permutation test takes all for alike and
    finds p under 0.025 too often. The larger of both is, of 60 samples of noise, 1.5 times; 6 or more times have
    a chance of 0.4 %."""
    monkeypatch.setattr(estimates, "RESAMPLES", 100)
    monkeypatch.setattr(permutation, "PERMUTATIONS", 400)
    labels, often = torch.arange(100) >= 10, [0, 0]
    for seed in range(60):
        made = rows_of(torch.where(labels, 1.0, 5.0) * Draw(seed).normal(100), labels, torch.full((100,), 9))
        permuted = chance_of_auc(made.log_ratios, labels, torch.arange(100))
        both = validation_metrics(made, LossSettings(0.1, 1, 1))["auc_p"]
        often = [often[0] + (permuted <= 0.025), often[1] + (both <= 0.025)]
    assert often[1] < min(6, often[0])


def test_variance_of_an_auc_at_chance_is_mann_whitneys():
    """(m + n + 1) / (12 m n): 5 desirable, 8 undesirable rows."""
    assert auc_variance(0.5, all_pairs(5, 8)) == pytest.approx(14 / (12 * 40))
    assert auc_variance(1.0, all_pairs(5, 8)) == 0


def test_pairs_of_similar_length_and_couples_of_them_with_a_row_in_common():
    draw = Draw(2)
    lengths, labels = draw.lengths(10, 40, 30), half(30)
    alike = [
        (up, down)
        for up in range(30)
        for down in range(30)
        if labels[up] and not labels[down] and max(lengths[[up, down]]) <= 1.2 * min(lengths[[up, down]])
    ]
    shared = sum((a[0] == b[0]) != (a[1] == b[1]) for a in alike for b in alike)
    found = similar_length_counts(similar_length_pairs(draw.normal(30), lengths, labels))
    assert found == (len(alike), shared)


def area_and_interval(values: torch.Tensor, labels: torch.Tensor, prompts: torch.Tensor) -> list[float]:
    clusters, count = cluster_numbers(prompts.tolist())
    drawn = torch.cat([weighted_auc(values, labels, weights) for weights in resample_weights(clusters, count, 200, 0)])
    return auc_share(auc(values, labels), drawn, labels, clusters).interval()


def test_four_rows_in_perfect_order_say_little():
    low, high = area_and_interval(torch.tensor([2.0, 0.0, 3.0, 1.0]), half(4), torch.arange(4))
    assert low < 0.5
    assert high == 1.0


@pytest.mark.parametrize("truth", [0.5, 0.8])
@pytest.mark.parametrize("shape", ["single", "pairs", "fours", "one label"])
def test_the_interval_holds_the_true_auc_nine_times_in_ten_at_any_size(shape: str, truth: float):
    """Normal rewards; half their variance is that of the prompt where rows share one. Of 60 samples of each size fewer
    than 48 have a chance of 0.7 % at a true 0.9; a percentile bootstrap holds 20 to 53 of them."""
    distance = math.sqrt(2) * NormalDist().inv_cdf(truth)
    for count in (4, 8, 20, 60):
        held = 0
        for seed in range(60):
            draw = Draw(seed)
            prompts = torch.arange(count) // {"single": 1, "pairs": 2, "fours": 4, "one label": 2}[shape]
            labels = prompts % 2 == 0 if shape == "one label" else half(count)
            own, common = draw.normal(count), draw.normal(count)[prompts]
            noise = own if shape == "single" else (own + common) / math.sqrt(2)
            low, high = area_and_interval(noise + distance * labels, labels, prompts)
            held += low <= truth <= high
        assert held >= 48, count


def test_means_of_few_prompts_have_wider_intervals():
    """Of 2 prompts Student's t is 6.31 to the normal's 1.645, and sqrt(2) for the variance that resampling loses."""
    drawn = torch.linspace(-1, 1, 201)
    assert mean_interval(0.0, drawn, 2) == pytest.approx([-4.885, 4.885], rel=1e-3)
    assert mean_interval(0.0, drawn, 10_000) == pytest.approx([-0.9, 0.9], rel=1e-3)
    assert all(map(math.isnan, mean_interval(0.0, drawn, 1)))


def test_copies_are_counted_within_a_class():
    """A pair holds none; four desirable rows of one prompt are four copies, two of another two: (16 + 4) / 6."""
    assert copies_in_class(half(10), torch.arange(10) // 2) == 1.0
    labels, clusters = torch.tensor([1, 1, 1, 1, 1, 1, 0]).bool(), torch.tensor([0, 0, 0, 0, 1, 1, 2])
    assert copies_in_class(labels, clusters) == pytest.approx(20 / 6)


# --- trimmed means ------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "left_out"), [(1, 0), (2, 0), (3, 1), (4, 1), (10, 1), (19, 1.9), (40, 4)])
def test_trimmed_ratio_is_that_of_the_rows_in_the_middle(rows: int, left_out: float):
    """A row that the cut goes through counts in part."""
    draw = Draw(rows)
    values, sizes = draw.normal(rows).double(), draw.lengths(1, 30, rows).double()
    order = (values / sizes).argsort()
    weights = torch.tensor([min(1.0, max(0.0, 1 - (left_out - min(place, rows - 1 - place)))) for place in range(rows)])
    expected = (weights * values[order]).sum() / (weights * sizes[order]).sum()
    found = Trimmed(values, sizes).ratio(torch.ones(1, rows, dtype=torch.float64))
    assert found.item() == pytest.approx(expected.item())


def test_resamples_are_trimmed_as_rows_written_out():
    draw = Draw(1)
    values, counts = draw.normal(20), draw.lengths(0, 4, 20)
    counts[0] += 20 - int(counts.sum()) % 20  # whole tenths, so that no row is cut
    written = values.repeat_interleave(counts)
    whole = Trimmed(values).ratio(counts.double()[None])
    cut = len(written) // 10
    assert whole.item() == pytest.approx(written.sort().values[cut:-cut].mean().item(), abs=1e-6)


def test_fences_move_outliers_in_and_nothing_else():
    values = torch.cat([torch.arange(101.0), torch.tensor([9000.0])])
    assert within_fences(values)[:101].equal(values[:101])
    assert within_fences(values)[101] < 300
    assert within_fences(torch.ones(5)).equal(torch.ones(5))


# --- equal lengths ------------------------------------------------------------------------------


def equal_length(scores):
    return margin_at_equal_length(scores, *cluster_numbers(scores.prompt_ids))


def test_margin_at_equal_length_is_least_squares():
    """Of 14 rows no bend is fitted: value = a + b log(length) + margin * label; the error has 11 degrees of freedom."""
    draw = Draw(0)
    made = rows_of(draw.normal(14) + half(14), half(14), draw.lengths(10, 90, 14))
    terms = numpy.stack([numpy.ones(14), numpy.log(made.lengths.numpy()), made.desirable.numpy()], axis=1)
    values = made.log_ratios.numpy().astype(float)
    solution, squares, *_ = numpy.linalg.lstsq(terms, values, rcond=None)
    error = math.sqrt(squares[0] / 11 * numpy.linalg.inv(terms.T @ terms)[2, 2])
    found = equal_length(made)
    assert found.margin == pytest.approx(solution[2])
    assert found.interval[1] - found.interval[0] >= 2 * stats.t.ppf(0.95, 11) * error * 0.999


def test_margin_at_equal_length_is_that_of_the_labels_not_of_length():
    """Undesirable answers are longer; rewards fall with length by 0.05 nats a token, and by 2 nats with the label."""
    draw = Draw(4)
    lengths = torch.where(half(600), draw.lengths(40, 120, 600), draw.lengths(60, 220, 600))
    rewards = -0.05 * lengths + draw.normal(600)
    alone, both = (equal_length(rows_of(each, half(600), lengths)) for each in (rewards, rewards + 2 * half(600)))
    assert alone.interval[0] < 0 < alone.interval[1]
    assert both.margin == pytest.approx(2, abs=0.4)


def test_where_length_tells_the_label_nothing_is_known():
    lengths = torch.where(half(40), 10, 20)
    found = equal_length(rows_of(torch.randn(40), half(40), lengths))
    assert all(map(math.isnan, (found.margin, *found.interval)))


def test_rows_of_one_prompt_do_not_narrow_it():
    """Each row ten times: as wide as once, where independent rows would be sqrt(10) times narrower."""
    draw = Draw(6)
    made = rows_of(draw.normal(40) + half(40), half(40), torch.full((40,), 9))
    copied = rows_of(
        made.log_ratios.repeat(10), half(40).repeat(10), made.lengths.repeat(10), prompts=torch.arange(40).repeat(10)
    )
    once, ten_times = (equal_length(each) for each in (made, copied))
    assert ten_times.margin == pytest.approx(once.margin)
    widths = [high - low for low, high in (once.interval, ten_times.interval)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
