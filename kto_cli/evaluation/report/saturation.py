"""Which validation rows still teach (Prop. 4.1), by class, and those most at odds with their label.

The gradient of a row is proportional to sigmoid(u) * sigmoid(-u), u = beta * s * (log_ratio - z_ref), which is largest,
1/4, at u = 0. A row under 1 % of that teaches next to nothing: either it is learned (u far above 0), or the model is
sure that its label is wrong (u far below 0).
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from kto_cli.common.screen import number
from kto_cli.core.statistics.metrics import SATURATED_BELOW
from kto_cli.evaluation.report.evidence import Columns, Evidence, as_floats, number_or_nan, part, texts_of
from kto_cli.evaluation.report.numbers import Grid

ODD_ROWS = 3
"""Of each class."""
EXCERPT = 220
"""Characters of a text; of a longer prompt the last ones."""


def leanings(rows: Columns, *, beta: float, z_ref: float) -> NDArray[numpy.float64]:
    """u of each row: above 0 the model agrees with the label."""
    signs = numpy.where(rows["label"].astype(bool), 1.0, -1.0)
    return beta * signs * (as_floats(rows["log_ratio"]) - z_ref)


def gradient_shares(leaning: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Gradient weight of each row as a share of its maximum, 4 * sigmoid(u) * sigmoid(-u)."""
    return 1 / numpy.cosh(numpy.clip(leaning, -700, 700) / 2) ** 2


def saturation_grid(evidence: Evidence) -> Grid | None:
    """By class: rows, share saturated, how many of these agree with their label, mean gradient weight."""
    found = _leanings(evidence)
    if found is None or evidence.rows is None:
        return None
    shares, labels = gradient_shares(found), evidence.rows["label"].astype(bool)
    saturated = shares < SATURATED_BELOW
    rows = []
    for name, of_class in (("desirable", labels), ("undesirable", ~labels), ("both", labels | ~labels)):
        count = int(of_class.sum())
        if not count:
            continue
        learned, odd = (int((saturated & of_class & side).sum()) for side in (found > 0, found <= 0))
        agreeing = int((of_class & (found > 0)).sum())
        rows.append(
            [
                name,
                f"{count:,}",
                f"{(learned + odd) / count:.1%}",
                f"{learned:,}",
                f"{odd:,}",
                f"{agreeing / count:.0%}",
                f"{shares[of_class].mean():.0%}",
            ]
        )
    columns = [
        "class",
        "rows",
        "saturated",
        "of them learned",
        "of them against their label",
        "rows the model agrees with",
        "mean gradient weight",
    ]
    return Grid(columns, rows, _source(evidence))


def odd_rows(evidence: Evidence) -> Grid | None:
    """The rows whose reward contradicts their label most: look at their labels first."""
    found = _leanings(evidence)
    if found is None or evidence.rows is None:
        return None
    rows = evidence.rows
    by_oddity = [index for index in numpy.argsort(found, kind="stable").tolist() if found[index] < 0]
    of_class = [[index for index in by_oddity if bool(rows["label"][index]) is label] for label in (True, False)]
    order = [index for indices in of_class for index in indices[:ODD_ROWS]]
    folder = part(evidence.results, "data").get("folder")
    texts = texts_of(folder, [str(rows["id"][index]) for index in order])
    lines = []
    for index in order:
        label = "desirable" if rows["label"][index] else "undesirable"
        prompt, answer = texts.get(str(rows["id"][index]), ("", "(the dataset is not there any more)"))
        reward = number(float(rows["reward"][index]))
        lines.append([str(rows["origin"][index]), label, reward, _ending(prompt), _beginning(answer)])
    return Grid(["raw line", "label", "reward", "prompt", "answer"], lines, _source(evidence)) if lines else None


def _leanings(evidence: Evidence) -> NDArray[numpy.float64] | None:
    """u of each validation row; None without rows, beta or z_ref."""
    z_ref = number_or_nan(evidence.metrics.get("z_ref"))
    if evidence.rows is None or not numpy.isfinite([z_ref, evidence.beta]).all():
        return None
    found = leanings(evidence.rows, beta=evidence.beta, z_ref=z_ref)
    return found if numpy.isfinite(found).all() else None


def _source(evidence: Evidence) -> str:
    where = evidence.results_folder
    return f"{where}/rows.parquet: log_ratio, label, reward; {where}/metrics.json: beta, metrics.z_ref"


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else words[:EXCERPT] + " ..."


def _ending(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXCERPT else "... " + words[-EXCERPT:]
