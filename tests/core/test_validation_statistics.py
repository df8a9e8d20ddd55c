"""Statistics of validation rows against SciPy, scikit-learn and loops; and what must not change them."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LinearRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.auc import auc, length_adjusted_auc, weighted_auc
from kto_cli.core.statistics.breakdown import biggest_movers, by_class, by_source, likely_mislabelled, row_values
from kto_cli.core.statistics.calibration import calibration
from kto_cli.core.statistics.comparison import Side, compare
from kto_cli.core.statistics.intervals import cluster_numbers, clustered_error, percentiles, resample_weights, wilson
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.scores import Scores

BETA = 0.1


def made_up(rows: int = 200, seed: int = 0, *, effect: float = 4.0) -> Scores:
    """Pairs with a prompt of their own; the undesirable answer is longer; log-ratios whole, so that they tie."""
    generator = torch.Generator().manual_seed(seed)
    desirable = torch.arange(rows) % 2 == 0
    lengths = torch.randint(5, 60, (rows,), generator=generator) + 8 * (~desirable)
    log_ratios = (8 * torch.randn(rows, generator=generator) + effect * desirable).round()
    mismatched = 4 * torch.randn(rows, generator=generator) + 1
    names = [f"prompt {row // 2}" for row in range(rows)]
    return Scores(log_ratios, mismatched, desirable, lengths, names, [f"pair {row // 2}" for row in range(rows)])


def ones(rows: int) -> torch.Tensor:
    return torch.ones(1, rows, dtype=torch.float64)


def same(left: Any, right: Any) -> bool:
    """Equal to rounding, NaN as NaN, through dicts and lists."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return left == pytest.approx(right, abs=1e-9, nan_ok=True)
    return bool(left == right)


# --- shares -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilson_is_scipys(trials: int, share: float):
    successes = round(share * trials)
    found = stats.binomtest(successes, trials).proportion_ci(0.90, method="wilson")
    assert wilson(successes, trials) == pytest.approx([found.low, found.high], abs=1e-12)


def test_wilson_by_hand():
    """z2 = 1.6449^2 = 2.7055. 9 of 10 as in the docstring; 0 of 10: 0 to z2 / (10 + z2) = 0.2129."""
    assert wilson(9, 10) == pytest.approx([0.6523, 0.9774], abs=1e-4)
    assert wilson(0, 10) == pytest.approx([0, 0.2129], abs=1e-4)
    assert all(map(math.isnan, wilson(0, 0)))


# --- areas ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30))
def test_areas_are_scikit_learns_with_ties_and_weights(rows: list[tuple[int, bool, int]]):
    scores, labels, weights = (torch.tensor([row[part] for row in rows]) for part in range(3))
    found = weighted_auc(scores.double(), labels, weights.double()[None]).item()
    if not (weights[labels].sum() and weights[~labels].sum()):
        assert math.isnan(found)
        return
    assert found == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)
    assert auc(scores.double(), labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=4, max_size=30), st.randoms(use_true_random=False))
def test_a_rising_function_and_another_order_change_no_area(values: list[int], chance: Any):
    scores, labels = torch.tensor(values).double(), torch.arange(len(values)) % 3 == 0
    before = auc(scores, labels)
    assert auc((scores / 20).exp(), labels) == pytest.approx(before)
    assert auc(-scores, labels) == pytest.approx(1 - before)
    order = chance.sample(range(len(values)), len(values))
    assert auc(scores[order], labels[order]) == pytest.approx(before)


@pytest.mark.parametrize("seed", range(3))
def test_length_adjusted_area_is_a_regression_of_the_controls(seed: int):
    """scikit-learn fits value = a + b log(length) in the undesirable rows, weighted; its residuals' AUC."""
    scores = made_up(120, seed)
    weights = torch.randint(0, 4, (3, 120), generator=torch.Generator().manual_seed(seed)).double()
    values, labels = scores.log_ratios.numpy().astype(float), scores.desirable.numpy()
    logs = numpy.log(scores.lengths.numpy())[:, None]
    found = length_adjusted_auc(scores.log_ratios, scores.lengths, scores.desirable, weights)
    for draw, weight in enumerate(weights.numpy()):
        line = LinearRegression().fit(logs[~labels], values[~labels], sample_weight=weight[~labels])
        expected = roc_auc_score(labels, values - line.predict(logs), sample_weight=weight)
        assert found[draw].item() == pytest.approx(expected, abs=1e-12)


def test_what_length_explains_is_taken_out():
    """Log-ratio = -10 log(length) + noise, undesirable rows twice as long: AUC far above 0.5, adjusted 0.5 to within
    three standard errors (sqrt(1 / 12 * 2 / 1000) = 0.013 each)."""
    generator = torch.Generator().manual_seed(0)
    desirable = torch.arange(2000) % 2 == 0
    lengths = torch.randint(100, 300, (2000,), generator=generator) * (1 + (~desirable).long())
    values = -10 * lengths.double().log() + torch.randn(2000, generator=generator, dtype=torch.float64)
    assert auc(values, desirable) > 0.9
    assert length_adjusted_auc(values, lengths, desirable, ones(2000)).item() == pytest.approx(0.5, abs=0.04)
    learned = values + 1.0 * desirable  # one standard deviation: Phi(1 / sqrt 2) = 0.760
    assert length_adjusted_auc(learned, lengths, desirable, ones(2000)).item() == pytest.approx(0.76, abs=0.04)


def test_one_length_adjusts_nothing():
    scores = made_up()._replace(lengths=torch.full((200,), 7))
    found = length_adjusted_auc(scores.log_ratios, scores.lengths, scores.desirable, ones(200))
    assert found.item() == pytest.approx(auc(scores.log_ratios, scores.desirable))
    nothing = length_adjusted_auc(torch.zeros(200), made_up().lengths, scores.desirable, ones(200))
    assert nothing.item() == 0.5, "the reference itself"


# --- KL ---------------------------------------------------------------------------------------


def test_standard_error_of_the_kl():
    values = made_up().mismatched_log_ratios
    lone = clustered_error(values, torch.arange(200), 200)
    assert lone == pytest.approx(stats.sem(values.numpy().astype(float)), rel=1e-6)
    twice = clustered_error(values.repeat(2), torch.arange(200).repeat(2), 200)
    assert twice == pytest.approx(lone, rel=1e-6), "copies within a prompt tell nothing new"
    found = validation_metrics(made_up(), LossSettings(BETA, 1, 1))
    assert found["kl"] == pytest.approx(values.double().mean().item())
    low, high = found["kl_interval"]  # type: ignore[misc]
    assert high - low == pytest.approx(2 * 1.645 * found["kl_se"], rel=0.1)  # type: ignore[operator]


def test_kl_may_be_negative_where_z_ref_is_zero():
    scores = made_up()
    found = validation_metrics(
        scores._replace(mismatched_log_ratios=scores.mismatched_log_ratios - 9), LossSettings(BETA, 1, 1)
    )
    assert found["kl"] == pytest.approx(scores.mismatched_log_ratios.double().mean().item() - 9, abs=1e-6)
    assert found["z_ref"] == 0


# --- calibration ------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "bins"), [(40, 4), (997, 10)])
def test_calibration_is_scikit_learns(rows: int, bins: int):
    generator = torch.Generator().manual_seed(rows)
    said = torch.rand(rows, generator=generator, dtype=torch.float64)
    labels = torch.rand(rows, generator=generator) < (4 * said - 1.5)  # said too low at the top, too high below
    found = calibration(said, labels, bins=bins)
    happened, mean = calibration_curve(labels.numpy(), said.numpy(), n_bins=bins, strategy="quantile")
    assert [one["predicted"] for one in found["bins"]] == pytest.approx(mean.tolist())
    assert [one["desirable"] for one in found["bins"]] == pytest.approx(happened.tolist())
    counts = numpy.array([one["rows"] for one in found["bins"]])
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1
    assert found["ece"] == pytest.approx(float((counts * abs(happened - mean)).sum() / rows))
    assert found["brier"] == pytest.approx(brier_score_loss(labels.numpy(), said.numpy()))
    assert found["ece"] > found["ece_by_chance"] or rows < 100, "not honest"


def test_calibration_by_hand():
    """As in the docstring."""
    found = calibration(torch.tensor([0.2, 0.2, 0.8, 0.8]), torch.tensor([False, True, True, True]), bins=2)
    assert found["ece"] == pytest.approx(0.25)
    assert found["brier"] == pytest.approx(0.19)
    assert found["brier_of_share"] == pytest.approx(0.1875)
    assert [(one["rows"], one["desirable"]) for one in found["bins"]] == [(2, 0.5), (2, 1.0)]


def test_honest_chances_stay_below_what_chance_gives_19_times_in_20():
    """Of 60 honest sets 3 are expected above their 95 % line; 9 or more has a chance of 0.3 %."""
    above = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        said = torch.rand(150, generator=generator, dtype=torch.float64)
        found = calibration(said, torch.rand(150, generator=generator) < said, seed=seed)
        above += found["ece"] > found["ece_by_chance"]
    assert above < 9


def test_before_training_everything_is_one_half():
    """The reference's prior is 1/2 whatever the share: one bin, ECE |0.5 - 0.8|, Brier 0.25."""
    found = calibration(torch.full((100,), 0.5), torch.arange(100) < 80)
    assert (found["mean_predicted"], found["desirable_share"]) == (0.5, 0.8)
    assert (found["ece"], found["brier"]) == (pytest.approx(0.3), 0.25)
    assert [one["rows"] for one in found["bins"]] == [100]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40), st.randoms(use_true_random=False)
)
def test_calibration_does_not_depend_on_the_order(rows: list[tuple[int, bool]], chance: Any):
    other = chance.sample(rows, len(rows))
    one, two = (
        calibration(torch.tensor([said / 8 for said, _ in each]), torch.tensor([label for _, label in each]), bins=4)
        for each in (rows, other)
    )
    for found in (one, two):
        del found["ece_by_chance"]  # its draws go by row
    assert same(one, two)
    assert sum(each["rows"] for each in one["bins"]) == len(rows)


# --- rows, classes, sources -------------------------------------------------------------------


def test_rows_by_hand():
    """beta 1, z_ref 2; margins s (ratio - 2): 6, -7 (desirable), -8, 9.5 (undesirable), 0. 4 v (1 - v) is 0.00987 at 6
    and 1 at 0. All but the last are under 1 %; the second and third on the wrong side, the third further."""
    ratios = torch.tensor([8.0, -5.0, 10.0, -7.5, 2.0])
    labels = torch.tensor([True, True, False, False, True])
    scores = Scores(ratios, torch.zeros(5), labels, torch.tensor([2, 4, 6, 8, 6]), list("abcde"), [None] * 5)
    values = row_values(scores, z_ref=2.0, beta=1.0)
    assert values.margins.tolist() == [6, -7, -8, 9.5, 0]
    assert values.gradient_weights[[0, 4]].tolist() == [pytest.approx(0.009866, abs=1e-6), 1.0]
    assert values.probabilities.tolist() == pytest.approx([1 / (1 + math.exp(2 - ratio)) for ratio in ratios.tolist()])
    assert values.saturated.tolist() == [True, True, True, True, False]
    assert likely_mislabelled(values) == [2, 1]
    up, down = by_class(scores, values).values()
    assert (up["rows"], up["reward"], up["completion_tokens"]) == (3, pytest.approx(5 / 3), 4)
    assert [up[name] for name in ("accuracy", "saturated_right", "saturated_wrong")] == pytest.approx(
        [0.5, 1 / 3, 1 / 3]
    )
    assert [down[name] for name in ("accuracy", "saturated_right", "saturated_wrong")] == [0.5, 0.5, 0.5]
    assert up["saturated_wrong_wilson"] == wilson(1, 3)
    assert up["accuracy_wilson"] == wilson(1.5, 3)
    moved = biggest_movers(scores, 1)
    assert moved == {"desirable": {"up": [0], "down": [1]}, "undesirable": {"up": [2], "down": [3]}}
    assert biggest_movers(scores, 9)["desirable"] == {"up": [0, 4], "down": [1]}
    assert biggest_movers(scores._replace(log_ratios=torch.zeros(5)), 9)["desirable"] == {"up": [], "down": []}


def test_a_source_is_its_rows_alone_with_the_z_ref_of_all():
    scores = made_up(200)
    sources = ["big" if row < 120 else "small" for row in range(200)]
    values = row_values(scores, z_ref=1.5, beta=BETA)
    found = by_source(scores, values, sources)
    assert list(found) == ["big", "small"]
    for name, rows in (("big", range(120)), ("small", range(120, 200))):
        part = scores.take(rows)
        alone = validation_metrics(part, LossSettings(BETA, 1, 1))
        for each in ("rows", "desirable", "prompts", "margin", "auc"):
            assert found[name][each] == pytest.approx(alone[each], abs=1e-6)
        for each in ("margin_interval", "auc_interval"):
            assert found[name][each] == pytest.approx(alone[each], abs=1e-6), "the same draws of its prompts"
        signs = torch.where(part.desirable, 1, -1)
        right = ((signs * (part.log_ratios - 1.5)) > 0).sum().item()
        assert found[name]["accuracy"] == pytest.approx(right / len(rows))
        assert found[name]["accuracy_wilson"] == wilson(right, len(rows))


@pytest.mark.parametrize("label", [True, False])
def test_a_class_without_rows(label: bool):
    scores = made_up(20)._replace(desirable=torch.full((20,), label))
    values = row_values(scores, z_ref=0.0, beta=BETA)
    missing = by_class(scores, values)["undesirable" if label else "desirable"]
    assert missing["rows"] == 0
    assert all(math.isnan(missing[name]) for name in ("reward", "accuracy", "saturated_wrong"))
    (source,) = by_source(scores, values, ["one"] * 20).values()
    assert all(map(math.isnan, (source["auc"], source["margin"], *source["auc_interval"])))
    assert calibration(values.probabilities, scores.desirable)["desirable_share"] == float(label)


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(chance: Any):
    scores = made_up(60)
    order = chance.sample(range(60), 60)
    sources = [f"source {row // 2 % 3}" for row in range(60)]
    other = scores.take(order)
    found = []
    for each, names in ((scores, sources), (other, [sources[row] for row in order])):
        values = row_values(each, z_ref=0.5, beta=1.0)
        parts = {
            name: {key: part[key] for key in ("margin", "auc")} for name, part in by_source(each, values, names).items()
        }
        moved = [each.log_ratios[rows].tolist() for kind in biggest_movers(each, 4).values() for rows in kind.values()]
        wrong = values.margins[likely_mislabelled(values)].tolist()
        found.append([by_class(each, values), parts, moved, wrong])
    assert same(*found)


# --- comparing --------------------------------------------------------------------------------


def side(scores: Scores) -> Side:
    return Side(scores, LossSettings(BETA, 1.0, 1.0))


def better(scores: Scores, by: float, seed: int = 9) -> Scores:
    """The same rows, each class moved apart by so many nats, with some noise."""
    noise = torch.randn(len(scores.lengths), generator=torch.Generator().manual_seed(seed))
    return scores._replace(log_ratios=scores.log_ratios + by * scores.desirable + 2 * noise)


def test_paired_bootstrap_is_scipys():
    """Resamples of prompts, the difference taken in each; SciPy draws its own. An edge of the central 90 % of 1,000
    draws has a standard error of sd sqrt(0.05 * 0.95 / 1000) / 0.103 = 0.067 sd, of two such runs 0.095 sd."""
    first = made_up(160)
    second = better(first, 3.0)
    found = compare(side(first), side(second))
    tensors = (first.log_ratios.double().numpy(), second.log_ratios.double().numpy(), first.desirable.numpy())
    before, after, labels = (each.reshape(80, 2) for each in tensors)  # a prompt, two rows

    def area(values: Any, truth: Any) -> float:
        ranks = stats.rankdata(values)
        positives = int(truth.sum())
        return (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * (len(truth) - positives))

    statistics = {
        "auc": lambda a, b, truth: area(b, truth) - area(a, truth),
        "margin": lambda a, b, truth: BETA * ((b - a)[truth].mean() - (b - a)[~truth].mean()),
        "paired_accuracy": lambda a, b, truth: (
            (numpy.sign(b[truth] - b[~truth]).mean() - numpy.sign(a[truth] - a[~truth]).mean()) / 2
        ),
    }
    for name, statistic in statistics.items():
        run = stats.bootstrap(
            (numpy.arange(80),),
            lambda rows, statistic=statistic: statistic(
                before[rows].ravel(), after[rows].ravel(), labels[rows].ravel()
            ),
            vectorized=False,
            n_resamples=1000,
            confidence_level=0.90,
            method="percentile",
            rng=0,
        )
        edges = [run.confidence_interval.low, run.confidence_interval.high]
        assert found[name]["interval"] == pytest.approx(edges, abs=0.35 * run.standard_error), name
        whole = statistic(before.ravel(), after.ravel(), labels.ravel())
        assert found[name]["difference"] == pytest.approx(whole, abs=1e-6)


def test_pairing_makes_small_differences_sure():
    """The two checkpoints' own intervals overlap, that of the difference leaves out 0."""
    first = made_up(400, effect=3.0)
    second = better(first, 1.5)
    found = compare(side(first), side(second))["auc"]
    own = [validation_metrics(each, LossSettings(BETA, 1, 1))["auc_interval"] for each in (first, second)]
    assert own[1][0] < own[0][1]  # type: ignore[index]
    assert found["interval"][0] > 0
    assert found["verdict"] == "second"
    turned = compare(side(second), side(first))["auc"]
    assert turned["verdict"] == "first"
    assert turned["interval"] == pytest.approx([-edge for edge in reversed(found["interval"])], abs=1e-9)


def test_a_checkpoint_is_not_better_than_itself():
    found = compare(side(made_up()), side(made_up()))
    assert set(found) >= {"auc", "margin", "paired_accuracy", "kl"}
    for one in found.values():
        assert (one["difference"], one["interval"], one["verdict"]) == (0, [0, 0], "unclear")


def test_no_better_is_claimed_about_one_time_in_ten():
    """Two checkpoints that differ by noise alone: of 60 comparisons about 6 leave 0 out; 14 or more has a chance of
    0.1 %, none 0.2 %."""
    claimed = 0
    for seed in range(60):
        first = made_up(80, seed)
        claimed += (
            compare(side(better(first, 0, seed + 100)), side(better(first, 0, seed + 200)))["auc"]["verdict"]
            != "unclear"
        )
    assert 0 < claimed < 14


def test_few_prompts_show_no_difference():
    """Of 4 prompts every resample agrees that an AUC of 1 is better than one of 0, which chance gives too."""
    first = made_up(8)._replace(log_ratios=torch.tensor([0.0, 1] * 4))
    turned = first._replace(log_ratios=1 - first.log_ratios)
    assert compare(side(first), side(turned))["auc"]["difference"] == 1
    assert {one["verdict"] for one in compare(side(first), side(turned)).values()} == {"unclear"}


def test_more_margin_is_not_said_to_be_better():
    first = made_up()
    found = compare(side(first), Side(first, LossSettings(2 * BETA, 1.0, 1.0)))
    assert found["margin"]["verdict"] == "differs"
    assert found["margin"]["second"] == pytest.approx(2 * found["margin"]["first"])
    assert found["auc"]["verdict"] == "unclear"


def test_one_class_compares_nothing_and_breaks_nothing():
    only = made_up(20)._replace(desirable=torch.ones(20, dtype=torch.bool))
    found = compare(side(only), side(better(only, 1)))
    assert math.isnan(found["auc"]["difference"])
    assert found["auc"]["verdict"] == "unclear"
    assert "paired_accuracy" not in found


# --- resampling -------------------------------------------------------------------------------


def test_draws_take_prompts_whole():
    clusters, count = cluster_numbers(["b", "a", "b", "c", "a", "a"])
    assert (clusters.tolist(), count) == ([0, 1, 0, 2, 1, 1], 3)
    drawn = torch.cat(list(resample_weights(clusters, count, 500, seed=0)))
    assert drawn.shape == (500, 6)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(1) == 3).all()
    assert drawn.mean(0).tolist() == pytest.approx([1] * 6, abs=0.15)


def test_percentiles_leave_out_what_says_nothing():
    values = torch.cat([torch.arange(101.0), torch.full((50,), math.nan)])
    assert percentiles(values) == pytest.approx([5, 95])
    assert all(map(math.isnan, percentiles(values[101:])))
