"""A row as parsed, and the numbers of parsed rows: labels, scores, hashes and findings, in arrays ([rows] each)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from kto_cli.data.audit.exporter_damage import shape_of
from kto_cli.data.audit.facets import NO_FACETS, Facets
from kto_cli.data.audit.found import SCRUBBED
from kto_cli.data.audit.minhash import sketches
from kto_cli.data.audit.text_checks import about_answer, about_prompt
from kto_cli.data.formats.records import root
from kto_cli.data.texts import Text, contents, last_turn, spelled


class ParsedRow(NamedTuple):
    """Row as parsed; its label may still be open."""

    prompt: Text
    completion: Text
    label: int
    """1, 0 or NO_LABEL."""
    score: float
    by_label: bool
    pair: int
    """Number of its pair; -1 for none."""
    origin: str
    group: str
    official: bool
    remark: str | None = None
    """JSON of what the rater wrote."""
    facets: Facets = NO_FACETS
    scrubbed: bool = False
    """--scrub replaced something in it."""


def numbers_of(rows: Sequence[ParsedRow], source: int) -> dict[str, NDArray[Any]]:
    """The fields of `Columns` that depend on one row alone; work on a prompt is shared by consecutive rows."""
    starts = [
        index
        for index, row in enumerate(rows)
        if not index or (row.prompt is not rows[index - 1].prompt and row.prompt != rows[index - 1].prompt)
    ]
    prompts = [rows[index].prompt for index in starts]
    times = numpy.diff([*starts, len(rows)])
    bits, asked = zip(*map(about_prompt, prompts), strict=True) if prompts else ((), ())
    last_asked = [text for text, count in zip(asked, times.tolist(), strict=True) for _ in range(count)]
    answers = [about_answer(text, row.completion) for text, row in zip(last_asked, rows, strict=True)]
    return {
        "labels": numpy.array([row.label for row in rows], "i1"),
        "scores": numpy.array([row.score for row in rows], "f8"),
        "by_label": numpy.array([row.by_label for row in rows], bool),
        "pairs": numpy.array([row.pair for row in rows], "i8"),
        "official": numpy.array([row.official for row in rows], bool),
        "sources": numpy.full(len(rows), source, "i2"),
        "group_keys": keys([row.group for row in rows]),
        "root_keys": keys(map(root, prompts)).repeat(times, 0),
        "prompt_keys": keys(map(spelled, prompts)).repeat(times, 0),
        "prompt_chars": numpy.array(list(map(characters, prompts)), "i4").repeat(times),
        "sketches": sketches(prompts).repeat(times, 0),
        "completion_keys": keys([spelled(row.completion) for row in rows]),
        "completion_chars": numpy.array([characters(row.completion) for row in rows], "i4"),
        "shapes": numpy.array([shape_of(last_turn(row.completion)) for row in rows], "u1"),
        "facets": _facets(rows),
        "findings": numpy.array(answers, "u4") | numpy.array(bits, "u4").repeat(times) | _marks(rows),
    }


def _marks(rows: Sequence[ParsedRow]) -> NDArray[numpy.uint32]:
    """[rows] SCRUBBED of the rows in which something was replaced."""
    return numpy.array([row.scrubbed for row in rows], "u4") * numpy.uint32(SCRUBBED)


def _facets(rows: Sequence[ParsedRow]) -> NDArray[numpy.uint32]:
    """[rows, 3] facets; most sources have none."""
    if all(row.facets is NO_FACETS for row in rows):
        return numpy.zeros((len(rows), len(NO_FACETS)), "u4")
    return numpy.array([row.facets for row in rows], "u4")


def keys(texts: Iterable[str]) -> NDArray[numpy.uint64]:
    """128-bit hashes of texts ([texts, 2])."""
    return numpy.frombuffer(b"".join(map(key, texts)), "<u8").reshape(-1, 2)


def key(text: str) -> bytes:
    """128-bit hash of a text, from `spelled`."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def characters(text: Text) -> int:
    """Length of a text or a chat, in characters."""
    return sum(map(len, contents(text)))
