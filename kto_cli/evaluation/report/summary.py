"""The three questions after training, each with the results' answer."""

from __future__ import annotations

from dataclasses import dataclass

from kto_cli.evaluation.report.benchmarks import BenchmarkSection
from kto_cli.evaluation.report.generations import AnswerSection
from kto_cli.evaluation.report.win_rate import WinRateSection


@dataclass(frozen=True)
class SummaryQuestion:
    """One question with its answers."""

    text: str
    answers: list[str]
    section: str
    """Id of the section with details."""
    open: bool = False
    """Whether nothing was computed that answers it."""


def questions(
    sentence: str, judged: WinRateSection | None, answers: AnswerSection | None, tasks: BenchmarkSection | None
) -> list[SummaryQuestion]:
    """All three; `sentence` is that of the verdict."""
    better = [f"Win rate {judged.sentence}"] if judged else []
    lengths = [answers.sentence] if answers and answers.sentence else []
    unjudged = ["Nothing was judged, so a win rate is not known."] if not better else []
    changed = tasks.sentence if tasks else "No benchmark was run."
    return [
        SummaryQuestion("Did it learn the feedback?", [sentence], "validation"),
        SummaryQuestion(
            "Are its answers better?", [*better, *unjudged, *lengths], "win-rate" if better else "answers", not better
        ),
        SummaryQuestion("Did anything break?", [changed], "benchmarks", tasks is None),
    ]
