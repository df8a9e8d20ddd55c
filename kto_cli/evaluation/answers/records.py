"""What is asked of a model and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn. Temperature and top-p are the defaults of the KTO authors' code
    (github.com/ContextualAI/HALOs, train/sample.py)."""

    max_new_tokens: int = EvalConfig.max_new_tokens
    temperature: float = EvalConfig.temperature
    """0 takes the likeliest token every time."""
    top_p: float = EvalConfig.top_p
    """Only the likeliest tokens that together reach this share are drawn (nucleus sampling, Holtzman et al. 2020)."""
    seed: int = EvalConfig.seed

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {self.max_new_tokens}.", "Give 1 or more.")
        if not 0 <= self.temperature < float("inf"):
            raise BadInput(f"temperature is {self.temperature}.", "Give 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p is {self.top_p}.", "Give more than 0 and at most 1.")

    @property
    def greedy(self) -> bool:
        """Nothing is drawn."""
        return self.temperature == 0


class Question(NamedTuple):
    """A validation prompt."""

    id: str
    tokens: list[int]
    """As in training: rendered by the chat template, its generation prompt and BOS included."""
    messages: str | list[dict[str, str]]
    """The same as raw text or chat turns, for servers that render it themselves."""


class Answer(NamedTuple):
    """What a model said."""

    text: str
    """Without special tokens and the white space around it."""
    tokens: int
    """Generated ones; the end-of-sequence token is not counted."""
    ended: bool
    """The model ended by itself; else it was cut at `max_new_tokens` or at the end of its context."""


class Engine(Protocol):
    """Something that answers questions."""

    @property
    def name(self) -> str:
        """How it is called in results: continuous, padded, vllm or a server's URL."""

    @property
    def family(self) -> str:
        """Engines of one family give the same answers, up to rounding."""

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """(place in `questions`, answer), each once, in the order they finish."""


@dataclass(frozen=True)
class AnsweringModel:
    """A model that is to answer."""

    name: str
    """What the user called it."""
    folder: Path
    """Its weights, or its adapter."""
    tokenizer: Any
    ends: tuple[int, ...]
    """Token ids that end an answer."""
    context: int | None
    """The most tokens it takes, of prompt and answer; None where it does not say."""
    model: Callable[[], Any]
    """Gives it loaded, on its device; not called by engines that load it themselves."""
    base: Path | None = None
    """Of an adapter: the folder of the model it goes on."""
    dtype: str = "auto"
    """Of the weights, for engines that load it themselves."""
    trust_remote_code: bool = False

    def room(self, question: Question, decoding: Decoding) -> int:
        """Tokens the answer may have."""
        if self.context is None:
            return decoding.max_new_tokens
        return max(0, min(decoding.max_new_tokens, self.context - len(question.tokens)))

    def answer(self, tokens: Sequence[int]) -> Answer:
        """Of generated tokens, up to the first that ends an answer."""
        end = next((place for place, token in enumerate(tokens) if token in self.ends), None)
        kept = list(tokens[:end])
        return Answer(self.tokenizer.decode(kept, skip_special_tokens=True).strip(), len(kept), end is not None)


def answerable(
    subject: AnsweringModel, questions: Sequence[Question], decoding: Decoding
) -> tuple[list[int], list[tuple[int, Answer]]]:
    """Places of the questions that leave room for an answer, and the empty, cut answers of those that do not."""
    rooms = [subject.room(question, decoding) for question in questions]
    silent = [(place, Answer("", 0, False)) for place, room in enumerate(rooms) if not room]
    return [place for place, room in enumerate(rooms) if room], silent


def prompt_seed(seed: int, tokens: Sequence[int]) -> int:
    """63 bits that depend on the seed and the prompt alone: what makes an answer independent of all others."""
    text = f"{seed} {' '.join(map(str, tokens))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
