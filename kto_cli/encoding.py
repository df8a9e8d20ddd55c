"""Rows to token ids: the tokens a model is trained on are those it meets at inference.

A prompt is rendered by the chat template with its generation prompt; a completion is tokenized on its
own behind the template's last words, so that the two meet at a token boundary, and ends with the
end-of-turn token. What does not fit loses the prompt's oldest turns first (never the last user turn),
then the completion's end (and with it the end-of-turn token).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kto_cli.core.mismatch import mismatched_partners
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.data_dir import Row
from kto_cli.errors import BadData, BadModel

LEAST_COMPLETION = 16
"""A row is left out when fewer of its completion's tokens than this would remain (and it has more)."""
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
    left_out: Counter[str] = field(default_factory=Counter)
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
            f"{count:,} of {self.rows:,} {what} rows left out: {why}" for why, count in self.left_out.items()
        ]


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
        self._ends = {tokenizer.eos_token_id, *end_ids}
        added = tokenizer.added_tokens_decoder.values()
        self._special = {*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)} - {""}
        self._prompt_cache: dict[str, tuple[int, ...]] = {}
        self._anchor, self._before, self._end = self._frame()

    def _frame(self) -> tuple[str, str, int]:
        """What the template puts before an answer: (last words of the prompt, text between, end-of-turn id)."""
        turns = [{"role": "user", "content": _PROBE}]
        prompt = self._render(turns, generation=True)
        whole = self._render([*turns, {"role": "assistant", "content": _PROBE}], generation=False)
        anchor = prompt[prompt.rfind(_PROBE) + len(_PROBE) :]
        place = whole.rfind(_PROBE)
        before = whole[len(prompt) : place] if whole.startswith(prompt) and place >= len(prompt) else ""
        after = self._ids(whole[place + len(_PROBE) :])
        return (
            anchor,
            before,
            next((token for token in after if token in self._ends), self.tokenizer.eos_token_id),
        )

    def _render(self, messages: Sequence[dict[str, str]], *, generation: bool) -> str:
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=generation)
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise BadModel(
                f"The chat template cannot render the roles {roles}: {error}.",
                "Give another one with --chat-template FILE.",
            ) from error

    def _ids(self, text: str, **options: Any) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, **options).input_ids

    def prompt_ids(self, prompt: str | Sequence[dict[str, str]]) -> tuple[int, ...]:
        """Token ids of a prompt: one BOS where the tokenizer adds one (text) or the template writes one (chat)."""
        key = prompt if isinstance(prompt, str) else json.dumps(prompt)
        if key not in self._prompt_cache:
            if isinstance(prompt, str):
                plain = self._ids(prompt)
                start = bos_prefix(self.tokenizer)
                ids = plain if start and plain[: len(start)] == start else start + plain
            else:
                ids = self._ids(self._render(prompt, generation=True))
            self._prompt_cache[key] = tuple(ids)
        return self._prompt_cache[key]

    def completion_ids(self, completion: str | Sequence[dict[str, str]]) -> tuple[tuple[int, ...], bool]:
        """Token ids of a completion, end-of-turn token last; and whether it held a special token's name.

        Tokenized behind the last words of the prompt, so that a tokenizer that marks the start of a text
        does not mark it here; where the two would melt into one token, on its own.
        """
        chat = not isinstance(completion, str)
        text = completion if isinstance(completion, str) else self._before + completion[0]["content"]
        named = any(name in text for name in self._special)
        anchor = self._anchor if chat else ":"
        options = {"split_special_tokens": True} if named else {}
        before, joined = self._ids(anchor, **options), self._ids(anchor + text, **options)
        ids = joined[len(before) :] if joined[: len(before)] == before else self._ids(text, **options)
        return (*ids, self._end if chat else self.tokenizer.eos_token_id), named

    def fit(self, prompt: str | Sequence[dict[str, str]], completion: tuple[int, ...]) -> tuple[int, ...]:
        """The prompt's ids after dropping as many of its oldest turns as `completion` needs, or as can be."""
        ids = self.prompt_ids(prompt)
        shorter = None if isinstance(prompt, str) else _without_oldest_turn(prompt)
        while shorter is not None and len(ids) + len(completion) > self.max_length:
            ids = self.prompt_ids(shorter)
            shorter = _without_oldest_turn(shorter)
        return ids


def bos_prefix(tokenizer: Any) -> list[int]:
    """The ids this tokenizer puts before a text by itself (BOS, or nothing)."""
    plain, marked = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    for start in range(len(marked) - len(plain) + 1):
        if marked[start : start + len(plain)] == plain:
            return list(marked[:start])
    return []


def _without_oldest_turn(messages: Sequence[dict[str, str]]) -> list[dict[str, str]] | None:
    """Drops the oldest user turn and its answer, keeping a system message; None if only one turn is left."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = list(messages[len(system) :])
    starts = [place for place, message in enumerate(turns) if message["role"] == "user"]
    return system + turns[starts[1] :] if len(starts) > 1 else None


def encode_rows(
    rows: Sequence[Row], encoder: Encoder, *, tick: Callable[[], None] = lambda: None
) -> tuple[list[EncodedRow], EncodingReport]:
    """Encodes rows and their mismatched pairs; what does not fit even when cut is left out, with its reason.

    Raises:
        BadData: all rows share one prompt, or no row fits.
    """
    report = EncodingReport(rows=len(rows))
    try:
        partners = mismatched_partners([row.prompt_id for row in rows], [json.dumps(row.completion) for row in rows])
    except ValueError as error:
        raise BadData(f"KTO cannot learn from these rows: {error}.", "Add rows with other prompts.") from error
    completions = [encoder.completion_ids(row.completion) for row in rows]
    report.special_text = sum(named for _, named in completions)
    encoded = []
    for row, (completion, _), partner in zip(rows, completions, partners, strict=True):
        found = _encode_row(row, completion, completions[partner][0], encoder, report)
        if found is not None:
            encoded.append(found)
        tick()
    if rows and not encoded:
        raise BadData(
            f"None of the {len(rows):,} rows fits into {encoder.max_length} tokens.",
            "Raise --max-length, or use a model with a longer context.",
        )
    return encoded, report


def _encode_row(
    row: Row, completion: tuple[int, ...], borrowed: tuple[int, ...], encoder: Encoder, report: EncodingReport
) -> EncodedRow | None:
    """One row in tokens, or None (counted in `report`) where too little of its completion would remain."""
    prompt = encoder.fit(row.prompt, completion)
    room = encoder.max_length - len(prompt)
    if room < min(LEAST_COMPLETION, len(completion)) or not prompt:
        reason = "the prompt leaves no room for the completion" if prompt else "the prompt has no tokens"
        report.left_out[reason] += 1
        return None
    report.shortened_prompts += len(prompt) < len(encoder.prompt_ids(row.prompt))
    report.cut_completions += len(completion) > room
    report.cut_mismatched += len(borrowed) > room
    return EncodedRow(
        id=row.id,
        label=row.label,
        own=TokenSequence(prompt, completion[:room]),
        mismatched=TokenSequence(prompt, borrowed[:room]),
        prompt_id=row.prompt_id,
        pair_id=row.pair_id,
    )
