"""What `kto label` shows: answers of files and of checkpoints, the most informative first; what it refuses."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import call, error_line, make_dataset, save_pico_llama
from evaluated import copy_of, here, samples
from labelling import rows_of, running, served, served_items, write_lines
from pyarrow import parquet

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import load_data_dir
from kto_cli.data.texts import spelled
from kto_cli.evaluation.files import read_result, write_part
from kto_cli.evaluation.files import write_lines as write_lines_of_eval
from kto_cli.evaluation.labelling.from_eval import evaluated, items_of_answers, items_of_rows, rank_of
from kto_cli.evaluation.labelling.from_file import items_of_file
from kto_cli.evaluation.labelling.items import EMPTY, EQUAL, REPEATED, Items

CHAT = [{"role": "user", "content": "Any tea?"}]


def items(folder: Path, rows: list[object], *, one_at_a_time: bool = False) -> Items:
    return items_of_file(write_lines(folder / "a.jsonl", rows), one_at_a_time=one_at_a_time)  # type: ignore[arg-type]


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"prompt": "p", "completion": "c"}, [["c"]]),
        ({"prompt": "p", "completion": "c", "label": True, "score": 3}, [["c"]]),
        ({"prompt": "p", "completions": ["c", "d"]}, [["c", "d"]]),
        ({"prompt": "p", "completions": ["c", "d", "e"]}, [["c"], ["d"], ["e"]]),
        ({"prompt": "p", "completions": ["c", "c"]}, [["c"]]),
        ({"prompt": "p", "completions": ["c", " "]}, [["c"]]),
        ({"prompt": "p", "chosen": "c", "rejected": "d"}, [["c", "d"]]),
        ({"prompt": CHAT, "completion": [{"role": "assistant", "content": "c"}]}, [["c"]]),
        ({"prompt": CHAT, "completions": ["c", [{"role": "assistant", "content": "d"}]]}, [["c", "d"]]),
        ({"messages": [*CHAT, {"role": "assistant", "content": "c"}]}, [["c"]]),
    ],
    ids=lambda each: json.dumps(each)[:60],
)
def test_records_of_every_shape(tmp_path, row, answers):
    found = items(tmp_path, [row]).items
    shown = [
        [
            answer.completion if isinstance(answer.completion, str) else answer.completion[-1]["content"]
            for answer in item.answers
        ]
        for item in found
    ]
    assert shown == answers


@pytest.mark.parametrize(
    ("rows", "models", "before"),
    [
        ([{"label": True, "model": "a"}, {"label": True, "model": "b"}], "a, b", True),
        ([{"label": True, "model": "a"}, {"model": "a"}], "a", True),
        ([{"label": True}, {"label": False}], "", None),
        ([{"label": None}, {"label": False}], "", False),
    ],
)
def test_an_answer_given_twice_has_a_label_of_before_unless_two_contradict(tmp_path, rows, models, before):
    """The same in two records, whichever comes first, and of two equal answers that are chosen and rejected."""
    for some in (rows, rows[::-1]):
        found = items(tmp_path, [{"prompt": "p", "completion": "c", **row} for row in some])
        [[answer]] = [item.answers for item in found.items]
        assert set(answer.model.split(", ")) == set(models.split(", "))
        assert (answer.before, found.notes[REPEATED]) == (before, 1)
    [[answer]] = [each.answers for each in items(tmp_path, [{"prompt": "p", "chosen": "c", "rejected": "c"}]).items]
    assert answer.before is None
    pair = [{"prompt": "p", "chosen": "c", "rejected": "d"}, {"prompt": "p", "chosen": "d", "rejected": "c"}]
    [answers] = [each.answers for each in items(tmp_path, pair).items]
    assert [answer.before for answer in answers] == [None, None]


def test_what_is_not_shown_is_counted(tmp_path):
    found = items(
        tmp_path,
        [
            {"prompt": "p", "completions": ["c", ""]},
            {"prompt": "p", "completions": ["c"]},
            {"prompt": "q", "completions": ["c", "c", "d"]},
            {"prompt": "", "completion": "c"},
            {"prompt": "p", "completions": "c"},
            {"prompt": "p", "completions": []},
            {"prompt": "p", "completion": 7},
            {"prompt": "p"},
            {"prompt": [{"role": "robot", "content": "x"}], "completion": "c"},
        ],
    )
    assert len(found.items) == 2
    assert found.notes == {
        EMPTY: 1,
        EQUAL: 1,
        REPEATED: 1,
        "records that cannot be used (empty_prompt)": 1,
        "records that cannot be used (completions_not_a_list)": 2,
        "records that cannot be used (not_messages)": 1,
        "records that cannot be used (missing_field)": 1,
        "records that cannot be used (role_not_accepted)": 1,
    }


def test_labels_are_read_by_binarize_as_the_answers_were(tmp_path, monkeypatch):
    """Texts, chats, a system message and tools come out as binarize makes them of the answers with their labels."""
    monkeypatch.chdir(tmp_path)
    tools = [{"type": "function", "function": {"name": "time", "description": "t", "parameters": {"type": "object"}}}]
    rows = [
        {"prompt": [{"role": "user", "content": f"Is {index} odd?"}], "completion": f"I think {index}", **more}
        for index, more in enumerate([{}, {"system": "Be brief."}, {"tools": json.dumps(tools)}, {}, {}, {}])
    ]
    answers = write_lines(tmp_path / "a.jsonl", rows)
    write_lines(tmp_path / "same.jsonl", [{**row, "label": index % 2 == 1} for index, row in enumerate(rows)])
    with served(answers, tmp_path / "labels.jsonl") as page:
        while item := page.state("ana")["item"]:
            page.label("ana", "good" if int(item["answers"][0][0]["text"].split()[-1]) % 2 else "bad", "why, indeed")
    made = []
    for source, out in (("labels.jsonl", "l"), ("same.jsonl", "s"), ("log:labels.jsonl", "g")):
        more = ("--label-column", "label") if source.startswith("log:") else ()
        ran = call("binarize", source, "--out", out, "--validation", "0", *more)
        assert ran.code == 0, ran.err
        rows = load_data_dir(tmp_path / out).train
        made.append({(spelled(row.prompt), spelled(row.completion), row.label) for row in rows})
    assert len(made[0]) == 6
    assert made[0] == made[1] == made[2]


def test_two_people_who_disagree_are_a_contradiction_that_binarize_reports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"q {index}", "completion": f"a {index}"} for index in range(6)]
    with served(write_lines(tmp_path / "a.jsonl", rows), tmp_path / "labels.jsonl") as page:
        for name in ("ana", "ben"):
            while item := page.state(name)["item"]:
                number = int(item["answers"][0][0]["text"].split()[1])
                page.label(name, "good" if number % 2 or (name == "ben" and number == 4) else "bad")
    ran = call("binarize", "labels.jsonl", "--out", "d", "--validation", "0")
    assert ran.code == 0, ran.err
    assert "2 of 12 rows say of 1 answer both" in " ".join(ran.out.replace("│", " ").split())
    ran = call(
        "binarize", "labels.jsonl", "--out", "e", "--validation", "0", "--fix", "contradictions", "--fix", "duplicates"
    )
    assert ran.code == 0, ran.err
    assert len(load_data_dir(tmp_path / "e").train) == 5


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.jsonl", "\n\n", "a.jsonl is empty"),
        ("a.jsonl", '{"question": "x", "reply": "y"}\n', "has the columns question, reply"),
        ("a.jsonl", '{"prompt": "", "completion": "y"}\n', r"has no answer that can be shown \(empty_prompt 1\)"),
        (
            "a.jsonl",
            '{"prompt": "x", "completion": ""}\n',
            r"has no answer that can be shown \(all answers are empty\)",
        ),
        ("a.jsonl", "not json\n", "a.jsonl"),
        ("a.txt", "x", "is a text file"),
        ("a.csv", "prompt,completion\n", "no rows"),
        ("a.parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_files_that_cannot_be_shown_are_one_line(tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    ran = call("label", name)
    line = error_line(ran)
    assert re.search(said, line), line
    assert [each.name for each in tmp_path.iterdir()] == [name]


# --- checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "rank"),
    [
        ((True, 0.02, True, False), (0, 0.02)),  # desirable and surely undesirable
        ((False, 0.9, True, False), (0, pytest.approx(0.1))),
        ((True, 0.98, True, True), (1, pytest.approx(0.48))),
        ((False, 0.55, False, False), (1, pytest.approx(0.05))),
        ((True, math.nan, False, True), ()),
        ((True, None, None, None), ()),
    ],
)
def test_ranks(row, rank):
    assert rank_of(*row) == rank


@pytest.fixture(scope="module")
def evals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `a` of one step, evaluated, and `b`, whose answers are others but to one prompt."""
    folder = tmp_path_factory.mktemp("evals")
    with here(folder):
        save_pico_llama(Path("pico"))
        make_dataset(Path(), 40, validation=0.2)
        flags = ("--data", "set", "--model", "pico", "--batch-size", 8, "--learning-rate", 0.02, "--max-steps", 1)
        for words in (
            ("train", *flags, "--out", "a"),
            ("eval", "a", "--max-new-tokens", 6, "--samples", 8, "--engine", "padded"),
        ):
            ran = call(*words)
            assert ran.code == 0, ran.err
        shutil.copytree("a", "b")
        found = [
            one | {"policy": f"other {one['policy']}" if index else one["policy"]}
            for index, one in enumerate(samples("a"))
        ]
        write_lines_of_eval(Path("b/eval"), "samples.jsonl", found)
        part = read_result(Path("a/eval/generations.json"))
        write_part(Path("b/eval"), "generations.json", part.pop("of"), part, beside=["samples.jsonl"])
    return folder


@pytest.fixture
def place(evals: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, to be changed."""
    with here(copy_of(evals, tmp_path / "evals")):
        yield Path()


def test_answers_of_one_and_of_two_checkpoints(place):
    rows = {row.id: row for row in load_data_dir(Path("set")).validation}
    alone = items_of_answers([evaluated("a")], None, one_at_a_time=False).items
    assert {item.answers[0].completion[0]["content"] for item in alone} == {one["policy"] for one in samples("a")}
    both = items_of_answers([evaluated("a"), evaluated("b/eval")], None, one_at_a_time=False).items
    assert [len(item.answers) for item in both] == [1, *[2] * (len(both) - 1)]
    for item, one, other in zip(both, samples("a"), samples("b"), strict=True):
        assert item.prompt == rows[one["id"]].prompt
        assert [each.completion[0]["content"] for each in item.answers] == [
            *dict.fromkeys((one["policy"], other["policy"]))
        ]
        assert ", ".join(each.model for each in item.answers) == "a, b/eval"


@pytest.mark.parametrize("beside", ["reference", "target"])
def test_answers_beside_those_of_the_reference_or_the_data(place, beside):
    found = items_of_answers([evaluated("a/")], None, beside=beside, one_at_a_time=False).items
    expected = {(one["policy"], one[beside]) for one in samples("a") if beside in one}
    shown = {tuple(each.completion[0]["content"] for each in item.answers) for item in found if len(item.answers) == 2}
    assert shown == {pair for pair in expected if pair[0] != pair[1]}
    assert len(shown) > 2
    assert {tuple(each.model for each in item.answers) for item in found if len(item.answers) == 2} == {("a", beside)}


def test_the_command_shows_what_kto_eval_saved(place):
    with running("a", "reference", cwd=place.absolute()) as page:
        assert "pairs side by side" in page.said
        assert "The most informative first:" in page.said
        state = page.client.label("ana", "both")
        assert state["done"] == 1
        assert page.end()[0] == 0
    assert {row["model"] for row in rows_of(Path("a-reference.labels.jsonl"))} <= {"a", "reference", "a, reference"}


def test_validation_rows_most_informative_first(place):
    """Those saturated on the wrong side, then those with a probability near a half; another order for each person
    within the same rank alone."""
    found = items_of_rows(evaluated("a"), None)
    table = {row["id"]: row for row in parquet.read_table("a/eval/rows.parquet").to_pylist()}
    assert len(found.items) > 8
    with served_items(found, Path("labels.jsonl")) as page:
        while page.state("ana")["item"]:
            page.label("ana", "good")
    order = [table[row["row"]] for row in rows_of(Path("labels.jsonl"))]
    ranks = [rank_of(*(row[name] for name in ("label", "probability", "saturated", "right_side"))) for row in order]
    assert ranks == sorted(ranks)
    first = items_of_answers([evaluated("a")], None, one_at_a_time=False).items[0]
    [prompt] = {row["prompt_id"] for row in order if row["origin"] == first.origin}
    assert first.rank == min(rank for row, rank in zip(order, ranks, strict=True) if row["prompt_id"] == prompt)


def test_what_checkpoints_cannot_be_shown_is_one_line(place):
    a, b = evaluated("a"), evaluated("b")
    Path("set").rename("moved")
    with pytest.raises(BadInput, match="the dataset of this evaluation, is not there"):
        items_of_rows(a, None)
    assert items_of_rows(a, "moved").items
    with pytest.raises(BadInput, match="was evaluated on"):
        items_of_answers([a, b._replace(data={"folder": "x", "fingerprint": "y"})], "moved", one_at_a_time=False)
    for words, said in (
        (("moved",), "is a dataset, whose rows have labels. To check them: kto label moved/validation.parquet"),
        (("pico",), "There are no results of kto eval for pico. Run: kto eval pico"),
        (("nowhere.jsonl",), "nowhere.jsonl does not exist"),
        (("a/eval/samples.jsonl", "--rows"), "--rows goes with a checkpoint"),
        (("a", "a/eval/samples.jsonl"), "is a file, and only two checkpoints are compared"),
        (("a", "b", "--rows"), "--rows goes with one checkpoint"),
        (("a", "b", "a"), "one or two sources, not 3"),
        (("a", "a/eval"), "a and a/eval are one checkpoint. Name another beside it, or it alone."),
    ):
        assert said in error_line(call("label", *words))
    path = Path("a/eval/samples.jsonl")
    path.write_text(path.read_text() + "{}")
    assert "damaged or was changed by hand" in error_line(call("label", "a"))
    path.unlink()
    assert "Run kto eval a again" in error_line(call("label", "a"))
