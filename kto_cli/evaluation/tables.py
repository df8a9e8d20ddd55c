"""Tables of `kto eval` on the screen: classes, sources, calibration, single rows, comparisons."""

from __future__ import annotations

import math
from typing import Any

from kto_cli.common.screen import Screen
from kto_cli.common.tables import LABELS, span
from kto_cli.data.dataset import Row
from kto_cli.data.texts import last_turn

LISTED = 3
"""Rows shown of each kind; metrics.json has more, rows.parquet has all."""
WRONG = "wrong side"
SNIPPET = 40
"""Characters shown of a completion."""


def listed_ids(metrics: dict[str, Any]) -> list[str]:
    """Ids of the rows whose texts `show_details` shows."""
    return [row["id"] for _, row in _listed(metrics)]


def show_details(screen: Screen, metrics: dict[str, Any], texts: dict[str, Row]) -> None:
    """Prints results by class, by source (if there are several), calibration, and rows to look at.

    Args:
        texts: the rows named by `listed_ids`.
    """
    _classes(screen, metrics["by_class"])
    if len(metrics["by_source"]) > 1:
        _sources(screen, metrics["by_source"])
    if "calibration" in metrics:
        _calibration(screen, metrics["calibration"])
    else:
        screen.say("This loss has no reference point: there is no accuracy at z_ref, no calibration, no saturation.")
    rows = [
        [
            _begins(texts[row["id"]]),
            f"{'desirable' if row['label'] else 'undesirable'}, {kind}",
            f"{row['log_ratio']:+.1f}",
            row["origin"],
        ]
        for kind, row in _listed(metrics)
    ]
    if rows:
        screen.table("Rows to look at", ["completion", "label", "log-ratio", "raw row"], rows)
    if any(kind == WRONG for kind, _ in _listed(metrics)):
        screen.say(_advice(metrics["by_class"]))


def _advice(classes: dict[str, dict[str, Any]]) -> str:
    """Advice on saturated rows on the wrong side of z_ref."""
    fallen = [name for name, one in classes.items() if one["rows"] and one.get("accuracy", 1.0) < 0.5]
    if fallen:
        return (
            f"Most {' and '.join(fallen)} rows are on the wrong side of z_ref, so outliers point to a training problem "
            "rather than to wrong labels."
        )
    return "Saturated on the wrong side: the model is sure of the other class. Check these labels first."


def _listed(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(kind, row): likely mislabelled rows first, no row twice."""
    found = [(WRONG, row) for row in metrics["likely_mislabelled"][: 2 * LISTED]]
    for moved in metrics["biggest_movers"].values():
        for direction, rows in moved.items():
            found += [(f"moved {direction}", row) for row in rows[:LISTED]]
    first = {row["id"]: index for index, (_, row) in reversed(list(enumerate(found)))}
    return [found[index] for index in sorted(first.values())]


def _begins(row: Row) -> str:
    """The beginning of a completion in one line."""
    words = " ".join(last_turn(row.completion).split())
    return words if len(words) <= SNIPPET else words[: SNIPPET - 3] + "..."


def _classes(screen: Screen, found: dict[str, dict[str, Any]]) -> None:
    shares = {"accuracy": "accuracy", "saturated_right": "saturated & correct", "saturated_wrong": "saturated & wrong"}
    known = [name for name in shares if all(name in one for one in found.values())]
    saturated = ", with 90 % intervals (saturated rows have almost no gradient)" if known else ""
    screen.table(
        f"By class{saturated}",
        ["", "rows", "tokens", "reward", *(shares[name] for name in known)],
        [
            [
                name,
                one["rows"],
                _plain(one["completion_tokens"], ".0f"),
                _plain(one["reward"], "+.3f"),
                *(_share(one, name) for name in known),
            ]
            for name, one in found.items()
        ],
    )


def _sources(screen: Screen, found: dict[str, dict[str, Any]]) -> None:
    screen.table(
        "By source, with 90 % intervals",
        ["", "rows", "desirable", "margin", "AUC", "accuracy"],
        [
            [
                name,
                one["rows"],
                one["desirable"],
                _estimate(one, "margin", "+.3f"),
                _estimate(one, "auc", ".3f"),
                _share(one, "accuracy") if "accuracy" in one else "-",
            ]
            for name, one in found.items()
        ],
    )


def _calibration(screen: Screen, found: dict[str, Any]) -> None:
    screen.table(
        "Calibration of predicted P(desirable) = sigmoid(reward - beta z_ref)",
        ["predicted range", "rows", "mean predicted", "actually desirable", "90 % interval"],
        [
            [
                f"{one['low']:.3f} to {one['high']:.3f}",
                one["rows"],
                f"{one['predicted']:.3f}",
                f"{one['desirable']:.3f}",
                span(one["desirable_wilson"]),
            ]
            for one in found["bins"]
        ],
    )
    screen.say(
        f"ECE {found['ece']:.3f} (a calibrated model would stay below {found['ece_by_chance']:.3f} at this size); "
        f"Brier score {found['brier']:.3f} (constant {found['desirable_share']:.0%}: {found['brier_of_share']:.3f})."
    )


def _estimate(one: dict[str, Any], name: str, form: str) -> str:
    """A number and its interval; a dash where a source lacks a class."""
    return "-" if math.isnan(one[name]) else f"{one[name]:{form}} ({span(one[f'{name}_interval'])})"


def _plain(value: float, form: str) -> str:
    """A number; a dash where a class has no rows."""
    return "-" if math.isnan(value) else format(value, form)


def _share(one: dict[str, Any], name: str) -> str:
    low, high = one[f"{name}_wilson"]
    return "-" if not one["rows"] else f"{one[name]:.0%} ({low:.0%} to {high:.0%})"


def comparison_table(screen: Screen, first: str, second: str, rows: int, found: dict[str, dict[str, Any]]) -> None:
    """Prints two checkpoints side by side; the last column is whether the second is better."""

    def interval(one: dict[str, Any]) -> str:
        return "-" if any(map(math.isnan, one["interval"])) else "{:+.4f} to {:+.4f}".format(*one["interval"])

    words = {"second": "yes", "first": "NO, worse", "differs": "differs", "unclear": "not shown"}
    screen.table(
        f"Is {second} better than {first}? The same {rows:,} validation rows, paired 90 % intervals",
        ["", first, second, "difference", "90 % interval", "better?"],
        [
            [
                LABELS.get(name, name.replace("_", " ")),
                _plain(one["first"], ".4f"),
                _plain(one["second"], ".4f"),
                _plain(one["difference"], "+.4f"),
                interval(one),
                words[one["verdict"]],
            ]
            for name, one in found.items()
        ],
    )
