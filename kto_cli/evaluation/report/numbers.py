"""Numbers as tables: all sections of metrics.json, each number with its interval and key."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from kto_cli.common.screen import number
from kto_cli.common.tables import LABELS

MOST_ROWS = 20
"""Rows shown of a list; the file has all."""
FEW = 4
"""Groups that are shown as columns; more become rows."""
MEANINGS = {
    "loss": "the KTO loss over validation rows, weighted as in training; lower is better",
    "z_ref": "mean log-ratio of completions of other prompts, in nats, clamped at 0: the loss measures rewards from it",
    "z_ref_se": "standard error of z_ref and of the mean below; rows of one prompt count as one",
    "reward_desirable": "beta x (log-prob by the model - log-prob by the reference), mean over desirable answers",
    "reward_undesirable": "the same over undesirable answers",
    "margin": "desirable reward minus undesirable reward; above 0 is the right direction",
    "margin_nats": "desirable log-ratio minus undesirable one, without the tenth of the rows at either end of a class",
    "margin_equal_length": "what is left of the margin between answers of equal length",
    "auc_p": "how often labels given out by chance, prompt by prompt, have such an AUC",
    "auc_least_p": "the least that p can be with so few rows",
    "moved_nats": "how far the log-prob of a typical row moved, up or down",
    "lost_rows": "desirable answers that lost more than half a nat a token",
    "accuracy": "share of rows on the right side of z_ref: desirable above it, undesirable below",
    "auc": "chance that a desirable answer is rewarded above an undesirable one; 0.5 is guessing",
    "auc_length": "the same chance if answers were ranked by their length alone",
    "auc_length_matched": "the same chance among answers whose lengths differ by at most a fifth",
    "paired_accuracy": "share of pairs with one prompt in which the desirable answer is rewarded more",
    "log_ratio_per_token_desirable": "nats a token gained on the reference, without outliers; far below 0, it forgets",
    "log_ratio_per_token_undesirable": "the same for undesirable answers",
    "auc_length_direction": "which answers people liked, going by length",
    "kl": "z_ref before the clamp at 0; may be negative, so it is no KL divergence but an estimate of one",
    "auc_length_adjusted": "the same chance between answers of the same length, by taking out what length explains",
    "mean_predicted": "the chance of being desirable that rewards imply, sigmoid(reward - beta x z_ref), on average",
    "desirable_share": "how often rows are desirable",
    "ece": "expected calibration error: mean distance between the chance implied and the share observed",
    "ece_by_chance": "what a perfectly calibrated model stays below in 95 % of draws of so few rows",
    "brier": "mean squared distance between the chance implied and the label; lower is better",
    "brier_of_share": "what always saying the share of desirable rows would give",
    "prompts": "different prompts among the validation rows; intervals are drawn over these",
}
NAMES = {
    **LABELS,
    "z_ref_se": "z_ref, standard error",
    "auc_length_direction": "liked by length",
    "auc_p": "AUC, p",
    "auc_least_p": "least p that the rows allow",
    "moved_nats": "moved (nats)",
    "kl_trimmed": "log-ratio on mismatched completions (nats, without outliers)",
    "log_ratio_desirable": "log-ratio, desirable (nats, without outliers)",
    "log_ratio_undesirable": "log-ratio, undesirable (nats, without outliers)",
    "lost_rows": "desirable rows that lost much",
    "not_finite": "rows without a finite log-prob",
    "completion_tokens": "tokens of a completion",
    "ece": "ECE",
    "ece_by_chance": "ECE by chance",
    "brier": "Brier score",
    "brier_of_share": "Brier score of the share",
    "resamples": "bootstrap resamples",
}
"""Labels of numbers; others are labelled by their key."""
HIDDEN = ("kl_se", "saturated_right", "saturated_wrong")
"""Numbers shown elsewhere: as z_ref_se, and in the section on saturation."""
ENDINGS = {"_interval": "", "_wilson": "Wilson "}
"""Suffixes of interval keys (NAME_interval), with the label of their kind."""


@dataclass(frozen=True)
class Entry:
    """One number."""

    name: str
    value: str
    interval: str
    key: str
    """Its key in the file: metrics.auc"""
    meaning: str = ""


@dataclass(frozen=True)
class Grid:
    """A table."""

    columns: list[str]
    rows: list[list[str]]
    source: str
    """Its file and keys."""
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """[columns] whether all cells are numbers or empty, and right-aligned."""
        return [
            bool(self.rows) and all(re.match(r"[-+]?\d|-$|$", row[index]) for row in self.rows) and index > 0
            for index in range(len(self.columns))
        ]


@dataclass(frozen=True)
class Section:
    """A titled group of numbers and tables."""

    title: str
    key: str
    entries: list[Entry] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    folded: bool = False
    """Whether it is folded."""


def shown(value: Any) -> str:
    """A value as text."""
    if isinstance(value, (list, tuple)):
        texts = [shown(item) for item in value]
        return (", ".join(texts) or "none") if len(texts) <= FEW * 2 else f"{len(texts)} values"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items())
    return number(value)


def is_interval(value: Any) -> bool:
    """Two numbers."""
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
    )


def is_known_interval(value: Any) -> TypeGuard[Sequence[float]]:
    """Two finite numbers."""
    return is_interval(value) and all(math.isfinite(item) for item in value)


def interval_text(value: Any) -> str:
    """0.61 to 0.72; empty for what is no interval or has no numbers."""
    if not is_known_interval(value):
        return ""
    return f"{number(float(value[0]))} to {number(float(value[1]))}"


def titled(name: str) -> str:
    """per_source -> Per source"""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def sections(value: dict[str, Any], key: str, title: str, *, top: bool = True) -> list[Section]:
    """A section for the numbers of `value`, known ones first, then one for each object in it.

    `top`: whether titles of inner sections omit this title.
    """
    known = [name for name in value if name not in HIDDEN]
    names = [*(name for name in LABELS if name in known), *(name for name in known if name not in LABELS)]
    entries = [one for name in names for one in _entries(value, name, key)]
    found = [Section(title, key, entries)] if entries else []
    for name in names:
        inner, path = value[name], f"{key}.{name}" if key else name
        called = titled(name) if top else f"{title}, {titled(name).lower()}"
        if isinstance(inner, dict) and inner:
            found += _within(inner, path, called)
        elif isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
            grid = _listed(inner, path)
            found.append(Section(called, path, grids=[grid], folded=len(grid.columns) > FEW))
    return found


def _within(inner: dict[str, Any], path: str, title: str) -> list[Section]:
    """Groups of flat objects become one table, others sections."""
    if not all(isinstance(item, dict) and item and _is_flat(item) for item in inner.values()):
        return sections(inner, path, title, top=False)
    return [Section(title, path, grids=[_grouped(inner, path)])]


def _is_flat(value: dict[str, Any]) -> bool:
    return not any(_is_nested(item) for item in value.values())


def _is_nested(item: Any) -> bool:
    """A section, or a list with sections in it."""
    return isinstance(item, dict) or (isinstance(item, list) and any(isinstance(one, dict) for one in item))


def _entries(value: dict[str, Any], name: str, key: str) -> list[Entry]:
    item = value[name]
    base = next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), None)
    if _is_nested(item) or (base in value and is_interval(item)):
        return []
    interval = _intervals(value, name)
    label = NAMES.get(name, name.replace("_", " "))
    return [Entry(label, shown(item), interval, f"{key}.{name}" if key else name, MEANINGS.get(name, ""))]


def _intervals(value: dict[str, Any], name: str) -> str:
    """The interval of a number: that over prompts, else one of another kind by its name."""
    found = (ENDINGS[ending] + text for ending in ENDINGS if (text := interval_text(value.get(name + ending))))
    return next(found, "")


def cell(value: dict[str, Any], name: str) -> str:
    """A number and, in brackets, its interval."""
    if name not in value:
        return "-"
    interval = _intervals(value, name)
    return shown(value[name]) + (f" ({interval})" if interval else "")


def _columns(values: Sequence[dict[str, Any]]) -> list[str]:
    """Keys in any of them, in order of appearance, without intervals."""
    names = list(dict.fromkeys(name for value in values for name in value))
    bases = {name + end for name in names for end in ENDINGS}
    return [name for name in names if name not in bases and name not in HIDDEN]


def _grouped(groups: dict[str, dict[str, Any]], path: str) -> Grid:
    """Few groups as columns, many as rows."""
    names = _columns(list(groups.values()))
    if len(groups) <= FEW < len(names):
        rows = [
            [NAMES.get(name, name.replace("_", " ")), *(cell(one, name) for one in groups.values())] for name in names
        ]
        return Grid(["", *groups], rows, path, note=_left(len(rows), len(rows)))
    every = [[group, *(cell(one, name) for name in names)] for group, one in groups.items()]
    columns = ["", *(NAMES.get(name, name.replace("_", " ")) for name in names)]
    return Grid(columns, every[:MOST_ROWS], path, note=_left(len(every), MOST_ROWS))


def _listed(values: list[dict[str, Any]], path: str) -> Grid:
    names = _columns(values)
    rows = [[cell(one, name) for name in names] for one in values[:MOST_ROWS]]
    return Grid([name.replace("_", " ") for name in names], rows, path, note=_left(len(values), MOST_ROWS))


def _left(count: int, most: int) -> str:
    return f"The first {most} of {count:,}; the file has all." if count > most else ""
