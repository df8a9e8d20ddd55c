"""Chooses the engine that generates answers, and probes whether it works with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.errors import BadInput, KtoError
from kto_cli.common.eval_config import ENGINES, is_url
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.noise import seeds_tensor
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Engine, Question, prompt_seed
from kto_cli.evaluation.answers.server import Client, Server
from kto_cli.evaluation.answers.vllm import Vllm

_PROBED = 4
"""Prompts of the probe, and tokens of each."""
_NATS = {torch.float32: 0.01, torch.float64: 0.01}
"""Tolerance of the probe: nats by which a log-prob may differ from the plain forward pass. In half precision
rounding alone moves logits by a few tenths."""
_NATS_IN_HALF = 0.5


def choose(
    wanted: str,
    subject: AnsweringModel,
    questions: Sequence[Question],
    say: Callable[[str], None],
    connect: Callable[[str], Client] | None = None,
) -> Engine:
    """The engine of `--engine`; prints which one `auto` takes, and why.

    Args:
        wanted: one of `ENGINES`, or the URL of a server.
        questions: those that will be asked; the probe asks a few of them.
        connect: URL -> a connection to that server.

    Raises:
        BadInput: no such engine, or it is not installed, or the server does not have the model.
    """
    if is_url(wanted):
        if connect is None:
            raise BadInput(f"{wanted} cannot be reached: nothing here talks to servers.", "Use --engine auto.")
        return Server(subject, connect(wanted))
    if wanted == "auto":
        return _automatic(subject, questions, say)
    engines: dict[str, Callable[[AnsweringModel], Engine]] = {"continuous": Continuous, "padded": Padded, "vllm": Vllm}
    if wanted not in engines:
        raise BadInput(f"There is no engine {wanted}.", f"Give one of {', '.join(ENGINES)}, or a server's URL.")
    return engines[wanted](subject)


def _automatic(subject: AnsweringModel, questions: Sequence[Question], say: Callable[[str], None]) -> Engine:
    """Continuous batching where it works: on a CPU 1.5 times as fast as padded batches for 31M weights, 0.4 times for
    one million, where nothing takes long (benchmarks/generation.py)."""
    trouble = probe(subject, questions)
    if trouble is None:
        say(f"{subject.name} answers through transformers' continuous batching.")
        return Continuous(subject)
    say(f"{subject.name} answers in padded batches, because {trouble}.")
    return Padded(subject)


def probe(subject: AnsweringModel, questions: Sequence[Question]) -> str | None:
    """Why continuous batching is not used with this model, or None.

    A few tokens are drawn for the shortest prompts together. The log-probs they are drawn from must be those of the
    plain forward pass over each prompt and its answer: right positions, right mask, soft caps kept, right noise.
    """
    decoding = Decoding(max_new_tokens=_PROBED, temperature=1.0, top_p=1.0)
    fitting = [question for question in questions if subject.room(question, decoding) == _PROBED]
    shortest = sorted(fitting, key=lambda question: len(question.tokens))[:_PROBED]
    seen: dict[int, Tensor] = {}
    watched = Continuous(subject, lambda logits, seeds: seen.update(zip(seeds.tolist(), logits.clone(), strict=False)))
    try:
        made = dict(watched.tokens(shortest, decoding))
    except KtoError as error:
        return f"continuous batching fails ({_cause(error)})"
    except (AttributeError, ImportError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
        return f"continuous batching fails ({_cause(error)})"
    model = subject.model()
    allowed = _NATS.get(model.dtype, _NATS_IN_HALF)
    apart = max((_apart(model, shortest[index], tokens, decoding, seen) for index, tokens in made.items()), default=0.0)
    return None if apart <= allowed else f"its log-probs differ by {apart:.2g} nats in continuous batching"


def _apart(model: Any, question: Question, tokens: list[int], decoding: Decoding, seen: dict[int, Tensor]) -> float:
    """Largest difference, in nats, between a token's log-prob and that of the plain forward pass; infinite for a
    position whose noise was not asked for.

    Args:
        seen: logits [vocabulary] by the seed of their draw.
    """
    ids = torch.tensor([question.tokens + tokens], device=model.device)
    with torch.no_grad():
        plain = model(input_ids=ids).logits[0, len(question.tokens) - 1 : -1].float().log_softmax(-1)
    positions = range(len(question.tokens), ids.shape[1])
    seeds = seeds_tensor([prompt_seed(decoding.seed, question.tokens)] * len(tokens), positions).tolist()
    if not seen.keys() >= set(seeds):
        return math.inf
    drawn = torch.stack([seen[seed] for seed in seeds]).float().log_softmax(-1)
    return float((drawn - plain.to(drawn.device)).abs().max())


def _cause(error: Exception) -> str:
    """The first line of an error."""
    text = (error.what if isinstance(error, KtoError) else str(error)).strip().splitlines()
    return text[0] if text else type(error).__name__


class Lazy:
    """The engine of `--engine`, opened with the first question: if all answers are stored, it is never opened."""

    def __init__(
        self,
        wanted: str,
        subject: AnsweringModel,
        questions: Sequence[Question],
        say: Callable[[str], None],
        connect: Callable[[str], Client] | None = None,
    ) -> None:
        """As `choose`."""
        self._open = lambda: choose(wanted, subject, questions, say, connect)
        self.name = wanted
        self.family = wanted if wanted == "vllm" else f"server {wanted}" if is_url(wanted) else "transformers"

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """As of the engine.

        Raises:
            KtoError: as `choose` and the engine.
        """
        yield from self._open().answers(questions, decoding)
