"""What is drawn of a run's metrics.jsonl, in the report and, while it trains, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Panel:
    """A chart: (name, key in a line of metrics.jsonl) of each of its curves."""

    name: str
    title: str
    short: str
    """The title where there is little room."""
    says: str
    training: tuple[tuple[str, str], ...] = ()
    validation: tuple[tuple[str, str], ...] = ()
    level: float | None = None
    """A thin line that means something."""
    spread: str | None = None
    """Key of half the width of a band around z_ref_mean."""
    interval: str | None = None
    """Key of the (low, high) of the validation curve."""
    share: bool = False
    """From 0 up, in percent."""


PANELS = (
    Panel(
        "loss",
        "Loss",
        "loss",
        "What training minimizes; it falls slowly from half the mean row weight.",
        (("training", "loss"),),
        (("validation", "loss"),),
    ),
    Panel(
        "z_ref",
        "z_ref: distance from the reference",
        "z_ref, nats",
        "An estimate of the KL divergence in nats, clamped at 0; the band is the mean before the clamp, "
        "plus and minus one standard error.",
        (("training", "z_ref"),),
        (("validation", "z_ref"),),
        level=0,
        spread="z_ref_se",
    ),
    Panel(
        "rewards",
        "Rewards by class, in training",
        "rewards",
        "How much more likely an answer has become, times beta. Both classes falling: the learning rate is too high.",
        (("desirable", "reward_desirable"), ("undesirable", "reward_undesirable")),
        level=0,
    ),
    Panel(
        "held_rewards",
        "Rewards by class, validation",
        "validation rewards",
        "The same on validation rows, which nothing was learned from.",
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
        "The chance that a desirable answer is rewarded above an undesirable one; 0.5 is guessing. "
        "The band is its 90 % interval.",
        validation=(("validation", "auc"),),
        level=0.5,
        interval="auc_interval",
    ),
    Panel(
        "saturated",
        "Saturated rows",
        "saturated",
        "Share of the rows of a step that no longer teach: gradient weight under 1 % of its maximum.",
        (("training", "saturated"),),
        level=0,
        share=True,
    ),
)


def looks(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The looks at validation rows among the lines of metrics.jsonl, each with its step."""
    return [{"step": line["step"], **line["validation"]} for line in lines if isinstance(line.get("validation"), dict)]
