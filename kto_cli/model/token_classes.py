"""Values that a token classification model sees in a text, such as names and addresses (openai/privacy-filter)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.errors import BadModel, first_line
from kto_cli.data.audit.scrub import Finder, Named

WINDOW, SHARED = 512, 64
"""Tokens that the model is given at once, and of them those of the window before: a value at an edge is seen whole."""
OUTSIDE = "O"
BEGINS = ("B", "S", "U")
"""Prefixes of the first token of a value: begin, single (unit)."""
PREFIXES = (*BEGINS, "I", "E", "L")


def finder_of(path: str) -> Finder:
    """A finder that asks the model in a folder or on the Hub; texts that it was asked of before are not run again.

    Raises:
        BadModel: there is none, or it has no classes of tokens.
    """
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    step = "Give the folder or Hub id of a token classification model, such as openai/privacy-filter."
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForTokenClassification.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadModel(f"--scrub-model {path} cannot be loaded: {first_line(error)}.", step) from error
    if not tokenizer.is_fast or not any("-" in label for label in model.config.id2label.values()):
        classes = ", ".join(map(str, [*model.config.id2label.values()][:5]))
        raise BadModel(f"--scrub-model {Path(path).name} has no classes of values such as B-name ({classes}).", step)
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return lru_cache(maxsize=4096)(lambda text: [*values_in(text, tokenizer, model)])


@torch.inference_mode()
def values_in(text: str, tokenizer: Any, model: Any) -> Iterator[Named]:
    """Values of a text, window by window; of two that overlap the caller takes the first."""
    size = min(WINDOW, tokenizer.model_max_length)
    windows = tokenizer(
        text,
        truncation=True,
        max_length=size,
        stride=min(SHARED, size // 4),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    for index, ids in enumerate(windows["input_ids"]):
        classes = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].argmax(-1).tolist()
        labels = [
            OUTSIDE if special else model.config.id2label[number]
            for number, special in zip(classes, windows["special_tokens_mask"][index], strict=True)
        ]
        yield from named(text, labels, windows["offset_mapping"][index])


def named(text: str, labels: Iterable[str], offsets: Iterable[tuple[int, int]]) -> Iterator[Named]:
    """Values of tagged tokens (BIO, BIOES or plain classes), without white space at their ends."""
    open_kind, start, end = "", 0, 0
    for label, (first, last) in [*zip(labels, offsets, strict=True), (OUTSIDE, (0, 0))]:
        prefix, _, rest = label.partition("-")
        kind = "" if label == OUTSIDE else rest if prefix in PREFIXES and rest else label
        if open_kind and (kind != open_kind or prefix in BEGINS):
            inner = text[start:end]
            left, right = len(inner) - len(inner.lstrip()), len(inner) - len(inner.rstrip())
            if inner.strip():
                yield Named((start + left, end - right), open_kind.lower())
            open_kind = ""
        if kind and not open_kind:
            open_kind, start = kind, first
        if kind:
            end = last
