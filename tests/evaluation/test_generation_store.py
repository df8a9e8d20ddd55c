"""Answers are asked for once: kept by content, resumed after a kill, never trusted when damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.evaluation.answers.records import Answer, Decoding, Question
from kto_cli.evaluation.answers.store import AnswerStore, answer_all

DECODING = Decoding()


class Echo:
    """Answers with the prompt's tokens, last question first; may die, or leave one out."""

    name = "echo"
    family = "echo"

    def __init__(self, *, dies_after=None, leaves_out=()):
        self.asked: list[str] = []
        self.dies_after = dies_after
        self.leaves_out = leaves_out

    def answers(self, questions, decoding):
        for count, place in enumerate(reversed(range(len(questions)))):
            if count == self.dies_after:
                raise BadModel("died")
            self.asked.append(questions[place].id)
            if questions[place].id not in self.leaves_out:
                yield place, answer_to(questions[place])


def answer_to(question):
    return Answer(f"é{question.tokens}\n", len(question.tokens), len(question.tokens) % 2 == 0)


def questions_of(count):
    return [Question(str(n), [n] * (n + 1), []) for n in range(count)]


def store_in(folder, **other):
    return AnswerStore(folder, **{"fingerprint": "f", "reader": "r", "family": "echo", "decoding": DECODING, **other})


def file_of(store: AnswerStore) -> Path:
    (path,) = store.records.folder.glob("*.jsonl")
    return path


def test_answers_come_in_order_and_are_asked_once(tmp_path):
    questions, engine, ticks = questions_of(6), Echo(), []
    expected = [answer_to(question) for question in questions]
    assert answer_all(engine, questions, DECODING, store_in(tmp_path), lambda: ticks.append(1)) == expected
    assert answer_all(engine, [*questions, *questions_of(8)], DECODING, store_in(tmp_path))[:6] == expected
    assert sorted(engine.asked) == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert len(ticks) == 6


def test_the_same_prompt_twice_is_asked_once(tmp_path):
    engine, ticks = Echo(), []
    questions = [Question(name, [4, 5], []) for name in "abc"]
    answers = answer_all(engine, questions, DECODING, store_in(tmp_path), lambda: ticks.append(1))
    assert answers == [answer_to(questions[0])] * 3
    assert (engine.asked, len(ticks)) == (["a"], 3)


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "g"},
        {"family": "vllm"},
        {"decoding": Decoding(seed=1)},
        {"decoding": Decoding(temperature=0.0)},
        {"decoding": Decoding(top_p=1.0)},
        {"decoding": Decoding(max_new_tokens=64)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_model_engine_or_decoding_gets_no_hit(tmp_path, other):
    answer_all(Echo(), questions_of(2), DECODING, store_in(tmp_path))
    moved = store_in(tmp_path, **other)
    assert moved.read() == {}
    shutil.copytree(store_in(tmp_path).records.folder, moved.records.folder)
    assert moved.read() == {}, "not even when the file is copied"


def test_an_engine_that_dies_is_asked_only_for_the_rest(tmp_path):
    questions = questions_of(7)
    with pytest.raises(BadModel, match="died"):
        answer_all(Echo(dies_after=3), questions, DECODING, store_in(tmp_path))
    engine = Echo()
    assert answer_all(engine, questions, DECODING, store_in(tmp_path)) == [answer_to(one) for one in questions]
    assert sorted(engine.asked) == ["0", "1", "2", "3"]


def test_a_question_left_without_an_answer_is_an_error(tmp_path):
    with pytest.raises(BadModel, match="left 1 of 3"):
        answer_all(Echo(leaves_out=["1"]), questions_of(3), DECODING, store_in(tmp_path))


def test_a_killed_process_loses_nothing_it_has_answered(tmp_path):
    """SIGKILL while the fourth answer is being made; then only what is missing is asked for."""
    code = f"""
        import os, signal, sys
        sys.path[:0] = {[str(REPOSITORY / "tests" / part) for part in ("", "support", "evaluation")]!r}
        from pathlib import Path
        from test_generation_store import Echo, answer_all, questions_of, store_in, DECODING
        class Killed(Echo):
            def answers(self, questions, decoding):
                for count, found in enumerate(super().answers(questions, decoding)):
                    if count == 3:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield found
        answer_all(Killed(), questions_of(7), DECODING, store_in(Path({str(tmp_path)!r})))
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment, timeout=60)
    assert ran.returncode == -signal.SIGKILL
    engine, questions = Echo(), questions_of(7)
    assert answer_all(engine, questions, DECODING, store_in(tmp_path)) == [answer_to(one) for one in questions]
    assert sorted(engine.asked) == ["0", "1", "2", "3"]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 500), flip=st.integers(0, 500), bit=st.integers(0, 7), data=st.data())
def test_a_torn_or_damaged_line_is_asked_for_again(tmp_path_factory, cut, flip, bit, data):
    folder = tmp_path_factory.mktemp("store")
    questions = questions_of(4)
    answer_all(Echo(), questions, DECODING, store_in(folder))
    path = file_of(store_in(folder))
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 1 << bit
    path.write_bytes(content[: max(0, len(content) - cut)])
    engine = Echo()
    assert answer_all(engine, questions, DECODING, store_in(folder)) == [answer_to(one) for one in questions]
    assert answer_all(Echo(dies_after=0), questions, DECODING, store_in(folder))[0] == answer_to(questions[0])


def test_what_follows_a_torn_line_is_not_lost(tmp_path):
    questions, store = questions_of(3), store_in(tmp_path)
    store.append(store.key(questions[0]), answer_to(questions[0]))
    with (store.records.folder / "0-killed.jsonl").open("ab") as file:
        file.write(b'{"key": "half a li')
    store.append(store.key(questions[1]), answer_to(questions[1]))
    engine = Echo()
    answer_all(engine, questions, DECODING, store_in(tmp_path))
    assert engine.asked == ["2"]


def test_several_writers_at_once_lose_nothing(tmp_path):
    questions = questions_of(40)

    def write(part):
        store = store_in(tmp_path)
        for question in questions[part::4]:
            store.append(store.key(question), answer_to(question))

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store_in(tmp_path).read()) == 40


def test_an_answer_edited_by_hand_is_not_believed(tmp_path):
    store, (question,) = store_in(tmp_path), questions_of(1)
    store.append(store.key(question), answer_to(question))
    record = json.loads(file_of(store).read_text().strip())
    record["value"][0] = "nicer"
    file_of(store).write_text(json.dumps(record) + "\n")
    assert store.read() == {}


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(BadInput, match="cache folder cannot be used"):
        answer_all(Echo(), questions_of(1), DECODING, store_in(tmp_path))
