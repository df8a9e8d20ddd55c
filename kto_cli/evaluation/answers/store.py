"""Answers of models, stored by content: a prompt that a model answered once with one decoding is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kto_cli.common.cache import RecordStore
from kto_cli.common.errors import BadModel
from kto_cli.common.words import plural
from kto_cli.evaluation.answers.records import Answer, Decoding, Engine, Question


class AnswerStore:
    """The answers of one model, from one family of engines, with one decoding, in the cache folder `answers`."""

    def __init__(self, cache: Path, *, fingerprint: str, reader: object, family: str, decoding: Decoding) -> None:
        """
        Args:
            cache: the cache's root. fingerprint: `identity.numbers_identity` of the model. reader: what ends an answer
                and turns its tokens into text, as JSON.
        """
        self.records = RecordStore(cache / "answers", [4, fingerprint, reader, family, asdict(decoding)])

    def key(self, question: Question) -> str:
        """The name of a prompt, by its tokens."""
        return self.records.key(" ".join(map(str, question.tokens)))

    def read(self) -> dict[str, Answer]:
        """All valid answers by key; of several to one prompt the first, which an earlier run has shown."""
        found: dict[str, Answer] = {}
        for key, (text, tokens, ended) in self.records.read():
            found.setdefault(key, Answer(text, tokens, ended))
        return found

    def append(self, key: str, answer: Answer) -> None:
        """Stores one answer; it is safe when this returns.

        Raises:
            DiskFull: no space left. BadInput: the cache folder cannot be created.
        """
        self.records.append([(key, list(answer))])


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
    for index, key in enumerate(keys):
        if key in known:
            tick()
        else:
            asked.setdefault(key, []).append(index)
    missing = list(asked)
    if missing:
        for index, answer in engine.answers([questions[asked[key][0]] for key in missing], decoding):
            key = missing[index]
            store.append(key, answer)
            known[key] = answer
            for _ in asked[key]:
                tick()
    lost = sum(key not in known for key in keys)
    if lost:
        raise BadModel(
            f"{engine.name} left {lost} of {plural(len(questions), 'prompt')} without an answer.", "Run it again."
        )
    return [known[key] for key in keys]
