"""Encoder of prompts and completions: token ids in training are those that the model sees at inference.

The chat template renders a prompt with its generation prompt. A completion is tokenized separately, behind the last
words of the template, so that prompt and completion meet at a token boundary; it ends with the end-of-turn token. Rows
that are too long lose the oldest turns of the prompt first (never the last user turn), then the end of the completion
(and with it the end-of-turn token).

Texts are tokenized in batches, so that fast tokenizers use all cores (Rayon) without processes of ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kto_cli.common.errors import BadModel
from kto_cli.data.dataset import Text
from kto_cli.model.tokens.chat_template import PROBE, ChatTemplate

LEAST_COMPLETION = 16
"""A row is dropped if it has room for fewer tokens of its completion than this (and its completion has more)."""


@dataclass
class EncodingReport:
    """Rows that were shortened, truncated or dropped to fit; all fields count rows."""

    rows: int = 0
    shortened_prompts: int = 0
    """Rows whose prompt lost its oldest turns."""
    truncated_completions: int = 0
    """Rows whose completion lost its end and its end-of-turn token."""
    truncated_mismatched: int = 0
    """Rows whose mismatched completion was truncated to fit behind their prompt."""
    special_text: int = 0
    """Rows whose completion contains the name of a special token, which is encoded as plain text."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""

    def notes(self, what: str) -> list[str]:
        """One sentence per count above 0; `what` names the rows."""
        facts = (
            (self.shortened_prompts, "prompts lost their oldest turns to fit"),
            (self.truncated_completions, "completions were truncated to fit (no end-of-turn token)"),
            (self.truncated_mismatched, "mismatched completions were truncated to fit"),
            (self.special_text, "completions contain the name of a special token; it is encoded as plain text"),
        )
        sentences = [f"{count:,} of {self.rows:,} {what} {fact}" for count, fact in facts if count]
        return sentences + [
            f"{count:,} of {self.rows:,} {what} rows dropped: {why}" for why, count in self.dropped.items()
        ]


class FittedPrompt(NamedTuple):
    """Token ids of a prompt, as much of it as fits."""

    ids: tuple[int, ...]
    dropped: int
    """Number of oldest turns dropped."""


class Encoder:
    """Turns prompts and completions into token ids, for one tokenizer and one maximum length."""

    def __init__(self, tokenizer: Any, *, max_length: int, end_ids: Sequence[int] = ()) -> None:
        """
        Args:
            end_ids: tokens that end a turn, besides the tokenizer's end-of-sequence token.

        Raises:
            BadModel: the tokenizer has no end-of-sequence token, or its chat template cannot be used.
        """
        self.tokenizer = tokenizer
        self.max_length = max_length
        if tokenizer.eos_token_id is None:
            raise BadModel(
                "The model's tokenizer has no end-of-sequence token.",
                "Set eos_token in tokenizer_config.json.",
            )
        self.ends = sorted({tokenizer.eos_token_id, *end_ids})
        added = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)} - {""}
        self._special = re.compile("|".join(map(re.escape, sorted(special))) or "(?!)")
        self._bos = bos_prefix(tokenizer)
        self._template = ChatTemplate(tokenizer)
        self._backend = plain_backend(tokenizer)
        self._anchor, self._before, self._end = self._frame()

    def _frame(self) -> tuple[str, str, int]:
        """The template's text around an answer: (end of the prompt, text before the answer, end-of-turn id)."""
        turns = [{"role": "user", "content": PROBE}]
        (prompt,) = self._template.render([turns], generation=True)
        (chat,) = self._template.render([[*turns, {"role": "assistant", "content": PROBE}]], generation=False)
        anchor = prompt[prompt.rfind(PROBE) + len(PROBE) :]
        start = chat.rfind(PROBE)
        before = chat[len(prompt) : start] if chat.startswith(prompt) and start >= len(prompt) else ""
        (after,) = self._ids([chat[start + len(PROBE) :]])
        return anchor, before, next((token for token in after if token in self.ends), self.tokenizer.eos_token_id)

    def _ids(self, texts: Sequence[str], *, names_as_text: bool = False) -> list[list[int]]:
        """Token ids of texts, by the fast tokenizer's own encoder where there is one.

        Args:
            names_as_text: encode names of special tokens as plain text.
        """
        if not texts:
            return []
        if self._backend is None:
            options = {"return_attention_mask": False, "return_token_type_ids": False, "add_special_tokens": False}
            return self.tokenizer(list(texts), split_special_tokens=names_as_text, **options).input_ids
        return encode(self._backend, list(texts), names_as_text=names_as_text)

    def prompt_ids(self, prompts: Sequence[Text]) -> list[tuple[int, ...]]:
        """Token ids of prompts: one BOS where the tokenizer adds one (text) or the template writes one (chat)."""
        chats = iter(self._template.render([one for one in prompts if not isinstance(one, str)], generation=True))
        rendered = [prompt if isinstance(prompt, str) else next(chats) for prompt in prompts]
        return [
            tuple(self._bos + ids if isinstance(prompt, str) and ids[: len(self._bos)] != self._bos else ids)
            for prompt, ids in zip(prompts, self._ids(rendered), strict=True)
        ]

    def completion_ids(self, completions: Sequence[Text]) -> list[tuple[tuple[int, ...], bool]]:
        """Token ids of completions with the end-of-turn token, and whether each contains a special token's name.

        A completion is tokenized behind the last words of the prompt, so that a tokenizer that marks the start of a
        text does not mark it here; it is tokenized alone if the two would merge into one token.
        """
        texts = [one if isinstance(one, str) else self._before + one[0]["content"] for one in completions]
        anchors = [":" if isinstance(one, str) else self._anchor for one in completions]
        ends = [self.tokenizer.eos_token_id if isinstance(one, str) else self._end for one in completions]
        named = [self._special.search(text) is not None for text in texts]
        ids: list[list[int]] = [[] for _ in texts]
        for is_named in (False, True):
            chosen = [index for index, found in enumerate(named) if found == is_named]
            behind = self._behind([anchors[index] for index in chosen], [texts[index] for index in chosen], is_named)
            for index, found_ids in zip(chosen, behind, strict=True):
                ids[index] = found_ids
        return [((*own, end), found) for own, end, found in zip(ids, ends, named, strict=True)]

    def _behind(self, anchors: Sequence[str], texts: Sequence[str], named: bool) -> list[list[int]]:
        """Token ids of texts, each as tokenized behind its anchor."""
        distinct = sorted(set(anchors))
        before = dict(zip(distinct, self._ids(distinct, names_as_text=named), strict=True))
        together = [anchor + text for anchor, text in zip(anchors, texts, strict=True)]
        joined = self._ids(together, names_as_text=named)
        merged = [
            index for index, ids in enumerate(joined) if ids[: len(before[anchors[index]])] != before[anchors[index]]
        ]
        behind = [ids[len(before[anchor]) :] for anchor, ids in zip(anchors, joined, strict=True)]
        alone = self._ids([texts[index] for index in merged], names_as_text=named)
        for index, ids in zip(merged, alone, strict=True):
            behind[index] = ids
        return behind

    def fit_prompts(
        self, prompts: Sequence[Text], completion_tokens: Sequence[int], numbers: Sequence[int]
    ) -> list[FittedPrompt]:
        """Drops as many of each prompt's oldest turns as its completion needs room, or as there are.

        Args:
            numbers: equal for equal prompts, so that each is tokenized once.
        """
        remaining: dict[int, Text] = dict(enumerate(prompts))
        known: dict[tuple[int, int], tuple[int, ...]] = {}  # ids by number and dropped turns
        fitted = [FittedPrompt((), -1)] * len(prompts)
        while remaining:
            keys = {index: (numbers[index], fitted[index].dropped + 1) for index in remaining}
            new = {keys[index]: text for index, text in remaining.items() if keys[index] not in known}
            known.update(zip(new, self.prompt_ids(list(new.values())), strict=True))
            too_long = {}
            for index, text in remaining.items():
                ids = known[keys[index]]
                fitted[index] = FittedPrompt(ids, keys[index][1])
                shorter = _without_oldest_turn(text) if len(ids) + completion_tokens[index] > self.max_length else None
                if shorter is not None:
                    too_long[index] = shorter
            remaining = too_long
        return fitted


def encode(backend: Any, texts: list[str], *, names_as_text: bool) -> list[list[int]]:
    """Token ids by a fast tokenizer's encoder; its settings are set anew, as any caller may have changed them."""
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = names_as_text
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]


def plain_backend(tokenizer: Any) -> Any:
    """A fast tokenizer's encoder, or None if its ids differ: some tokenizers prepare texts in Python first."""
    if not getattr(tokenizer, "is_fast", False) or not hasattr(tokenizer.backend_tokenizer, "encode_batch_fast"):
        return None
    backend = tokenizer.backend_tokenizer
    names = "".join(tokenizer.all_special_tokens)
    texts = [f" {PROBE}\n\nHuman: \t\u00e9\u4f60 {names}{PROBE}", PROBE, " x", "\n"]
    for split in (False, True):
        expected = tokenizer(texts, add_special_tokens=False, split_special_tokens=split).input_ids
        if encode(backend, texts, names_as_text=split) != expected:
            return None
    return backend


def bos_prefix(tokenizer: Any) -> list[int]:
    """Ids that this tokenizer puts before a text (BOS, or nothing)."""
    plain, marked = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    for start in range(len(marked) - len(plain) + 1):
        if marked[start : start + len(plain)] == plain:
            return list(marked[:start])
    return []


def _without_oldest_turn(prompt: Text) -> Text | None:
    """The prompt without its oldest user turn and answer, a system message kept; None for a text or a single turn."""
    if isinstance(prompt, str):
        return None
    system = [message for message in prompt[:1] if message["role"] == "system"]
    turns = list(prompt[len(system) :])
    starts = [index for index, message in enumerate(turns) if message["role"] == "user"]
    return (*system, *turns[starts[1] :]) if len(starts) > 1 else None
