"""The three questions a person has after training, each with what the results say to it."""

from __future__ import annotations

from dataclasses import dataclass

from kto_cli.evaluation.report.benchmarks import Examination
from kto_cli.evaluation.report.generations import Manner
from kto_cli.evaluation.report.win_rate import Judgement


@dataclass(frozen=True)
class SummaryQuestion:
    """One of them."""

    text: str
    answers: list[str]
    section: str
    """Where more is said."""
    open: bool = False
    """Nothing was computed that could answer it."""


def questions(
    sentence: str, judged: Judgement | None, manner: Manner | None, tasks: Examination | None
) -> list[SummaryQuestion]:
    """All three; `sentence` is that of the verdict."""
    better = [f"Win rate {judged.sentence}"] if judged else []
    manners = [manner.sentence] if manner and manner.sentence else []
    unjudged = ["Nothing was judged, so a win rate is not known."] if not better else []
    changed = tasks.sentence if tasks else "No benchmark was run."
    return [
        SummaryQuestion("Did it learn the feedback?", [sentence], "validation"),
        SummaryQuestion(
            "Are its answers better?", [*better, *unjudged, *manners], "win-rate" if better else "answers", not better
        ),
        SummaryQuestion("Did anything break?", [changed], "benchmarks", tasks is None),
    ]
