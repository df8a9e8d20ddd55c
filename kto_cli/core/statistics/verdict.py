"""What a run's numbers mean, in words. Pure: numbers in, sentences out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

COLLAPSED_PER_TOKEN = -0.5
"""Nats per token by which the policy may fall below the reference on desirable completions. At -0.5 its
perplexity on answers people liked has grown by two thirds: it is forgetting how to answer."""


LEAST_MARGIN = 0.02
"""A margin below this (0.2 nats at beta 0.1) is a beginning, however sure its sign."""


class Verdict(NamedTuple):
    """One word, one sentence, and what to look out for."""

    word: str
    """learned, length, unclear, collapsed or unknown."""
    sentence: str
    warnings: list[str]


def judge(validation: dict[str, Any] | None, steps: Sequence[dict[str, Any]]) -> Verdict:
    """The verdict on a run from its validation metrics (`validation_metrics`) and its lines of metrics.jsonl."""
    warnings = curve_warnings(steps, validation)
    if not validation:
        return Verdict("unknown", "No validation rows: nothing says whether it learned.", warnings)
    word, sentence = _word(validation)
    return Verdict(word, sentence, warnings)


def _word(validation: dict[str, Any]) -> tuple[str, str]:
    low, high = validation["auc_interval"]
    area = f"AUC {validation['auc']:.3f} [{low:.3f}, {high:.3f}]"
    facts = (
        f"Validation margin {validation['margin']:+.3f}, {area}, z_ref {validation['z_ref']:.2f} "
        f"+- {validation['z_ref_se']:.2f} nats."
    )
    good = validation["log_ratio_per_token_desirable"]
    if good < COLLAPSED_PER_TOKEN:
        return "collapsed", (
            f"Collapsed: desirable completions lost {-good:.2f} nats per token against the reference. {facts} "
            "Whatever the AUC says, this model is damaged: train again with a learning rate 3 to 10 times lower."
        )
    matched_low = validation["auc_length_matched_interval"][0]
    if math.isnan(low) or low <= 0.5:
        return "unclear", f"Not shown to have learned: 0.5 is inside the interval or above it. {facts}"
    if validation["margin"] < LEAST_MARGIN:
        return "unclear", (
            "Hardly moved: the direction is right and the rewards differ by next to nothing. Train longer, or with a "
            f"higher learning rate. {facts}"
        )
    if not matched_low > 0.5 or validation["auc"] <= validation["auc_length"]:
        return "length", (
            f"May have learned length alone: AUC of length {validation['auc_length']:.3f}, between rows of like length "
            f"{validation['auc_length_matched']:.3f} (from {matched_low:.3f}). {facts}"
        )
    return "learned", (
        f"Learned: rewards tell validation desirable from undesirable, beyond length (AUC of length alone "
        f"{validation['auc_length']:.3f}, between rows of like length {validation['auc_length_matched']:.3f}). {facts}"
    )


def curve_warnings(steps: Sequence[dict[str, Any]], validation: dict[str, Any] | None = None) -> list[str]:
    """What the training curves warn of; each sentence says what was seen and what to try.

    Rewards are judged on validation rows where there are any: a step has too few rows to tell a fall from noise.
    """
    if len(steps) < 4:
        return []
    last = list(steps[-max(3, len(steps) // 5) :])
    warnings = []
    seen = [validation] if validation else last
    up, down = _mean(seen, "reward_desirable"), _mean(seen, "reward_undesirable")
    if up < -0.1 and down < -0.1:
        warnings.append(
            f"The rewards of both classes fell (desirable {up:+.2f}, undesirable {down:+.2f}): "
            "the learning rate is probably too high."
        )
    stuck = sum(step["z_ref"] == 0 for step in steps[1:]) / (len(steps) - 1)
    if stuck > 0.9 and len(steps) >= 10:
        warnings.append(
            f"z_ref was 0 in {stuck:.0%} of the steps: the policy likes other prompts' completions no better than the "
            "reference does. Harmless while desirable rewards hold; with both classes falling, lower --learning-rate "
            "or raise --lambda-d."
        )
    saturated = _mean(last, "saturated")
    if saturated > 0.5:
        warnings.append(
            f"{saturated:.0%} of the rows no longer teach (gradient weight under 1 % of its maximum): "
            "a lower --learning-rate or a lower --beta keeps them in play."
        )
    first, end = _mean(list(steps[: max(3, len(steps) // 5)]), "loss"), _mean(last, "loss")
    if abs(end - first) < 0.002 * abs(first) and abs(_mean(last, "margin")) < 0.01:
        warnings.append("The loss has hardly moved: try a learning rate 3 to 10 times higher, or more steps.")
    if end > 1.1 * first:
        warnings.append(f"The loss rose from {first:.3f} to {end:.3f}: try a lower learning rate.")
    return warnings


def _mean(steps: Sequence[dict[str, Any]], name: str) -> float:
    values = [step[name] for step in steps if step.get(name) is not None and not math.isnan(step[name])]
    return sum(values) / len(values) if values else math.nan
