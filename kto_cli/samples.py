"""A few held-out prompts answered by a model: what a person looks at before any number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from kto_cli.core.rows import EncodedRow
from kto_cli.token_store import EncodedRows


def pick_prompts(rows: EncodedRows, count: int) -> list[EncodedRow]:
    """One row for each of `count` different prompts: the first ones in the order of their hashes."""
    first: dict[str, int] = {}
    for index, name in enumerate(rows.prompt_ids):
        first.setdefault(name, index)
    return [rows[first[name]] for name in sorted(first)[:count]]


def answer_all(
    model: Any,
    tokenizer: Any,
    rows: Sequence[EncodedRow],
    *,
    max_new_tokens: int,
    tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """Greedy answers, one prompt at a time (no padding, so positions are those of training)."""
    answers = []
    for row in rows:
        prompt = torch.tensor([row.own.prompt], device=model.device)
        with torch.no_grad():
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.eos_token_id,
            )
        text = tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)
        answers.append(text.strip())
        tick()
    return answers
