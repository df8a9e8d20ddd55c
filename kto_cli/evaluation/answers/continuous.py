"""Answers by transformers' continuous batching: a finished answer makes room for the next question at once.

transformers has one random generator for the whole batch; here a logits processor adds each request's own noise
(noise.py), and the greedy choice is the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.errors import BadModel, KtoError, OutOfMemory, first_line
from kto_cli.evaluation.answers.batching import manager_of
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question, answerable, prompt_seed

PATIENCE = 0.5
"""Seconds between checks that the generating thread is alive."""
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What transformers raises for a model, a device or a version that its batching cannot do with."""


class Continuous:
    """transformers' continuous batching."""

    name = "continuous"
    family = "transformers"

    def __init__(self, subject: AnsweringModel, watch: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """`watch`: given the logits [requests, vocabulary] and seeds [requests] of each draw (`probe.probe`)."""
        self._subject, self._watch = subject, watch

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Answers in the order they finish.

        Raises:
            BadInput: this transformers is too old. BadModel: transformers failed on a request, or with this model.
            OutOfMemory: too little memory.
        """
        indices, silent = answerable(self._subject, questions, decoding)
        yield from silent
        for position, tokens in self.tokens([questions[index] for index in indices], decoding):
            yield indices[position], self._subject.answer(tokens)

    def tokens(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, list[int]]]:
        """(index, generated ids with the end token) of questions whose prompts leave room for an answer.

        Raises:
            KtoError: as `answers`.
        """
        if not questions:
            return
        try:
            with manager_of(self._subject, questions, decoding, self._watch) as manager:
                self._ask(manager, questions, decoding)
                for result in self._results(manager, len(questions)):
                    yield int(result.request_id), result.generated_tokens
        except _FAULTS as error:
            raise self._fault(error, first_line(error)) from error

    def _ask(self, manager: Any, questions: Sequence[Question], decoding: Decoding) -> None:
        """Adds all requests, the longest first."""
        for index in sorted(range(len(questions)), key=lambda index: (-len(questions[index].tokens), index)):
            tokens = questions[index].tokens
            manager.add_request(
                list(tokens),
                request_id=str(index),
                max_new_tokens=self._subject.room(questions[index], decoding),
                eos_token_id=list(self._subject.ends),
                **({} if decoding.greedy else {"noise_seed": prompt_seed(decoding.seed, tokens)}),
            )

    def _results(self, manager: Any, count: int) -> Iterator[Any]:
        """Results of finished requests."""
        while count:
            result = manager.get_result(timeout=PATIENCE)
            if result is None:
                if not manager.is_running():
                    raise self._failure(manager, "its thread ended")
            elif result.error is not None:
                raise self._failure(manager, result.error)
            elif result.is_finished():
                count -= 1
                yield result

    def _failure(self, manager: Any, reason: str) -> KtoError:
        cause = manager.background_thread_status.fatal_error
        return self._fault(cause, first_line(cause) if cause else reason)

    def _fault(self, cause: Exception | None, what: str) -> KtoError:
        name, hint = self._subject.name, "Use --engine padded."
        if isinstance(cause, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in what.lower():
            return OutOfMemory(f"Too little memory for continuous batching with {name}.", hint)
        return BadModel(f"transformers' continuous batching failed with {name}: {what}", hint)
