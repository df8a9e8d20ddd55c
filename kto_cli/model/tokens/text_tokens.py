"""Token ids of texts: by the fast tokenizer's encoder, behind other texts, with names of special tokens as plain text.

Texts are tokenized in batches, so that fast tokenizers use all cores (Rayon) without processes of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kto_cli.model.tokens.chat_template import PROBE

HIDDEN = re.compile("\ue0f0(\\d+(?:,\\d+)*)\ue0f1")
"""A name of a special token while a template renders the text around it: its characters' numbers."""
OTHER_ANCHORS = (":", "\n", "a")
"""Texts that a completion is tokenized behind if it merges with the end of the prompt."""


class TextTokens:
    """Tokenizes texts without a start token."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self.special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)} - {""}
        """Names of special tokens."""
        self._names = _one_of(self.special)
        # The model writes the tokens around its reasoning itself: in an answer they are what they are.
        self._forged = _one_of({name for name in self.special if not re.search("think|reason|thought", name, re.I)})
        self.bos = bos_prefix(tokenizer)
        """Ids that the tokenizer puts before a text."""
        self._backend = plain_backend(tokenizer)

    def hidden(self, text: str) -> str:
        """Text of an answer with the names of special tokens in it hidden from the chat template."""
        return self._forged.sub(_hide, text)

    def ids(self, texts: Sequence[str], *, names_as_text: bool = False) -> list[list[int]]:
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

    def behind(self, anchors: Sequence[str], texts: Sequence[str], *, names_as_text: bool = False) -> list[list[int]]:
        """Token ids of texts, each as tokenized behind its anchor, or behind another one if it merges with that."""
        found: list[list[int]] = [[] for _ in texts]
        left = list(range(len(texts)))
        for others in (None, *OTHER_ANCHORS):
            before_all = [others or anchors[index] for index in left]
            distinct = sorted(set(before_all))
            before = dict(zip(distinct, self.ids(distinct, names_as_text=names_as_text), strict=True))
            joined = self.ids(
                [text + texts[index] for text, index in zip(before_all, left, strict=True)], names_as_text=names_as_text
            )
            merged = []
            for index, anchor, ids in zip(left, before_all, joined, strict=True):
                start = before[anchor]
                if ids[: len(start)] == start:
                    found[index] = ids[len(start) :]
                else:
                    merged.append(index)
            left = merged
            if not left:
                return found
        for index, ids in zip(
            left, self.ids([texts[index] for index in left], names_as_text=names_as_text), strict=True
        ):
            found[index] = ids
        return found

    def with_names(self, anchor: str, text: str) -> list[int]:
        """Token ids of a text: hidden names of special tokens as plain text, all others as special tokens."""
        ids: list[int] = []
        for place, piece in enumerate(self._names.split(text)):
            if place % 2:  # the special tokens between the pieces
                ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self.behind([":" if place else anchor], [HIDDEN.sub(_show, piece)], names_as_text=True)[0]
        return ids


def _one_of(names: set[str]) -> re.Pattern[str]:
    """Matches any of the names, the longest first."""
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return re.compile("(" + ("|".join(map(re.escape, ordered)) or "(?!)") + ")")


def _hide(name: re.Match[str]) -> str:
    return "\ue0f0" + ",".join(str(ord(letter)) for letter in name[0]) + "\ue0f1"


def _show(hidden: re.Match[str]) -> str:
    return "".join(chr(int(number)) for number in hidden[1].split(","))


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
