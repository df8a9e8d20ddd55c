"""Several answers to each prompt, drawn independently.

The seed of a draw is a hash of `--seed` and its number, and that of an answer a hash of this seed and the prompt. The
first draw has the seed itself: it gives the answers of `kto eval`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kto_cli.common.files import text_hash
from kto_cli.data.pipeline.export import trl_texts
from kto_cli.data.texts import TOOLS, tools_of
from kto_cli.evaluation.answers.records import Answer, Decoding, Engine, Question
from kto_cli.evaluation.answers.sample_prompts import SamplePrompt
from kto_cli.evaluation.answers.store import AnswerStore, answer_all

CHUNK = 256
"""Prompts whose answers are appended to the file at once; single answers are stored in the cache."""


def draw_seed(seed: int, number: int) -> int:
    """Seed of a draw, counted from 1."""
    if number == 1:
        return seed
    text = f"draw {number} of {seed}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def row_key(prompt: SamplePrompt, number: int) -> str:
    """Names a prompt's answer in the file."""
    return text_hash(prompt.id, str(number))


class Drawn(NamedTuple):
    """One answer."""

    prompt: SamplePrompt
    number: int
    """Of the draw, from 1."""
    answer: Answer

    def row(self, model: str) -> dict[str, Any]:
        """Its line, in TRL's columns."""
        prompt, text = self.prompt.text, self.answer.text
        completion = text if isinstance(prompt, str) else ({"role": "assistant", "content": text},)
        return {
            **trl_texts(prompt, completion),
            **({TOOLS: tools_of(prompt)} if tools_of(prompt) else {}),
            **({"target": self.prompt.target} if self.prompt.target is not None else {}),
            "draw": self.number,
            "model": model,
            "tokens": self.answer.tokens,
            "ended": self.answer.ended,
            "key": row_key(self.prompt, self.number),
        }


def missing(prompts: Iterable[SamplePrompt], count: int, there: Collection[str]) -> list[tuple[SamplePrompt, int]]:
    """(prompt, draw) of all answers that are not there."""
    return [
        (prompt, number) for prompt in prompts for number in range(1, count + 1) if row_key(prompt, number) not in there
    ]


def draw(
    engine: Engine,
    asked: Sequence[tuple[SamplePrompt, Question]],
    there: Collection[str],
    count: int,
    decoding: Decoding,
    store_of: Callable[[Decoding], AnswerStore],
    tick: Callable[[], None],
) -> Iterator[list[Drawn]]:
    """The answers that are not there, those of `CHUNK` prompts at a time, by prompt and draw.

    Raises:
        KtoError: the engine failed; what it has answered is stored.
    """
    open_prompts = [each for each in asked if missing([each[0]], count, there)]
    for start in range(0, len(open_prompts), CHUNK):
        found: dict[str, Drawn] = {}
        some = open_prompts[start : start + CHUNK]
        for number in range(1, count + 1):
            wanted = [each for each in some if row_key(each[0], number) not in there]
            drawn = replace(decoding, seed=draw_seed(decoding.seed, number))
            questions = [question for _, question in wanted]
            answers = answer_all(engine, questions, drawn, store_of(drawn), tick) if wanted else []
            for (prompt, _), answer in zip(wanted, answers, strict=True):
                found[row_key(prompt, number)] = Drawn(prompt, number, answer)
        yield [found[row_key(*each)] for each in missing([prompt for prompt, _ in some], count, there)]


def repeats(rows: Iterable[dict[str, Any]]) -> int:
    """Answers that equal an earlier one to their prompt."""
    seen = Counter(text_hash(str(row["prompt"]), str(row.get(TOOLS)), str(row["completion"])) for row in rows)
    return seen.total() - len(seen)
