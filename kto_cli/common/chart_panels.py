"""Charts of a run's metrics.jsonl, drawn in the report and, during training, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Panel:
    """One chart. A curve is a (name, key in a line of metrics.jsonl)."""

    name: str
    title: str
    short: str
    """Title in the terminal."""
    caption: str
    training: tuple[tuple[str, str], ...] = ()
    """Curves of the training steps."""
    validation: tuple[tuple[str, str], ...] = ()
    """Curves of the validation during training."""
    level: float | None = None
    """Value of a thin horizontal line: 0, or chance."""
    spread: str | None = None
    """Key of the half-width of a band around z_ref_mean."""
    interval: str | None = None
    """Key of the (low, high) interval of the validation curve."""
    share: bool = False
    """Values are shares, shown in percent from 0 up."""


PANELS = (
    Panel(
        "loss",
        "Loss",
        "loss",
        "The loss, which training minimizes. KTO's starts near 0.5 x the mean class weight and falls slowly.",
        (("training", "loss"),),
        (("validation", "loss"),),
    ),
    Panel(
        "z_ref",
        "z_ref: log-ratio of other prompts' answers",
        "z_ref, nats",
        "Mean log-ratio on mismatched completions in nats, clamped at 0: an estimate of the KL. The band is the mean "
        "before the clamp, plus and minus one standard error.",
        (("training", "z_ref"),),
        (("validation", "z_ref"),),
        level=0,
        spread="z_ref_se",
    ),
    Panel(
        "rewards",
        "Rewards by class, in training",
        "rewards",
        "Mean log-ratio times beta: above 0, answers have become more likely. If both classes fall, the learning rate "
        "is too high.",
        (("desirable", "reward_desirable"), ("undesirable", "reward_undesirable")),
        level=0,
    ),
    Panel(
        "validation_rewards",
        "Rewards by class, validation",
        "validation rewards",
        "The same on validation rows, which are not trained on.",
        validation=(("desirable", "reward_desirable"), ("undesirable", "reward_undesirable")),
        level=0,
    ),
    Panel(
        "margin",
        "Margin",
        "margin",
        "Desirable reward minus undesirable reward; it should grow.",
        (("training", "margin"),),
        (("validation", "margin"),),
        level=0,
    ),
    Panel(
        "auc",
        "Validation AUC",
        "validation AUC",
        "Probability that a desirable answer has a higher reward than an undesirable one; 0.5 is chance. The band is "
        "the 90 % interval.",
        validation=(("validation", "auc"),),
        level=0.5,
        interval="auc_interval",
    ),
    Panel(
        "saturated",
        "Saturated rows",
        "saturated",
        "Share of the rows of a step whose gradient is under 1 % of its maximum.",
        (("training", "saturated"),),
        level=0,
        share=True,
    ),
)


def validation_records(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The validation metrics in lines of metrics.jsonl, each with its step."""
    return [{"step": line["step"], **line["validation"]} for line in lines if isinstance(line.get("validation"), dict)]
