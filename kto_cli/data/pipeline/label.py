"""Labels for the rows that came with a number instead, each source by itself: its numbers have a scale of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from kto_cli.common.binarize_config import CUTS, BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.columns import NO_LABEL, Columns, Flags
from kto_cli.data.pipeline.outcome import DROPPED, REJECTED, Fates
from kto_cli.data.pipeline.thresholds import binary_labels, labels_from_scores
from kto_cli.data.seeded_order import row_keys
from kto_cli.data.select import Chosen


def settle_labels(
    columns: Columns, sources: list[Chosen], config: BinarizeConfig, fates: Fates, note: Callable[[str], None]
) -> list[str]:
    """Fills in `columns.labels`; rows that get none leave. Returns warnings.

    Raises:
        BadInput: a source gives scores and nobody says where to cut them.
    """
    warnings = []
    for number, one in enumerate(sources):
        open_rows = (columns.labels == NO_LABEL) & (columns.sources == number)
        endless = open_rows & ~numpy.isfinite(columns.scores)
        fates.take_out(endless, REJECTED, "score_not_finite", "its label or score is an infinite number")
        open_rows &= ~endless
        numbers = open_rows & columns.by_label
        if config.cut is None and numbers.any():
            warnings += _numbers_as_labels(columns, numbers, fates, note)
            open_rows &= ~numbers
        if open_rows.any():
            _cut(columns, open_rows, one, config, fates, note)
    return warnings


def _numbers_as_labels(columns: Columns, rows: Flags, fates: Fates, note: Callable[[str], None]) -> list[str]:
    """1 and 0 of a label column that has no other number are labels; else all its numbers are rejected."""
    found = binary_labels(columns.scores[rows])
    count = int(rows.sum())
    if not found.others:
        columns.labels[rows] = found.labels
        note(f"{count:,} labels are numbers: 1 read as desirable, 0 as undesirable (there are no others).")
        return []
    others = ", ".join(found.others)
    detail = f"the label column has numbers other than 1 and 0 ({others}), so this one may be a mark on a scale"
    fates.take_out(rows, REJECTED, "label_not_binary", f"{detail}; give true or false, or --cut")
    what = f"All {count:,} number labels are rejected: not all are 1 or 0 (there are {others})."
    return [f"{what} Give true or false instead, or say with --cut from which number on a row is desirable."]


def _cut(
    columns: Columns, rows: Flags, one: Chosen, config: BinarizeConfig, fates: Fates, note: Callable[[str], None]
) -> None:
    """Scores of one source become labels."""
    scores = columns.scores[rows]
    cut = config.cut or one.source.cut
    if cut is None:
        spread = f"from {scores.min():.6g} to {scores.max():.6g}, median {numpy.median(scores):.6g}"
        what = f"{one.name} gives {len(scores):,} scores ({spread}), and nobody says which are desirable."
        raise BadInput(what, f"Add --cut NUMBER (that score and above), or --cut {', '.join(CUTS)}.")
    found = labels_from_scores(
        scores,
        columns.prompts[rows],
        cut=cut,
        margin=config.margin,
        seed=config.seed,
        keys=row_keys(columns.prompt_keys[rows], columns.completion_keys[rows]),
        logistic_mid=config.logistic_mid,
        logistic_scale=config.logistic_scale,
    )
    columns.labels[rows] = found.labels
    said = found.what if config.cut else f"{found.what} (--cut {cut}, the default for {one.source.name})"
    note(f"{one.name}: {said}" if len(said) else said)
    undecided = rows & (columns.labels == NO_LABEL)
    fates.take_out(undecided, DROPPED, "undecided", f"its score is at the cut, or nearer than --margin ({cut})")
