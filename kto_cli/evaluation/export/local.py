"""What a model here makes of validation rows and of a server's answers: log-probs, regrets, its own greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.rows import EncodedRow
from kto_cli.data.texts import Text, turn_text
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.evaluation.export.requests import ServedAnswer
from kto_cli.model.lengths import independent_length
from kto_cli.model.tokens.encoder import Encoder


@dataclass(frozen=True)
class AskedRows:
    """What is compared: validation rows, and prompts as a server renders them today."""

    rows: list[EncodedRow]
    texts: list[Text]
    """[rows] their prompts."""
    tokens: list[list[int]]
    """[rows] of whole prompts: a server drops no turns."""
    encoder: Encoder
    ends: tuple[int, ...]
    most: int
    """Tokens of an answer."""

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """The tokenizer's tokens."""
        found: dict[str, int] = self.encoder.tokenizer.get_vocab()
        return found


class Computed(NamedTuple):
    """What a model here makes of the rows and of the server's answers."""

    logps: list[Tensor]
    regrets: list[Tensor]
    same: int
    answered: list[Tensor]
    """Log-probs of the answers whose tokens are known."""


def _text(answer: ServedAnswer) -> str:
    text = answer.completion if isinstance(answer.completion, str) else turn_text(answer.completion)
    return text.strip()


class SpokenAnswer(NamedTuple):
    """An answer whose tokens are known, and the server's log-probs of them."""

    prompt: list[int]
    ids: list[int]
    logps: Tensor


def spoken_answers(rows: AskedRows, answers: Sequence[ServedAnswer]) -> list[SpokenAnswer]:
    """The answers whose text, in our tokens, is token for token what the server says that it made."""
    decode = rows.encoder.tokenizer.decode
    found = []
    for prompt, answer in zip(rows.tokens, answers, strict=True):
        for ids in _spellings(rows, answer) if answer.tokens else ():
            own = [decode([one]) for one in ids]
            given = [text for text, _ in answer.tokens][: len(own)]
            if len(given) == len(own) and all(
                a.strip() == b.strip() or "\ufffd" in a for a, b in zip(own, given, strict=True)
            ):
                logps = torch.tensor([logp for _, logp in answer.tokens][: len(own)], dtype=torch.float64)
                found.append(SpokenAnswer(prompt, ids, logps))
                break
    return found


def computed(model: Any, rows: AskedRows, answers: Sequence[ServedAnswer], spoken: Sequence[SpokenAnswer]) -> Computed:
    """Log-probs of the rows' completions, and regrets of the served answers."""
    own = _greedy(model, rows)
    logps = [_scored(model, row.own.prompt, row.own.completion)[0] for row in rows.rows]
    same = [one.text == _text(answer) for one, answer in zip(own, answers, strict=True)]
    regrets = [
        torch.zeros(one.tokens + one.ended) if equal else _regret(model, rows, ids, answer)
        for one, equal, ids, answer in zip(own, same, rows.tokens, answers, strict=True)
    ]
    answered = [_scored(model, one.prompt, one.ids)[0] for one in spoken]
    return Computed(logps, regrets, sum(same), answered)


def _greedy(model: Any, rows: AskedRows) -> list[Answer]:
    """The model's own greedy answers."""
    subject = AnsweringModel(
        "the model", Path(), rows.encoder.tokenizer, rows.ends, independent_length(model.config), lambda: model
    )
    questions = [Question(str(index), ids, []) for index, ids in enumerate(rows.tokens)]
    found = dict(Padded(subject).answers(questions, Decoding(max_new_tokens=rows.most, temperature=0, top_p=1.0)))
    return [found[index] for index in range(len(questions))]


def _spellings(rows: AskedRows, answer: ServedAnswer) -> list[list[int]]:
    """Token ids that an answer may be of, without its end: the tokenizer's, and neighbours in one where a model may say
    them so. Some servers strip white space, so it is spelled with a space before it too; the last token of a truncated
    answer may be a part of one and is left out."""
    text = answer.completion
    spelled = [text, " " + text] if isinstance(text, str) else [text, {**text, "content": " " + text["content"]}]
    completions = [one if isinstance(one, str) else (one,) for one in spelled]
    encoded = [list(one.ids) for one in rows.encoder.encode_completions(completions)]
    cut = [ids for each in encoded if (ids := each[:-1] if answer.ended else each[:-2])]
    joined = [_joined(ids, rows) for ids in cut]
    return cut + [ids for ids in joined if ids not in cut]


def _joined(ids: Sequence[int], rows: AskedRows) -> list[int]:
    """With one token for two neighbours where there is one. A tokenizer splits text before it looks for tokens, so it
    may spell an empty line with two; models say it with one (SmolLM2-135M-Instruct before a list)."""
    names, vocabulary = rows.encoder.tokenizer.convert_ids_to_tokens(list(ids)), rows.vocabulary
    found: list[str] = []
    for name in names:
        if found and found[-1] + name in vocabulary:
            found[-1] += name
        else:
            found.append(name)
    return [vocabulary[name] for name in found]


def _regret(model: Any, rows: AskedRows, prompt: list[int], answer: ServedAnswer) -> Tensor:
    """[tokens] the best token's log-prob less the answered token's, of the likelier spelling, its end included."""
    end = [rows.ends[0]] if answer.ended else []
    spelled = _spellings(rows, answer) or ([[]] if end else [])
    tried = [_scored(model, prompt, [*ids, *end], ends=rows.ends if end else ())[1] for ids in spelled]
    return min(tried, key=lambda below: below.sum().item()) if tried else torch.zeros(0)


@torch.no_grad()
def _scored(
    model: Any, prompt: Sequence[int], completion: Sequence[int], *, ends: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    """[tokens] log-probs of the completion, and how far each is below the best token's.

    Args:
        ends: any of these tokens may stand for the last one.
    """
    ids = torch.tensor([[*prompt, *completion]], device=model.device)
    logps = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    own = logps.gather(1, ids[0, len(prompt) :, None])[:, 0]
    below = logps.max(-1).values - own
    if ends:
        below[-1] = logps[-1].max() - logps[-1, list(ends)].max()
    return own.cpu(), below.cpu()
