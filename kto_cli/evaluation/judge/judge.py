"""Judges: their interface, the calls they need, and the run over all comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kto_cli.common.errors import BadInput
from kto_cli.common.words import plural
from kto_cli.data.texts import Text
from kto_cli.evaluation.judge.comparisons import Comparison, Verdicts, Vote
from kto_cli.evaluation.judge.store import Value, VerdictStore

Asked = tuple[str, str, str]
"""The parts of one question: a prompt, and one or two answers in the order shown."""
Tick = Callable[[int], None]
"""Called on the main thread with the number of things answered since."""
CHARACTERS_A_TOKEN = 4
"""Roughly, in English; other scripts need up to four times as many tokens."""


class Judge(Protocol):
    """A server or a model on this machine."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Cache key: everything that can change its replies; names its `VerdictStore`."""

    @property
    def overhead(self) -> int:
        """Characters of one call besides prompt and answers; 0: calls cost nothing."""

    def check_prompts(self, prompts: Sequence[Text]) -> None:
        """Refuses prompts that it cannot read, before anything is answered."""

    def asked(self, comparison: Comparison) -> tuple[Asked, Asked]:
        """The two questions of a comparison."""

    def is_answered(self, answers: Sequence[Value]) -> bool:
        """Whether a question with these replies needs no further one."""

    def ask(self, todo: Sequence[Asked], store: VerdictStore, *, workers: int, tick: Tick) -> None:
        """Asks the questions and stores each reply at once."""

    def votes(self, answers: tuple[Sequence[Value], Sequence[Value]]) -> tuple[Vote | None, Vote | None]:
        """The votes with the model's answer first and with the baseline's first, from the replies to both questions."""


class Estimate(NamedTuple):
    """What judging will take."""

    calls: int
    """Requests still to be made if every reply is readable; retries come on top."""
    cached: int
    """Questions answered in an earlier run."""
    identical: int
    """Comparisons of an answer with itself: ties without a question."""
    tokens: int
    """Of the requests, roughly."""

    def refuse_above(self, limit: int) -> None:
        """
        Raises:
            BadInput: more calls are needed than allowed; none was made.
        """
        if self.calls > limit:
            raise BadInput(
                f"Judging needs {plural(self.calls, 'call')} (about {plural(self.tokens, 'token')} to read), and the "
                f"limit is {limit:,}; none was made.",
                "Judge fewer prompts, or raise --judge-calls (leave some room for retries).",
            )


def unanswered(judge: Judge, comparisons: Sequence[Comparison], store: VerdictStore) -> list[Asked]:
    """What must be asked: each thing once, in the order of the comparisons."""
    wanted = dict.fromkeys(
        asked for comparison in comparisons if not comparison.identical for asked in judge.asked(comparison)
    )
    return [asked for asked in wanted if not judge.is_answered(store.get(store.key(*asked)))]


def estimate(judge: Judge, comparisons: Sequence[Comparison], store: VerdictStore) -> Estimate:
    """What `judge_all` will take, before anything is asked."""
    identical = sum(comparison.identical for comparison in comparisons)
    wanted = {asked for comparison in comparisons if not comparison.identical for asked in judge.asked(comparison)}
    todo = unanswered(judge, comparisons, store)
    characters = sum(judge.overhead + sum(map(len, asked)) for asked in todo)
    calls = len(todo) if judge.overhead else 0
    return Estimate(calls, len(wanted) - len(todo), identical, characters // CHARACTERS_A_TOKEN)


def judge_all(
    judge: Judge,
    comparisons: Sequence[Comparison],
    store: VerdictStore,
    *,
    workers: int = 8,
    tick: Tick = lambda answered: None,
) -> list[Verdicts]:
    """The verdicts of all comparisons, in their order; what is in the store is not asked again.

    Raises:
        Interrupted: Ctrl-C; what was under way is kept too. KtoError: the judge gives up; what it said is kept.
    """
    todo = unanswered(judge, comparisons, store)
    if todo:
        judge.ask(todo, store, workers=workers, tick=tick)
    return [_verdicts(judge, comparison, store) for comparison in comparisons]


def _verdicts(judge: Judge, comparison: Comparison, store: VerdictStore) -> Verdicts:
    if comparison.identical:
        return Verdicts(comparison.id, "tie", "tie")
    one, other = (store.get(store.key(*asked)) for asked in judge.asked(comparison))
    return Verdicts(comparison.id, *judge.votes((one, other)))
