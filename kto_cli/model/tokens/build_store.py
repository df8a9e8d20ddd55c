"""Writes the rows of a Parquet file to a token store, in batches; memory grows by a few numbers a row only.

The rows are read twice. The first pass (row_keys.py) keeps hashes of the texts: which rows share a prompt or a
completion, and each row's mismatched completion. The second pass tokenizes and writes each distinct text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from kto_cli.common.errors import BadData
from kto_cli.common.words import plural
from kto_cli.data.texts import Text, kinds, spelled
from kto_cli.model.tokens.chat_template import TemplateRefuses
from kto_cli.model.tokens.encoder import LEAST_COMPLETION, Encoder
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.lexicographic import lexicographic_order
from kto_cli.model.tokens.partners import partners, partners_among
from kto_cli.model.tokens.row_keys import KEYS, Batch, RowKeys, joined, read_keys
from kto_cli.model.tokens.store import StoredTexts
from kto_cli.model.tokens.store_files import TextWriter, digest, seal

Read = Callable[[Sequence[str]], Iterable[Batch]]
"""Reads the named columns of all rows from the start, in batches."""
TEXTS = ("prompt", "completion", "origin")
"""Columns read in the second pass."""
NO_PARTNER = "no row with another prompt has another completion, so z_ref cannot use them"
NO_ROOM, NO_TOKENS = "the prompt leaves no room for the completion", "the prompt has no tokens"
"""Reasons in the report."""
CHECKED = 32
"""Rows of each batch whose completion is compared with what the template writes behind their own prompt."""
REFUSED, MOST_REASONS = "the chat template cannot be used: ", 20
"""Reasons may hold words of the row: more than so many are counted as one."""
EXAMPLES = 3
"""Dropped rows that are named, of each reason."""


def write_store(folder: Path, read: Read, encoder: Encoder, *, tick: Callable[[int], None] = lambda _: None) -> None:
    """Encodes rows and their mismatched pairs into a store; counts and drops rows that do not fit even when truncated.

    Args:
        folder: an empty folder. tick: called with the number of rows encoded since the last call.

    Raises:
        BadData: all rows share one prompt, or no row fits. BadModel: the chat template accepts no row, or writes a
            completion otherwise behind another prompt.
    """
    keys = read_keys(read(KEYS))
    partner = partners(keys)
    writer = TextWriter(folder)
    columns, found = _write_texts(writer, read(TEXTS), encoder, keys, tick)
    named, refused = columns.pop("named"), columns.pop("refused")
    if refused.all():
        raise TemplateRefuses(next(iter(found.dropped)).removeprefix(REFUSED))
    if (own_refused := columns.pop("own_refused")).any():
        partner = partners_among(keys, ~own_refused)
    paired = partner >= 0
    columns |= {"mismatched": columns["own"][partner], "mismatched_tokens": columns["own_tokens"][partner]}
    usable = paired & ~refused
    columns = {name: values[usable] for name, values in (keys.columns | columns).items()}
    report, kept = _truncate(columns, encoder.max_length)
    report.rows, report.special_text = len(paired), int(named.sum())
    report.chats, report.left_out, report.examples = found.chats, found.left_out, found.examples
    report.dropped.update(found.dropped)
    if (alone := ~paired & ~refused).any():
        report.dropped[NO_PARTNER] = int(alone.sum())
    if not kept.any():
        raise _nothing_left(report, encoder.max_length)
    columns = {name: values[kept] for name, values in columns.items()}
    writer.add_keys(columns)
    columns["prompt_rank"] = _ranks(StoredTexts(folder), columns["prompt"])
    seal(folder, columns, report)


def _nothing_left(report: EncodingReport, max_length: int) -> BadData:
    """Error for rows of which none can be used, with the reasons."""
    if report.dropped[NO_ROOM] == report.rows:
        what = f"None of the {plural(report.rows, 'row')} fits into {max_length} tokens."
    else:
        reasons = "; ".join(f"{why}: {plural(rows, 'row')}" for why, rows in report.dropped.most_common(EXAMPLES))
        what = f"None of the {plural(report.rows, 'row')} can be used ({reasons})."
    if report.dropped[NO_ROOM]:
        return BadData(what, "Raise --max-length, or use a model with a longer context.")
    return BadData(what, "Give other rows, or a chat template that takes these (--chat-template).")


def _ranks(texts: StoredTexts, chosen: NDArray[Any]) -> NDArray[numpy.uint32]:
    """[rows] ranks of the `chosen` texts in lexicographic order; equal texts have the same."""
    numbers, rows = numpy.unique(chosen, return_inverse=True)
    starts, ends = texts.starts[numbers].astype("i8"), texts.starts[numbers + 1].astype("i8")
    order, common = lexicographic_order([texts.mapped()], numpy.zeros(len(numbers), "u1"), [starts], [ends - starts])
    lengths = (ends - starts)[order]
    new = (common < lengths) | (common < numpy.append(0, lengths[:-1]))
    ranks = numpy.empty(len(numbers), "u4")
    ranks[order] = numpy.cumsum(new)
    return ranks[rows]


def opening(prompt: Text) -> Text:
    """The turns of a chat up to the first of the user's: equal for all turns of a conversation; a text as it is."""
    if isinstance(prompt, str):
        return prompt
    users = [number for number, turn in enumerate(prompt, 1) if turn["role"] == "user"]
    return prompt[: users[0] if users else None]


def _write_texts(
    writer: TextWriter, batches: Iterable[Batch], encoder: Encoder, keys: RowKeys, tick: Callable[[int], None]
) -> tuple[dict[str, NDArray[Any]], EncodingReport]:
    """Writes every distinct prompt and completion once.

    Returns:
        columns prompt, own (numbers of texts), prompt_tokens, own_tokens (not truncated), dropped (turns), conversation
        (a number), named (the completion contains the name of a special token), own_refused (the completion cannot be
        written) and refused (that, or the prompt), each [rows]; and a report of the rows that the chat template
        refuses.
    """
    completions, prompts = _Completions(encoder, writer, keys), _Prompts(encoder, writer, keys)
    parts, done, report = [], 0, EncodingReport()
    for batch in batches:
        encoder.check(batch["prompt"][:CHECKED], batch["completion"][:CHECKED])
        span = slice(done, done + len(batch["prompt"]))
        part, why = completions.add(span, batch["completion"])
        found, why_prompt = prompts.add(span, batch["prompt"], part["own_tokens"].tolist())
        part |= found
        why_both = encoder.refusals(batch["prompt"], batch["completion"])
        reasons = [next(filter(None, some), "") for some in zip(why_prompt, why, why_both, strict=True)]
        part["refused"] = numpy.array([bool(reason) for reason in reasons])
        _count(report, batch, reasons, encoder.left_out)
        parts.append(part)
        done = span.stop
        tick(len(batch["prompt"]))
    writer.close()
    columns = joined(parts)
    return columns, report


def _count(report: EncodingReport, batch: Batch, reasons: Sequence[str], left_out: dict[str, str]) -> None:
    """Counts the rows that the chat template refuses, by reason, and those it leaves something out of."""
    report.chats += sum(not isinstance(prompt, str) for prompt in batch["prompt"])
    if not any(reasons) and kinds(batch["prompt"]).isdisjoint(left_out):
        return
    for prompt, origin, reason in zip(batch["prompt"], batch["origin"], reasons, strict=True):
        if reason:
            known = REFUSED + reason in report.dropped or len(report.dropped) < MOST_REASONS
            why = REFUSED + (reason if known else "other reasons")
            report.dropped[why] += 1
            if len(report.examples.setdefault(why, [])) < EXAMPLES:
                report.examples[why].append(origin)
        else:
            report.left_out.update({left_out[kind] for kind in kinds([prompt]) & left_out.keys()})


class _Completions:
    """Tokenized completions, each distinct text once."""

    def __init__(self, encoder: Encoder, writer: TextWriter, keys: RowKeys) -> None:
        count = int(keys.completions.max()) + 1
        self._encoder, self._writer, self._numbers = encoder, writer, keys.completions
        self._known = {
            "own": numpy.full(count, -1),
            "own_tokens": numpy.zeros(count, "u4"),
            "named": numpy.zeros(count, bool),
            "own_refused": numpy.zeros(count, bool),
        }
        self._why: dict[int, str] = {}

    def add(self, span: slice, completions: Sequence[Text]) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Columns own, own_tokens, named and own_refused of the rows in `span`, and why each is refused."""
        numbers = self._numbers[span]
        new, first = numpy.unique(numbers, return_index=True)
        is_new = self._known["own"][new] < 0
        new, first = new[is_new], first[is_new]
        found = self._encoder.encode_completions([completions[index] for index in first])
        self._known["own"][new] = self._writer.add([one.ids for one in found])
        self._known["own_tokens"][new] = [len(one.ids) for one in found]
        self._known["named"][new] = [one.named for one in found]
        self._known["own_refused"][new] = [bool(one.refused) for one in found]
        self._why |= {number: one.refused for number, one in zip(new.tolist(), found, strict=True) if one.refused}
        columns = {name: values[numbers] for name, values in self._known.items()}
        return columns, [self._why.get(number, "") for number in numbers.tolist()]


class _Prompts:
    """Tokenized prompts, each distinct one once: full prompts by number, shortened ones by number and dropped turns."""

    def __init__(self, encoder: Encoder, writer: TextWriter, keys: RowKeys) -> None:
        self._encoder, self._writer, self._numbers = encoder, writer, keys.prompts
        if encoder.control.good != encoder.control.bad:  # a prompt has a text for each label then
            self._numbers = 2 * keys.prompts + keys.columns["label"]
        self._labels = keys.columns["label"]
        self._full = numpy.full(int(self._numbers.max()) + 1, -1)
        self._shortened: dict[tuple[int, int], int] = {}
        self._conversations: dict[bytes, int] = {}
        """Digest of the opening -> number."""
        self._conversation_of = numpy.full(len(self._full), -1)

    def add(
        self, span: slice, prompts: Sequence[Text], completion_tokens: Sequence[int]
    ) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Columns prompt, prompt_tokens, dropped and conversation of the rows in `span`, and why each is refused."""
        numbers = self._numbers[span].tolist()
        fitted = self._encoder.fit_prompts(prompts, completion_tokens, numbers, self._labels[span].tolist())
        asked = [(number, prompt.dropped) for number, prompt in zip(numbers, fitted, strict=True)]
        new = {key: prompt.ids for key, prompt in zip(asked, fitted, strict=True) if self._text(*key) < 0}
        for (number, dropped), text in zip(new, self._writer.add(list(new.values())).tolist(), strict=True):
            if dropped:
                self._shortened[number, dropped] = text
            else:
                self._full[number] = text
        columns = {
            "prompt": numpy.array([self._text(*key) for key in asked], "u4"),
            "prompt_tokens": numpy.array([len(prompt.ids) for prompt in fitted], "u4"),
            "dropped": numpy.array([prompt.dropped for prompt in fitted], "u4"),
            "conversation": numpy.array(list(map(self._conversation, numbers, prompts)), "u4"),
        }
        return columns, [prompt.refused for prompt in fitted]

    def _conversation(self, number: int, prompt: Text) -> int:
        if self._conversation_of[number] < 0:
            key = digest(spelled(opening(prompt)).encode("utf-8", "surrogatepass"))
            self._conversation_of[number] = self._conversations.setdefault(key, len(self._conversations))
        return int(self._conversation_of[number])

    def _text(self, number: int, dropped: int) -> int:
        """Number of a prompt's text; -1: not written yet."""
        return self._shortened.get((number, dropped), -1) if dropped else int(self._full[number])


def unfit(
    prompt: NDArray[Any], own: NDArray[Any], max_length: int
) -> tuple[NDArray[numpy.bool_], NDArray[numpy.bool_]]:
    """[rows] whether a row is dropped because its prompt has no tokens; because the prompt leaves too little room.

    Args:
        prompt, own: [rows] tokens of the shortened prompt and of the completion, not truncated.
    """
    empty = prompt == 0
    return empty, ~empty & (max_length - prompt < numpy.minimum(LEAST_COMPLETION, own))


def _truncate(columns: dict[str, NDArray[Any]], max_length: int) -> tuple[EncodingReport, NDArray[numpy.bool_]]:
    """Truncates completions to the room that their prompts leave, in place.

    Returns:
        the report, and [rows] which rows fit.
    """
    names = ("prompt_tokens", "own_tokens", "mismatched_tokens")
    prompt, own, mismatched = (columns[name].astype("i8") for name in names)
    room = max_length - prompt
    empty, no_room = unfit(prompt, own, max_length)
    kept = ~(empty | no_room)
    report = EncodingReport(
        rows=len(kept),
        shortened_prompts=int((kept & (columns.pop("dropped") > 0)).sum()),
        truncated_completions=int((kept & (own > room)).sum()),
        truncated_mismatched=int((kept & (mismatched > room)).sum()),
    )
    reasons = {NO_ROOM: no_room, NO_TOKENS: empty}
    report.dropped.update({reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()})
    columns["own_tokens"] = numpy.minimum(own, room.clip(0)).astype("u4")
    columns["mismatched_tokens"] = numpy.minimum(mismatched, room.clip(0)).astype("u4")
    return report, kept
