"""`kto binarize` from end to end: all rows accounted for, splits share nothing, runs repeat to the byte."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from binarizing import Recorder, adds_up, binarize, write_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import shared

from kto_cli.common.errors import BadData, BadInput
from kto_cli.core.weights import lambda_interval
from kto_cli.data.dataset import Row, load_data_dir
from kto_cli.data.formats.records import Text
from kto_cli.data.texts import spelled as canonical

KEYS = {"rows_in", "desirable", "undesirable", "validation", "dropped", "rejected", "lambda_interval"}


def thumbs(folder: Path, count: int = 20) -> Path:
    """An unpaired log: `count` prompts with one good and one bad answer each."""
    rows = [
        {"prompt": f"Q{number}", "completion": f"{'good' if label else 'bad'} {number}", "label": label}
        for number in range(count)
        for label in (True, False)
    ]
    return write_lines(folder / "thumbs.jsonl", *rows)


def hh_pair(number: int, *, root: str | None = None, tail: str = "") -> dict[str, str]:
    opening_turn = root or f"Question {number}?"
    head = f"\n\nHuman: {opening_turn}\n\nAssistant: Yes?\n\nHuman: Go on {number}{tail}.\n\nAssistant:"
    return {"chosen": f"{head} Gladly {number}.", "rejected": f"{head} No {number}."}


# --- the result and the folder ----------------------------------------------------------------


def test_result_keys_and_counts(tmp_path):
    path = thumbs(tmp_path)
    with path.open("a") as file:
        file.write('{"prompt": "Q", "completion": "A", "label": "yes"}\nbroken\n')
    screen = Recorder()
    result = binarize(path, tmp_path / "out", screen, validation=0.4)
    prompts = 20 - result["validation"] // 2
    assert 0 < prompts < 20
    assert set(result) >= KEYS
    assert adds_up(result)
    assert (result["lines_in"], result["rows_in"]) == (42, 42)
    assert (result["desirable"], result["undesirable"], result["validation"]) == (prompts, prompts, 40 - 2 * prompts)
    assert result["rejected"] == {"label_not_accepted": 1, "not_json": 1}
    assert result["lambda_interval"] == lambda_interval(prompts, prompts)
    data = load_data_dir(tmp_path / "out")
    assert Counter(row.label for row in data.train) == {True: prompts, False: prompts}
    shared = set(result) - {"out"}
    as_json = json.loads(json.dumps(result))
    assert {key: data.manifest[key] for key in shared} == {key: as_json[key] for key in shared}
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert [(reject["origin"], reject["reason"]) for reject in rejects] == [
        ("thumbs.jsonl:41", "label_not_accepted"),
        ("thumbs.jsonl:42", "not_json"),
    ]
    assert json.loads(rejects[0]["raw"])["label"] == "yes"
    assert any("kto precompute --data" in text for text in screen.said)


def test_default_folder_and_next_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    screen = Recorder()
    assert binarize(thumbs(tmp_path), None, screen)["out"] == str(Path("data/thumbs"))
    assert screen.said[-1] == "Next: kto precompute, or directly kto train"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    path = thumbs(tmp_path)
    results = [binarize(path, tmp_path / str(run), seed=seed) for run, seed in enumerate((0, 0, 1))]
    assert results[0]["files"] == results[1]["files"] != results[2]["files"]


def test_rows_keep_the_order_of_the_input(tmp_path):
    binarize(thumbs(tmp_path), tmp_path / "out", validation=0.3)
    data = load_data_dir(tmp_path / "out")
    for rows in (data.train, data.validation):
        lines = [int(row.origin.split(":")[1]) for row in rows]
        assert lines == sorted(lines)


def test_labels_of_every_kind_end_somewhere(tmp_path):
    """1 and 0 count only where no other number is in the column; a column of stars loses all its numbers."""
    labels = [True, False, "TRUE", "false", 1, 0, "1", "yes", None, "thumbs_up"]
    rows = [{"prompt": f"Q{number}", "completion": "A", "label": label} for number, label in enumerate(labels)]
    result = binarize(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "a", validation=0)
    assert (result["desirable"], result["undesirable"]) == (4, 3)
    assert result["rejected"] == {"label_not_accepted": 2, "label_missing": 1}
    stars = [*rows, {"prompt": "Q", "completion": "A", "label": 5}]
    screen = Recorder()
    result = binarize(write_lines(tmp_path / "b.jsonl", *stars), tmp_path / "b", screen, validation=0)
    assert "All 4 number labels are rejected: not all are 1 or 0 (there are 5)" in screen.warnings[0]
    assert (result["desirable"], result["undesirable"]) == (2, 2)
    assert result["rejected"] == {"label_not_binary": 4, "label_not_accepted": 2, "label_missing": 1}


# --- what cannot be learned from --------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [{"prompt": f"Q{n}", "completion": "A", "label": True} for n in range(9)],
            "9 desirable and 0 undesirable",
        ),
        (
            [{"prompt": "Q", "completion": f"A{n}", "label": n > 4} for n in range(9)],
            "All 9 rows have the same prompt",
        ),
        (
            [{"prompt": "Q", "completion": "A", "label": n} for n in (1, 2, 3)],
            "3 of 3 rows rejected: label_not_binary 3. First: a.jsonl:1: the label column has numbers other",
        ),
        (
            [*({"prompt": f"Q{n}", "completion": "A", "label": n} for n in (1, 2)), "broken", "{}"],
            "4 of 4 rows rejected: label_not_binary 2, label_missing 1, not_json 1. First: a.jsonl:3: Expecting value",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_said_and_not_written(tmp_path, rows, says):
    path = write_lines(tmp_path / "a.jsonl", *rows)
    with pytest.raises(BadData, match=re.escape(says)) as error:
        binarize(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_first_reject_is_named_wherever_it_is(tmp_path):
    """Beyond the first block of rows, after all of them were read."""
    rows = [{"prompt": f"Q{n}", "completion": "A", "label": True if n < 1200 else n} for n in range(1202)]
    words = "label_not_binary 2. First: a.jsonl:1201: the label column has numbers other than 1 and 0 (1200, 1201)"
    with pytest.raises(BadData, match=re.escape(words)):
        binarize(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out")


def test_rows_that_were_dropped_are_in_the_error_too(tmp_path):
    rows = [{"prompt": f"Q{n}", "completion": "A", "label": 3} for n in range(3)]
    with pytest.raises(BadData, match=r"^No training rows are left\. 3 of 3 rows dropped: undecided 3\. Nothing"):
        binarize(write_lines(tmp_path / "a.jsonl", *rows), tmp_path / "out", threshold="mean")
    assert not (tmp_path / "out").exists()


def test_few_prompts_are_all_learned_from(tmp_path):
    screen = Recorder()
    assert binarize(thumbs(tmp_path, count=3), tmp_path / "out", screen)["validation"] == 0
    assert "3 prompts or conversations, and 4 are needed" in screen.warnings[0]


def test_a_class_is_never_validation_as_a_whole(tmp_path):
    rows = [{"prompt": f"Q{number}", "completion": "A", "label": number > 0} for number in range(4)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    for seed in range(8):
        result = binarize(path, tmp_path / str(seed), validation=0.5, seed=seed)
        assert result["undesirable"] == 1
        assert adds_up(result)


def test_an_occupied_folder_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "out"
    binarize(thumbs(tmp_path), out)
    with pytest.raises(BadInput, match="--overwrite"):
        binarize("missing.csv", out)
    assert binarize(thumbs(tmp_path, 9), out, overwrite=True)["lines_in"] == 18


# --- hh-rlhf ----------------------------------------------------------------------------------


def test_official_split_is_kept_and_train_rows_that_touch_it_are_dropped(tmp_path):
    train = [hh_pair(number) for number in range(6)]
    train += [hh_pair(90), hh_pair(91, root="Question 90?", tail="!"), {"chosen": "x", "rejected": "y"}]
    write_lines(tmp_path / "hh" / "harmless-base" / "train.jsonl", *train)
    write_lines(tmp_path / "hh" / "harmless-base" / "test.jsonl", hh_pair(90), hh_pair(92))
    screen = Recorder()
    result = binarize("hh-rlhf", tmp_path / "out", screen, from_path=str(tmp_path / "hh"), validation=0.5)
    assert adds_up(result)
    assert (result["desirable"], result["undesirable"], result["validation"], result["dropped"]) == (
        6,
        6,
        4,
        4,
    )
    assert result["dropped_reasons"] == {"conversation_validation": 2, "prompt_validation": 2}
    assert any("--validation is ignored" in note for note in screen.notes)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    # what was read and then dropped is listed row by row
    assert sorted((line["kind"], line["origin"], line["rows"], line.get("label")) for line in lines) == [
        ("dropped", "harmless-base/train.jsonl:7", 1, False),
        ("dropped", "harmless-base/train.jsonl:7", 1, True),
        ("dropped", "harmless-base/train.jsonl:8", 1, False),
        ("dropped", "harmless-base/train.jsonl:8", 1, True),
        ("rejected", "harmless-base/train.jsonl:9", 2, None),
    ]


def test_one_conversation_stays_on_one_side(tmp_path):
    pairs = [hh_pair(number, root=f"Root {number % 30}") for number in range(90)]
    binarize("hh-rlhf", tmp_path / "out", from_path=str(write_lines(tmp_path / "a.jsonl", *pairs)), validation=0.3)
    data = load_data_dir(tmp_path / "out")
    roots = [{row.prompt[0]["content"] for row in rows} for rows in (data.train, data.validation)]
    assert roots[1]
    assert not roots[0] & roots[1]


def test_pairs_share_their_pair_id_and_prompt_id(tmp_path):
    pairs = [hh_pair(number) for number in (1, 2, 2, 3)]
    binarize("hh-rlhf", tmp_path / "out", from_path=str(write_lines(tmp_path / "a.jsonl", *pairs)), validation=0)
    rows = load_data_dir(tmp_path / "out").train
    assert len({row.id for row in rows}) == 8
    assert len({row.pair_id for row in rows}) == 4
    assert len({row.prompt_id for row in rows}) == 3
    for good, bad in zip(rows[::2], rows[1::2], strict=True):
        assert (good.pair_id, good.prompt_id, good.label, bad.label) == (
            bad.pair_id,
            bad.prompt_id,
            True,
            False,
        )


def test_ids_depend_on_the_row_alone(tmp_path):
    """Neither file, line, split nor other rows change an id; the numbers pin the format."""
    item = {"prompt": "Q", "completion": "A", "label": True}
    other = {"prompt": "R", "completion": "B", "label": False}

    def rows(name: str, *values: dict, **options: object) -> list[Row]:
        path = write_lines(tmp_path / f"{name}.jsonl", *values)
        binarize(path, tmp_path / name, validation=0, **options)
        return load_data_dir(tmp_path / name).train

    alone = rows("a", item, other, text=True)[0]
    later = rows("b", other, {**item, "completion": "B"}, item, text=True)[2]
    assert (alone.id, alone.prompt_id) == (later.id, later.prompt_id)
    digest = hashlib.blake2b(b"tQ", digest_size=16).digest()
    assert alone.prompt_id == f"{int.from_bytes(digest[:8], 'little'):016x}" == "874d1b987769c829"
    assert alone.id == "e3ab9c0df7ea3d60"
    chat = rows("c", item, other)[0]
    assert chat.prompt_id != alone.prompt_id
    same = rows("d", item, item, {**item, "label": False}, other, text=True)[:3]
    assert same[0].id == alone.id
    assert len({row.id for row in same}) == 3
    assert {row.prompt_id for row in same} == {alone.prompt_id}


# --- what the doctor says ---------------------------------------------------------------------


def test_turn_markers_inside_a_text_prompt_are_warned_of(tmp_path):
    rows = [{"prompt": f"\n\nHuman: Q{n}\n\nAssistant:", "chosen": "A", "rejected": "B"} for n in range(3)]
    path = write_lines(tmp_path / "a.jsonl", *rows, {"prompt": "Q", "chosen": "Human: A", "rejected": "B"})
    (finding,) = [
        one for one in binarize(path, tmp_path / "out", validation=0)["findings"] if one["finding"] == "turn_markers"
    ]
    assert (finding["severity"], finding["rows"]) == ("warning", 6)
    assert "turn markers of hh-rlhf" in finding["summary"]
    assert "lists of messages" in finding["advice"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "findings.jsonl").read_text().splitlines()]
    listed = [line["origin"] for line in lines if line["finding"] == "turn_markers"]
    assert listed == [f"a.jsonl:{n}" for n in (1, 1, 2, 2, 3, 3)]
    plain = binarize(path, tmp_path / "plain", text=True, validation=0)["findings"]
    assert "turn_markers" not in [one["finding"] for one in plain]


# --- the real file ----------------------------------------------------------------------------


def test_real_file(tmp_path):
    path = shared("data", "hh-rlhf", "harmless-base_test.jsonl.gz")
    result = binarize("hh-rlhf", tmp_path / "out", from_path=str(path))
    assert (result["lines_in"], result["rows_in"]) == (2312, 4624)
    assert result["rejected"] == {"prompts_differ": 10, "empty_answer": 8, "roles_do_not_alternate": 8}
    assert adds_up(result)
    assert shares_nothing(load_data_dir(tmp_path / "out").train, load_data_dir(tmp_path / "out").validation)


def opening(prompt: Text) -> str:
    return prompt if isinstance(prompt, str) else prompt[0]["content"]


def shares_nothing(left: list[Row], right: list[Row]) -> bool:
    prompts = [{row.prompt_id for row in rows} for rows in (left, right)]
    openings = [{opening(row.prompt) for row in rows} for rows in (left, right)]
    return not prompts[0] & prompts[1] and not openings[0] & openings[1]


def outcome(path: Path, out: Path, **options) -> dict | str:
    """The result, or the line that refuses the file."""
    try:
        return binarize(path, out, **options)
    except (BadData, BadInput) as error:
        return str(error)


# --- properties -------------------------------------------------------------------------------

TEXTS = st.one_of(st.sampled_from(["Q1", "Q2", "Q3", "", " "]), st.text(max_size=4), st.integers(), st.none())
LABELS = st.one_of(st.booleans(), st.sampled_from([1, 0, "true", "no", None, 0.5, -1]))
UNPAIRED = st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS, "label": LABELS})
PAIRED = st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS})
JUNK = st.sampled_from(["not json", "[]", "{}", "3"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.one_of(
        st.lists(st.one_of(UNPAIRED, UNPAIRED, JUNK), max_size=30),
        st.lists(st.one_of(PAIRED, JUNK), max_size=30),
    ),
    validation=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    seed=st.integers(0, 3),
)
def test_every_row_is_accounted_for(tmp_path_factory, rows, validation, seed):
    """Whatever the table, the counts add up and no prompt is on both sides, or it is refused in one line."""
    folder = tmp_path_factory.mktemp("any")
    path = write_lines(folder / "a.jsonl", *rows)
    result = outcome(path, folder / "out", validation=validation, seed=seed)
    if isinstance(result, str):
        assert "\n" not in result
        return
    assert adds_up(result)
    assert result["lines_in"] == len(rows)
    data = load_data_dir(folder / "out")
    assert len(data.train) == result["desirable"] + result["undesirable"]
    assert len(data.validation) == result["validation"]
    assert shares_nothing(data.train, data.validation)
    lines = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert sum(line["rows"] for line in lines) == sum(result["rejected"].values()) + result["dropped"]
    origins = [row.origin for row in (*data.train, *data.validation)] + [line["origin"] for line in lines]
    assert len(set(origins)) == len(rows)


def test_texts_and_chats_are_never_spelled_alike():
    chat = ({"role": "user", "content": "Q"},)
    assert canonical(canonical(chat)) != canonical(chat)
    assert canonical(({"content": "Q", "role": "user"},)) == canonical(chat)


def turns(*texts: str) -> list[dict[str, str]]:
    """Turns of a user and an assistant."""
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


@pytest.mark.parametrize("seed", [0, 14])
def test_a_greeting_ties_no_chats_together(tmp_path, seed):
    """300 of 400 chats begin with two equal turns: they are on both sides as the others are, and the reason is said."""
    chats = [
        ["Hello", "Hi!", "How are you?", "Fine.", f"What about item {n}?", f"Answer {n}."]
        if n % 4
        else [f"Question {n}", "Hi!", f"What about item {n}?", f"Answer {n}."]
        for n in range(400)
    ]
    lines = [{"messages": turns(*texts), "label": n % 3 == 0} for n, texts in enumerate(chats)]
    screen = Recorder()
    result = binarize(str(write_lines(tmp_path / "a.jsonl", *lines)), tmp_path / "out", screen, seed=seed)
    assert abs(result["validation"] - 20) < 18  # 4 sqrt(400 * 0.05 * 0.95)
    assert [note for note in screen.notes if "begin alike" in note] == [
        "300 rows begin alike ('Hello Hi! How are you?'): they are told apart by their next turns, "
        "as 300 conversations."
    ]
    rows = load_data_dir(tmp_path / "out").validation
    assert {row.prompt[0]["content"] == "Hello" for row in rows} == {True, False}


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_a_greeting_drops_no_training_rows_beside_an_official_split(tmp_path, share):
    def pair(number: int) -> dict[str, str]:
        head = f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: What about item {number}?\n\nAssistant:"
        return {"chosen": f"{head} It is number {number}.", "rejected": f"{head} No."}

    folder = tmp_path / "hh" / "helpful-base"
    folder.mkdir(parents=True)
    write_lines(folder / "train.jsonl", *map(pair, range(40)))
    write_lines(folder / "test.jsonl", *map(pair, range(40, 50)))
    result = binarize("hh-rlhf", tmp_path / "out", from_path=str(tmp_path / "hh"), validation=share)
    assert (result["desirable"], result["undesirable"], result["validation"]) == (40, 40, 20)
    assert result["dropped_reasons"] == {}
