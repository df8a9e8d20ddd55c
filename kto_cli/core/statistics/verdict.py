"""Verdict on a run, in words: one function for `kto train`, `kto eval` and the report; numbers in, sentences out.

All thresholds are in nats, so a verdict does not depend on beta.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kto_cli.core.statistics.curves import comparable, curve_warnings, overfitting, row_warnings

BLOWN_UP_NATS, BLOWN_UP_PER_TOKEN = 50.0, 0.1
"""Log-ratio of mismatched completions, or of both classes, above which a policy has blown up, both for a completion and
for each token: e^50 times as likely, whatever was asked. Runs that end well are at a few nats; per token, as 50 nats of
2,000 tokens are a change of manner."""
COLLAPSED_PER_TOKEN = -0.5
"""Log-ratio of desirable completions, in nats per token, below which the policy has collapsed. At -0.5 its
perplexity on answers that people liked is 65 % above the reference's: it is forgetting how to answer."""
DRIFTED_PER_TOKEN = -0.1
"""The same for one that has drifted: a perplexity 11 % above the reference's."""
LEAST_LOSS = -1.0
"""Nats that a desirable completion lost, at least, for either: a single token may lose 0.5 nats and mean nothing."""
BEYOND_INTERVAL = 1.5
"""Times the half-width of its 90 % interval that the loss must be: noise around 0 is as far off once in 150 times."""
LEAST_NATS = 0.4
"""Nats that rows moved, and that the classes lie apart, in a run that has moved: one and a half times as likely."""
SURE = 0.025
"""One-sided p of the AUC of a run that learned: noise is called so in 2.5 % of the cases at most."""
BEYOND_LENGTH = 0.25
"""Share of the margin that is left between answers of equal length in a run that learned."""
FEW_ROWS = 200
"""Validation rows below which an unclear verdict names their number: at 200 the interval of an AUC is +-0.07 wide,
1.645 / sqrt(3 rows) with classes of one size."""
LOWER_RATE = "Train again with a learning rate 3 to 10 times lower."
Numbers = dict[str, Any]
Steps = Sequence[dict[str, Any]]


class Overfit(NamedTuple):
    """A run that went on after its best step, whose model was kept."""

    step: int
    steps: int
    loss: float
    """Of validation rows, at `step`."""
    last_loss: float

    @property
    def sentence(self) -> str:
        """What is said of it."""
        return (
            f"Training overfit after step {self.step} of {self.steps}: the validation loss rose from {self.loss:.4g} "
            f"to {self.last_loss:.4g}, so the model of step {self.step} was kept. Fewer epochs, or --max-steps "
            f"{self.step}, save the rest."
        )


class Verdict(NamedTuple):
    """The result of a run: one word, one sentence, and warnings."""

    word: str
    """unknown, or one of `RULES`."""
    sentence: str
    warnings: list[str]


def run_verdict(validation: Numbers | None, steps: Steps, *, beta: float = 0.1, kept: Overfit | None = None) -> Verdict:
    """The verdict on a run.

    Args:
        validation: metrics of all validation rows (`validation_metrics`).
        steps: lines of metrics.jsonl, if those rows are of the run's own data; else none.
        beta: of the run; it turns the rewards of `steps` into nats.
        kept: the step whose model it is, if that is not the last; `steps` end with it.
    """
    steps = comparable(steps)
    warnings = [*row_warnings(validation), *curve_warnings(steps, validation, beta=beta)]
    if not validation:
        return Verdict("unknown", UNKNOWN, warnings)
    for word, rule in RULES.items():
        reason = rule(validation, steps, beta)
        if reason:
            more = "" if kept is None else f" {kept.sentence}"
            begin = word.capitalize() + (" " if reason.startswith("after step ") else ": ")
            return Verdict(word, f"{begin}{reason} {_numbers(validation)}{more}", warnings)
    raise AssertionError("the last rule always holds")


# --- the rules, each a sentence and advice where it holds -----------------------------------------


def _blown_up(found: Numbers, steps: Steps, beta: float) -> str | None:
    if found["not_finite"]:
        return f"there are log-probs that are no finite numbers (rows: {found['not_finite']}). {LOWER_RATE}"
    enough = max(BLOWN_UP_NATS, BLOWN_UP_PER_TOKEN * found["completion_tokens"])
    if (moved := found["kl_trimmed"]) > enough:
        return (
            f"answers to other prompts became more likely by {moved:.0f} nats each; the model says them whatever is "
            f"asked. {LOWER_RATE}"
        )
    if (both := min(found["log_ratio_desirable"], found["log_ratio_undesirable"])) > enough:
        return (
            f"answers of both classes became more likely by {both:.0f} nats and more, good and bad alike. {LOWER_RATE}"
        )
    return None


def _fell(found: Numbers, per_token: float) -> bool:
    """Whether desirable completions lost so many nats a token, and surely some."""
    value, (_, high) = found["log_ratio_per_token_desirable"], found["log_ratio_per_token_desirable_interval"]
    sure = value + BEYOND_INTERVAL * (high - value) < 0
    return bool(sure and value < per_token and found["log_ratio_desirable"] < LEAST_LOSS)


def _collapsed(found: Numbers, steps: Steps, beta: float) -> str | None:
    if not _fell(found, COLLAPSED_PER_TOKEN):
        return None
    return (
        f"desirable answers lost {-found['log_ratio_per_token_desirable']:.2f} nats a token against the reference; the "
        f"model is damaged whatever its AUC. {LOWER_RATE}"
    )


def _drifted(found: Numbers, steps: Steps, beta: float) -> str | None:
    if not _fell(found, DRIFTED_PER_TOKEN):
        return None
    lost = found["log_ratio_per_token_desirable"]
    return (
        f"desirable answers became less likely too, by {-lost:.2f} nats a token (perplexity x {math.exp(-lost):.2f}), "
        "so the model unlearns what people liked. Train again with a learning rate 2 to 5 times lower, or a "
        "higher --lambda-d."
    )


def _too_few_rows(found: Numbers, steps: Steps, beta: float) -> str | None:
    rows = f"desirable {found['desirable']}, undesirable {found['undesirable']}, prompts {found['prompts']}"
    if not found["desirable"] or not found["undesirable"]:
        return f"an AUC needs validation rows of both classes ({rows}). {MORE_ROWS}"
    if found["auc_least_p"] <= SURE and not math.isnan(found["auc_interval"][0]):
        return None
    return (
        f"chance alone ranks so few validation rows all correctly in {found['auc_least_p']:.1%} of the cases ({rows}), "
        f"so they can show nothing. {MORE_ROWS}"
    )


UNKNOWN = "Unknown: there are no validation rows to measure what was learned. Binarize with --validation 0.1."
MORE_ROWS = "Binarize with a larger --validation: 50 rows of each class tell, 200 tell well."


def _overfit(found: Numbers, steps: Steps, beta: float) -> str | None:
    return overfitting(steps, found, beta=beta, sure=_sure(found))


def _barely_moved(found: Numbers, steps: Steps, beta: float) -> str | None:
    advice = "Train longer, or with a learning rate 3 to 10 times higher."
    if found["moved_nats"] < LEAST_NATS:
        return f"the log-probs of validation rows moved by {found['moved_nats']:.2f} nats, next to nothing. {advice}"
    if _sure(found) and found["margin_nats"] < LEAST_NATS:
        return (
            f"desirable rows gained on undesirable ones, but only by {found['margin_nats']:.2f} nats: next to nothing. "
            f"{advice}"
        )
    return None


def _sure(found: Numbers) -> bool:
    """Whether the AUC is above 0.5 beyond chance; NaN is not."""
    return bool(found["auc_p"] <= SURE)


def _unclear(found: Numbers, steps: Steps, beta: float) -> str | None:
    if _sure(found):
        return None
    if found["auc_interval"][1] < 0.5:
        return (
            "undesirable rows get the higher rewards. Look at some rows: are the labels the wrong way round, or are "
            "the validation prompts of another kind than those trained on?"
        )
    few = f"Only {found['rows']} validation rows: more of them narrow the interval." if found["rows"] < FEW_ROWS else ""
    return f"the validation AUC is not reliably above 0.5 (chance: p above {SURE:g}). " + (
        few or "Train longer, or check the labels of some rows."
    )


def _length(found: Numbers, steps: Steps, beta: float) -> str | None:
    margin, (low, _) = found["margin_equal_length"], found["margin_equal_length_interval"]
    if low > 0 and margin >= BEYOND_LENGTH * found["margin_nats"]:
        return None
    left = "nothing can be told" if math.isnan(margin) else f"{margin:+.2f} nats (from {low:+.2f}) are left"
    return (
        f"it may have learned only which length is liked: between answers of equal length {left} of the margin of "
        f"{found['margin_nats']:+.2f} nats. Collect feedback on answers of equal length, or let a judge decide "
        "(kto eval --judge-model; it controls for length)."
    )


def _learned(found: Numbers, steps: Steps, beta: float) -> str:
    return (
        "validation rewards separate desirable from undesirable answers, beyond their length (between answers of equal "
        f"length by {found['margin_equal_length']:+.2f} nats)."
    )


RULES: dict[str, Callable[[Numbers, Steps, float], str | None]] = {
    "blown up": _blown_up,
    "collapsed": _collapsed,
    "drifted": _drifted,
    "too few rows": _too_few_rows,
    "overfit": _overfit,
    "barely moved": _barely_moved,
    "unclear": _unclear,
    "length": _length,
    "learned": _learned,
}
"""The first that holds decides."""


def _numbers(found: Numbers) -> str:
    """What stands behind every sentence."""
    texts = []
    if not math.isnan(found["auc"]):
        low, high = found["auc_interval"]
        texts.append(f"Validation AUC {found['auc']:.3f} [{low:.3f}, {high:.3f}] (p {found['auc_p']:.2g}), margin")
        texts.append(f"{found['margin_nats']:+.2f} nats,")
    error = "" if math.isnan(found["z_ref_se"]) else f" +- {found['z_ref_se']:.2f}"
    what, name = ("z_ref", "z_ref") if "z_ref" in found else ("mean log-ratio of other prompts' answers", "kl")
    return " ".join([*texts, f"{what} {found[name]:.2f}{error} nats."])
