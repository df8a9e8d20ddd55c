"""A log that grows from week to week: `kto binarize` never trains on what was for validation."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kto_cli.common.errors import BadData, BadInput
from kto_cli.data.dataset import load_data_dir
from tests.support.binarizing import Recorder, adds_up, binarize, write_lines

TURN = st.tuples(st.integers(0, 9), st.sampled_from(["", "Hello", "Hi there"]), st.integers(0, 3))
ENTRY = st.tuples(TURN, st.integers(0, 14), st.booleans(), st.sampled_from(["fine", "bad", "long"]))
WEEKS = st.lists(st.lists(ENTRY, min_size=8, max_size=40), min_size=2, max_size=3)


def line(entry: tuple, named: bool) -> dict:
    """A line of a log: a question, or one behind a greeting; `named`: with a conversation, which several may share."""
    (question, greeting, turn), conversation, label, answer = entry
    messages = [{"role": "user", "content": greeting}, {"role": "assistant", "content": "Hi!"}] if greeting else []
    messages += [{"role": "user", "content": f"Question {question}, part {turn}?"}]
    messages += [{"role": "assistant", "content": answer}]
    return {"messages": messages, "good": label, "talk": f"c{conversation}" if named else None}


def sides(folder: Path) -> tuple[set, set]:
    """(prompt, completion, label) of training and validation rows."""
    data = load_data_dir(folder)
    train, validation = (
        {(str(row.prompt), str(row.completion), row.label) for row in rows} for rows in (data.train, data.validation)
    )
    return train, validation


def week_of(folder: Path, name: str, entries: list[tuple], named: bool, **options) -> tuple[set, set] | None:
    """Sides of the rows of one week's log; None if KTO could not learn from it, or nothing is for validation."""
    path = write_lines(folder / f"{name}.jsonl", *(line(entry, named) for entry in entries))
    given = {"conversation_column": "talk"} if named else {}
    try:
        result = binarize(f"log:{path}", folder / name, label_column="good", validation=0.3, **given, **options)
    except BadData:
        return None
    assert adds_up(result)
    return sides(folder / name)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WEEKS, st.booleans(), st.integers(0, 5), st.booleans())
def test_validation_rows_never_move_in_a_log_that_grows(tmp_path_factory, weeks, named, seed, duplicates):
    folder = tmp_path_factory.mktemp("weeks")
    entries: list[tuple] = []
    validated: set = set()
    for number, week in enumerate(weeks):
        entries += week
        random.Random(number).shuffle(entries)
        fix = ("duplicates", "near-duplicates") if duplicates else ()
        if (found := week_of(folder, f"week{number}", entries, named, seed=seed, fix=fix)) is None:
            continue
        train, validation = found
        assert not train & validated
        assert not {prompt for prompt, *_ in train} & {prompt for prompt, *_ in validation}
        reasons = {json.loads(line)["reason"] for line in (folder / f"week{number}/rejects.jsonl").open()}
        if not duplicates and not reasons & {"large_validation", "opening_validation"}:
            assert validated <= validation
        validated |= validation


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WEEKS, st.booleans(), st.integers(0, 5))
def test_a_split_is_kept_whatever_seed_and_share_it_was_drawn_with(tmp_path_factory, weeks, named, seed):
    """Each week only has its own rows, mixed with some of those before; the seed differs from week to week."""
    folder = tmp_path_factory.mktemp("weeks")
    keep, earlier = None, (set(), set())
    for number, week in enumerate(weeks):
        entries = [*week, *(weeks[number - 1][::3] if number else [])]
        found = week_of(folder, f"week{number}", entries, named, seed=seed + number, keep_split=keep)
        if found is None:
            return
        for side, other in ((0, 1), (1, 0)):
            now, before = ({prompt for prompt, *_ in rows} for rows in (found[side], earlier[other]))
            assert not now & before
        keep, earlier = str(folder / f"week{number}"), found


def test_what_is_kept_is_said_and_a_wrong_folder_is_refused(tmp_path):
    rows = [{"prompt": f"Question {n}?", "completion": "A", "label": n % 2 == 0} for n in range(40)]
    binarize(write_lines(tmp_path / "one.jsonl", *rows), tmp_path / "one", validation=0.3, seed=1)
    first = load_data_dir(tmp_path / "one")
    rows += [{"prompt": f"Question {n}?", "completion": "B", "label": n % 2 == 0} for n in range(100)]
    screen = Recorder()
    path = write_lines(tmp_path / "two.jsonl", *rows)
    result = binarize(path, tmp_path / "two", screen, keep_split=str(tmp_path / "one"))
    second = load_data_dir(tmp_path / "two")
    for before, after in ((first.validation, second.train), (first.train, second.validation)):
        assert not {row.prompt_id for row in before} & {row.prompt_id for row in after}
    held = 2 * len(first.validation)
    counts = f"{held} validation rows and {80 - held} training rows by their prompt or conversation; 60 are new."
    assert f"Split kept from {tmp_path / 'one'}: {counts}" in screen.notes
    assert any(f"{tmp_path / 'one'} was drawn with --seed 1 --validation 0.3" in note for note in screen.notes)
    assert result["options"]["keep_split"] == str(tmp_path / "one")
    with pytest.raises(BadInput, match="does not exist"):
        binarize(path, tmp_path / "three", keep_split=str(tmp_path / "none"))
    assert not (tmp_path / "three").exists()


def test_a_conversation_that_goes_on_is_known_by_its_first_turn(tmp_path):
    chats = [
        {
            "messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "A"}],
            "label": n % 2 == 0,
        }
        for n in range(30)
    ]
    binarize(write_lines(tmp_path / "one.jsonl", *chats), tmp_path / "one", validation=0.3)
    more = [{"role": "user", "content": "More"}, {"role": "assistant", "content": "B"}]
    path = write_lines(tmp_path / "two.jsonl", *({**chat, "messages": [*chat["messages"], *more]} for chat in chats))
    binarize(path, tmp_path / "two", validation=0.1, seed=5, keep_split=str(tmp_path / "one"))
    first, second = (load_data_dir(tmp_path / name) for name in ("one", "two"))
    for before, after in ((first.train, second.train), (first.validation, second.validation)):
        assert before
        assert {row.prompt[0]["content"] for row in before} == {row.prompt[0]["content"] for row in after}
