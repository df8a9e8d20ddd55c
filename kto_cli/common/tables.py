"""Numbers on screen: a line per training step, and the table of validation metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kto_cli.common.screen import Screen, number
from kto_cli.common.words import plural

LABELS = {
    "loss": "loss",
    "z_ref": "z_ref (nats)",
    "kl": "mean log-ratio on mismatched completions (nats)",
    "reward_desirable": "reward, desirable",
    "reward_undesirable": "reward, undesirable",
    "margin": "margin",
    "margin_nats": "margin without outliers (nats)",
    "margin_equal_length": "margin between equal lengths (nats)",
    "log_ratio_per_token_desirable": "log-ratio a token, desirable (nats)",
    "log_ratio_per_token_undesirable": "log-ratio a token, undesirable (nats)",
    "accuracy": "accuracy at z_ref",
    "auc": "AUC",
    "auc_length": "AUC of length alone",
    "auc_length_matched": "AUC between rows of similar length",
    "auc_length_adjusted": "AUC adjusted for length",
    "paired_accuracy": "accuracy within pairs",
}

COLUMNS = (
    "     step    loss      z_ref +- SE (n)      "
    "reward D / U       margin  saturated  |grad|       lr  rows/s   tokens/s      ETA"
)
"""Column names of the lines of `show_step`, repeated every 20 steps."""


def show_step(screen: Screen, record: dict[str, Any], total: int, *, first: bool) -> None:
    """Prints a step's numbers, and its validation's: in columns if the terminal is wide enough, else named."""
    if not screen.fits(len(COLUMNS)):
        if first:
            screen.cells(["z_ref +- SE (n)", "reward D / U: desirable / undesirable", "|grad|: gradient norm"])
        left = f"{clock(record['eta_seconds'])} left"
        screen.cells([f"step {record['step']}/{total}", *loss_words(record), *step_words(record), left])
        if "validation" in record:
            found = record["validation"]
            screen.cells(["  validation", *loss_words(found), _auc(found)])
        return
    if first or record["step"] % 20 == 0:
        screen.line(COLUMNS)
    screen.line(
        f"{record['step']:>5}/{total:<5}{record['loss']:7.4f}  {_point(record)}".ljust(43)
        + f"{_rewards(record)}       {_plain(record.get('saturated'), '4.0%')}  "
        f"{record['gradient_norm']:6.2g}  {record['learning_rate']:.1e}  "
        f"{_speed(record['rows_per_second']):>6} {_speed(record['tokens_per_second']):>10}  "
        f"{clock(record['eta_seconds'])}"
    )
    if "validation" in record:
        found = record["validation"]
        screen.line(
            f"validation {_plain(found.get('loss'), '7.4f')}  {_point(found)}".ljust(43)
            + f"{_rewards(found)}       {_auc(found)}"
        )


def _point(record: dict[str, Any]) -> str:
    """The reference point, with its standard error where it has one; a dash where the loss has none."""
    error = f" +- {_plain(record['z_ref_se'], '4.2f')} ({record['z_ref_pairs']})" if "z_ref_se" in record else ""
    return f"{_plain(record.get('z_ref'), '6.2f')}{error}"


def _rewards(record: dict[str, Any]) -> str:
    up, down, margin = (
        _plain(record.get(name), "+7.3f") for name in ("reward_desirable", "reward_undesirable", "margin")
    )
    return f"{up} / {down}  {margin}"


def _auc(found: dict[str, Any]) -> str:
    return f"AUC {_plain(found['auc'], '.3f')} ({plural(found['rows'], 'row')})"


def loss_words(record: dict[str, Any]) -> list[str]:
    """The loss and rewards of a step or of its validation, with their names."""
    error = f" +- {_plain(record['z_ref_se'], '.2f')} ({record['z_ref_pairs']})" if "z_ref_pairs" in record else ""
    rewards = " / ".join(_plain(record.get(f"reward_{name}"), "+.3f").strip() for name in ("desirable", "undesirable"))
    return [
        *([f"loss {record['loss']:.4f}"] if "loss" in record else []),
        *([f"z_ref {record['z_ref']:.2f}{error}"] if "z_ref" in record else []),
        f"reward D / U {rewards}",
        *([f"margin {_plain(record['margin'], '+.3f').strip()}"] if "margin" in record else []),
    ]


def step_words(record: dict[str, Any]) -> list[str]:
    """Numbers of a step that the curves do not show."""
    return [
        *([f"saturated {record['saturated']:.0%}"] if "saturated" in record else []),
        f"|grad| {record['gradient_norm']:.2g}",
        f"lr {record['learning_rate']:.1e}",
        f"{_speed(record['rows_per_second'])} rows/s",
        f"{_speed(record['tokens_per_second'])} tokens/s",
    ]


def _speed(value: float) -> str:
    """A whole number, or two digits of a smaller one: a large model on a CPU takes seconds for a row."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, such as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _plain(value: float | None, form: str) -> str:
    """A number, or a dash of the same width where there is none: a class without a row, a loss that lacks it."""
    return "-".rjust(len(format(0.0, form))) if value is None or math.isnan(value) else format(value, form)


def span(interval: Sequence[float]) -> str:
    """0.61 to 0.72; a dash where there is no interval, as of one prompt."""
    return "-" if any(map(math.isnan, interval)) else " to ".join(map(number, interval))


def metrics_table(screen: Screen, title: str, metrics: dict[str, Any]) -> None:
    """Prints the validation metrics, each with its interval."""
    rows = []
    for name, label in LABELS.items():
        if name in metrics:
            if name == "auc" and not math.isnan(metrics["auc_p"]):
                label += f" (p {metrics['auc_p']:.2g})"
            if name == "auc_length":
                label += f" ({metrics['auc_length_direction']} is desirable)"
            if name == "kl" and not math.isnan(metrics["kl_se"]):
                label += f", SE {number(metrics['kl_se'])}"
            rows.append([label, metrics[name], span(metrics[f"{name}_interval"])])
    screen.table(title, ["", "value", "90 % interval"], rows)
