"""Chooses the engine that generates answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.common.eval_config import ENGINES, is_url
from kto_cli.evaluation.answers.batching import flash_attention
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.probe import probe
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Engine, Question
from kto_cli.evaluation.answers.server import Client, Server
from kto_cli.evaluation.answers.vllm import Vllm


def choose(
    wanted: str,
    subject: AnsweringModel,
    questions: Sequence[Question],
    say: Callable[[str], None],
    connect: Callable[[str], Client] | None = None,
    decoding: Decoding | None = None,
) -> Engine:
    """The engine of `--engine`; prints which one `auto` takes, and why.

    Args:
        wanted: one of `ENGINES`, or the URL of a server.
        questions: those that will be asked; the probe asks a few of them.
        connect: URL -> a connection to that server.
        decoding: that of the answers.

    Raises:
        BadInput: no such engine, or it is not installed, or the server does not have the model. BadModel: continuous
            batching was asked for and does not work with the model.
    """
    if is_url(wanted):
        if connect is None:
            raise BadInput(f"{wanted} cannot be reached: nothing here talks to servers.", "Use --engine auto.")
        return Server(subject, connect(wanted))
    if wanted == "auto":
        return _automatic(subject, questions, say, decoding)
    if wanted == "continuous":
        return _continuous(subject, questions, say, decoding)
    engines: dict[str, Callable[[AnsweringModel], Engine]] = {"padded": Padded, "vllm": Vllm}
    if wanted not in engines:
        raise BadInput(f"There is no engine {wanted}.", f"Give one of {', '.join(ENGINES)}, or a server's URL.")
    return engines[wanted](subject)


def _automatic(
    subject: AnsweringModel, questions: Sequence[Question], say: Callable[[str], None], decoding: Decoding | None
) -> Engine:
    """Continuous batching where it works: on a CPU 1.5 times as fast as padded batches for 31M weights, 0.4 times for
    one million, where nothing takes long (benchmarks/generation.py)."""
    trouble = _slow_on_gpu(subject) or probe(subject, questions, decoding)
    if trouble is None:
        say(f"{subject.name} answers through transformers' continuous batching.")
        return Continuous(subject)
    say(f"{subject.name} answers in padded batches, because {trouble}.")
    return Padded(subject)


def _slow_on_gpu(subject: AnsweringModel) -> str | None:
    """Why padded batches are faster on this device, or None."""
    model = subject.model()
    if model.device.type == "cpu" or flash_attention(model) is not None:
        return None
    return (
        "without flash-attn (or in float32) continuous batching computes attention over all concurrent answers at once"
    )


def _continuous(
    subject: AnsweringModel, questions: Sequence[Question], say: Callable[[str], None], decoding: Decoding | None
) -> Engine:
    """Continuous batching, as asked for.

    Raises:
        BadModel: it does not work with the model.
    """
    if trouble := probe(subject, questions, decoding):
        raise BadModel(f"{subject.name} cannot answer with --engine continuous: {trouble}.", "Use --engine padded.")
    if slow := _slow_on_gpu(subject):
        say(f"{subject.name}: {slow}; --engine padded is probably faster.")
    return Continuous(subject)


class Lazy:
    """The engine of `--engine`, opened once, with the first question: if all answers are stored, it is never opened."""

    def __init__(
        self,
        wanted: str,
        subject: AnsweringModel,
        questions: Sequence[Question],
        say: Callable[[str], None],
        connect: Callable[[str], Client] | None = None,
    ) -> None:
        """As `choose`."""
        self._open = lambda decoding: choose(wanted, subject, questions, say, connect, decoding)
        self._engine: Engine | None = None
        self.name = wanted
        self.family = wanted if wanted == "vllm" else f"server {wanted}" if is_url(wanted) else "transformers"

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """As of the engine.

        Raises:
            KtoError: as `choose` and the engine.
        """
        self._engine = self._engine or self._open(decoding)
        yield from self._engine.answers(questions, decoding)
