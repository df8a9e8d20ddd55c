"""Labels from scores, in the three ways of the KTO paper (arXiv 2402.01306v1, section 4.1, "Data").

A row is desirable if its score is above a fixed threshold; or above the mean or median, of all scores or of its
prompt's; or it is drawn as desirable from a Bernoulli distribution whose probability is a function of the score, such
as the logistic.

What the paper leaves open: a score equal to the fixed threshold is desirable (`--threshold 4` means "4 stars and
above"); one equal to the mean or median is undecided, so a prompt with only one score, or only equal ones, gives no
labels. No result depends on the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import I8, NO_LABEL, U8, Flags
from kto_cli.data.seeded_order import priority

Scores = NDArray[numpy.float64]
Labels = NDArray[numpy.int8]

ROUNDING = 1e-12
"""Relative tolerance for equal scores: 0.2 is the mean of 0.1, 0.2 and 0.3, but not exactly so in floats."""
FEW = 4
"""Maximum of values that a message lists."""


class LabelledScores(NamedTuple):
    """Labels of scores, with a sentence for the screen."""

    labels: Labels
    """[rows] 1 desirable, 0 undesirable, NO_LABEL undecided."""
    what: str
    """Sentence on how the scores were labelled."""


class BinaryLabels(NamedTuple):
    """Labels from the numbers of a label column, or the numbers that are no labels."""

    labels: Labels
    """[rows] the numbers, or NO_LABEL for all rows if there are others than 1 and 0."""
    others: tuple[str, ...]
    """The first few distinct numbers other than 1 and 0, as texts; empty: the numbers are labels."""


def binary_labels(scores: Scores) -> BinaryLabels:
    """Labels from one label column, if all its numbers are 1 or 0; among other numbers a 1 may be the worst rating.

    Args:
        scores: [rows], finite.
    """
    odd = scores[(scores != 0) & (scores != 1)]
    if not len(odd):
        return BinaryLabels(scores.astype(numpy.int8), ())
    values, firsts = numpy.unique(odd, return_index=True)
    few = values[numpy.argsort(firsts)[:FEW]].tolist()
    texts = tuple(str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value) for value in few)
    return BinaryLabels(numpy.full(len(scores), NO_LABEL, dtype=numpy.int8), texts)


def labels_from_scores(
    scores: Scores,
    prompts: I8,
    *,
    threshold: str,
    margin: float = 0.0,
    seed: int = 0,
    keys: U8,
    logistic_mid: float | None = None,
    logistic_scale: float | None = None,
) -> LabelledScores:
    """Labels scores by the rules above.

    Args:
        scores: [rows], finite, on one scale: call it once per source.
        prompts: [rows] a number for each distinct prompt.
        threshold: a number, `mean`, `median`, `prompt-mean`, `prompt-median` or `bernoulli`.
        margin: scores nearer than this to the threshold (with bernoulli, to `logistic_mid`) are undecided.
        seed: of the Bernoulli draws.
        keys: [rows, 2] hash of prompt and completion alone, so that copies of an answer are drawn alike.
        logistic_mid: the score with probability 1/2; default: the mean.
        logistic_scale: width of the logistic curve, in score units; default: the standard deviation.
    """
    if not len(scores):
        return LabelledScores(numpy.zeros(0, dtype=numpy.int8), "There are no scores.")
    if threshold == "bernoulli":
        return bernoulli(scores, margin, seed, keys, logistic_mid, logistic_scale)
    if threshold in ("prompt-mean", "prompt-median"):
        name = threshold.removeprefix("prompt-")
        values, rounding = by_prompt(scores, prompts, group_means if name == "mean" else group_medians)
        equal = f"equal to the {name}, as is a prompt's only score"
        return relative(scores, values, rounding, margin, f"the {name} of their prompt", equal)
    if threshold in ("mean", "median"):
        value = mean_of(scores) if threshold == "mean" else median_of(scores)
        tolerance = ROUNDING * float(numpy.abs(scores).max())
        name = f"the {threshold} of all scores ({value:.6g})"
        return relative(scores, value, tolerance, margin, name, f"equal to the {threshold}")
    return fixed(scores, float(threshold), margin)


def fixed(scores: Scores, threshold: float, margin: float) -> LabelledScores:
    """Labels by a number: `threshold` and above desirable, below undesirable, nearer than the margin undecided."""
    near = nearer(scores, threshold, margin, ROUNDING * numpy.maximum(numpy.abs(scores), abs(threshold)))
    labels = numpy.where(near, NO_LABEL, scores >= threshold).astype(numpy.int8)
    what = f"Scores of {threshold:.6g} and above are desirable, lower ones undesirable"
    return LabelledScores(labels, sentence(what, near, f"within {margin:g} of {threshold:.6g}"))


def relative(
    scores: Scores, threshold: Scores | float, rounding: Scores | float, margin: float, name: str, equal: str
) -> LabelledScores:
    """Labels by a mean or median: above desirable, below undesirable, equal or nearer than the margin undecided."""
    near = distance(scores, threshold) <= rounding
    near |= nearer(scores, threshold, margin, rounding)
    labels = numpy.where(near, NO_LABEL, scores > threshold).astype(numpy.int8)
    what = f"Scores above {name} are desirable, those below undesirable"
    return LabelledScores(labels, sentence(what, near, f"{equal}, or within {margin:g} of it" if margin else equal))


def bernoulli(
    scores: Scores, margin: float, seed: int, keys: U8, mid: float | None, scale: float | None
) -> LabelledScores:
    """Labels drawn with probability sigmoid((score - mid) / scale) for desirable, by the row's key and the seed."""
    defaults = " and ".join(
        text for text, given in (("the mean", mid), ("the standard deviation", scale)) if given is None
    )
    mid = mean_of(scores) if mid is None else mid
    # equal scores have a deviation of 0; any scale gives them the same probability
    scale = (deviation_of(scores) or 1.0) if scale is None else scale
    with numpy.errstate(over="ignore"):
        probabilities = 1 / (1 + numpy.exp(-(scores - mid) / scale))
    draws = (priority(keys, seed, "bernoulli") >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53
    near = nearer(scores, mid, margin, ROUNDING * numpy.maximum(numpy.abs(scores), abs(mid)))
    labels = numpy.where(near, NO_LABEL, draws < probabilities).astype(numpy.int8)
    what = f"Scores are desirable with probability sigmoid((score - {mid:.6g}) / {scale:.6g}), seed {seed}"
    what += f" ({defaults} of all scores)" if defaults else ""
    return LabelledScores(labels, sentence(what, near, f"within {margin:g} of {mid:.6g}"))


def distance(scores: Scores, threshold: Scores | float) -> Scores:
    """|score - threshold|; infinite on overflow."""
    with numpy.errstate(over="ignore"):
        return numpy.abs(scores - threshold)


def nearer(scores: Scores, threshold: Scores | float, margin: float, rounding: Scores | float) -> Flags:
    """Whether scores are nearer to the threshold than the margin; in floats, 0.3 would be nearer than 0.1 to 0.2."""
    return distance(scores, threshold) < margin - rounding


def sentence(what: str, undecided: Flags, why: str) -> str:
    """Sentence for the screen: how scores were labelled, and the number of undecided ones."""
    count = int(undecided.sum())
    return f"{what}; {count:,} of {len(undecided):,} dropped ({why})." if count else f"{what}."


def scaled_down(scores: Scores) -> tuple[Scores, int]:
    """Scores divided by a power of two, so that all are in [-1, 1] and sums cannot overflow; and the exponent."""
    exponent = int(numpy.frexp(numpy.abs(scores).max())[1])
    return numpy.ldexp(scores, -exponent), exponent


def mean_of(scores: Scores) -> float:
    """Mean, independent of the order: the sum is correctly rounded."""
    scaled, exponent = scaled_down(scores)
    return math.ldexp(center(scaled), exponent)


def center(scaled: Scores) -> float:
    """Mean, clipped to the range of the scores, which rounding may leave by one bit."""
    return float(numpy.clip(math.fsum(scaled) / len(scaled), scaled.min(), scaled.max()))


def deviation_of(scores: Scores) -> float:
    """Population standard deviation, independent of the order."""
    scaled, exponent = scaled_down(scores)
    deviation = math.sqrt(math.fsum((scaled - center(scaled)) ** 2) / len(scores))
    return math.ldexp(min(deviation, float(numpy.abs(scaled).max())), exponent)


def median_of(scores: Scores) -> float:
    """Median."""
    middle = [(len(scores) - 1) // 2, len(scores) // 2]
    low, high = numpy.partition(scores, middle)[middle]
    return float(between(low, high))


def between(low: Scores, high: Scores) -> Scores:
    """Mean of two numbers; halved before the sum, which might overflow."""
    return numpy.where(low == high, low, low / 2 + high / 2)


Middle = Callable[[Scores, I8, I8], Scores]


def by_prompt(scores: Scores, prompts: I8, middle: Middle) -> tuple[Scores, Scores]:
    """Mean or median of the scores of each row's prompt, and the tolerance for equal scores (each [rows])."""
    order = numpy.lexsort((scores, prompts))
    in_order = prompts[order]
    starts = numpy.flatnonzero(numpy.concatenate(([True], in_order[1:] != in_order[:-1])))
    counts = numpy.diff(numpy.append(starts, len(order)))
    values = scores[order]
    largest = numpy.maximum(numpy.abs(values[starts]), numpy.abs(values[starts + counts - 1]))
    middles, rounding = numpy.empty_like(scores), numpy.empty_like(scores)
    middles[order] = numpy.repeat(middle(values, starts, counts), counts)
    rounding[order] = numpy.repeat(ROUNDING * largest, counts)
    return middles, rounding


def group_means(values: Scores, starts: I8, counts: I8) -> Scores:
    """Mean of each run of sorted values ([rows], [groups], [groups] -> [groups]).

    The smallest value plus the mean difference to it: equal values give exactly that value, and halving before the sum
    prevents overflow.
    """
    more = values / 2 - numpy.repeat(values[starts] / 2, counts)
    more /= numpy.repeat(counts, counts)
    with numpy.errstate(over="ignore"):
        means = 2 * (values[starts] / 2 + numpy.add.reduceat(more, starts))
    return numpy.minimum(means, values[starts + counts - 1])


def group_medians(values: Scores, starts: I8, counts: I8) -> Scores:
    """Median of each run of sorted values ([rows], [groups], [groups] -> [groups])."""
    return between(values[starts + (counts - 1) // 2], values[starts + counts // 2])
