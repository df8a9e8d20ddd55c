"""Statistics of answers: length, endings, repetition, variety.

The paper's Figure 5 shows the failure to look for: a model aligned without supervised fine-tuning first rambles, its
answers are long and do not end. Bootstrap intervals resample prompts, and models are compared prompt by prompt, so
that differences between prompts cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.words import plural
from kto_cli.core.statistics.intervals import RESAMPLES, percentiles, resample_weights, wilson
from kto_cli.evaluation.answers.records import Answer, Decoding

WORDS = 4
"""Length of the n-grams that count as repeated."""
DISTINCT = (1, 2, 3)
LONGER, CUT, REPEATED = 1.5, 0.1, 0.1
"""Thresholds against the reference: length ratio, and differences of the shares truncated and repeated."""
Values = dict[str, Tensor]


def repetition(text: str) -> float:
    """Share of the answer's 4-grams that occur earlier in it, in [0, 1]; NaN under four words.

    "a b c d a b c d" has abcd bcda cdab dabc abcd, so 1 / 5.
    """
    words = text.split()
    grams = [tuple(words[index : index + WORDS]) for index in range(len(words) - WORDS + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else math.nan


def distinct(texts: Sequence[str], length: int, words: int) -> float:
    """Different n-grams over all n-grams (distinct-n, Li et al. 2016) of the first `words` words of the pooled texts.

    Longer pools repeat more, so pools are compared at one number of words: all texts are truncated to one length.

    Args:
        length: n. words: size of the pool.

    Returns:
        In (0, 1]; NaN without an n-gram.
    """
    grams = [
        tuple(text[index : index + length])
        for text in _shortened([text.split() for text in texts], words)
        for index in range(len(text) - length + 1)
    ]
    return len(set(grams)) / len(grams) if grams else math.nan


def _shortened(texts: Sequence[list[str]], words: int) -> list[list[str]]:
    """The texts truncated to the largest common length at which they have at most `words` words in total."""
    low, high = 0, max(map(len, texts), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(len(text), middle) for text in texts) <= words:
            low = middle
        else:
            high = middle - 1
    return [text[:low] for text in texts]


def describe(
    answers: Mapping[str, Sequence[Answer]],
    decoding: Decoding,
    engine: str,
    *,
    policy: str = "policy",
    reference: str = "reference",
    target: str = "target",
    seed: int = 0,
) -> dict[str, Any]:
    """The contents of generations.json.

    Args:
        answers: model name -> its answers, to the same prompts in the same order. The SFT target (the desirable
            completions of the data) is one of these "models" where the data has them.
        policy, reference, target: names in `answers`; the last two may be absent.

    Returns:
        decoding, engine, prompts, models {name: see `_summary`}, against_reference and against_target {name:
        {quantity: {difference, interval (90 %)}}}, sentence.
    """
    counts = {len(given) for given in answers.values()}
    if len(counts) != 1 or not counts or 0 in counts:
        raise ValueError(f"answers to different prompts, or none: {sorted(counts)}")
    words = min(sum(len(answer.text.split()) for answer in given) for given in answers.values())
    values = {name: _values(given) for name, given in answers.items()}
    models = {name: _summary(given, values[name], words, seed) for name, given in answers.items()}
    against = _against(values, reference, seed)
    sentence = ""
    if policy in against:
        sentence = ramble(
            models[policy], models[reference], decoding.max_new_tokens, ended=against[policy]["ended"]["interval"]
        )
    return {
        "decoding": asdict(decoding),
        "engine": engine,
        "prompts": counts.pop(),
        "distinct_over_words": words,
        "models": models,
        "against_reference": against,
        "against_target": _against(values, target, seed),
        "sentence": sentence,
    }


def _values(answers: Sequence[Answer]) -> Values:
    """[prompts] float64 of each quantity."""
    columns = {
        "tokens": [answer.tokens for answer in answers],
        "ended": [answer.ended for answer in answers],
        "repetition": [repetition(answer.text) for answer in answers],
    }
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}


def _summary(answers: Sequence[Answer], values: Values, words: int, seed: int) -> dict[str, Any]:
    """Statistics of one model: answers, tokens_mean, tokens_mean_interval, tokens_median, longest (tokens), ended
    (share), ended_wilson, empty (answers), repetition, repetition_interval, repetition_answers (of four words or more),
    distinct_1, distinct_2, distinct_3."""
    ended = sum(answer.ended for answer in answers)
    long_enough = values["repetition"].isfinite()
    return {
        "answers": len(answers),
        "tokens_mean": mean(answer.tokens for answer in answers),
        "tokens_mean_interval": _interval(values["tokens"], seed),
        "tokens_median": median(answer.tokens for answer in answers),
        "longest": max(answer.tokens for answer in answers),
        "ended": ended / len(answers),
        "ended_wilson": wilson(ended, len(answers)),
        "empty": sum(not answer.text for answer in answers),
        "repetition": values["repetition"].nanmean().item(),
        "repetition_interval": _interval(values["repetition"], seed),
        "repetition_answers": int(long_enough.sum()),
        **{f"distinct_{length}": distinct([answer.text for answer in answers], length, words) for length in DISTINCT},
    }


def _against(values: Mapping[str, Values], base: str, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Every other model minus `base`, paired by prompt; prompts without both values are dropped."""
    if base not in values:
        return {}
    return {
        name: {quantity: _difference(column - values[base][quantity], seed) for quantity, column in columns.items()}
        for name, columns in values.items()
        if name != base
    }


def _difference(differences: Tensor, seed: int) -> dict[str, Any]:
    return {"difference": differences.nanmean().item(), "interval": _interval(differences, seed)}


def _interval(values: Tensor, seed: int) -> list[float]:
    """Bootstrap 90 % interval of the mean of [prompts] values; NaNs are dropped."""
    known = values[values.isfinite()]
    if not len(known):
        return [math.nan, math.nan]
    clusters = torch.arange(len(known))
    drawn = [times @ known / times.sum(-1) for times in resample_weights(clusters, len(known), RESAMPLES, seed)]
    return percentiles(torch.cat(drawn))


def ramble(policy: Mapping[str, Any], reference: Mapping[str, Any], limit: int, *, ended: Sequence[float]) -> str:
    """A sentence on whether the policy rambles, compared with the reference (the paper's Figure 5).

    It does if more of its answers are truncated, by an interval above 0, and they are 1.5 times as long or very many
    more are truncated. More repetition is mentioned.

    Args:
        ended: the interval of the difference in the share that ended by themselves, paired by prompt.
    """
    mean_policy, mean_reference = policy["tokens_mean"], reference["tokens_mean"]
    times = mean_policy / mean_reference if mean_reference else math.inf if mean_policy else 1.0
    cut = 1 - policy["ended"]
    more_cut = reference["ended"] - policy["ended"]
    text = f"Answers are {_length(times)} and {_endings(cut, limit)}"
    more_repeated = policy["repetition"] - reference["repetition"]
    if more_repeated > REPEATED:  # NaN is not
        text += f"; {policy['repetition']:.0%} of their stretches of {WORDS} words are repeated".replace("%", " %")
    if more_cut > CUT and (times >= LONGER or more_cut > 2 * CUT):
        if ended[1] < 0:
            return f"{text}: it rambles."
        return f"{text}: too few answers to tell whether it rambles. Raise --samples."
    if cut > 0.5:
        return f"{text}, as the reference's often do: raise --max-new-tokens to tell whether it rambles."
    return f"{text}: it does not ramble."


def _length(times: float) -> str:
    if times == math.inf:
        return "no longer empty as the reference's are"
    if 0.95 <= times <= 1.05:
        return "as long as the reference's"
    return f"{times:.1f}x as long as the reference's"


def _endings(cut: float, limit: int) -> str:
    if not cut:
        return "all ended by themselves"
    share = f"{100 * cut:.0f} %" if cut >= 0.01 else "under 1 %"
    return f"{share} did not end by themselves in {plural(limit, 'token')}"
