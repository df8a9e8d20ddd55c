"""Answers in left-padded batches of prompts of similar length: works with every model that generates at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.common.errors import OutOfMemory
from kto_cli.common.words import plural
from kto_cli.evaluation.answers.noise import perturbed, seeds_tensor
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question, answerable, prompt_seed

TOKENS = {"cpu": 8192, "cuda": 131072}
"""Prompt and answer tokens of a batch, padding included, by kind of device."""


class _Open(NamedTuple):
    """A question whose answer is not finished."""

    number: int
    """Its index among the questions."""
    prompt: list[int]
    seed: int
    room: int
    """Tokens the whole answer may have."""
    made: list[int]
    """Its tokens so far."""

    @property
    def length(self) -> int:
        """Tokens so far, the prompt included."""
        return len(self.prompt) + len(self.made)

    @property
    def left(self) -> int:
        """Tokens that may still be generated."""
        return self.room - len(self.made)


class Padded:
    """transformers' `generate` on batches."""

    name = "padded"
    family = "transformers"

    def __init__(self, subject: AnsweringModel, *, tokens: int | None = None) -> None:
        """`tokens`: the limit of a batch, padding and room for the answers included."""
        self._subject = subject
        self._tokens = tokens

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """Answers, the longest prompts first, so that too little memory shows at once.

        A batch ends when one of its rows has no room left in the context; unfinished rows continue in a later batch.
        Draws depend on positions alone, so that changes no answer.

        Raises:
            OutOfMemory: even one question at a time does not fit.
        """
        indices, silent = answerable(self._subject, questions, decoding)
        yield from silent
        if not indices:
            return
        model = self._subject.model()
        waiting = [
            _Open(index, question.tokens, prompt_seed(decoding.seed, question.tokens), room, [])
            for index, question, room in (
                (index, questions[index], self._subject.room(questions[index], decoding)) for index in indices
            )
        ]
        budget = self._tokens or TOKENS.get(model.device.type, TOKENS["cuda"])
        while waiting:
            batch, waiting = _next_batch(waiting, budget)
            for row in self._halving(model, batch, decoding):
                answer = self._subject.answer(row.made)
                if answer.ended or not row.left:
                    yield row.number, answer
                else:
                    waiting.append(row)

    def _halving(self, model: Any, batch: list[_Open], decoding: Decoding) -> Iterator[_Open]:
        """A batch's rows with more tokens; if memory runs out, one half after the other."""
        try:
            yield from _generate(model, self._subject, batch, decoding)
            return
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise OutOfMemory(
                    f"{self._subject.name} cannot answer a prompt of {plural(len(batch[0].prompt), 'token')}: the "
                    "device has too little memory.",
                    "Use a smaller --dtype or a smaller --max-new-tokens.",
                ) from error
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from self._halving(model, half, decoding)


def _next_batch(waiting: list[_Open], budget: int) -> tuple[list[_Open], list[_Open]]:
    """The longest rows with similar room left (within a factor of two), and the rows that wait."""
    waiting = sorted(waiting, key=lambda row: (-row.length, row.number))
    size = waiting[0].left.bit_length()
    alike = [row for row in waiting if row.left.bit_length() == size or row.left == waiting[0].left]
    batch = alike[: max(1, budget // (waiting[0].length + waiting[0].left))]
    taken = {row.number for row in batch}
    return batch, [row for row in waiting if row.number not in taken]


class _Draw:
    """Logits processor: adds each row's noise, so that the greedy choice is a draw."""

    def __init__(self, rows: Sequence[_Open], width: int, decoding: Decoding) -> None:
        self._seeds = [row.seed for row in rows]
        self._shifts = [width - row.length for row in rows]
        self._decoding = decoding

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, tokens so far], [rows, vocabulary] -> [rows, vocabulary]."""
        positions = [input_ids.shape[1] - shift for shift in self._shifts]
        seeds = seeds_tensor(self._seeds, positions).to(scores.device)
        return perturbed(scores, seeds, temperature=self._decoding.temperature, top_p=self._decoding.top_p)


def _generate(model: Any, subject: AnsweringModel, rows: Sequence[_Open], decoding: Decoding) -> list[_Open]:
    """The rows, extended by the least room among them; tokens after an end are ignored later. transformers counts
    positions from the mask."""
    width = max(row.length for row in rows)
    ids = torch.full((len(rows), width), subject.ends[0], dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, width - row.length :] = torch.tensor(row.prompt + row.made)
        mask[index, width - row.length :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    moved = {name: value.to(model.device) for name, value in inputs.items()}
    processors = [] if decoding.greedy else [_Draw(rows, width, decoding)]
    with plainly(model, subject, min(row.left for row in rows)) as settings, torch.no_grad():
        output = model.generate(**moved, generation_config=settings, logits_processor=processors)
    return [row._replace(made=row.made + new) for row, new in zip(rows, output[:, width:].tolist(), strict=True)]


@contextmanager
def plainly(model: Any, subject: AnsweringModel, limit: int) -> Iterator[Any]:
    """Generation settings with only a limit and end tokens; meanwhile the model's own settings (such as a repetition
    penalty), which `generate` would mix in, are replaced."""
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=limit, do_sample=False, eos_token_id=list(subject.ends), pad_token_id=subject.ends[0]
    )
    own, training = model.generation_config, model.training
    model.generation_config = settings
    model.eval()
    try:
        yield settings
    finally:
        model.generation_config = own
        model.train(training)
