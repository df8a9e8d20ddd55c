"""Models and prompts as engines take them, and where the answers are stored."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.cache import cache_folder
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.screen import Screen
from kto_cli.data.texts import Text, api_messages, offered
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Question
from kto_cli.evaluation.answers.store import AnswerStore
from kto_cli.evaluation.server.client import CallBudget, ChatServer
from kto_cli.evaluation.server.keys import ENGINE_KEY, key_for
from kto_cli.model import lora
from kto_cli.model.identity import numbers_identity, tokenizer_identity
from kto_cli.model.lengths import independent_length
from kto_cli.model.load import end_ids
from kto_cli.model.source import locate_base, located_below
from kto_cli.model.tokens.encoder import Encoder, FittedPrompt


def decoding_of(config: EvalConfig) -> Decoding:
    """How the answers of a command are drawn."""
    return Decoding(config.max_new_tokens, config.temperature, config.top_p, config.seed)


def answering_model(
    name: str, folder: Path, tokenizer: Any, model: Any, dtype: torch.dtype, config: EvalConfig
) -> AnsweringModel:
    """A loaded model as engines take it."""
    return AnsweringModel(
        name=name,
        folder=folder,
        tokenizer=tokenizer,
        ends=tuple(sorted({*end_ids(model), tokenizer.eos_token_id})),
        context=independent_length(model.config),
        model=lambda: model,
        base=locate_base(folder) if lora.is_adapter(folder) else None,
        stacked=lora.is_adapter(folder) and lora.is_adapter(located_below(folder)),
        dtype=str(dtype).removeprefix("torch."),
        trust_remote_code=config.trust_remote_code,
        template_kwargs=config.chat_template_kwargs or {},
    )


def fit_prompts(
    texts: Sequence[Text], subject: AnsweringModel, longest: int, date: str | None, room: int
) -> list[FittedPrompt]:
    """Prompts in a model's tokens, without their oldest turns where they leave no `room` for an answer.

    Args:
        date: YYYY-MM-DD, for a chat template that writes one; None: today's.
    """
    encoder = Encoder(
        subject.tokenizer,
        max_length=longest,
        end_ids=subject.ends,
        date=datetime.date.fromisoformat(date) if date else None,
        template_kwargs=subject.template_kwargs,
    )
    return encoder.fit_prompts(texts, [room] * len(texts), range(len(texts)))


def as_questions(ids: Sequence[str], tokens: Iterable[Sequence[int]], texts: Sequence[Text]) -> list[Question]:
    """Prompts as engines take them."""
    return [
        Question(name, list(some), api_messages(text, arguments_as_text=True), offered(text))
        for name, some, text in zip(ids, tokens, texts, strict=True)
    ]


def store_of(
    subject: AnsweringModel, weights: str, dtype: torch.dtype, family: str, decoding: Decoding, config: EvalConfig
) -> AnswerStore:
    """The stored answers of a model."""
    own = subject.tokenizer
    return AnswerStore(
        cache_folder(config),
        fingerprint=numbers_identity(weights, str(dtype)),
        reader=[list(subject.ends), tokenizer_identity(Path(own.name_or_path), own)],
        family=family,
        decoding=decoding,
    )


def connecting(screen: Screen) -> Callable[[str], ChatServer]:
    """Returns a function that opens connections to servers; only the number of prompts limits their calls."""

    def connected(url: str) -> ChatServer:
        key, calls = key_for(url, ENGINE_KEY), CallBudget(sys.maxsize)
        server = ChatServer(url, key=key, key_name=ENGINE_KEY, calls=calls, say=screen.note)
        server.reach()  # a server that is down is reported at once, not after all tries
        return server

    return connected
