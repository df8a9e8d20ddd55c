"""Rows in tokens for tests: through a store in a temporary folder, and by an oracle that takes a row at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kto_cli.core.mismatch import mismatched_partners, ring_key
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.data.dataset import Row
from kto_cli.model.tokens.build_store import NO_PARTNER, Batch, Read, write_store
from kto_cli.model.tokens.encoder import LEAST_COMPLETION, Encoder
from kto_cli.model.tokens.encoding_report import EncodingReport
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.store_files import open_store


class OneByOne(Encoder):
    """An encoder that is also asked for one text at a time."""

    def prompt(self, prompt: Any) -> tuple[int, ...]:
        return self.prompt_ids([prompt])[0]

    def completion(self, completion: Any) -> tuple[tuple[int, ...], bool]:
        return self.completion_ids([completion])[0]

    def fitted(self, prompt: Any, completion: Sequence[int]) -> tuple[int, ...]:
        return self.fit_prompts([prompt], [len(completion)], [0])[0].ids


def reader(rows: Sequence[Row], batch: int) -> Read:
    """Reads columns of rows that are in memory, a few rows at a time."""

    def read(names: Sequence[str]) -> Iterator[Batch]:
        for start in range(0, len(rows), batch):
            yield {name: [getattr(row, name) for row in rows[start : start + batch]] for name in names}

    return read


def stored_rows(rows: Sequence[Row], encoder: Encoder, *, batch: int = 3) -> tuple[EncodedRows, EncodingReport]:
    """Rows written to a store, a few at a time, and opened. The folder is gone; what is open can still be read."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), reader(rows, batch), encoder)
        store, report = open_store(Path(folder))
        return EncodedRows([store]), report


def encode_rows(rows: Sequence[Row], encoder: Encoder) -> tuple[list[EncodedRow], EncodingReport]:
    """The rows of a store as a list, and its report."""
    stored, report = stored_rows(rows, encoder)
    return list(stored), report


def partners_of_texts(prompts: Sequence[str], completions: Sequence[str], *, seed: int = 0) -> Sequence[int]:
    """`mismatched_partners` of rows in memory."""
    keys = [ring_key(*row, seed=seed) for row in zip(prompts, completions, strict=True)]
    return mismatched_partners(sorted(range(len(keys)), key=keys.__getitem__), prompts, completions)


def naive_spelling(text: Any) -> str:
    """What a completion is called on the ring of partners: another name would lend rows other completions."""
    if isinstance(text, str):
        return f"t{text}"
    return "".join("\n".join([turn["role"], str(len(turn["content"])), turn["content"]]) for turn in text)


def naive_rows(rows: Sequence[Row], encoder: OneByOne) -> tuple[list[EncodedRow], EncodingReport]:
    """What a store must hold: every row encoded on its own, nothing shared, every partner found by text."""
    partners = partners_of_texts([row.prompt_id for row in rows], [naive_spelling(row.completion) for row in rows])
    completions = [encoder.completion(row.completion) for row in rows]
    report = EncodingReport(rows=len(rows), special_text=sum(named for _, named in completions), dropped=Counter())
    report.chats = sum(not isinstance(row.prompt, str) for row in rows)
    encoded = []
    for row, (own, _), partner in zip(rows, completions, partners, strict=True):
        if partner < 0:
            report.dropped[NO_PARTNER] += 1
            continue
        borrowed, prompt = completions[partner][0], encoder.fitted(row.prompt, own)
        room = encoder.max_length - len(prompt)
        if room < min(LEAST_COMPLETION, len(own)) or not prompt:
            why = "the prompt leaves no room for the completion" if prompt else "the prompt has no tokens"
            report.dropped[why] += 1
            continue
        report.shortened_prompts += len(prompt) < len(encoder.prompt(row.prompt))
        report.truncated_completions += len(own) > room
        report.truncated_mismatched += len(borrowed) > room
        sequences = TokenSequence(prompt, own[:room]), TokenSequence(prompt, borrowed[:room])
        encoded.append(EncodedRow(row.id, row.label, *sequences, row.prompt_id, row.pair_id))
    return encoded, report
