"""Rows to token ids: the tokens a model is trained on are those it meets at inference.

A prompt is rendered by the chat template with its generation prompt; a completion is tokenized on its
own behind the template's last words, so that the two meet at a token boundary, and ends with the
end-of-turn token. What does not fit loses the prompt's oldest turns first (never the last user turn),
then the completion's end (and with it the end-of-turn token).

Everything is tokenized in batches: fast tokenizers then use all cores (Rayon), which costs no process of ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kto_cli.common.errors import BadModel
from kto_cli.data.dataset import Text

LEAST_COMPLETION = 16
"""A row is dropped when fewer of its completion's tokens than this would remain (and it has more)."""
_PROBE = "kto probe"


@dataclass
class EncodingReport:
    """What had to be cut or left out to fit; everything in rows."""

    rows: int = 0
    shortened_prompts: int = 0
    """Oldest turns dropped."""
    cut_completions: int = 0
    """End cut off, no end-of-turn token."""
    cut_mismatched: int = 0
    """The borrowed completion was cut to fit behind the row's prompt."""
    special_text: int = 0
    """The completion's text held the name of a special token; it was read as plain text."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""

    def notes(self, what: str) -> list[str]:
        """One sentence for each thing that happened."""
        facts = (
            (self.shortened_prompts, "prompts lost their oldest turns to fit"),
            (self.cut_completions, "completions were cut to fit (no end-of-turn token)"),
            (self.cut_mismatched, "mismatched completions were cut to fit"),
            (self.special_text, "completions hold the name of a special token; it is read as plain text"),
        )
        sentences = [f"{count:,} of {self.rows:,} {what} {fact}" for count, fact in facts if count]
        return sentences + [
            f"{count:,} of {self.rows:,} {what} rows dropped: {why}" for why, count in self.dropped.items()
        ]


class FittedPrompt(NamedTuple):
    """A prompt in tokens, as much of it as fits."""

    ids: tuple[int, ...]
    dropped: int
    """Oldest turns left away."""


class Encoder:
    """Turns prompts and completions into token ids for one tokenizer and one greatest length."""

    def __init__(self, tokenizer: Any, *, max_length: int, end_ids: Sequence[int] = ()) -> None:
        """`end_ids`: tokens that end a turn besides the tokenizer's own end-of-sequence token.

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
        self._start = bos_prefix(tokenizer)
        self._template, self._template_names = None, tokenizer.special_tokens_map
        self._template = self._plain_template()
        self._backend = plain_backend(tokenizer)
        self._anchor, self._before, self._end = self._frame()

    def _frame(self) -> tuple[str, str, int]:
        """What the template puts before an answer: (last words of the prompt, text between, end-of-turn id)."""
        turns = [{"role": "user", "content": _PROBE}]
        (prompt,) = self._render([turns], generation=True)
        (whole,) = self._render([[*turns, {"role": "assistant", "content": _PROBE}]], generation=False)
        anchor = prompt[prompt.rfind(_PROBE) + len(_PROBE) :]
        place = whole.rfind(_PROBE)
        before = whole[len(prompt) : place] if whole.startswith(prompt) and place >= len(prompt) else ""
        (after,) = self._ids([whole[place + len(_PROBE) :]])
        return (
            anchor,
            before,
            next((token for token in after if token in self.ends), self.tokenizer.eos_token_id),
        )

    def _render(self, chats: Sequence[Sequence[dict[str, str]]], *, generation: bool) -> list[str]:
        import jinja2

        if not chats:
            return []
        try:
            if self._template is not None:
                names = self._template_names
                return [
                    self._template.render(messages=list(chat), add_generation_prompt=generation, **names)
                    for chat in chats
                ]
            options = {"tokenize": False, "add_generation_prompt": generation}
            return self.tokenizer.apply_chat_template([list(chat) for chat in chats], **options)
        except jinja2.TemplateError as error:
            if len(chats) > 1:
                return [text for chat in chats for text in self._render([chat], generation=generation)]
            roles = ", ".join(message["role"] for message in chats[0])
            raise BadModel(
                f"The chat template cannot render the roles {roles}: {error}.",
                "Give another one with --chat-template FILE.",
            ) from error

    def _plain_template(self) -> Any:
        """The compiled chat template, if transformers does nothing besides to chats that are plain: called directly,
        it spares most of the time. None where that cannot be seen."""
        import jinja2

        try:
            from transformers.utils.chat_template_utils import _compile_jinja_template

            source = self.tokenizer.get_chat_template()
            template = _compile_jinja_template(source).environment.from_string(source)
            turns = [{"role": role, "content": f" {_PROBE} {role}\n"} for role in ("user", "assistant", "user")]
            for generation in (False, True):
                theirs = self._render([turns], generation=generation)
                options = {"add_generation_prompt": generation, **self._template_names}
                if theirs != [template.render(messages=turns, **options)]:
                    return None
        except (ImportError, ValueError, jinja2.TemplateError, BadModel):
            return None  # what is wrong with it is said where the chats of the data are rendered
        template.globals = dict(template.globals)  # of a chain of maps, each rendering makes one first
        return template

    def _ids(self, texts: Sequence[str], *, names_as_text: bool = False) -> list[list[int]]:
        """Token ids; `names_as_text`: the names of special tokens are text like any other.

        A fast tokenizer's own encoder is called directly, which spares what transformers puts around it.
        """
        if not texts:
            return []
        if self._backend is None:
            only = {"return_attention_mask": False, "return_token_type_ids": False}
            return self.tokenizer(
                list(texts), add_special_tokens=False, split_special_tokens=names_as_text, **only
            ).input_ids
        return encode(self._backend, list(texts), names_as_text=names_as_text)

    def prompt_ids(self, prompts: Sequence[Text]) -> list[tuple[int, ...]]:
        """Token ids of prompts: one BOS where the tokenizer adds one (text) or the template writes one (chat)."""
        chats = iter(self._render([one for one in prompts if not isinstance(one, str)], generation=True))
        rendered = [prompt if isinstance(prompt, str) else next(chats) for prompt in prompts]
        return [
            tuple(self._start + ids if isinstance(prompt, str) and not self._starts(ids) else ids)
            for prompt, ids in zip(prompts, self._ids(rendered), strict=True)
        ]

    def _starts(self, ids: list[int]) -> bool:
        """Whether a text's ids begin as the tokenizer begins texts."""
        return ids[: len(self._start)] == self._start

    def completion_ids(self, completions: Sequence[Text]) -> list[tuple[tuple[int, ...], bool]]:
        """Token ids of completions, end-of-turn token last; and whether each held a special token's name.

        Tokenized behind the last words of the prompt, so that a tokenizer that marks the start of a text
        does not mark it here; where the two would melt into one token, on its own.
        """
        texts = [one if isinstance(one, str) else self._before + one[0]["content"] for one in completions]
        anchors = [":" if isinstance(one, str) else self._anchor for one in completions]
        ends = [self.tokenizer.eos_token_id if isinstance(one, str) else self._end for one in completions]
        named = [self._special.search(text) is not None for text in texts]
        ids: list[list[int]] = [[] for _ in texts]
        for is_named in (False, True):
            mine = [place for place, found in enumerate(named) if found == is_named]
            behind = self._behind([anchors[place] for place in mine], [texts[place] for place in mine], is_named)
            for place, found_ids in zip(mine, behind, strict=True):
                ids[place] = found_ids
        return [((*own, end), found) for own, end, found in zip(ids, ends, named, strict=True)]

    def _behind(self, anchors: Sequence[str], texts: Sequence[str], named: bool) -> list[list[int]]:
        """Ids of texts, each as tokenized behind its anchor."""
        distinct = sorted(set(anchors))
        before = dict(zip(distinct, self._ids(distinct, names_as_text=named), strict=True))
        together = [anchor + text for anchor, text in zip(anchors, texts, strict=True)]
        joined = self._ids(together, names_as_text=named)
        melted = [
            place for place, ids in enumerate(joined) if ids[: len(before[anchors[place]])] != before[anchors[place]]
        ]
        behind = [ids[len(before[anchor]) :] for anchor, ids in zip(anchors, joined, strict=True)]
        alone = self._ids([texts[place] for place in melted], names_as_text=named)
        for place, ids in zip(melted, alone, strict=True):
            behind[place] = ids
        return behind

    def fit(
        self, prompts: Sequence[Text], completion_tokens: Sequence[int], names: Sequence[int]
    ) -> list[FittedPrompt]:
        """Prompts after dropping as many of their oldest turns as their completions need, or as can be.

        Args:
            names: the same for the same prompt; each is tokenized once.
        """
        shown: dict[int, Text] = dict(enumerate(prompts))
        known: dict[tuple[int, int], tuple[int, ...]] = {}
        fitted = [FittedPrompt((), -1)] * len(prompts)
        while shown:
            keys = {place: (names[place], fitted[place].dropped + 1) for place in shown}
            new = {keys[place]: text for place, text in shown.items() if keys[place] not in known}
            known.update(zip(new, self.prompt_ids(list(new.values())), strict=True))
            left = {}
            for place, text in shown.items():
                ids = known[keys[place]]
                fitted[place] = FittedPrompt(ids, keys[place][1])
                shorter = _without_oldest_turn(text) if len(ids) + completion_tokens[place] > self.max_length else None
                if shorter is not None:
                    left[place] = shorter
            shown = left
        return fitted


def encode(backend: Any, texts: list[str], *, names_as_text: bool) -> list[list[int]]:
    """Token ids by a fast tokenizer's encoder, whose settings whoever used it last has changed."""
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = names_as_text
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]


def plain_backend(tokenizer: Any) -> Any:
    """A fast tokenizer's encoder, if it alone decides the ids: some tokenizers prepare texts in Python first."""
    if not getattr(tokenizer, "is_fast", False) or not hasattr(tokenizer.backend_tokenizer, "encode_batch_fast"):
        return None
    backend = tokenizer.backend_tokenizer
    names = "".join(tokenizer.all_special_tokens)
    texts = [f" {_PROBE}\n\nHuman: \t\u00e9\u4f60 {names}{_PROBE}", _PROBE, " x", "\n"]
    for split in (False, True):
        ours = encode(backend, texts, names_as_text=split)
        if ours != tokenizer(texts, add_special_tokens=False, split_special_tokens=split).input_ids:
            return None
    return backend


def bos_prefix(tokenizer: Any) -> list[int]:
    """The ids this tokenizer puts before a text by itself (BOS, or nothing)."""
    plain, marked = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    for start in range(len(marked) - len(plain) + 1):
        if marked[start : start + len(plain)] == plain:
            return list(marked[:start])
    return []


def _without_oldest_turn(prompt: Text) -> Text | None:
    """Drops the oldest user turn and its answer, keeping a system message; None if only one turn is left, or a text."""
    if isinstance(prompt, str):
        return None
    system = [message for message in prompt[:1] if message["role"] == "system"]
    turns = list(prompt[len(system) :])
    starts = [place for place, message in enumerate(turns) if message["role"] == "user"]
    return (*system, *turns[starts[1] :]) if len(starts) > 1 else None
