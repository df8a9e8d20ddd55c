"""Rows, and input that gave none, without personal data and keys: `--scrub`.

Rules and columns are read before: a conversation may be named by an e-mail address. Of unused input the detail, which
may quote a part of a cell, is made again from scrubbed values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.audit.scrub import Finds, scrub, scrub_forms, scrub_json, scrub_raw, scrub_text, spread
from kto_cli.data.formats.counts import Counts, counting
from kto_cli.data.formats.fields import raw_text
from kto_cli.data.formats.records import Dropped, Reject, Result
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.pipeline.parsed_row import ParsedRow
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.texts import Text

Unused = Reject | Dropped
NOT_SHOWN = "not shown: it quotes what --scrub replaces"


def scrubbed_rows(rows: Sequence[ParsedRow], counts: Counts) -> tuple[list[ParsedRow], list[Reject]]:
    """Rows with their texts, remarks and origins scrubbed, and pairs whose two answers are the same afterwards.

    `counts` gets the values and the rows of each kind. The work on a prompt is shared by consecutive rows.
    """
    done: list[ParsedRow] = []
    prompt: Text | None = None
    for row in rows:
        if prompt is None or row.prompt is not prompt:
            prompt, in_prompt = row.prompt, Finds()
            cleaned = scrub_text(prompt, in_prompt)
        finds = Finds()
        if in_prompt.kinds:
            finds.add(in_prompt)
        completion = scrub_text(row.completion, finds)
        remark = None if row.remark is None else scrub_raw(row.remark, finds)
        origin = scrub_forms(row.origin, Finds())
        if not finds.kinds:
            done.append(row if origin == row.origin else row._replace(origin=origin))
            continue
        for kind, values in Counter(finds.kinds).items():
            counts.scrubbed[kind, "values"] += values
            counts.scrubbed[kind, "rows"] += 1
        asked, answered = spread(cleaned, finds.values), spread(completion, finds.values)
        remark = None if remark is None else str(spread(remark, finds.values))
        done.append(row._replace(prompt=asked, completion=answered, remark=remark, origin=origin, scrubbed=True))
    return _without_equal_pairs(done)


def _without_equal_pairs(rows: list[ParsedRow]) -> tuple[list[ParsedRow], list[Reject]]:
    """Rows less those of a pair whose answers were told apart by what was replaced alone."""
    kept: list[ParsedRow] = []
    rejects: list[Reject] = []
    for row in rows:
        is_second = bool(kept) and row.pair >= 0 and kept[-1].pair == row.pair
        if is_second and row.scrubbed and kept[-1].completion == row.completion:
            first = kept.pop()
            rejects.append(Reject(first.origin, "answers_identical", "after --scrub", 2, ""))
        else:
            kept.append(row)
    return kept, rejects


def scrubbed_results(
    results: list[Result], record: Record, source: Source, file: RawFile, config: BinarizeConfig
) -> list[Result]:
    """Results of a record, of which rejects and dropped answers quote no personal data; rows stay as they are."""
    if not any(isinstance(result, (Reject, Dropped)) for result in results):
        return results
    finds, details = Finds(), None
    if record.values is not None:
        values = scrub_json(record.values, finds)
        if finds.kinds:
            clean = replace(record, values=values, raw="")
            with counting():
                again = [one for one in source.parse(clean, file, config) if isinstance(one, (Reject, Dropped))]
            details = {(one.reason, one.origin): one for one in again}
    return [
        _unused(result, details, raw_text(record)) if isinstance(result, (Reject, Dropped)) else result
        for result in results
    ]


def _unused(result: Unused, clean: dict[tuple[str, str], Unused] | None, whole: str) -> Unused:
    """A reject or a dropped answer without personal data.

    Args:
        clean: by (reason, origin), what the scrubbed record gives; None: its values have none, or could not be read.
        whole: the original text of the record.
    """
    same = None if clean is None else clean.get((result.reason, result.origin))
    detail = result.detail if clean is None else NOT_SHOWN if same is None else same.detail
    origin = scrub_forms(result.origin, Finds())
    if isinstance(result, Dropped):
        return replace(result, origin=origin, detail=scrub(detail, Finds()))
    raw = same.raw if isinstance(same, Reject) and result.raw == whole else scrub_raw(result.raw, Finds())
    return replace(result, origin=origin, detail=scrub(detail, Finds()), raw=raw)


def replaced_values(decisions: Iterable[Counts]) -> dict[str, dict[str, int]]:
    """By finding, how many values were replaced, in how many rows."""
    total = sum((counts.scrubbed for counts in decisions), Counter[tuple[str, str]]())
    kinds = sorted({kind for kind, _ in total})
    return {kind: {"values": total[kind, "values"], "rows": total[kind, "rows"]} for kind in kinds}
