"""shp, oasst, ultrafeedback and alpaca-eval: every answer of the input is a row in one result, with the right label."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats import alpaca_eval, oasst, shp, ultrafeedback
from kto_cli.data.formats.records import VALIDATION, Dropped, Pair, Ranked, Reject, Scored
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.readers.any_file import parsed, records
from kto_cli.data.readers.jsonl import Record

SOURCES = (shp.SOURCE, oasst.SOURCE, ultrafeedback.SOURCE, alpaca_eval.SOURCE)
HERE = RawFile(Path("a.jsonl"), "a.jsonl")


def config(**flags: Any) -> BinarizeConfig:
    return BinarizeConfig(sources=("any",), **flags)


def parse(source: Source, values: Any, *, file: RawFile = HERE, **flags: Any) -> list[Any]:
    return list(source.parse(Record(f"{file.name}:1", values), file, config(**flags)))


def one(source: Source, values: Any, **flags: Any) -> Any:
    (found,) = parse(source, values, **flags)
    return found


def read(source: Source, place: Path, **flags: Any) -> list[Any]:
    """All results of a place, as the pipeline reads it."""
    settings = config(**flags)
    assert source.raw_files is not None
    found = []
    for file in source.raw_files(place, settings.subsets):
        rows = source.records(file) if source.records else records(file.path, file.name, source.wanted)
        for record in rows:
            found += source.parse(parsed(record, source.wanted), file, settings)
    return found


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def kinds(results: list[Any]) -> Counter[str]:
    """Rows by reason; of feedback, by type."""
    counts: Counter[str] = Counter()
    for result in results:
        counts[getattr(result, "reason", type(result).__name__)] += result.rows
    return counts


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- all four ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_example_can_be_copied_and_gives_feedback(source, tmp_path):
    suffix = ".json" if source.name == "alpaca-eval" else ".jsonl"
    path = tmp_path / f"mine{suffix}"
    path.write_text("\n".join(source.example) + "\n", encoding="utf-8")
    results = read(source, path)
    assert results
    assert not [result for result in results if isinstance(result, (Reject, Dropped))]


NAMES = sorted({name for source in SOURCES for name in (source.wanted or ())} | {"response", "Rating", "annotations"})
JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 3),
        st.sampled_from([float("nan"), float("inf"), 1.5, 10**400, -(10**400)]),
        st.sampled_from(["", " ", "x", "y", "\ud800", "N/A", "1", "prompter", "assistant", "user"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@settings(max_examples=150, deadline=None)
@given(values=st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=8), score=st.sampled_from([None, "thumbs"]))
def test_nothing_in_a_record_is_an_exception_or_lacks_a_reason(source, values, score):
    for result in parse(source, values, score=score if source is oasst.SOURCE else None):
        assert result.rows >= 1
        if isinstance(result, (Reject, Dropped)):
            assert result.reason.replace("_", "").isalpha()
            assert result.detail
            assert result.origin.startswith("a.jsonl:1")


@pytest.mark.parametrize(("source", "rows"), [(shp, 2), (oasst, 1), (ultrafeedback, 4), (alpaca_eval, 2)])
def test_a_line_that_is_no_object_is_rejected_with_its_rows(source, rows):
    record = Record("a.jsonl:7", None, "{broken", "not_json", "Expecting value")
    (found,) = source.SOURCE.parse(record, HERE, config())
    assert found == Reject("a.jsonl:7", "not_json", "Expecting value", rows, "{broken")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_file_of_another_kind_is_refused_with_its_columns(source):
    with pytest.raises(BadInput, match="question, answer"):
        source.check(["question", "answer"], HERE, config())
    assert source.wanted is not None
    columns = {"ultrafeedback": ("instruction", "completions")}.get(source.name, source.wanted)
    source.check(columns, HERE, config())


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_place_with_nothing_is_refused(source, tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        source.raw_files(tmp_path / "none", ())
    (tmp_path / ".cache").mkdir()
    write(tmp_path / ".cache" / "train.json", {})
    with pytest.raises(BadInput, match="holds no file"):
        source.raw_files(tmp_path, ())


# --- shp --------------------------------------------------------------------------------------

POST = {
    "post_id": "p1",
    "domain": "askhr_train",
    "history": "Q?",
    "human_ref_A": "A",
    "human_ref_B": "B",
    "labels": 1,
    "score_A": 8,
    "score_B": 2,
    "score_ratio": 4.0,
}


def test_shp_pair_has_the_preferred_comment_as_chosen():
    expected = Pair((user("Q?"),), (bot("A"),), (bot("B"),), "a.jsonl:1", "p1")
    assert one(shp.SOURCE, POST) == expected
    other = one(shp.SOURCE, {**POST, "labels": 0, "score_A": 2, "score_B": 8})
    assert (other.chosen, other.rejected) == (expected.rejected, expected.chosen)
    assert one(shp.SOURCE, POST, text=True) == Pair("Q?", "A", "B", "a.jsonl:1", "p1")
    assert one(shp.SOURCE, {**POST, "post_id": None}).group == "Q?"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"history": None}, "missing_field"),
        ({"history": 3}, "not_text"),
        ({"human_ref_B": "\ud800"}, "bad_text"),
        ({"history": " "}, "empty_prompt"),
        ({"human_ref_A": "\n"}, "empty_answer"),
        ({"labels": None}, "missing_field"),
        ({"labels": 2}, "label_not_accepted"),
        ({"labels": "A"}, "label_not_accepted"),
        ({"labels": True}, "label_not_accepted"),
        ({"labels": 0}, "label_contradicts_scores"),
        ({"score_A": "many"}, "score_not_accepted"),
        ({"score_A": None, "score_ratio": None}, "score_not_accepted"),
        ({"score_B": -1, "score_ratio": 0.5}, "score_not_accepted"),
        ({"human_ref_A": " B\n"}, "answers_identical"),
    ],
)
def test_shp_rejects_two_rows_with_a_reason(change, reason):
    found = one(shp.SOURCE, {**POST, **change})
    assert isinstance(found, Reject)
    assert (found.reason, found.rows) == (reason, 2)
    assert json.loads(found.raw)["post_id"] == "p1"


@settings(max_examples=100, deadline=None)
@given(
    of_a=st.integers(2, 20),
    of_b=st.integers(2, 20),
    least=st.sampled_from([None, 1.0, 1.5, 3.0]),
    split=st.sampled_from([None, VALIDATION]),
)
def test_shp_ratio_filters_what_is_learned_from_alone(of_a, of_b, least, split):
    """The oracle divides in whole numbers: a ratio of `least` or above is high >= least * low."""
    values = {**POST, "score_A": of_a, "score_B": of_b, "labels": int(of_a > of_b), "score_ratio": 99.0}
    file = RawFile(Path("askhr/test.json"), "askhr/test.json", "askhr", split)
    found = one(shp.SOURCE, values, file=file, min_ratio=least)
    low, high = sorted((of_a, of_b))
    if low == high:
        assert (type(found), found.reason) == (Dropped, "tie")
    elif 2 * high < 2 * (2 if least is None else least) * low and split is None:
        assert (type(found), found.reason, found.rows) == (Dropped, "ratio_below", 2)
    else:
        assert found.chosen[0]["content"] == ("A" if of_a > of_b else "B")
        assert found.split == split


def test_shp_falls_back_to_the_ratio_that_the_row_says():
    bare = {**POST, "score_A": None, "score_B": None}
    assert isinstance(one(shp.SOURCE, bare), Pair)
    assert one(shp.SOURCE, {**bare, "score_ratio": 1.9}).reason == "ratio_below"


def test_shp_folder_gives_subreddits_and_holds_validation_and_test_out(tmp_path):
    for name in ("train", "validation", "test"):
        write(tmp_path / "askhr" / f"{name}.json", POST)
    write(tmp_path / "askvet" / "test.json", POST)
    files = shp.raw_files(tmp_path, ())
    assert [(file.name, file.subset, file.split) for file in files] == [
        ("askhr/test.json", "askhr", VALIDATION),
        ("askhr/train.json", "askhr", None),
        ("askhr/validation.json", "askhr", VALIDATION),
        ("askvet/test.json", "askvet", None),
    ]
    assert kinds(read(shp.SOURCE, tmp_path, subsets=("askhr",))) == {"Pair": 6}
    with pytest.raises(BadInput, match=r"no subset askcats\. It has: askhr, askvet"):
        shp.raw_files(tmp_path, ["askcats"])
    with pytest.raises(BadInput, match="is one file"):
        shp.raw_files(tmp_path / "askvet" / "test.json", ["askvet"])


def test_shp_domain_tells_the_split_where_the_file_does_not():
    merged = {**POST, "domain": "askhr_test"}
    assert one(shp.SOURCE, merged).split == VALIDATION
    assert one(shp.SOURCE, merged, file=RawFile(Path("test.json"), "test.json")).split is None
    assert one(shp.SOURCE, POST).split is None


def test_shp_defaults_are_those_of_the_authors_code():
    assert (shp.MIN_RATIO, shp.MAX_PAIRS) == (2, 5)


# --- oasst ------------------------------------------------------------------------------------


def say(name: str, role: str, *replies: Any, **fields: Any) -> dict[str, Any]:
    return {"message_id": name, "role": role, "text": f"text of {name}", "lang": "en", "replies": [*replies]} | fields


def tree(*replies: Any, **fields: Any) -> dict[str, Any]:
    return {
        "message_tree_id": "t",
        "tree_state": "ready_for_export",
        "prompt": say("t", "prompter", *replies, **fields),
    }


def reply(name: str, rank: Any = None, *replies: Any, **fields: Any) -> dict[str, Any]:
    return say(name, "assistant", *replies, rank=rank) | fields


def flat(message: dict[str, Any], parent: str | None = None, state: str = "ready_for_export") -> list[dict[str, Any]]:
    """The rows of the Hub's messages table, by recursion."""
    row = {name: value for name, value in message.items() if name != "replies"}
    row |= {"parent_id": parent, "message_tree_id": "t", "tree_state": state}
    return [row, *(each for child in message["replies"] for each in flat(child, message["message_id"], state))]


def lists(results: list[Any]) -> list[list[str]]:
    """The message ids of each ranked list, best first."""
    return [[origin.split()[-1] for origin in result.origins] for result in results if isinstance(result, Ranked)]


def reasons(results: list[Any]) -> dict[str, str]:
    """Message id -> reason."""
    return {item.origin.split()[-1]: item.reason for item in results if isinstance(item, (Reject, Dropped))}


def test_oasst_prompts_are_whole_threads_and_rank_0_is_best():
    second = say("q2", "prompter", reply("b2", 1), reply("b1", 0))
    results = parse(oasst.SOURCE, tree(reply("a2", 7), reply("a1", 3, second)))
    assert lists(results) == [["a1", "a2"], ["b1", "b2"]]
    deep = results[1]
    assert deep.prompt == (user("text of t"), bot("text of a1"), user("text of q2"))
    assert deep.answers == ((bot("text of b1"),), (bot("text of b2"),))
    assert deep.origins == ("a.jsonl:1 message b1", "a.jsonl:1 message b2")
    assert (deep.group, deep.split, deep.rows) == ("t", None, 2)


@pytest.mark.parametrize(
    ("replies", "ranked", "others"),
    [
        ([reply("a", 0)], [], {"a": "only_reply"}),
        ([reply("a"), reply("b")], [], {"a": "unranked", "b": "unranked"}),
        ([reply("a", 0), reply("b")], [], {"a": "only_ranked_reply", "b": "unranked"}),
        ([reply("a", 0), reply("b", float("nan")), reply("c", 1.0)], [["a", "c"]], {"b": "unranked"}),
        ([reply("b", 1), reply("c", 0), reply("a", 1)], [["c", "a"]], {"b": "tied_rank"}),
        ([reply("b", 0), reply("a", 0)], [], {"a": "only_ranked_reply", "b": "tied_rank"}),
        ([reply("a", 0), reply("b", 1), reply("c", "1")], [["a", "b"]], {"c": "rank_not_accepted"}),
        ([reply("a", 0), reply("b", 1), reply("c", -1)], [["a", "b"]], {"c": "rank_not_accepted"}),
        ([reply("a", 0), reply("b", 2), reply("c", 1.5)], [["a", "b"]], {"c": "rank_not_accepted"}),
        ([reply("a", 0), reply("b", 1), reply("c", True)], [["a", "b"]], {"c": "rank_not_accepted"}),
        ([reply("a", 0, deleted=True), reply("b", 1), reply("c", 2)], [["b", "c"]], {"a": "deleted"}),
        ([reply("a", 0), reply("b", 1, review_result=False)], [], {"a": "only_reply", "b": "failed_review"}),
        ([reply("a", 0, text=" "), reply("b", 1), reply("c", 2)], [["b", "c"]], {"a": "empty_answer"}),
        ([reply("a", 0, text=5), reply("b", 1), reply("c", 2)], [["b", "c"]], {"a": "not_text"}),
        ([reply("a", 0, text="\ud800"), reply("b", 1), reply("c", 2)], [["b", "c"]], {"a": "bad_text"}),
        ([reply("a", 0, role="bot"), reply("b", 1), reply("c", 2)], [["b", "c"]], {"a": "role_not_accepted"}),
        ([reply("a", 0), reply("a", 1), reply("c", 2)], [["a", "c"]], {"a": "repeated_id"}),
        (
            [reply("a", 0, text="same"), reply("b", 1), reply("c", 2), reply("d", 3, text="same ")],
            [["b", "c"]],
            {"a": "answers_identical", "d": "answers_identical"},
        ),
        ([None, reply("b", 1), reply("c", 2)], [["b", "c"]], {"?": "role_not_accepted"}),
        ([reply("a", 0, reply("aa", 0)), reply("b", 1)], [["a", "b"]], {"aa": "roles_do_not_alternate"}),
    ],
)
def test_oasst_every_reply_is_ranked_or_has_its_reason(replies, ranked, others):
    results = parse(oasst.SOURCE, tree(*replies))
    assert (lists(results), reasons(results)) == (ranked, others)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"deleted": True}, "deleted"),
        ({"review_result": False}, "failed_review"),
        ({"text": ""}, "empty_turn"),
        ({"text": None}, "missing_field"),
        ({"role": "system"}, "role_not_accepted"),
    ],
)
def test_oasst_what_follows_a_bad_message_is_not_used(fields, reason):
    second = say("q2", "prompter", reply("b1", 0), reply("b2", 1)) | fields
    found = reasons(parse(oasst.SOURCE, tree(reply("a1", 0, second), reply("a2", 1))))
    assert (found["b1"], found["b2"]) == (reason, reason)
    assert not {"a1", "a2"} & set(found)


def test_oasst_trees_by_language_and_state():
    german = tree(reply("a", 0), reply("b", 1), lang="de")
    assert lists(parse(oasst.SOURCE, german, subsets=("DE", "fr"))) == [["a", "b"]]
    assert reasons(parse(oasst.SOURCE, german, subsets=("en",))) == dict.fromkeys("ab", "other_language")
    growing = {**tree(reply("a", 0), reply("b", 1)), "tree_state": "aborted_low_grade"}
    assert reasons(parse(oasst.SOURCE, growing)) == dict.fromkeys("ab", "tree_not_ready")
    assert parse(oasst.SOURCE, {"message_tree_id": "t", "prompt": None}) == []


def test_oasst_flat_messages_without_a_way_to_the_top_are_rejected(tmp_path):
    rows = flat(tree(reply("a", 0), reply("b", 1))["prompt"])
    lost = {"message_id": "x", "parent_id": "gone", "role": "prompter", "text": "?"}
    circle = [
        {"message_id": "y", "parent_id": "z", "role": "assistant", "text": "y"},
        {"message_id": "z", "parent_id": "y", "role": "prompter", "text": "z"},
    ]
    below = {"message_id": "w", "parent_id": "x", "role": "assistant", "text": "w", "rank": 0}
    results = read(oasst.SOURCE, write(tmp_path / "m.jsonl", below, *rows[::-1], lost, *circle))
    assert lists(results) == [["a", "b"]]
    assert reasons(results) == {"w": "parent_missing", "y": "parent_missing"}


MESSAGE = {
    "text": st.sampled_from(["one", "two", "three", " ", "four"]),
    "rank": st.sampled_from([None, 0, 1, 2, 3]),
    "deleted": st.sampled_from([False] * 9 + [True]),
    "review_result": st.sampled_from([None, True, True, True, False]),
}


@st.composite
def grown(draw: Any) -> dict[str, Any]:
    """A random tree; ids are numbers in the order of growth."""
    messages = [say("t", "prompter")]
    for number in range(draw(st.integers(0, 12))):
        parent = messages[draw(st.integers(0, len(messages) - 1))]
        role = "assistant" if parent["role"] == "prompter" else "prompter"
        fields = {name: draw(values) for name, values in MESSAGE.items()}
        messages.append(say(f"m{number:02}", role, **fields))
        parent["replies"].append(messages[-1])
    return tree() | {"prompt": messages[0]}


def oracle(message: dict[str, Any], sound: bool = True) -> Iterator[list[str]]:
    """The ranked lists of a tree, from the rules as the docstring says them."""
    sound = sound and bool(message["text"].strip()) and not message.get("deleted")
    sound = sound and message.get("review_result") is not False
    if sound and message["role"] == "prompter":
        fit = [
            child
            for child in message["replies"]
            if child["text"].strip() and not child["deleted"] and child["review_result"] is not False
        ]
        texts = [child["text"].strip() for child in fit if child["rank"] is not None]
        best: dict[int, str] = {}
        for child in sorted(fit, key=lambda each: each["message_id"], reverse=True):
            if child["rank"] is not None and texts.count(child["text"].strip()) == 1:
                best[child["rank"]] = child["message_id"]
        if len(best) > 1:
            yield [best[rank] for rank in sorted(best)]
    for child in message["replies"]:
        yield from oracle(child, sound)


@settings(max_examples=120, deadline=None)
@given(grown(), st.randoms(use_true_random=False))
def test_oasst_three_forms_give_the_same_and_rows_add_up(tmp_path_factory, whole, shuffler):
    top = whole["prompt"]
    rows = flat(top)
    answers = sum(row["role"] == "assistant" for row in rows)
    shuffled = rows[:]
    shuffler.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("oasst")
    by_tree = read(oasst.SOURCE, write(folder / "tree.jsonl", whole))
    assert sum(result.rows for result in by_tree) == answers
    assert sorted(lists(by_tree)) == sorted(oracle(top))
    for name, lines in (("nested", [top]), ("flat", shuffled)):
        again = read(oasst.SOURCE, write(folder / f"{name}.jsonl", *lines))
        assert sorted(lists(again)) == sorted(lists(by_tree))
        assert reasons(again) == reasons(by_tree)
        prompts = [
            {tuple(map(str, each.prompt)) for each in found if isinstance(each, Ranked)} for found in (again, by_tree)
        ]
        assert prompts[0] == prompts[1]


def test_oasst_long_thread_of_flat_messages_is_quick_and_whole(tmp_path):
    """20,000 messages below each other: no recursion, and no prompt is put together in vain."""
    roles = ("prompter", "assistant")
    rows = [
        {
            "message_id": f"m{n}",
            "parent_id": f"m{n - 1}" if n else None,
            "role": roles[n % 2],
            "text": f"{n}",
            "rank": 0,
        }
        for n in range(20_000)
    ]
    random.Random(0).shuffle(rows)
    assert kinds(read(oasst.SOURCE, write(tmp_path / "m.jsonl", *rows))) == {"only_reply": 10_000}


def test_oasst_parquet_of_the_hub_has_its_split_and_its_thumbs(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    thumbs = {"name": ["+1", "_skip_reply", "-1"], "count": [5, 1, 2]}
    rows = flat(tree(reply("a", 0), reply("b", 1, text="other"))["prompt"])
    # all columns in the first row: a table made of rows has no others
    rows = [{"rank": None, **row, "emojis": thumbs if row["message_id"] == "b" else None} for row in rows]
    table = pa.Table.from_pylist(rows)
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00001-ab", "validation-00000-of-00001-cd"):
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")
    write(tmp_path / "2023-04-12_oasst_all.trees.jsonl", tree(reply("a", 0), reply("b", 1)))
    results = read(oasst.SOURCE, tmp_path)
    assert lists(results) == [["a", "b"], ["a", "b"]]
    assert [result.split for result in results] == [None, VALIDATION]
    assert results[0].origins[1] == "data/train-00000-of-00001-ab.parquet:row 3 message b"
    scored = read(oasst.SOURCE, tmp_path, score="thumbs")
    assert [result.score for result in scored if isinstance(result, Scored)] == [3.0, 3.0]
    assert kinds(scored) == {"Scored": 2, "no_thumbs": 2}


def test_oasst_parquet_loses_only_the_rows_with_bad_bytes(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = flat(tree(reply("a", 0), reply("b", 1), reply("c", 2))["prompt"])
    table = pa.Table.from_pylist([{"rank": None, **row} for row in rows])
    texts = pa.array([row["text"].encode() for row in rows[:3]] + [b"\xff"])
    damaged = pa.Array.from_buffers(pa.string(), len(rows), texts.buffers())
    path = tmp_path / "train-0.parquet"
    parquet.write_table(table.set_column(table.schema.get_field_index("text"), "text", damaged), path)
    results = read(oasst.SOURCE, path)
    assert lists(results) == [["a", "b"]]
    assert [(found.origin, found.reason) for found in results if isinstance(found, Reject)] == [
        ("train-0.parquet:row 4", "bad_text")
    ]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        read(oasst.SOURCE, path)


def test_oasst_folder_of_several_jsonl_is_not_read_twice(tmp_path):
    write(tmp_path / "ready.trees.jsonl", tree())
    write(tmp_path / "all.trees.jsonl", tree())
    with pytest.raises(BadInput, match=r"may repeat the same trees: all.trees.jsonl, ready.trees.jsonl"):
        oasst.raw_files(tmp_path, ())


def test_oasst_refuses_flags_that_do_not_go_with_it():
    for flags, says in (({"text": True}, "--text"), ({"score": "stars"}, "--score stars")):
        with pytest.raises(BadInput, match=says):
            oasst.check(["prompt"], HERE, config(**flags))


@pytest.mark.parametrize(
    ("emojis", "score"),
    [
        ({"+1": 3, "-1": 1, "_skip_reply": 9}, 2.0),
        ({"-1": 4}, -4.0),
        ({"name": ["-1", "+1"], "count": [1, 6]}, 5.0),
        ([{"name": "+1", "count": 2}, {"name": "red_flag", "count": 1}, None], 2.0),
        ({"+1": 1, "-1": 1}, 0.0),
        ({"_skip_reply": 2}, None),
        ({"+1": "many"}, None),
        ({"+1": True}, None),
        ([], None),
        (None, None),
        ("+1", None),
    ],
)
def test_oasst_thumbs_in_every_written_form(emojis, score):
    (found,) = parse(oasst.SOURCE, tree(reply("a", emojis=emojis)), score="thumbs")
    assert getattr(found, "score", None) == score
    assert (found.rows, getattr(found, "reason", "no_thumbs")) == (1, "no_thumbs")


def test_oasst_real_trees_and_messages_give_the_same_rows():
    """Counted by a second walk: 212 prompts with two or more ranked replies, 40 only replies, 6 unranked ones."""
    place = shared("data", "oasst")
    by_tree, by_message = (read(oasst.SOURCE, place / f"en_100_{name}.jsonl") for name in ("tree", "message"))
    assert kinds(by_tree) == kinds(by_message) == {"Ranked": 641, "only_reply": 40, "unranked": 6}
    assert lists(by_tree) == lists(by_message)
    assert reasons(by_tree) == reasons(by_message)
    for one_way, other in zip(by_tree, by_message, strict=True):
        if isinstance(one_way, Ranked):
            assert (one_way.prompt, one_way.answers, one_way.group) == (other.prompt, other.answers, other.group)
    texts: dict[str, str] = {}
    expected: list[list[str]] = []

    def walk(node: dict[str, Any]) -> None:
        texts[node["message_id"]] = node["text"]
        ranked = [child for child in node["replies"] if child["role"] == "assistant" and child.get("rank") is not None]
        if len(ranked) > 1:
            expected.append([child["message_id"] for child in sorted(ranked, key=lambda child: child["rank"])])
        for child in node["replies"]:
            walk(child)

    for line in (place / "en_100_tree.jsonl").read_text(encoding="utf-8").splitlines():
        walk(json.loads(line)["prompt"])
    assert sorted(lists(by_tree)) == sorted(expected)
    assert len(expected) == 212
    for result in by_tree:
        if isinstance(result, Ranked):
            assert [texts[name] for name in lists([result])[0]] == [answer[0]["content"] for answer in result.answers]
    scored = read(oasst.SOURCE, place / "en_100_tree.jsonl", score="thumbs")
    assert kinds(scored) == {"Scored": 455, "no_thumbs": 232}


# --- ultrafeedback ----------------------------------------------------------------------------


def completion(response: Any = "A", overall: Any = 7.0, fine: Any = 4.0, **ratings: Any) -> dict[str, Any]:
    annotations = {aspect: {"Rating": value, "Rationale": "why"} for aspect, value in ratings.items()}
    return {"response": response, "overall_score": overall, "fine-grained_score": fine, "annotations": annotations}


def scores(line: dict[str, Any], **flags: Any) -> list[Any]:
    return [
        getattr(each, "score", getattr(each, "reason", None)) for each in parse(ultrafeedback.SOURCE, line, **flags)
    ]


def test_ultrafeedback_gives_the_score_that_is_asked_for():
    line = {
        "instruction": "Q",
        "completions": [
            completion("A", 7.5, 4.25, helpfulness="5", honesty="N/A", truthfulness="4"),
            completion("B", "2", None, helpfulness="1", honesty="2", truthfulness="4"),
            completion("C", "N/A", None, helpfulness=None),
        ],
    }
    first = parse(ultrafeedback.SOURCE, line)[0]
    assert first == Scored((user("Q"),), (bot("A"),), 7.5, "a.jsonl:1 completion 1", "Q")
    assert scores(line) == [7.5, 2.0, "no_score"]
    assert scores(line, score="fine-grained") == [4.25, pytest.approx(7 / 3), "no_score"]
    assert scores(line, score="helpfulness") == [5.0, 1.0, "no_score"]
    assert scores(line, score="honesty") == ["no_score", 2.0, "no_score"]
    assert scores(line, score="instruction_following") == ["no_score"] * 3
    assert parse(ultrafeedback.SOURCE, line, text=True)[1].completion == "B"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"instruction": "Q", "completions": [completion(""), completion(), completion(None)]}, [1, 1, 1]),
        ({"instruction": "Q", "completions": [completion(overall=85), completion(overall="x"), 5]}, [1, 1, 1]),
        ({"instruction": "", "completions": [completion()] * 3}, [3]),
        ({"instruction": "Q", "completions": None}, [4]),
        ({"instruction": "", "completions": []}, []),
    ],
)
def test_ultrafeedback_counts_every_completion(line, expected):
    assert [result.rows for result in parse(ultrafeedback.SOURCE, line)] == expected


def test_ultrafeedback_faults_have_reasons():
    faulty = [completion(""), completion(None), completion(3), completion(overall=85), completion(overall="ten"), 5]
    expected = [
        "empty_answer",
        "missing_field",
        "not_text",
        "score_not_accepted",
        "score_not_accepted",
        "not_an_object",
    ]
    assert scores({"instruction": "Q", "completions": faulty}) == expected
    assert scores({"instruction": "Q", "completions": [completion(honesty="6")]}, score="honesty") == [
        "score_not_accepted"
    ]


PREFERENCE = {
    "prompt": "Q",
    "chosen": [user("Q"), bot("A")],
    "rejected": [user("Q"), bot("B")],
    "score_chosen": 8.0,
    "score_rejected": 3.0,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score_rejected": 8.0}, "tie"),
        ({"score_rejected": 9.0}, "scores_contradict"),
        ({"score_rejected": "?"}, "score_not_accepted"),
        ({"rejected": [user("Q"), bot(" A ")]}, "answers_identical"),
        ({"rejected": [user("R"), bot("B")]}, "prompts_differ"),
        ({"rejected": [user("Q"), bot(" ")]}, "empty_answer"),
        ({"rejected": [user("Q")]}, "answer_not_one_turn"),
        ({"rejected": None}, "missing_field"),
        ({"rejected": []}, "roles_do_not_alternate"),
        ({"rejected": "B"}, "not_messages"),
        ({"chosen": [bot("A")], "rejected": [bot("B")]}, "roles_do_not_alternate"),
    ],
)
def test_ultrafeedback_binarized_pairs_and_their_faults(change, reason):
    assert one(ultrafeedback.SOURCE, PREFERENCE) == Pair((user("Q"),), (bot("A"),), (bot("B"),), "a.jsonl:1", "Q")
    found = one(ultrafeedback.SOURCE, {**PREFERENCE, **change})
    assert (found.reason, found.rows) == (reason, 2)


def test_ultrafeedback_folders_of_both_forms(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    for name in ("flan", "truthful_qa"):
        write(tmp_path / "a" / f"{name}.jsonl", {"instruction": name, "completions": [completion()] * 4})
    assert kinds(read(ultrafeedback.SOURCE, tmp_path / "a")) == {"Scored": 8}
    assert {result.group for result in read(ultrafeedback.SOURCE, tmp_path / "a", subsets=("flan",))} == {"flan"}
    (tmp_path / "b" / "data").mkdir(parents=True)
    for name in ("train_prefs", "test_prefs", "train_sft", "test_gen"):
        path = tmp_path / "b" / "data" / f"{name}-00000-of-00001.parquet"
        parquet.write_table(pa.Table.from_pylist([PREFERENCE]), path)
    found = read(ultrafeedback.SOURCE, tmp_path / "b")
    assert [(pair.split, pair.chosen) for pair in found] == [(VALIDATION, (bot("A"),)), (None, (bot("A"),))]


def test_ultrafeedback_refuses_flags_that_do_not_go_with_it():
    assert ultrafeedback.check(["instruction", "completions"], HERE, config()) == ["Using the scores overall."]
    for columns, flags in (
        (["instruction", "completions"], {"score": "kindness"}),
        (["chosen", "rejected"], {"score": "overall"}),
        (["chosen", "rejected"], {"text": True}),
    ):
        with pytest.raises(BadInput, match="--"):
            ultrafeedback.check(columns, HERE, config(**flags))


# --- alpaca-eval ------------------------------------------------------------------------------

JUDGED = {"instruction": "Q", "output_1": "A", "output_2": "B", "generator_1": "m", "preference": 1}


@pytest.mark.parametrize(
    ("preference", "margin", "expected"),
    [
        (1, 0, "A"),
        (2, 0, "B"),
        (2.0, 0.5, "B"),
        ("1", 0, "A"),
        (1.4593660117, 0, "A"),
        (1.4593660117, 0.1, "undecided"),
        (1.51, 0, "B"),
        (1.75, 0.25, "B"),
        (1.74, 0.25, "undecided"),
        (1.5, 0, "tie"),
        (0, 0, "tie"),
        (None, 0, "no_preference"),
        (float("nan"), 0, "no_preference"),
        (3, 0, "preference_not_accepted"),
        (0.5, 0, "preference_not_accepted"),
        (-1, 0, "preference_not_accepted"),
        ("first", 0, "preference_not_accepted"),
        (True, 0, "preference_not_accepted"),
        (float("inf"), 0, "preference_not_accepted"),
    ],
)
def test_alpaca_eval_preferences(preference, margin, expected):
    found = one(alpaca_eval.SOURCE, {**JUDGED, "preference": preference}, margin=margin)
    assert found.rows == 2
    assert (found.chosen[0]["content"] if isinstance(found, Pair) else found.reason) == expected


def test_alpaca_eval_input_follows_the_instruction():
    found = one(alpaca_eval.SOURCE, {**JUDGED, "input": "these words"})
    assert found.prompt == (user("Q\n\nthese words"),)
    assert one(alpaca_eval.SOURCE, {**JUDGED, "input": ""}).prompt == (user("Q"),)
    assert one(alpaca_eval.SOURCE, JUDGED, text=True) == Pair("Q", "A", "B", "a.jsonl:1", "Q")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"instruction": " "}, "empty_prompt"),
        ({"output_1": ""}, "empty_answer"),
        ({"output_2": None}, "missing_field"),
        ({"output_2": ["B"]}, "not_text"),
        ({"input": 5}, "not_text"),
        ({"output_2": "A "}, "answers_identical"),
    ],
)
def test_alpaca_eval_faults_have_reasons(change, reason):
    found = one(alpaca_eval.SOURCE, {**JUDGED, **change})
    assert isinstance(found, Reject)
    assert (found.reason, found.rows) == (reason, 2)


def test_alpaca_eval_folder_gives_judges_and_needs_annotations(tmp_path):
    outputs = tmp_path / "model-a" / "model_outputs.json"
    outputs.parent.mkdir()
    outputs.write_text(json.dumps([{"instruction": "Q", "output": "A", "generator": "model-a"}]), encoding="utf-8")
    with pytest.raises(BadInput, match=r"model_outputs.json.*annotations.json of a judge"):
        alpaca_eval.raw_files(tmp_path, ())
    with pytest.raises(BadInput, match="no preferences"):
        alpaca_eval.check(["instruction", "output", "generator"], HERE, config())
    for judge in ("gpt4", "claude"):
        path = outputs.parent / judge / "annotations.json"
        path.parent.mkdir()
        path.write_text(json.dumps([JUDGED, {**JUDGED, "preference": None}]), encoding="utf-8")
    assert kinds(read(alpaca_eval.SOURCE, tmp_path)) == {"Pair": 4, "no_preference": 4}
    assert kinds(read(alpaca_eval.SOURCE, tmp_path, subsets=("claude",))) == {"Pair": 2, "no_preference": 2}
    found = read(alpaca_eval.SOURCE, tmp_path / "model-a" / "gpt4" / "annotations.json")
    assert found[0].origin == "annotations.json:item 1"
