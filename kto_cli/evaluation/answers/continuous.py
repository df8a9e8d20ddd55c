"""Answers by transformers' continuous batching: a finished answer makes room for the next question at once.

transformers has one random generator for the whole batch; here a logits processor adds each request's own noise
(noise.py), and the greedy choice is the draw.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.errors import BadModel, OutOfMemory, first_line
from kto_cli.evaluation.answers.noise import perturbed, seeds_tensor
from kto_cli.evaluation.answers.padded import plainly
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question, answerable, prompt_seed

PAGE = 32
"""Tokens in a page of the key-value cache."""
REQUESTS = {"cpu": 32, "cuda": 256}
"""Concurrent answers. Without flash attention the mask of a step is [answers, all their tokens], so more cost more."""
PREFILL = {"cpu": 1024, "cuda": 8192}
"""Tokens of one step, prompts included."""
PATIENCE = 0.5
"""Seconds between checks that the generating thread is alive."""
_LOGGER = "ContinuousBatchingLogger"


class Continuous:
    """transformers' continuous batching."""

    name = "continuous"
    family = "transformers"

    def __init__(self, subject: AnsweringModel, watch: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """`watch`: given the logits [requests, vocabulary] and seeds [requests] of each draw (`choose.probe`)."""
        self._subject, self._watch = subject, watch

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Answers in the order they finish.

        Raises:
            BadModel: transformers failed on a request, or its thread died. OutOfMemory: too little memory.
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
        longest_first = sorted(range(len(questions)), key=lambda index: (-len(questions[index].tokens), index))
        with _manager(self._subject, questions, decoding, self._watch) as manager:
            for index in longest_first:
                manager.add_request(
                    list(questions[index].tokens),
                    request_id=str(index),
                    max_new_tokens=self._subject.room(questions[index], decoding),
                    eos_token_id=list(self._subject.ends),
                    **_noise_of(questions[index], decoding),
                )
            for result in self._results(manager, len(questions)):
                yield int(result.request_id), result.generated_tokens

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

    def _failure(self, manager: Any, reason: str) -> Exception:
        cause = manager.background_thread_status.fatal_error
        if isinstance(cause, (torch.OutOfMemoryError, MemoryError)):
            return OutOfMemory(
                f"Too little memory for continuous batching with {self._subject.name}.", "Use --engine padded."
            )
        what = first_line(cause) if cause else reason
        return BadModel(
            f"transformers' continuous batching failed with {self._subject.name}: {what}", "Use --engine padded."
        )


def _noise_of(question: Question, decoding: Decoding) -> dict[str, Any]:
    return {} if decoding.greedy else {"noise_seed": prompt_seed(decoding.seed, question.tokens)}


@contextmanager
def _manager(
    subject: AnsweringModel,
    questions: Sequence[Question],
    decoding: Decoding,
    watch: Callable[[Tensor, Tensor], None] | None,
) -> Iterator[Any]:
    """A running manager; on exit it is stopped and the model's attention restored."""
    model = subject.model()
    attention = model.config._attn_implementation
    with plainly(model, subject, decoding.max_new_tokens) as settings, _silent(), _little_to_collect():
        manager = None
        try:
            manager = model.init_continuous_batching(
                generation_config=settings, continuous_batching_config=_sizes(model, questions, decoding)
            )
            if not decoding.greedy:
                manager.logit_processor = _processors(decoding, watch)
            manager.start()
            yield manager
        finally:
            if manager is not None and manager._generation_thread is not None:
                manager.stop(block=True, hard_stop=True)
                manager.destroy()
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


def _sizes(model: Any, questions: Sequence[Question], decoding: Decoding) -> Any:
    """Cache sizes for the concurrent answers: the default reserves most of the memory, which on a CPU takes longer than
    a few hundred answers."""
    from transformers import ContinuousBatchingConfig

    kind = model.device.type
    requests = min(len(questions), REQUESTS.get(kind, REQUESTS["cuda"]))
    lengths = sorted((len(question.tokens) + decoding.max_new_tokens for question in questions), reverse=True)
    pages = sum(-(-length // PAGE) + 1 for length in lengths[:requests])
    return ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=pages,
        max_batch_tokens=PREFILL.get(kind, PREFILL["cuda"]),
        max_requests_per_batch=requests,
    )


def _processors(decoding: Decoding, watch: Callable[[Tensor, Tensor], None] | None) -> Any:
    """The noise as a logits processor with one argument per request; defined here, as transformers is imported late."""
    from transformers import LogitsProcessorList
    from transformers.generation.continuous_batching.cb_logits_processors import (
        ContinuousBatchingLogitsProcessor,
        ContinuousBatchingLogitsProcessorList,
    )

    class Draw(ContinuousBatchingLogitsProcessor):
        """Adds each request's noise for the position that comes next."""

        def __init__(self) -> None:
            self.supported_kwargs = {"noise_seed": int}
            self.ignored_kwargs = ()

        def fill_defaults(self, int32_tensor: Tensor) -> None:
            int32_tensor.zero_()

        def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
            """[requests] int32; by now `position_offset` counts the tokens of this step too."""
            states = [request.state for request in requests_with_new_token]
            seeds = [state.logit_processor_kwargs.get("noise_seed", 0) for state in states]
            return seeds_tensor(seeds, [state.position_offset for state in states])

        def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
            seeds = tensor_arg[: scores.shape[0]]
            if watch is not None:
                watch(scores, seeds)
            return perturbed(scores, seeds, temperature=decoding.temperature, top_p=decoding.top_p)

    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([Draw()]))
    processors.tensors_required = 1  # it counts only those it has converted itself
    return processors


@contextmanager
def _little_to_collect() -> Iterator[None]:
    """Excludes existing objects from garbage collection, which transformers runs at each start and stop and which would
    take most of a small model's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _silent() -> Iterator[None]:
    """Silences the log of transformers' batching: its errors are raised here."""
    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
