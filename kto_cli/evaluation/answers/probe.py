"""Probe of continuous batching: whether its log-probs are those of the plain forward pass."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.errors import KtoError
from kto_cli.evaluation.answers.batching import flash_attention
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.noise import seeds_tensor
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Question, prompt_seed

_PROMPTS, _TOKENS = 4, 4
"""Prompts of the probe, the longest among them, and tokens drawn for each."""
_NATS = {torch.float32: 0.01, torch.float64: 0.01}
"""Tolerance of the probe: nats by which a log-prob may differ from the plain forward pass."""
_NATS_IN_HALF = 0.5
"""In half precision rounding alone moves log-probs of rare tokens by a few tenths."""


def probe(subject: AnsweringModel, questions: Sequence[Question], decoding: Decoding | None = None) -> str | None:
    """Why continuous batching cannot be used with this model, or None.

    A few tokens are drawn for three short prompts and a long one together. The log-probs they are drawn from must be
    those of the plain forward pass over each prompt and its answer: right positions, mask, window and noise.

    Args:
        decoding: that of the answers; if some will exceed the model's attention window, the long prompt does.
    """
    model = subject.model()
    if _soft_cap(model) is not None and flash_attention(model) is None:
        return "its attention scores are capped, which transformers' continuous batching leaves out"
    drawn = Decoding(max_new_tokens=_TOKENS, temperature=1.0, top_p=1.0)
    asked = _asked(subject, questions, decoding or drawn)
    seen: dict[int, Tensor] = {}
    watched = Continuous(subject, lambda logits, seeds: seen.update(zip(seeds.tolist(), logits.clone(), strict=False)))
    try:
        made = dict(watched.tokens(asked, drawn))
    except KtoError as error:
        return error.what[:1].lower() + error.what[1:].rstrip(".")
    allowed = _NATS.get(model.dtype, _NATS_IN_HALF)
    apart = max((_apart(model, asked[index], tokens, drawn, seen) for index, tokens in made.items()), default=0.0)
    return None if apart <= allowed else f"its log-probs differ by {apart:.2g} nats in continuous batching"


def _soft_cap(model: Any) -> float | None:
    """The cap of attention scores (Gemma 2). Its effect may be smaller than rounding where prompts are short."""
    return getattr(model.config.get_text_config(), "attn_logit_softcapping", None)


def _asked(subject: AnsweringModel, questions: Sequence[Question], decoding: Decoding) -> list[Question]:
    """The shortest prompts, and the longest, which is repeated until it exceeds the window that answers will exceed."""
    drawn = Decoding(max_new_tokens=_TOKENS)
    fitting = [question for question in questions if subject.room(question, drawn) == _TOKENS]
    ordered = sorted(fitting, key=lambda question: len(question.tokens))
    if not ordered:
        return []
    longest = ordered[-1]
    window = getattr(subject.model().config.get_text_config(), "sliding_window", None) or math.inf
    if len(longest.tokens) <= window < len(longest.tokens) + decoding.max_new_tokens:
        times = int(window) // len(longest.tokens) + 1
        longer = longest._replace(tokens=longest.tokens * times)
        longest = longer if subject.room(longer, drawn) == _TOKENS else longest
    return [*ordered[: min(_PROMPTS, len(ordered)) - 1], longest]


def _apart(model: Any, question: Question, tokens: list[int], decoding: Decoding, seen: dict[int, Tensor]) -> float:
    """Largest difference, in nats, between a token's log-prob and that of the plain forward pass; infinite for a
    position whose noise was not asked for.

    Args:
        seen: logits [vocabulary] by the seed of their draw.
    """
    ids = torch.tensor([question.tokens + tokens], device=model.device)
    few = {"logits_to_keep": len(tokens) + 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        plain = model(input_ids=ids, **few).logits[0, -len(tokens) - 1 : -1].float().log_softmax(-1)
    positions = range(len(question.tokens), ids.shape[1])
    seeds = seeds_tensor([prompt_seed(decoding.seed, question.tokens)] * len(tokens), positions).tolist()
    if not seen.keys() >= set(seeds):
        return math.inf
    drawn = torch.stack([seen[seed] for seed in seeds]).float().log_softmax(-1)
    return float((drawn - plain.to(drawn.device)).abs().max())
