"""Verdict on a run in words, with warnings read off its training curves: numbers in, sentences out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

COLLAPSED_PER_TOKEN = -0.5
"""Mean log-ratio of desirable completions, in nats per token, below which the policy has collapsed. At -0.5 its
perplexity on answers that people liked is 65 % above the reference's: it is forgetting how to answer."""
LEAST_MARGIN = 0.02
"""Smallest margin of a run that learned (0.2 nats at beta 0.1), however certain its sign."""
FEW_ROWS = 200
"""Validation rows below which an unclear verdict names their number: at 200 the interval of an AUC is +-0.07 wide,
1.645 / sqrt(3 rows) with classes of one size."""


class Verdict(NamedTuple):
    """The result of a run: one word, one sentence, and warnings."""

    word: str
    """learned, length, unclear, collapsed or unknown."""
    sentence: str
    warnings: list[str]


def run_verdict(validation: dict[str, Any] | None, steps: Sequence[dict[str, Any]]) -> Verdict:
    """The verdict on a run from its validation metrics (`validation_metrics`) and its lines of metrics.jsonl."""
    warnings = curve_warnings(steps, validation)
    if not validation:
        return Verdict("unknown", "Unknown: there are no validation rows to measure what was learned.", warnings)
    word, sentence = _word(validation)
    return Verdict(word, sentence, warnings)


def _word(validation: dict[str, Any]) -> tuple[str, str]:
    low, high = validation["auc_interval"]
    numbers = (
        f"Validation AUC {validation['auc']:.3f} [{low:.3f}, {high:.3f}], margin {validation['margin']:+.3f}, "
        f"z_ref {validation['z_ref']:.2f} +- {validation['z_ref_se']:.2f} nats."
    )
    desirable_log_ratio = validation["log_ratio_per_token_desirable"]
    if desirable_log_ratio < COLLAPSED_PER_TOKEN:
        return "collapsed", (
            f"Collapsed: desirable completions lost {-desirable_log_ratio:.2f} nats per token against the reference; "
            f"the model is damaged whatever its AUC. Train again with a learning rate 3 to 10 times lower. {numbers}"
        )
    if math.isnan(low) or low <= 0.5:
        rows = validation.get("rows") or FEW_ROWS
        few = f" Only {rows} validation rows: more of them narrow the interval." if rows < FEW_ROWS else ""
        return "unclear", f"Unclear: the validation AUC is not reliably above 0.5 (chance).{few} {numbers}"
    if validation["margin"] < LEAST_MARGIN:
        return "unclear", (
            "Unclear: desirable rows get higher rewards, but by very little. "
            f"Train longer, or with a higher learning rate. {numbers}"
        )
    similar, similar_low = validation["auc_length_matched"], validation["auc_length_matched_interval"][0]
    if not similar_low > 0.5 or validation["auc"] <= validation["auc_length"]:
        return "length", (
            f"May have learned only to prefer a length: the AUC of length alone is {validation['auc_length']:.3f}, and "
            f"between answers of similar length the AUC is {similar:.3f} (from {similar_low:.3f}). {numbers}"
        )
    return "learned", (
        "Learned: validation rewards separate desirable from undesirable answers, beyond their length (AUC of length "
        f"alone {validation['auc_length']:.3f}, between answers of similar length {similar:.3f}). {numbers}"
    )


def curve_warnings(steps: Sequence[dict[str, Any]], validation: dict[str, Any] | None = None) -> list[str]:
    """Warnings from the training curves; each sentence names the numbers and what to try.

    Rewards are taken from the validation rows where there are any: one step has too few rows to tell a fall from noise.
    """
    if len(steps) < 4:
        return []
    fifth = max(3, len(steps) // 5)
    last = list(steps[-fifth:])
    warnings = []
    rewards = [validation] if validation else last
    desirable, undesirable = _mean(rewards, "reward_desirable"), _mean(rewards, "reward_undesirable")
    if desirable < -0.1 and undesirable < -0.1:
        warnings.append(
            f"The rewards of both classes fell (desirable {desirable:+.2f}, undesirable {undesirable:+.2f}): "
            "the learning rate is probably too high."
        )
    clamped = sum(step["z_ref"] == 0 for step in steps[1:]) / (len(steps) - 1)  # step 1 is always at 0
    if clamped > 0.9 and len(steps) >= 10:
        now = "" if math.isnan(desirable) else f" (now {desirable:+.2f})"
        warnings.append(
            f"z_ref (the KL estimate) was clamped to 0 in {clamped:.0%} of the steps. This is common, and harmless "
            f"while the desirable reward stays near or above 0{now}; if both rewards fall, lower "
            "--learning-rate or raise --lambda-d."
        )
    saturated = _mean(last, "saturated")
    if saturated > 0.5:
        warnings.append(
            f"{saturated:.0%} of the rows are saturated (their gradient is under 1 % of its maximum): "
            "lower --learning-rate or --beta."
        )
    first, end = _mean(list(steps[:fifth]), "loss"), _mean(last, "loss")
    if abs(end - first) < 0.002 * abs(first) and abs(_mean(last, "margin")) < 0.01:
        warnings.append("The loss has hardly moved: try a learning rate 3 to 10 times higher, or more steps.")
    if end > 1.1 * first:
        warnings.append(f"The loss rose from {first:.3f} to {end:.3f}: try a lower learning rate.")
    return warnings


def _mean(steps: Sequence[dict[str, Any]], name: str) -> float:
    values = [step[name] for step in steps if step.get(name) is not None and not math.isnan(step[name])]
    return sum(values) / len(values) if values else math.nan
