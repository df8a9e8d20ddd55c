"""Questions, answers, decoding settings, and the model that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


class Question(NamedTuple):
    """A validation prompt."""

    id: str
    tokens: list[int]
    """As in training: rendered by the chat template, its generation prompt and BOS included."""
    messages: list[dict[str, Any]]
    """The prompt as chat turns, for servers that render it themselves."""
    tools: list[dict[str, Any]] | None = None
    """The tools that it offers."""


class Answer(NamedTuple):
    """One answer of a model."""

    text: str
    """Its text, without special tokens and surrounding white space."""
    tokens: int
    """Tokens generated, without the end-of-sequence token."""
    ended: bool
    """Whether the model ended it; otherwise it was truncated at `max_new_tokens` or at the end of the context."""


class Engine(Protocol):
    """Generates answers."""

    @property
    def name(self) -> str:
        """Its name in results: continuous, padded, vllm or a server's URL."""

    @property
    def family(self) -> str:
        """Engines of one family give the same answers, up to rounding."""

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """(index into `questions`, answer), each once, in the order they finish."""


@dataclass(frozen=True)
class AnsweringModel:
    """A model that answers questions."""

    name: str
    """The user's name for it."""
    folder: Path
    """The folder of its weights, or of its adapter."""
    tokenizer: Any
    ends: tuple[int, ...]
    """Token ids that end an answer."""
    context: int | None
    """The most tokens of prompt and answer together (`lengths.independent_length`); None: not stated by the model."""
    model: Callable[[], Any]
    """Returns the loaded model, on its device; engines that load it themselves do not call this."""
    base: Path | None = None
    """For an adapter, the folder of its base model."""
    stacked: bool = False
    """The adapter belongs on another one, not on the base alone."""
    dtype: str = "auto"
    """Dtype of the weights, for engines that load it themselves."""
    trust_remote_code: bool = False
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the chat template, for servers that render prompts themselves."""

    def room(self, question: Question, decoding: Decoding) -> int:
        """Tokens that fit behind the prompt, `max_new_tokens` at most."""
        if self.context is None:
            return decoding.max_new_tokens
        return max(0, min(decoding.max_new_tokens, self.context - len(question.tokens)))

    def answer(self, tokens: Sequence[int]) -> Answer:
        """The answer of generated tokens, up to the first end token."""
        end = next((index for index, token in enumerate(tokens) if token in self.ends), None)
        own = list(tokens[:end])
        return Answer(self.tokenizer.decode(own, skip_special_tokens=True).strip(), len(own), end is not None)


def answerable(
    subject: AnsweringModel, questions: Sequence[Question], decoding: Decoding
) -> tuple[list[int], list[tuple[int, Answer]]]:
    """Indices of the questions whose prompts leave room for an answer, and empty answers to the others."""
    rooms = [subject.room(question, decoding) for question in questions]
    silent = [(index, Answer("", 0, False)) for index, room in enumerate(rooms) if not room]
    return [index for index, room in enumerate(rooms) if room], silent


def prompt_seed(seed: int, tokens: Sequence[int]) -> int:
    """63 bits from the seed and the prompt alone, so that each answer is independent of all others."""
    text = f"{seed} {' '.join(map(str, tokens))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
