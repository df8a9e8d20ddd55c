"""What a judge says of single answers: a reward model's score, or a label by comparison with a good answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kto_cli.common.cache import cache_folder
from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.words import plural
from kto_cli.evaluation.judge.comparisons import Comparison, Vote
from kto_cli.evaluation.judge.judge import Judge, judge_all
from kto_cli.evaluation.judge.store import VerdictStore

LABELS: dict[tuple[Vote | None, Vote | None], bool] = {("model", "model"): True, ("baseline", "baseline"): False}
"""Verdicts in both orders -> label; all others, ties and contradictions among them, give none."""


def refuse_too_many(comparisons: int, config: EvalConfig) -> None:
    """Refuses a limit of calls that may not suffice, before anything is answered.

    Raises:
        BadInput: with the number that does.
    """
    if 2 * comparisons > config.judge_calls:
        raise BadInput(
            f"Judging {plural(comparisons, 'answer')} in both orders takes up to {2 * comparisons:,} calls, and "
            f"--judge-calls allows {config.judge_calls:,}; none was made.",
            "Raise it (leave some room for retries), or answer fewer prompts: --limit.",
        )


class AnswerJudge:
    """A judge with its stored replies."""

    def __init__(self, judge: Judge, config: EvalConfig) -> None:
        self._judge, self._config = judge, config
        self._store = VerdictStore(cache_folder(config), judge.identity)
        self.compares = config.judge_url is not None
        """It compares with targets; otherwise it gives scores."""

    def fields(self, answers: Sequence[Comparison]) -> list[dict[str, Any]]:
        """[answers] fields of their rows.

        Args:
            answers: of a judge that gives scores, the baseline is not read.

        Raises:
            KtoError: the judge gives up; what it said is kept.
        """
        return self._labels(answers) if self.compares else self._scores(answers)

    def _labels(self, answers: Sequence[Comparison]) -> list[dict[str, Any]]:
        verdicts = judge_all(self._judge, answers, self._store, workers=self._config.judge_workers)
        return [
            {
                "label": LABELS.get((one.model_first, one.baseline_first)),
                "model_first": one.model_first,
                "baseline_first": one.baseline_first,
            }
            for one in verdicts
        ]

    def _scores(self, answers: Sequence[Comparison]) -> list[dict[str, Any]]:
        asked = [self._judge.asked(one)[0] for one in answers]
        keys = [self._store.key(*one) for one in asked]
        todo = dict.fromkeys(one for one, key in zip(asked, keys, strict=True) if not self._store.get(key))
        if todo:
            self._judge.ask(list(todo), self._store, workers=self._config.judge_workers, tick=lambda count: None)
        return [{"score": self._store.get(key)[0]["score"]} for key in keys]
