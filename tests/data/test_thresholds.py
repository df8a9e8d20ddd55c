"""Labels from scores: the three ways of the KTO paper against naive code, and what is left undecided."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from fractions import Fraction

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.data.columns import NO_LABEL
from kto_cli.data.pipeline.thresholds import (
    LabelledScores,
    binary_labels,
    deviation_of,
    labels_from_scores,
    mean_of,
    median_of,
)
from kto_cli.data.seeded_order import priority, row_keys

STARS = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=30)
"""(score in quarters, prompt): quarters are exact floats, so the naive code needs no tolerance."""


def labelled(scores: list[float], threshold: str, prompts: list[int] | None = None, **options) -> LabelledScores:
    numbers = numpy.array(prompts if prompts is not None else range(len(scores)), dtype=numpy.int64)
    keys = row_keys(numbers, numpy.arange(len(scores)))
    return labels_from_scores(
        numpy.array(scores, dtype=float), numbers, threshold=threshold, keys=options.pop("keys", keys), **options
    )


def labels(scores: list[float], threshold: str, prompts: list[int] | None = None, **options) -> list[int]:
    return labelled(scores, threshold, prompts, **options).labels.tolist()


def naive(score: Fraction, threshold: Fraction, margin: Fraction, *, derived: bool) -> int:
    """One score, one threshold, in exact numbers."""
    if abs(score - threshold) < margin or (derived and score == threshold):
        return NO_LABEL
    return int(score >= threshold)


# --- the rules, by hand -----------------------------------------------------------------------


def test_a_fixed_threshold_is_desirable_itself_and_a_margin_leaves_both_sides_out():
    assert labels([1, 2, 3, 3.5, 4, 5], "3") == [0, 0, 1, 1, 1, 1]
    assert labels([1, 2, 3, 3.5, 4, 5], "3", margin=1) == [0, 0, -1, -1, 1, 1]
    assert labels([-1, 0, 1], "-0.5") == [0, 1, 1]
    # 0.3 - 0.2 is less than 0.1 in floats
    assert labels([0.1, 0.3], "0.2", margin=0.1) == [0, 1]


def test_what_is_the_mean_or_median_is_undecided():
    """The mean of 1, 2, 3, 3, 6 is 3; so is the median."""
    for threshold in ("mean", "median"):
        assert labels([1, 2, 3, 3, 6], threshold) == [0, 0, -1, -1, 1]
        assert f"the {threshold} of all scores (3)" in labelled([1, 2, 3, 3, 6], threshold).what
        assert labels([4, 4, 4], threshold) == [-1, -1, -1]
    assert labels([1, 2, 4, 9], "mean") == [0, 0, -1, 1]
    assert labels([1, 2, 4, 9], "median") == [0, 0, 1, 1]
    # 0.1 + 0.2 + 0.3 is 0.6000000000000001 in floats, and three times 0.1 is not 0.3
    assert labels([0.1, 0.2, 0.3], "mean") == [0, -1, 1]
    assert labels([0.1, 0.2, 0.3], "prompt-mean", [0, 0, 0]) == [0, -1, 1]
    assert labels([0.1, 0.1, 0.1], "prompt-mean", [0, 0, 0]) == [-1, -1, -1]


def test_each_prompt_has_its_own_threshold_and_one_score_is_none():
    scores, prompts = [1, 9, 5, 2, 4, 3, 3], [7, 3, 7, 3, 7, 5, 0]
    assert labels(scores, "prompt-mean", prompts) == [0, 1, 1, 0, 1, -1, -1]
    assert labels(scores, "prompt-median", prompts) == [0, 1, 1, 0, -1, -1, -1]
    assert labels(scores, "prompt-median", prompts, margin=3.5) == [-1, 1, -1, 0, -1, -1, -1]


@pytest.mark.parametrize(
    ("threshold", "options", "says"),
    [
        ("2.5", {}, "Scores of 2.5 and above are desirable, lower ones undesirable."),
        ("3", {"margin": 1.5}, "lower ones undesirable; 2 of 4 dropped (within 1.5 of 3)."),
        (
            "mean",
            {},
            "Scores above the mean of all scores (3) are desirable, those below undesirable; 2 of 4 dropped "
            "(equal to the mean).",
        ),
        ("median", {"margin": 0.5}, "the median of all scores (3) are"),
        (
            "prompt-mean",
            {},
            "Scores above the mean of their prompt are desirable, those below undesirable; 4 of 4 dropped",
        ),
        (
            "bernoulli",
            {"seed": 7},
            "sigmoid((score - 3) / 1.41421), seed 7 (the mean and the standard deviation of all",
        ),
        (
            "bernoulli",
            {"logistic_mid": 2.0},
            "sigmoid((score - 2) / 1.41421), seed 0 (the standard deviation of all scores).",
        ),
        ("bernoulli", {"logistic_mid": 2.0, "logistic_scale": 3.0}, "sigmoid((score - 2) / 3), seed 0."),
    ],
)
def test_what_was_done_is_said(threshold, options, says):
    assert says in labelled([1, 3, 3, 5], threshold, **options).what


def test_no_scores_give_no_labels():
    for threshold in ("3", "mean", "prompt-median", "bernoulli"):
        assert labels([], threshold) == []


# --- against naive code -----------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(STARS, st.integers(-20, 20), st.integers(0, 6))
def test_fixed_threshold_as_naive(rows, threshold, margin):
    scores = [Fraction(score, 4) for score, _ in rows]
    expected = [naive(score, Fraction(threshold, 4), Fraction(margin, 4), derived=False) for score in scores]
    assert labels([float(score) for score in scores], str(threshold / 4), margin=margin / 4) == expected


@settings(max_examples=150, deadline=None)
@given(STARS, st.sampled_from(["mean", "median", "prompt-mean", "prompt-median"]), st.integers(0, 6))
def test_derived_thresholds_as_naive(rows, threshold, margin):
    """The thresholds by `statistics` on exact fractions."""
    scores = [Fraction(score, 4) for score, _ in rows]
    prompts = [prompt if threshold.startswith("prompt") else 0 for _, prompt in rows]
    of_prompt = defaultdict(list)
    for score, prompt in zip(scores, prompts, strict=True):
        of_prompt[prompt].append(score)
    center = statistics.mean if threshold.endswith("mean") else statistics.median
    expected = [
        naive(score, center(of_prompt[prompt]), Fraction(margin, 4), derived=True)
        for score, prompt in zip(scores, prompts, strict=True)
    ]
    floats = [float(score) for score in scores]
    assert labels(floats, threshold, [prompt for _, prompt in rows], margin=margin / 4) == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    st.sampled_from(["0", "mean", "median", "prompt-mean", "prompt-median", "bernoulli"]),
    st.integers(0, 3),
)
def test_any_finite_scores_and_any_order(scores, threshold, seed):
    """Neither sums nor differences of the largest floats overflow into a wrong label; the order of rows is nothing."""
    prompts = [number % 3 for number in range(len(scores))]
    keys = row_keys(numpy.array(prompts), numpy.arange(len(scores)))
    with numpy.errstate(all="raise", under="ignore"):
        found = labels(scores, threshold, prompts, keys=keys, seed=seed)
    order = numpy.random.default_rng(seed).permutation(len(scores))
    shuffled = labels([scores[i] for i in order], threshold, [prompts[i] for i in order], keys=keys[order], seed=seed)
    assert shuffled == [found[i] for i in order]
    if threshold != "bernoulli":
        highest = [label for label, score in zip(found, scores, strict=True) if score == max(scores)]
        assert threshold == "0" or 0 not in highest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_mean_and_median_as_the_standard_library(scores):
    assert mean_of(numpy.array(scores)) == pytest.approx(statistics.fmean(scores), rel=1e-15, abs=1e-300)
    assert median_of(numpy.array(scores)) == pytest.approx(statistics.median(scores), rel=1e-15, abs=1e-300)


# --- Bernoulli --------------------------------------------------------------------------------


def test_bernoulli_as_naive():
    """Every draw by hand: the top 53 bits of the row's hash, over 2^53, against the logistic."""
    scores = [float(number % 11) for number in range(200)]
    keys = row_keys(numpy.arange(200))
    mid, scale = statistics.fmean(scores), statistics.pstdev(scores)
    draws = [int(word) // 2**11 / 2**53 for word in priority(keys, 3, "bernoulli")]
    expected = [
        int(draw < 1 / (1 + math.exp(-(score - mid) / scale))) for draw, score in zip(draws, scores, strict=True)
    ]
    found = labelled(scores, "bernoulli", keys=keys, seed=3)
    assert found.labels.tolist() == expected
    assert mean_of(numpy.array(scores)) == pytest.approx(mid, rel=1e-12)
    assert deviation_of(numpy.array(scores)) == pytest.approx(scale, rel=1e-12)
    assert f"sigmoid((score - {mid:.6g}) / {scale:.6g})" in found.what
    assert labels(scores, "bernoulli", keys=keys, seed=4) != expected


def test_bernoulli_frequencies_are_the_logistic():
    """40,000 draws at score 1 with mid 0 and scale 2: sigmoid(1/2) = 0.62246, within 4 standard errors (0.0097)."""
    found = labelled([1.0] * 40_000, "bernoulli", logistic_mid=0.0, logistic_scale=2.0)
    assert abs(found.labels.mean() - 0.62246) < 0.0097


def test_bernoulli_copies_are_drawn_alike_and_equal_scores_at_one_half():
    keys = row_keys(numpy.repeat(numpy.arange(300), 2))
    found = labelled([4.0] * 600, "bernoulli", keys=keys)
    pairs = found.labels.reshape(300, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert 100 < pairs[:, 0].sum() < 200
    assert "sigmoid((score - 4) / 1)" in found.what


def test_bernoulli_margin_is_around_the_middle():
    found = labels([1, 2, 3, 4, 5], "bernoulli", margin=1.5, logistic_scale=0.01)
    assert found == [0, -1, -1, -1, 1]


# --- label columns ----------------------------------------------------------------------------


def test_ones_and_zeros_are_labels_unless_there_are_other_numbers():
    assert binary_labels(numpy.array([1.0, 0, 1])).labels.tolist() == [1, 0, 1]
    assert binary_labels(numpy.array([1.0, 0, 1])).others == ()
    stars = binary_labels(numpy.array([1.0, 5, 0, 3, 5, 4, 0.5, 2]))
    assert stars.labels.tolist() == [NO_LABEL] * 8
    assert stars.others == ("5", "3", "4", "0.5")
    assert binary_labels(numpy.array([-1.0, 1])).others == ("-1",)
    assert binary_labels(numpy.array([1e300])).others == ("1e+300",)
    assert binary_labels(numpy.array([])).others == ()
