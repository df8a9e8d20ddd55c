"""Labels for rows that have a number instead, source by source: each source's scores have their own scale."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from kto_cli.common.binarize_config import THRESHOLDS, BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.words import plural
from kto_cli.data.columns import NO_LABEL, Columns, Flags
from kto_cli.data.pipeline.outcome import DROPPED, REJECTED, Outcomes
from kto_cli.data.pipeline.thresholds import binary_labels, labels_from_scores
from kto_cli.data.seeded_order import row_keys
from kto_cli.data.select import Chosen


def label_rows(
    columns: Columns, sources: list[Chosen], config: BinarizeConfig, outcomes: Outcomes, note: Callable[[str], None]
) -> list[str]:
    """Fills `columns.labels` and removes the rows that get no label. Returns warnings.

    Raises:
        BadInput: a source gives scores, and there is no threshold for them.
    """
    warnings = []
    for number, one in enumerate(sources):
        open_rows = (columns.labels == NO_LABEL) & (columns.sources == number)
        infinite = open_rows & ~numpy.isfinite(columns.scores)
        outcomes.remove(infinite, REJECTED, "score_not_finite", "its label or score is an infinite number")
        open_rows &= ~infinite
        numbers = open_rows & columns.by_label
        if config.threshold is None and numbers.any():
            warnings += _numbers_as_labels(columns, numbers, outcomes, note)
            open_rows &= ~numbers
        if open_rows.any():
            _label_scores(columns, open_rows, one, config, outcomes, note)
    return warnings


def _numbers_as_labels(columns: Columns, rows: Flags, outcomes: Outcomes, note: Callable[[str], None]) -> list[str]:
    """Accepts 1 and 0 of a label column as labels if it has no other number; otherwise rejects all its numbers."""
    found = binary_labels(columns.scores[rows])
    count = int(rows.sum())
    if not found.others:
        columns.labels[rows] = found.labels
        rows_read = plural(count, "row")
        note(f"Labels 1 and 0 are read as desirable and undesirable ({rows_read}; the column has no other numbers).")
        return []
    others = ", ".join(found.others)
    detail = f"the label column has numbers other than 1 and 0 ({others}), so this one may be a rating"
    outcomes.remove(rows, REJECTED, "label_not_binary", f"{detail}; use true or false, or give --threshold")
    all_labels = "The one number label is" if count == 1 else f"All {count:,} number labels are"
    what = f"{all_labels} rejected: not all are 1 or 0 (there are {others})."
    return [f"{what} Use true or false, or give --threshold: the lowest number that is desirable."]


def _label_scores(
    columns: Columns,
    rows: Flags,
    one: Chosen,
    config: BinarizeConfig,
    outcomes: Outcomes,
    note: Callable[[str], None],
) -> None:
    """Labels the scored `rows` of one source."""
    scores = columns.scores[rows]
    threshold = config.threshold or one.source.threshold
    if threshold is None:
        span = f"from {scores.min():.6g} to {scores.max():.6g}, median {numpy.median(scores):.6g}"
        what = f"{one.name} has {plural(len(scores), 'score')} ({span}), but no labels."
        step = f"Add --threshold NUMBER (that score and above are desirable), or one of {', '.join(THRESHOLDS)}."
        raise BadInput(what, step)
    found = labels_from_scores(
        scores,
        columns.prompts[rows],
        threshold=threshold,
        margin=config.margin,
        seed=config.seed,
        keys=row_keys(columns.prompt_keys[rows], columns.completion_keys[rows]),
        logistic_mid=config.logistic_mid,
        logistic_scale=config.logistic_scale,
    )
    columns.labels[rows] = found.labels
    default = "" if config.threshold else f" (--threshold {threshold} is the default for {one.source.name}.)"
    note(f"{one.name}: {found.what}{default}")
    undecided = rows & (columns.labels == NO_LABEL)
    detail = f"its score is at the threshold, or within --margin of it ({threshold})"
    outcomes.remove(undecided, DROPPED, "undecided", detail)
