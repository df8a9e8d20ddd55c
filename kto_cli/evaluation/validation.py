"""What `kto eval` finds out about validation rows: metrics.json and rows.parquet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kto_cli.common import files
from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.objectives import opposite_points
from kto_cli.core.statistics.breakdown import (
    RowValues,
    biggest_movers,
    by_class,
    by_source,
    likely_mislabelled,
    row_values,
)
from kto_cli.core.statistics.calibration import calibration
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.scores import Scores
from kto_cli.data.dataset import VALIDATION, DataDir, Row, read_batches, read_columns
from kto_cli.evaluation.files import METRICS, ROWS, write_object
from kto_cli.model.tokens.store import EncodedRows

MISLABELLED, MOVERS = 50, 10
"""Rows listed in metrics.json at most, of movers by class and direction; rows.parquet has all."""


class Findings(NamedTuple):
    """Of one checkpoint on the validation rows."""

    metrics: dict[str, Any]
    values: RowValues
    places: dict[str, tuple[str, str]]
    """Row id -> (source, origin)."""


def places_of(data: DataDir) -> dict[str, tuple[str, str]]:
    """Row id -> (source, FILE:LINE of the raw input), of the validation rows."""
    found: dict[str, tuple[str, str]] = {}
    for columns in read_columns(data.folder / VALIDATION, ("id", "source", "origin")):
        found |= {name: (source, origin) for name, source, origin in zip(*columns.values(), strict=True)}
    return found


def texts_of(data: DataDir, names: Collection[str]) -> dict[str, Row]:
    """The validation rows with these ids."""
    wanted = set(names)
    return {row.id: row for rows in read_batches(data.folder / VALIDATION) for row in rows if row.id in wanted}


def find_out(scores: Scores, rows: EncodedRows, data: DataDir, weights: LossSettings) -> Findings:
    """All statistics.

    Returns:
        metrics: the keys of `validation_metrics`, and by_class, by_source, calibration (see core/);
        likely_mislabelled, a list of rows (`_row`), and biggest_movers, such lists by class and direction. Without a
        reference point there is no calibration or accuracy, without a largest gradient no saturation.
    """
    places = places_of(data)
    metrics: dict[str, Any] = validation_metrics(scores, weights)
    pointed = weights.kind.is_unpaired and weights.reference
    z_ref = (
        opposite_points(scores.log_ratios.double(), scores.desirable)
        if weights.point == "opposite-class"
        else metrics.get("z_ref", 0.0)
    )
    values = row_values(scores, z_ref=z_ref, beta=weights.beta, value=weights.value if pointed else "")
    if not pointed:
        values = values._replace(probabilities=torch.full_like(values.rewards, float("nan")))
    ids = rows.ids

    def listed(chosen: Sequence[int]) -> list[dict[str, Any]]:
        return [_row(index, ids[index], places, scores, values) for index in chosen]

    metrics["by_class"] = by_class(scores, values)
    metrics["by_source"] = by_source(scores, values, [places[name][0] for name in ids])
    if pointed:
        metrics["calibration"] = calibration(values.probabilities, scores.desirable)
    else:
        _leave_out("accuracy", metrics)
    if values.gradient_weights.isnan().any():
        _leave_out("saturated", metrics)
    metrics["likely_mislabelled"] = listed(likely_mislabelled(values)[:MISLABELLED])
    metrics["biggest_movers"] = {
        name: {direction: listed(chosen) for direction, chosen in moved.items()}
        for name, moved in biggest_movers(scores, MOVERS).items()
    }
    return Findings(metrics, values, places)


def _leave_out(prefix: str, metrics: dict[str, Any]) -> None:
    """Removes from each class and source what the loss does not define."""
    for one in (*metrics["by_class"].values(), *metrics["by_source"].values()):
        for name in [name for name in one if name.startswith(prefix)]:
            del one[name]


def _row(
    index: int, name: str, places: dict[str, tuple[str, str]], scores: Scores, values: RowValues
) -> dict[str, Any]:
    """One row as it is listed: where it comes from and what the policy makes of it."""
    source, origin = places[name]
    return {
        "id": name,
        "source": source,
        "origin": origin,
        "label": bool(scores.desirable[index]),
        "log_ratio": scores.log_ratios[index].item(),
        "reward": values.rewards[index].item(),
        "probability": values.probabilities[index].item(),
        "gradient_weight": values.gradient_weights[index].item(),
        "completion_tokens": int(scores.lengths[index]),
    }


def rows_table(scores: Scores, rows: EncodedRows, findings: Findings) -> Any:
    """One line per validation row; `origin` (FILE:LINE) leads back to the raw file, `id` to validation.parquet.

    log-ratios are in nats; probability is sigmoid(reward - beta * z_ref); gradient_weight a share of its maximum.
    """
    import pyarrow

    ids, values = rows.ids, findings.values
    return pyarrow.table(
        {
            "id": ids,
            "prompt_id": rows.prompt_ids,
            "pair_id": pyarrow.array(rows.pair_ids, pyarrow.string()),
            "source": [findings.places[name][0] for name in ids],
            "origin": [findings.places[name][1] for name in ids],
            "label": scores.desirable.tolist(),
            "prompt_tokens": rows.own.prompt_lengths.tolist(),
            "completion_tokens": scores.lengths.tolist(),
            "log_ratio": scores.log_ratios.tolist(),
            "mismatched_log_ratio": scores.mismatched_log_ratios.tolist(),
            "reward": values.rewards.tolist(),
            "probability": values.probabilities.tolist(),
            "gradient_weight": values.gradient_weights.tolist(),
            "saturated": values.saturated.tolist(),
            "right_side": (values.margins > 0).tolist(),
        }
    )


def write(out: Path, facts: dict[str, Any], table: Any) -> None:
    """metrics.json and rows.parquet (one line per validation row); whole or not at all, each."""
    import pyarrow.parquet

    with files.saying_disk_full(out):
        files.make_folder(out)
        with files.replacing(out / ROWS) as temporary:
            pyarrow.parquet.write_table(table, temporary)
    write_object(out, METRICS, facts, beside=[ROWS])
