"""`kto binarize` from end to end: all rows accounted for, splits share nothing, runs repeat to the byte."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kto_cli.config import BinarizeConfig
from kto_cli.core.weights import lambda_interval
from kto_cli.data_dir import Row, load_data_dir
from kto_cli.display import Screen
from kto_cli.errors import BadData, BadInput
from kto_cli.sources import hub, select
from kto_cli.sources.records import Output, Pair, Text
from kto_cli.sources.split import canonical, families, number_held_out, seeded_split, split_items
from kto_cli.workflows.binarize import rows_of, run

KEYS = {"rows_in", "desirable", "undesirable", "held_out", "left_out", "rejected", "lambda_interval"}


class Recorder(Screen):
    """A screen that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)


def binarize(source: Path | str, out: Path | str | None, screen: Screen | None = None, **options) -> dict:
    config = BinarizeConfig(str(source), out=None if out is None else str(out), **options)
    return run(config, screen or Recorder())


def adds_up(result: dict) -> bool:
    used = result["desirable"] + result["undesirable"] + result["held_out"] + result["left_out"]
    return result["rows_in"] == used + sum(result["rejected"].values())


def write_lines(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def thumbs(folder: Path, count: int = 20) -> Path:
    """An unpaired log: `count` prompts with one good and one bad answer each."""
    rows = [
        {"prompt": f"Q{number}", "completion": f"{'good' if label else 'bad'} {number}", "label": label}
        for number in range(count)
        for label in (True, False)
    ]
    return write_lines(folder / "thumbs.jsonl", rows)


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
    result = binarize(path, tmp_path / "out", screen, holdout=0.1)
    assert set(result) >= KEYS
    assert adds_up(result)
    assert (result["lines_in"], result["rows_in"]) == (42, 42)
    assert (result["desirable"], result["undesirable"], result["held_out"]) == (18, 18, 4)
    assert result["rejected"] == {"label_not_accepted": 1, "not_json": 1}
    assert result["lambda_interval"] == lambda_interval(18, 18)
    data = load_data_dir(tmp_path / "out")
    assert Counter(row.label for row in data.train) == {True: 18, False: 18}
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
    assert screen.said[-1] == "Next: kto precompute, or at once kto train"


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    path = thumbs(tmp_path)
    results = [binarize(path, tmp_path / str(run), seed=seed) for run, seed in enumerate((0, 0, 1))]
    assert results[0]["files"] == results[1]["files"] != results[2]["files"]


def test_rows_keep_the_order_of_the_input(tmp_path):
    binarize(thumbs(tmp_path), tmp_path / "out", holdout=0.3)
    data = load_data_dir(tmp_path / "out")
    for rows in (data.train, data.held_out):
        lines = [int(row.origin.split(":")[1]) for row in rows]
        assert lines == sorted(lines)


def test_labels_of_every_kind_end_somewhere(tmp_path):
    """1 and 0 count only where no other number is in the column; a column of stars loses all its numbers."""
    labels = [True, False, "TRUE", "false", 1, 0, "1", "yes", None, "thumbs_up"]
    rows = [{"prompt": f"Q{number}", "completion": "A", "label": label} for number, label in enumerate(labels)]
    result = binarize(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "a", holdout=0)
    assert (result["desirable"], result["undesirable"]) == (4, 3)
    assert result["rejected"] == {"label_not_accepted": 2, "label_missing": 1}
    stars = [*rows, {"prompt": "Q", "completion": "A", "label": 5}]
    screen = Recorder()
    result = binarize(write_lines(tmp_path / "b.jsonl", stars), tmp_path / "b", screen, holdout=0)
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
            "All 9 rows have one prompt",
        ),
        (
            [{"prompt": "Q", "completion": "A", "label": n} for n in (1, 2, 3)],
            "3 of 3 rows rejected: label_not_binary 3.",
        ),
    ],
)
def test_what_cannot_be_learned_from_is_said_and_not_written(tmp_path, rows, says):
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(BadData, match=says) as error:
        binarize(path, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_few_prompts_are_all_learned_from(tmp_path):
    screen = Recorder()
    assert binarize(thumbs(tmp_path, count=3), tmp_path / "out", screen)["held_out"] == 0
    assert "3 prompts are too few" in screen.warnings[0]


def test_a_class_is_never_held_out_as_a_whole(tmp_path):
    rows = [{"prompt": f"Q{number}", "completion": "A", "label": number > 0} for number in range(4)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    for seed in range(8):
        result = binarize(path, tmp_path / str(seed), holdout=0.5, seed=seed)
        assert result["undesirable"] == 1
        assert adds_up(result)


def test_an_occupied_folder_is_refused_before_anything_is_read(tmp_path):
    out = tmp_path / "out"
    binarize(thumbs(tmp_path), out)
    with pytest.raises(BadInput, match="--overwrite"):
        binarize("missing.csv", out)
    assert binarize(thumbs(tmp_path, 9), out, overwrite=True)["lines_in"] == 18


# --- hh-rlhf ----------------------------------------------------------------------------------


def test_official_split_is_kept_and_train_rows_that_touch_it_are_left_out(tmp_path):
    train = [hh_pair(number) for number in range(6)]
    train += [hh_pair(90), hh_pair(91, root="Question 90?", tail="!"), {"chosen": "x", "rejected": "y"}]
    write_lines(tmp_path / "hh" / "harmless-base" / "train.jsonl", train)
    write_lines(tmp_path / "hh" / "harmless-base" / "test.jsonl", [hh_pair(90), hh_pair(92)])
    screen = Recorder()
    result = binarize("hh-rlhf", tmp_path / "out", screen, from_path=str(tmp_path / "hh"), holdout=0.5)
    assert adds_up(result)
    assert (result["desirable"], result["undesirable"], result["held_out"], result["left_out"]) == (
        6,
        6,
        4,
        4,
    )
    assert result["left_out_reasons"] == {"conversation_held_out": 2, "prompt_held_out": 2}
    assert any("--holdout is not used" in note for note in screen.notes)
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert sorted((line["kind"], line["origin"], line["rows"]) for line in lines) == [
        ("left_out", "harmless-base/train.jsonl:7", 2),
        ("left_out", "harmless-base/train.jsonl:8", 2),
        ("rejected", "harmless-base/train.jsonl:9", 2),
    ]


def test_one_conversation_stays_on_one_side(tmp_path):
    pairs = [hh_pair(number, root=f"Root {number % 9}") for number in range(90)]
    binarize("hh-rlhf", tmp_path / "out", from_path=str(write_lines(tmp_path / "a.jsonl", pairs)), holdout=0.3)
    data = load_data_dir(tmp_path / "out")
    roots = [{row.prompt[0]["content"] for row in rows} for rows in (data.train, data.held_out)]
    assert len(roots[1]) == 3
    assert not roots[0] & roots[1]


def test_pairs_share_their_pair_id_and_prompt_id(tmp_path):
    pairs = [hh_pair(number) for number in (1, 2, 2, 3)]
    binarize("hh-rlhf", tmp_path / "out", from_path=str(write_lines(tmp_path / "a.jsonl", pairs)), holdout=0)
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


def test_ids_depend_on_the_row_alone():
    """Neither file, line, split nor other rows change an id; the numbers pin the format."""
    item = Output("Q", "A", True, "a:1", "Q")
    alone = rows_of([item], "a")[0]
    later = rows_of([Output("Q", "B", True, "b:1", "Q"), Output("Q", "A", True, "b:2", "Q")], "b")[1]
    assert (alone.id, alone.prompt_id) == (later.id, later.prompt_id)
    assert (alone.id, alone.prompt_id) == ("11b4ec5301ec21ab", "9d0aa7805a82370a")
    chat = rows_of([Output(({"role": "user", "content": "Q"},), "A", True, "a:1", "Q")], "a")[0]
    assert chat.prompt_id != alone.prompt_id
    assert len({row.id for row in rows_of([item, item, Output("Q", "A", False, "a:2", "Q")], "a")}) == 3


# --- offline ----------------------------------------------------------------------------------


def fake_sample(folder: Path) -> Path:
    path = folder / "hh-rlhf" / "harmless-base" / "train.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(json.dumps(hh_pair(number)) + "\n" for number in range(20)).encode()))
    return folder


def test_offline_falls_back_to_the_sample_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "answers", lambda endpoint: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(select, "sample_data", lambda: fake_sample(tmp_path / "sample"))
    screen = Recorder()
    result = binarize("hh-rlhf", None, screen)
    assert result["out"] == str(Path("data/hh-rlhf"))
    assert result["source"]["sample"] is True
    assert "built-in sample of hh-rlhf (20 pairs, written by this project), NOT the real data" in screen.warnings[0]
    assert "--from PATH" in screen.warnings[0]


def test_offline_uses_what_was_downloaded_before(tmp_path, monkeypatch):
    """A complete copy in the Hub's cache is the real data; an incomplete one is not silently used."""
    cache = tmp_path / "cache" / "datasets--Anthropic--hh-rlhf"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    write_lines(cache / "snapshots" / "abc" / "helpful-base" / "train.jsonl", [hh_pair(number) for number in range(8)])
    monkeypatch.setattr(hub, "answers", lambda endpoint: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub.snapshot("Anthropic/hh-rlhf", ["helpful-base"]) == cache / "snapshots" / "abc"
    with pytest.raises(hub.Unreachable):
        hub.snapshot("Anthropic/hh-rlhf", ["helpful-base", "harmless-base"])


# --- the real file ----------------------------------------------------------------------------


def test_real_file(tmp_path):
    shared = Path(os.environ.get("KTO_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    path = shared / "hh-rlhf" / "harmless-base_test.jsonl.gz"
    if not path.is_file():
        pytest.skip("no real hh-rlhf file here (set KTO_SHARED_DATA)")
    result = binarize("hh-rlhf", tmp_path / "out", from_path=str(path))
    assert (result["lines_in"], result["rows_in"]) == (2312, 4624)
    assert result["rejected"] == {"prompts_differ": 10, "empty_answer": 8, "roles_do_not_alternate": 8}
    assert adds_up(result)
    assert shares_nothing(load_data_dir(tmp_path / "out").train, load_data_dir(tmp_path / "out").held_out)


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
    holdout=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    seed=st.integers(0, 3),
)
def test_every_row_is_accounted_for(tmp_path_factory, rows, holdout, seed):
    """Whatever the table, the counts add up and no prompt is on both sides, or it is refused in one line."""
    folder = tmp_path_factory.mktemp("any")
    path = write_lines(folder / "a.jsonl", rows)
    result = outcome(path, folder / "out", holdout=holdout, seed=seed)
    if isinstance(result, str):
        assert "\n" not in result
        return
    assert adds_up(result)
    assert result["lines_in"] == len(rows)
    data = load_data_dir(folder / "out")
    assert len(data.train) == result["desirable"] + result["undesirable"]
    assert len(data.held_out) == result["held_out"]
    assert shares_nothing(data.train, data.held_out)
    lines = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").read_text("utf-8").splitlines()]
    assert sum(line["rows"] for line in lines) == sum(result["rejected"].values()) + result["left_out"]
    origins = [row.origin for row in (*data.train, *data.held_out)] + [line["origin"] for line in lines]
    assert len(set(origins)) == len(rows)


ITEMS = st.lists(
    st.builds(
        lambda prompt, group, split: Pair(prompt, "a", "b", "f:1", group, split),
        st.sampled_from("abcdefgh"),
        st.sampled_from("tuvwxyz"),
        st.sampled_from([None, None, None, "held_out"]),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(ITEMS, st.sampled_from([0.0, 0.1, 0.5, 0.99]), st.integers(0, 5))
def test_splits_share_no_prompt_and_no_group(items, share, seed):
    """Also where one prompt has several groups and one group several prompts."""
    split = split_items(items, share, seed)
    left_out = [item for item, _, _ in split.left_out]
    assert sorted(map(id, items)) == sorted(map(id, [*split.train, *split.held_out, *left_out]))
    assert not {item.prompt for item in split.train} & {item.prompt for item in split.held_out}
    assert not {item.group for item in split.train} & {item.group for item in split.held_out}


@settings(max_examples=100, deadline=None)
@given(ITEMS, st.integers(0, 5))
def test_families_and_split_do_not_depend_on_order(items, seed):
    shuffled = list(items)
    random.Random(seed).shuffle(shuffled)
    names = {id(item): name for item, name in zip(items, families(items), strict=True)}
    assert names == {id(item): name for item, name in zip(shuffled, families(shuffled), strict=True)}
    sides = [{id(item) for item in seeded_split(order, 0.4, seed).held_out} for order in (items, shuffled)]
    assert sides[0] == sides[1]


def test_number_held_out():
    cases = [(0.05, 3), (0.05, 4), (0.05, 30), (0.05, 1000), (0.99, 10), (0.0, 1000), (0.5, 4)]
    assert [number_held_out(*case) for case in cases] == [0, 2, 2, 50, 8, 0, 2]


def test_more_data_moves_few_families():
    """A family's rank is its own: with 5 % more families at most those at the edge change sides."""
    items = [Pair(f"p{number}", "a", "b", "f:1", f"p{number}") for number in range(420)]
    fewer, more = seeded_split(items[:400], 0.1, 0), seeded_split(items, 0.1, 0)
    kept = {item.prompt for item in fewer.held_out} & {item.prompt for item in more.held_out}
    assert len(fewer.held_out) == 40
    assert len(kept) >= 35


def test_texts_and_chats_are_never_spelled_alike():
    chat = ({"role": "user", "content": "Q"},)
    assert canonical(canonical(chat)) != canonical(chat)
    assert canonical(({"content": "Q", "role": "user"},)) == canonical(chat)
