"""Warnings from validation rows and training curves, and signs of overfitting; each sentence says what to try."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

FEW_VALIDATION_ROWS = 100
"""Validation rows below which it is said that they are few: the interval of an AUC is then wider than +-0.1."""
FELL = -1.0
"""Nats that the log-ratio of a typical row of both classes lost, for a warning."""
LEAST_FALL = 0.05
"""Fall of the validation AUC from its best that is worth a word, however few rows vary."""
OUTSIDE = 1.5
"""How many times the distance of that interval's lower edge it must be: the best of ten looks is high by chance too."""
LEAST_STEPS = 4
"""Steps of which a curve is made."""
LEAST_RISE = 0.1
"""Share of the loss that it rose by, for a warning."""
BEYOND_NOISE = 3.0
"""Standard errors that a rise is above, too: each step has other rows, and a few steps give a rough standard error."""
LEAST_GAP = 2.0
"""Margin of training rows, in nats, that a model which learned them by heart has at least."""


def row_warnings(found: dict[str, Any] | None) -> list[str]:
    """Warnings from metrics of validation rows (`validation_metrics`)."""
    if not found:
        return []
    warnings = [few_rows(found["rows"])] if found["rows"] < FEW_VALIDATION_ROWS else []
    fallen = found["log_ratio_desirable"], found["log_ratio_undesirable"]
    if _fell(*fallen) and found["log_ratio_desirable_interval"][1] < 0:
        warnings.append(both_fell(*fallen, found["log_ratio_per_token_desirable"]))
    lost = found["lost_rows"]
    if lost and lost < found["desirable"] / 4:
        rows = "1 desirable row" if lost == 1 else f"{lost} desirable rows"
        warnings.append(
            f"{rows} of {found['desirable']} lost more than half a nat a token: look at them first (kto eval lists the "
            "rows that moved most)."
        )
    return warnings


def few_rows(count: int, advice: str = "Binarize with a larger --validation, or collect more feedback.") -> str:
    """Warning that the validation rows are few."""
    return (
        f"Only {count} validation {'row' if count == 1 else 'rows'}: below {FEW_VALIDATION_ROWS}, intervals are wide "
        f"and few verdicts are sure. {advice}"
    )


def _fell(desirable: float, undesirable: float) -> bool:
    """Whether both classes did; one without rows, which is NaN, did not."""
    return desirable < FELL and undesirable < FELL


def both_fell(desirable: float, undesirable: float, per_token: float = math.nan) -> str:
    """The warning that both classes became less likely, in nats."""
    a_token = "" if math.isnan(per_token) else f", {per_token:+.2f} a token"
    return (
        f"The rewards of both classes fell (log-ratio of desirable rows {desirable:+.1f} nats{a_token}, of undesirable "
        f"rows {undesirable:+.1f}): the learning rate is probably too high."
    )


def comparable(steps: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Lines of metrics.jsonl of which those that compare with a reference that moved keep their validation alone: their
    losses and rewards begin anew with each reference."""
    kept = ("step", "validation")
    return [{name: line[name] for name in kept if name in line} if "reference_step" in line else line for line in steps]


def curve_warnings(
    steps: Sequence[dict[str, Any]], validation: dict[str, Any] | None = None, *, beta: float = 0.1
) -> list[str]:
    """Warnings from lines of metrics.jsonl; rewards, in nats, are those of validation rows where there are any: one
    step has too few rows to tell a fall from noise."""
    if len(steps) < LEAST_STEPS:
        return []
    fifth = max(3, len(steps) // 5)
    last = list(steps[-fifth:])
    warnings = []
    desirable, undesirable = (_mean(last, f"reward_{name}") / beta for name in ("desirable", "undesirable"))
    if validation:
        desirable = validation["log_ratio_desirable"]
    elif _fell(desirable, undesirable):
        warnings.append(both_fell(desirable, undesirable))
    z_refs = _known(steps[1:], "z_ref")  # step 1 is always at 0
    clamped = sum(value == 0 for value in z_refs) / max(1, len(z_refs))
    if clamped > 0.9 and len(steps) >= 10 and desirable < FELL:
        warnings.append(
            f"z_ref was clamped to 0 in {clamped:.0%} of the steps while desirable rows lost {-desirable:.1f} nats: "
            "lower --learning-rate or raise --lambda-d."
        )
    saturated = _mean(last, "saturated")
    if saturated > 0.5:
        warnings.append(
            f"{saturated:.0%} of the rows are saturated (their gradient is under 1 % of its maximum): "
            "lower --learning-rate or --beta."
        )
    first, end = _mean(list(steps[:fifth]), "loss"), _mean(last, "loss")
    if not validation and abs(end - first) < 0.002 * abs(first) and abs(_mean(last, "margin")) / beta < 0.1:
        warnings.append("The loss has hardly moved: try a learning rate 3 to 10 times higher, or more steps.")
    if end - first > max(LEAST_RISE * abs(first), BEYOND_NOISE * _noise_of_means(steps, fifth)):
        warnings.append(f"The loss rose from {first:.3f} to {end:.3f}: try a lower learning rate.")
    return warnings


def _noise_of_means(steps: Sequence[dict[str, Any]], count: int) -> float:
    """Standard error of the difference of two means over `count` steps each, of a loss that only varies by its batches.

    A step's variance is half the mean squared difference of consecutive steps (von Neumann), which a trend hardly
    moves.
    """
    losses = _known(steps, "loss")
    squares = [(after - before) ** 2 for before, after in itertools.pairwise(losses)]
    return math.sqrt(statistics.fmean(squares) / count) if squares else 0.0


def overfitting(steps: Sequence[dict[str, Any]], found: dict[str, Any], *, beta: float, sure: bool) -> str | None:
    """A sentence if the run learned training rows by heart, else None.

    Args:
        steps: lines of metrics.jsonl. found: metrics of all validation rows. sure: their AUC is above 0.5.
    """
    return _fallen(steps) or _by_heart(steps, found, beta=beta, sure=sure)


def _fallen(steps: Sequence[dict[str, Any]]) -> str | None:
    """The validation AUC fell from its best, on the same rows, by `LEAST_FALL` and well out of its interval."""
    seen = [(step["step"], step["validation"]) for step in steps if isinstance(step.get("validation"), dict)]
    seen = [(step, one) for step, one in seen if _is_number(one.get("auc"))]
    if len(seen) < 2:
        return None
    (best_step, best), (_, last) = max(seen, key=lambda one: one[1]["auc"]), seen[-1]
    reach = best["auc"] - (best.get("auc_interval") or [best["auc"]])[0]
    if not best["auc"] - last["auc"] > max(LEAST_FALL, OUTSIDE * reach):
        return None
    return (
        f"after step {best_step}: the validation AUC fell from {best['auc']:.3f} to {last['auc']:.3f} while training "
        f"went on. Train again with fewer epochs, or --max-steps {best_step}."
    )


def _by_heart(steps: Sequence[dict[str, Any]], found: dict[str, Any], *, beta: float, sure: bool) -> str | None:
    """Training rows are told apart far better than validation rows, whose AUC is chance or whose loss rises."""
    margins = [value / beta for value in _known(steps[-max(3, len(steps) // 5) :], "margin")]
    if len(steps) < 2 * LEAST_STEPS or len(margins) < 3:
        return None
    trained = statistics.fmean(margins)
    error = statistics.stdev(margins) / math.sqrt(len(margins))
    losses = _known([step["validation"] for step in steps if isinstance(step.get("validation"), dict)], "loss")
    rising = len(losses) > 1 and losses[-1] > 1.1 * min(losses)
    apart = trained > max(LEAST_GAP, 3 * error) and found["margin_nats_interval"][1] < trained / 2
    if not apart or (sure and not rising):
        return None
    return (
        f"training rows lie {trained:.1f} nats apart, validation rows {found['margin_nats']:.1f}: the model learned "
        "training rows by heart. Train again with fewer epochs or a lower learning rate, or with more rows."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _known(steps: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [step[name] for step in steps if _is_number(step.get(name))]


def _mean(steps: Sequence[dict[str, Any]], name: str) -> float:
    values = _known(steps, name)
    return sum(values) / len(values) if values else math.nan
