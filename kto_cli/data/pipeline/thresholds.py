"""Labels from scores, in the three ways of the KTO paper (arXiv 2402.01306v1, section 4.1, "Data").

The paper: desirable is what scores above a fixed threshold; or above the mean or median, of all scores or of the
prompt's; or let desirability be a Bernoulli variable whose probability is a function of the score, such as the
logistic, and draw it.

Where the paper leaves a question open: a score that IS the fixed threshold is desirable (`--cut 4` reads as "4 stars
and above"), and one that is the mean or median is undecided, so that a prompt whose scores are all equal, or that has
only one, teaches nothing. No result depends on the order of the rows.
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
"""What counts as equal, as a share of the largest score: 0.2 is the mean of 0.1, 0.2 and 0.3, though not in floats."""
FEW = 4
"""How many values a sentence names."""


class Cut(NamedTuple):
    """What scores become."""

    labels: Labels
    """[rows] 1 desirable, 0 undesirable, NO_LABEL undecided."""
    what: str
    """What was done, in words."""
    values: dict[str, float]
    """The numbers behind it, for the manifest."""


class Binary(NamedTuple):
    """What the numbers of a label column are."""

    labels: Labels
    """[rows] the numbers themselves, or NO_LABEL for all where there are others."""
    others: tuple[str, ...]
    """The first few distinct numbers that are neither 1 nor 0, as texts; none: they are labels."""


def binary_labels(scores: Scores) -> Binary:
    """The numbers of one label column as labels, if all are 1 or 0; among other numbers a 1 may be the worst mark.

    Args:
        scores: [rows], finite.
    """
    odd = scores[(scores != 0) & (scores != 1)]
    if not len(odd):
        return Binary(scores.astype(numpy.int8), ())
    values, firsts = numpy.unique(odd, return_index=True)
    few = values[numpy.argsort(firsts)[:FEW]].tolist()
    texts = tuple(str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value) for value in few)
    return Binary(numpy.full(len(scores), NO_LABEL, dtype=numpy.int8), texts)


def labels_from_scores(
    scores: Scores,
    prompts: I8,
    *,
    cut: str,
    margin: float = 0.0,
    seed: int = 0,
    keys: U8,
    logistic_mid: float | None = None,
    logistic_scale: float | None = None,
) -> Cut:
    """Labels of scores; see the module for the rules.

    Args:
        scores: [rows], finite. Scores of one scale: call it once for each source.
        prompts: [rows] a number for each distinct prompt.
        cut: a number, `mean`, `median`, `prompt-mean`, `prompt-median` or `bernoulli`.
        margin: scores nearer than this to the cut (with bernoulli, to the score of probability 1/2) are undecided.
        seed: of the Bernoulli draws.
        keys: [rows, 2] of prompt and completion alone, so that copies of an answer are drawn alike.
        logistic_mid: the score of probability 1/2; default: the mean.
        logistic_scale: score units from log-odds 0 to 1; default: the standard deviation.
    """
    if not len(scores):
        return Cut(numpy.zeros(0, dtype=numpy.int8), "There are no scores to cut.", {})
    if cut == "bernoulli":
        return bernoulli(scores, margin, seed, keys, logistic_mid, logistic_scale)
    if cut in ("prompt-mean", "prompt-median"):
        name = cut.removeprefix("prompt-")
        at, rounding = by_prompt(scores, prompts, group_means if name == "mean" else group_medians)
        return derived(scores, at, rounding, margin, f"the {name} of their prompt", {}, " (a prompt's only score is)")
    if cut in ("mean", "median"):
        value = mean_of(scores) if cut == "mean" else median_of(scores)
        largest = float(numpy.abs(scores).max())
        return derived(
            scores, value, ROUNDING * largest, margin, f"the {cut} of all scores ({value:.6g})", {"cut": value}
        )
    return fixed(scores, float(cut), margin)


def fixed(scores: Scores, cut: float, margin: float) -> Cut:
    """`cut` and above are desirable, below undesirable, nearer than the margin undecided."""
    near = nearer(scores, cut, margin, ROUNDING * numpy.maximum(numpy.abs(scores), abs(cut)))
    labels = numpy.where(near, NO_LABEL, scores >= cut).astype(numpy.int8)
    what = f"Scores of {cut:.6g} and above are desirable, lower ones undesirable"
    return Cut(labels, said(what, near, f"nearer than {margin:g} to it" if margin else ""), {"cut": cut})


def derived(
    scores: Scores,
    cut: Scores | float,
    rounding: Scores | float,
    margin: float,
    name: str,
    values: dict[str, float],
    remark: str = "",
) -> Cut:
    """Above the cut is desirable, below undesirable; at it, or nearer than the margin, undecided."""
    near = distance(scores, cut) <= rounding
    near |= nearer(scores, cut, margin, rounding)
    labels = numpy.where(near, NO_LABEL, scores > cut).astype(numpy.int8)
    what = f"Scores above {name} are desirable, those below undesirable"
    where = f"at it{remark} or nearer than {margin:g}" if margin else f"at it{remark}"
    return Cut(labels, said(what, near, where), values)


def bernoulli(scores: Scores, margin: float, seed: int, keys: U8, mid: float | None, scale: float | None) -> Cut:
    """Desirable with probability sigmoid((score - mid) / scale), drawn by the row's key and the seed."""
    defaults = " and ".join(
        text for text, given in (("the mean", mid), ("the standard deviation", scale)) if given is None
    )
    mid = mean_of(scores) if mid is None else mid
    # equal scores have no spread: any scale gives them the same probability
    scale = (deviation_of(scores) or 1.0) if scale is None else scale
    with numpy.errstate(over="ignore"):
        probabilities = 1 / (1 + numpy.exp(-(scores - mid) / scale))
    draws = (priority(keys, seed, "bernoulli") >> numpy.uint64(11)).astype(numpy.float64) * 2.0**-53
    near = nearer(scores, mid, margin, ROUNDING * numpy.maximum(numpy.abs(scores), abs(mid)))
    labels = numpy.where(near, NO_LABEL, draws < probabilities).astype(numpy.int8)
    what = f"Scores are desirable with probability sigmoid((score - {mid:.6g}) / {scale:.6g}), seed {seed}"
    what += f" ({defaults} of all scores)" if defaults else ""
    return Cut(labels, said(what, near, f"nearer than {margin:g} to {mid:.6g}"), {"mid": mid, "scale": scale})


def distance(scores: Scores, cut: Scores | float) -> Scores:
    """|score - cut|, infinite where that is too large a number."""
    with numpy.errstate(over="ignore"):
        return numpy.abs(scores - cut)


def nearer(scores: Scores, cut: Scores | float, margin: float, rounding: Scores | float) -> Flags:
    """Whether a score is nearer to the cut than the margin: 0.3 is not nearer than 0.1 to 0.2, but in floats it is."""
    return distance(scores, cut) < margin - rounding


def said(what: str, near: Flags, where: str) -> str:
    """The sentence for the screen: what was done, and how many scores stay without a label."""
    dropped = int(near.sum())
    return f"{what}; {dropped:,} of {len(near):,} dropped: {where}." if dropped else f"{what}."


def halves(scores: Scores) -> tuple[Scores, int]:
    """Scores over a power of two that brings all into [-1, 1], and its exponent: sums of them cannot overflow."""
    exponent = int(numpy.frexp(numpy.abs(scores).max())[1])
    return numpy.ldexp(scores, -exponent), exponent


def mean_of(scores: Scores) -> float:
    """The mean, the same in any order: the sum is correctly rounded."""
    scaled, exponent = halves(scores)
    return math.ldexp(center(scaled), exponent)


def center(scaled: Scores) -> float:
    """The mean, kept between the smallest and the largest: rounding may lift it by a bit."""
    return float(numpy.clip(math.fsum(scaled) / len(scaled), scaled.min(), scaled.max()))


def deviation_of(scores: Scores) -> float:
    """The standard deviation (of the whole, not of a sample), the same in any order."""
    scaled, exponent = halves(scores)
    deviation = math.sqrt(math.fsum((scaled - center(scaled)) ** 2) / len(scores))
    return math.ldexp(min(deviation, float(numpy.abs(scaled).max())), exponent)


def median_of(scores: Scores) -> float:
    """The middle score, or the middle of the two middle ones."""
    places = [(len(scores) - 1) // 2, len(scores) // 2]
    low, high = numpy.partition(scores, places)[places]
    return float(between(low, high))


def between(low: Scores, high: Scores) -> Scores:
    """The middle of two numbers; halved first, as their sum may be too large."""
    return numpy.where(low == high, low, low / 2 + high / 2)


Middle = Callable[[Scores, I8, I8], Scores]


def by_prompt(scores: Scores, prompts: I8, middle: Middle) -> tuple[Scores, Scores]:
    """The mean or median of the scores of each row's prompt, and what counts as equal to it (each [rows])."""
    order = numpy.lexsort((scores, prompts))
    in_order = prompts[order]
    starts = numpy.flatnonzero(numpy.concatenate(([True], in_order[1:] != in_order[:-1])))
    counts = numpy.diff(numpy.append(starts, len(order)))
    values = scores[order]
    largest = numpy.maximum(numpy.abs(values[starts]), numpy.abs(values[starts + counts - 1]))
    at, rounding = numpy.empty_like(scores), numpy.empty_like(scores)
    at[order] = numpy.repeat(middle(values, starts, counts), counts)
    rounding[order] = numpy.repeat(ROUNDING * largest, counts)
    return at, rounding


def group_means(values: Scores, starts: I8, counts: I8) -> Scores:
    """The mean of each run of sorted values ([rows], [groups], [groups] -> [groups]).

    The run's smallest plus the mean of what the others have more: equal values give exactly that value, and halving
    before the sum keeps it within range.
    """
    more = values / 2 - numpy.repeat(values[starts] / 2, counts)
    more /= numpy.repeat(counts, counts)
    with numpy.errstate(over="ignore"):
        means = 2 * (values[starts] / 2 + numpy.add.reduceat(more, starts))
    return numpy.minimum(means, values[starts + counts - 1])


def group_medians(values: Scores, starts: I8, counts: I8) -> Scores:
    """The median of each run of sorted values ([rows], [groups], [groups] -> [groups])."""
    return between(values[starts + (counts - 1) // 2], values[starts + counts // 2])
