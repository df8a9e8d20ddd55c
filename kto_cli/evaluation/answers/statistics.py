"""What the answers of models look like: how long, whether they end, whether they repeat themselves, how varied.

The paper's Figure 5 shows the failure to look for: a model aligned without supervised fine-tuning first rambles. Its
answers are long and do not end (DPO); KTO's do. Bootstrap intervals draw prompts, and all models are compared on the
same prompts, so what makes a prompt call for a long answer cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.statistics.intervals import RESAMPLES, percentiles, resample_weights, wilson
from kto_cli.evaluation.answers.records import Answer, Decoding

WORDS = 4
"""Of a stretch that counts as repeated."""
DISTINCT = (1, 2, 3)
LONGER, CUT, REPEATED = 1.5, 0.1, 0.1
"""Beside the reference: answers this many times as long, cut this much more often, with this much more repetition are
worth a sentence."""
Values = dict[str, Tensor]


def repetition(text: str) -> float:
    """The share of the answer's stretches of four words that stood in it before, in [0, 1]; NaN under four words.

    One of "a b c d a b c d": abcd bcda cdab dabc abcd, so 1 / 5.
    """
    words = text.split()
    stretches = [tuple(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1)]
    return 1 - len(set(stretches)) / len(stretches) if stretches else math.nan


def distinct(texts: Sequence[str], length: int, words: int) -> float:
    """Different n-grams over all n-grams (distinct-n, Li et al. 2016) of the first `words` words of the pooled texts.

    A longer pool repeats more, whoever wrote it, so pools are cut to one number of words before they are compared. The
    answers take turns word by word: of each as much is in the pool, as far as it goes.

    Args:
        length: n.
        words: to keep of the whole pool.

    Returns:
        In (0, 1]; NaN without an n-gram.
    """
    grams = [
        tuple(text[place : place + length])
        for text in _shortened([text.split() for text in texts], words)
        for place in range(len(text) - length + 1)
    ]
    return len(set(grams)) / len(grams) if grams else math.nan


def _shortened(texts: Sequence[list[str]], words: int) -> list[list[str]]:
    """The texts cut to the longest common limit at which they hold `words` words at most together."""
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
    """All that generations.json says in numbers.

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
    """Per prompt, [prompts] float64."""
    columns = {
        "tokens": [answer.tokens for answer in answers],
        "ended": [answer.ended for answer in answers],
        "repetition": [repetition(answer.text) for answer in answers],
    }
    return {name: torch.tensor(column, dtype=torch.float64) for name, column in columns.items()}


def _summary(answers: Sequence[Answer], values: Values, words: int, seed: int) -> dict[str, Any]:
    """Of one model: answers, tokens_mean, tokens_mean_interval, tokens_median, longest (tokens), ended (share),
    ended_wilson, empty (answers), repetition, repetition_interval, repetition_answers (of four words or more),
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
    """Every other model minus `base`, paired by prompt; prompts where one side has no value are left out."""
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
    """The bootstrap 90 % interval of the mean of [prompts] values, those that are no numbers left out."""
    known = values[values.isfinite()]
    if not len(known):
        return [math.nan, math.nan]
    clusters = torch.arange(len(known))
    drawn = [times @ known / times.sum(-1) for times in resample_weights(clusters, len(known), RESAMPLES, seed)]
    return percentiles(torch.cat(drawn))


def ramble(policy: Mapping[str, Any], reference: Mapping[str, Any], limit: int, *, ended: Sequence[float]) -> str:
    """In words, whether the policy rambles beside the reference (the paper's Figure 5).

    It does if its answers are both longer (1.5 times the reference's or more) and more often cut, or much more often
    cut alone, and that more are cut is shown; more repetition is said beside.

    Args:
        ended: the interval of the difference in the share that ended by themselves, paired by prompt.
    """
    ours, theirs = policy["tokens_mean"], reference["tokens_mean"]
    times = ours / theirs if theirs else math.inf if ours else 1.0
    cut = 1 - policy["ended"]
    more_cut = reference["ended"] - policy["ended"]
    parts = [_length(times), _endings(cut, limit)]
    said = f"Answers are {parts[0]} and {parts[1]}"
    more_repeated = policy["repetition"] - reference["repetition"]
    if more_repeated > REPEATED:  # NaN is not
        said += f"; {policy['repetition']:.0%} of their stretches of {WORDS} words are repeated".replace("%", " %")
    if more_cut > CUT and (times >= LONGER or more_cut > 2 * CUT):
        if ended[1] < 0:
            return f"{said}: it rambles."
        return f"{said}: too few answers to tell whether it rambles. Raise --samples."
    if cut > 0.5:
        return f"{said}, as the reference's often do: raise --max-new-tokens to tell whether it rambles."
    return f"{said}: it does not ramble."


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
    return f"{share} did not end by themselves in {limit} tokens"
