"""Answers kept by content: what a model has been asked once with one decoding it is never asked again.

CACHE/answers/ holds one file for each (model, engine family, decoding), which answers are only ever appended to. A line
is one answer behind a checksum that is keyed with all of these:

    {"key": PROMPT, "text": ..., "tokens": N, "ended": true, "check": CHECKSUM}

Every record begins and ends with a line break and is written in one call under a lock, so a line that a killed process
left torn damages no other, and two processes may write at once. A line that is not sound is passed over; its answer is
generated again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kto_cli.common.cache import make_cache_folder
from kto_cli.common.errors import BadModel
from kto_cli.common.files import locked, saying_disk_full
from kto_cli.evaluation.answers.records import Answer, Decoding, Engine, Question


class AnswerStore:
    """The answers of one model, from one family of engines, with one decoding."""

    def __init__(self, cache: Path, *, fingerprint: str, family: str, decoding: Decoding) -> None:
        """
        Args:
            cache: the cache's root (`reference.default_cache`).
            fingerprint: of the model's content, and of all else that changes its answers (its dtype).
        """
        named = json.dumps([1, fingerprint, family, asdict(decoding)], sort_keys=True)
        self._seal = hashlib.blake2b(named.encode(), digest_size=32).digest()
        self.path = cache / "answers" / f"{self._seal.hex()[:32]}.jsonl"

    def key(self, question: Question) -> str:
        """Names a prompt by its tokens."""
        text = " ".join(map(str, question.tokens))
        return hashlib.blake2b(text.encode(), key=self._seal, digest_size=16).hexdigest()

    def read(self) -> dict[str, Answer]:
        """All sound answers, by key; of several to one prompt the first, which an earlier run has shown."""
        found: dict[str, Answer] = {}
        if not self.path.is_file():
            return found
        for line in self.path.read_bytes().split(b"\n"):
            record = self._sound(line)
            if record is not None:
                found.setdefault(*record)
        return found

    def append(self, key: str, answer: Answer) -> None:
        """Keeps one answer: when this returns, a kill of the process takes nothing away.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be written to.
        """
        record = {"key": key, **answer._asdict(), "check": self._check(key, answer)}
        make_cache_folder(self.path.parent)
        with saying_disk_full(self.path), locked(self.path.with_suffix(".lock")), self.path.open("ab", 0) as file:
            file.write(f"\n{json.dumps(record)}\n".encode())

    def _check(self, key: str, answer: Answer) -> str:
        text = json.dumps([key, *answer])
        return hashlib.blake2b(text.encode(), key=self._seal, digest_size=8).hexdigest()

    def _sound(self, line: bytes) -> tuple[str, Answer] | None:
        try:
            record = json.loads(line)
            key, answer = record["key"], Answer(record["text"], record["tokens"], record["ended"])
            sound = record["check"] == self._check(key, answer)
        except (ValueError, KeyError, TypeError):  # torn, damaged or not of ours
            return None
        return (key, answer) if sound else None


def answer_all(
    engine: Engine,
    questions: Sequence[Question],
    decoding: Decoding,
    store: AnswerStore,
    tick: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """The answers to all questions, in their order; only those that are not stored are generated, each prompt once.

    Args:
        tick: called once for each question that has its answer.

    Raises:
        KtoError: the engine failed; what it has answered is stored.
    """
    known = store.read()
    keys = [store.key(question) for question in questions]
    asked: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        if key in known:
            tick()
        else:
            asked.setdefault(key, []).append(place)
    missing = list(asked)
    if missing:
        for place, answer in engine.answers([questions[asked[key][0]] for key in missing], decoding):
            key = missing[place]
            store.append(key, answer)
            known[key] = answer
            for _ in asked[key]:
                tick()
    lost = sum(key not in known for key in keys)
    if lost:
        raise BadModel(f"{engine.name} left {lost} of {len(questions)} prompts without an answer.", "Run it again.")
    return [known[key] for key in keys]
