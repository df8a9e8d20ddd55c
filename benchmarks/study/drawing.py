"""Answers and log-probs of a small model, plainly: one padded batch after another through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.model.load import end_ids, load_tokenizer
from kto_cli.model.tokens.encoder import Encoder

BATCH = 256


class Drawn(NamedTuple):
    """An answer: its prompt's and its own tokens, the end token included, and its text."""

    prompt: list[int]
    ids: list[int]
    text: str
    ended: bool


@dataclass(frozen=True)
class Answering:
    """A model with the encoder of its prompts."""

    model: Any
    tokenizer: Any
    encoder: Encoder
    ends: tuple[int, ...]

    @classmethod
    def load(cls, folder: Path) -> Answering:
        """The model of a folder, in float32."""
        from transformers import AutoModelForCausalLM

        tokenizer, _ = load_tokenizer(folder, chat_template=None, trust_remote_code=None)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ends = tuple({*end_ids(model), tokenizer.eos_token_id})
        encoder = Encoder(tokenizer, max_length=model.config.max_position_embeddings, end_ids=ends)
        return cls(model, tokenizer, encoder, ends)


@torch.no_grad()
def draw(answering: Answering, prompts: Sequence[Any], *, tokens: int, seed: int | None = None) -> list[Drawn]:
    """An answer to each prompt, of at most `tokens` tokens: greedy, or drawn at temperature 1 with a seed."""
    found: list[Drawn] = []
    encoded = [list(ids) for ids in answering.encoder.prompt_ids(prompts)]
    torch.manual_seed(seed or 0)
    how = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    for start in range(0, len(encoded), BATCH):
        some = encoded[start : start + BATCH]
        ids, mask = _padded(some, left=True)
        given = answering.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=tokens,
            eos_token_id=list(answering.ends),
            pad_token_id=0,
            **how,
        )
        found += [_drawn(answering, one, new) for one, new in zip(some, given[:, ids.shape[1] :].tolist(), strict=True)]
    return found


def _drawn(answering: Answering, prompt: list[int], new: list[int]) -> Drawn:
    end = next((index for index, token in enumerate(new) if token in answering.ends), None)
    ids = new if end is None else new[: end + 1]
    text = answering.tokenizer.decode(ids if end is None else ids[:-1], skip_special_tokens=True).strip()
    return Drawn(prompt, ids, text, end is not None)


@torch.no_grad()
def log_probs(model: Any, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """[sequences] float64: log-prob of each (prompt, completion)'s completion."""
    sums = []
    for start in range(0, len(sequences), BATCH):
        some = sequences[start : start + BATCH]
        ids, mask = _padded([[*prompt, *completion] for prompt, completion in some], left=False)
        logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        own = logps.gather(-1, ids[:, 1:, None])[..., 0].double()
        positions = torch.arange(1, ids.shape[1])
        for row, (prompt, completion) in zip(own, some, strict=True):
            inside = (positions >= len(prompt)) & (positions < len(prompt) + len(completion))
            sums.append(row[inside].sum())
    return torch.stack(sums)


def _padded(sequences: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
    """[sequences, tokens] token ids and mask."""
    width = max(map(len, sequences))
    ids, mask = (
        torch.zeros(len(sequences), width, dtype=torch.long),
        torch.zeros(len(sequences), width, dtype=torch.long),
    )
    for row, one in enumerate(sequences):
        where = slice(width - len(one), width) if left else slice(0, len(one))
        ids[row, where], mask[row, where] = torch.tensor(one), 1
    return ids, mask
