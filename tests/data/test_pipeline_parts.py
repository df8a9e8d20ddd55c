"""The parts of the pipeline by themselves: ranked lists, outcomes, labels, the spool, keys, ids, blocks, bytes."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from made_feedback import FORMS, Recorder, binarize, made, table, write

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.columns import NO_LABEL, Columns
from kto_cli.data.dataset import FINDINGS, REJECTS, TRAIN, VALIDATION, Row, schema
from kto_cli.data.dataset_writer import DataWriter, finish, table_of
from kto_cli.data.formats import trl
from kto_cli.data.formats.records import Dropped, Pair, Ranked
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log import format
from kto_cli.data.pipeline import parse, to_rows
from kto_cli.data.pipeline.label import label_rows
from kto_cli.data.pipeline.outcome import DROPPED, REJECTED, Outcomes
from kto_cli.data.pipeline.parsed_row import key
from kto_cli.data.pipeline.rankings import paired
from kto_cli.data.pipeline.row_spool import Spool, codes
from kto_cli.data.pipeline.to_rows import Block, ParsedRow, texts_in_arrow
from kto_cli.data.pipeline.write import RowIds, hexadecimal
from kto_cli.data.readers.jsonl import UNPARSED, Record
from kto_cli.data.registry import source
from kto_cli.data.select import Chosen, choose

CONFIG = BinarizeConfig(("x",), text=True)
WORD = (1 << 64) - 1

# --- ranks ------------------------------------------------------------------------------------


def ranked(*answers: str) -> Ranked:
    """Answers from best to worst."""
    origins = tuple(f"f:{place}" for place in range(len(answers)))
    return Ranked("Q", answers, origins, "group", "validation")


def pairs_by_hand(count: int, way: str, both: bool) -> set[tuple[int, int]]:
    """(better, worse) as rankings.py says it in words, by search over all pairs."""
    every = [(better, worse) for better in range(count) for worse in range(better + 1, count)]
    if way == "best-worst":
        return {(better, worse) for better, worse in every if better == 0 and worse == count - 1}
    if way == "middle":
        return {(better, worse) for better, worse in every if better + worse == count - 1}
    return {(better, worse) for better, worse in every if worse == better + 1 and (both or better % 2 == 0)}


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize(("way", "both"), [("best-worst", 0), ("middle", 0), ("adjacent", 0), ("adjacent", 1)])
def test_every_answer_of_a_ranked_list_is_in_a_pair_or_dropped(count, way, both):
    results = paired(ranked(*(f"answer {place}" for place in range(count))), way, both_labels=bool(both))
    found = [result for result in results if isinstance(result, Pair)]
    places = {(int(pair.chosen[-1]), int(pair.rejected[-1])) for pair in found}
    assert places == pairs_by_hand(count, way, bool(both))
    assert len(places) == len(found)
    for pair in found:
        assert (pair.prompt, pair.group, pair.split) == ("Q", "group", "validation")
        assert (pair.origin, pair.rejected_origin) == (f"f:{pair.chosen[-1]}", f"f:{pair.rejected[-1]}")
    left = [result for result in results if isinstance(result, Dropped)]
    assert {one.origin for one in left} == {f"f:{place}" for place in range(count)} - {
        f"f:{place}" for pair in places for place in pair
    }
    assert all((one.reason, one.rows) == ("ranked_between", 1) for one in left)
    if not both:
        assert sum(result.rows for result in results) == count


def test_equal_texts_never_get_both_labels():
    """Best and worst are the same text: both rows are dropped, as is the one between."""
    results = paired(ranked("same", "other", "same"), "best-worst")
    assert [(type(one), getattr(one, "reason", ""), one.rows) for one in results] == [
        (Dropped, "answers_identical", 2),
        (Dropped, "ranked_between", 1),
    ]


# --- outcomes ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["lost", "left", "held"]), st.sets(st.integers(0, 9))), max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_first_reason_of_a_row_sticks(steps):
    """Against a dictionary that is only ever added to."""
    outcomes = Outcomes.all_train(10)
    expected: dict[int, str] = {}
    for number, (step, rows) in enumerate(steps):
        flags = numpy.isin(numpy.arange(10), list(rows))
        if step == "held":
            outcomes.validate_on(flags)
            expected |= {row: "held" for row in rows if row not in expected}
        else:
            kind = REJECTED if step == "lost" else DROPPED
            before = int(outcomes.kept.sum())
            outcomes.remove(flags, kind, f"{step} {number % 2}", "why")
            open_rows = [row for row in rows if expected.get(row, "held") == "held"]
            assert before - int(outcomes.kept.sum()) == len(open_rows)
            expected |= dict.fromkeys(open_rows, f"{step} {number % 2}")
    assert [row for row in range(10) if outcomes.train[row]] == [row for row in range(10) if row not in expected]
    assert {row for row in range(10) if outcomes.validation[row]} == {
        row for row in expected if expected[row] == "held"
    }
    assert (outcomes.kept == (outcomes.train | outcomes.validation)).all()
    for kind, word in ((REJECTED, "lost"), (DROPPED, "left")):
        words = [text for text in expected.values() if text.startswith(word)]
        assert outcomes.counts(kind) == {text: words.count(text) for text in set(words)}


# --- labels -----------------------------------------------------------------------------------


def columns(scores: list[float], *, by_label: bool = False, sources: list[int] | None = None) -> Columns:
    """Rows that have nothing but a score, each of a prompt of its own."""
    count = len(scores)
    numbers = numpy.arange(count)
    keys = numpy.column_stack((numbers, numbers + 1)).astype("u8")
    return Columns(
        **dict.fromkeys(("prompt_keys", "completion_keys", "group_keys", "root_keys"), keys),
        **dict.fromkeys(("prompts", "completions", "groups", "roots"), numbers),
        pairs=numpy.full(count, -1),
        labels=numpy.full(count, NO_LABEL, "i1"),
        scores=numpy.array(scores, "f8"),
        by_label=numpy.full(count, by_label),
        official=numpy.zeros(count, bool),
        sources=numpy.array(sources or [0] * count, "i2"),
        prompt_chars=numpy.ones(count, "i4"),
        completion_chars=numpy.ones(count, "i4"),
        findings=numpy.zeros(count, "u4"),
        shapes=numpy.zeros(count, "u1"),
        facets=numpy.zeros((count, 3), "u4"),
        sketches=numpy.zeros((count, 4), "u8"),
    )


def settled(given: Columns, name: str = "trl", **options: Any) -> tuple[list[int], Outcomes, list[str], list[str]]:
    """(labels, outcomes, warnings, notes)"""
    outcomes, notes = Outcomes.all_train(len(given)), []
    one = Chosen(source(name), name, [], {})
    warnings = label_rows(given, [one], BinarizeConfig((name,), **options), outcomes, notes.append)
    return given.labels.tolist(), outcomes, warnings, notes


def test_ones_and_noughts_are_labels():
    labels, outcomes, warnings, notes = settled(columns([1, 0, 0, 1], by_label=True))
    assert (labels, outcomes.reasons, warnings) == ([1, 0, 0, 1], [], [])
    assert notes == ["Labels 1 and 0 are read as desirable and undesirable (4 rows; the column has no other numbers)."]


@pytest.mark.parametrize("other", [2.0, -1.0, 0.5])
def test_a_column_with_another_number_has_no_labels_at_all(other):
    """In stars from 1 to 5 a 1 is the worst mark: every number is rejected, and a warning names the others."""
    labels, outcomes, warnings, _ = settled(columns([1, 0, other, 1], by_label=True))
    assert labels == [NO_LABEL] * 4
    assert outcomes.counts(REJECTED) == {"label_not_binary": 4}
    assert len(warnings) == 1
    assert "All 4 number labels are rejected" in warnings[0]


@pytest.mark.parametrize("threshold", [None, "1", "median"])
def test_infinite_numbers_are_rejected_and_move_no_threshold(threshold):
    given = columns([1, 0, math.inf, -math.inf, 1, 0], by_label=True)
    labels, outcomes, _, _ = settled(given, threshold=threshold)
    assert labels == [1, 0, NO_LABEL, NO_LABEL, 1, 0]
    assert outcomes.counts(REJECTED) == {"score_not_finite": 2}
    assert outcomes.kept.tolist() == [True, True, False, False, True, True]


def test_numbers_of_a_label_column_can_have_a_threshold():
    labels, outcomes, warnings, notes = settled(columns([5, 1, 3, 2], by_label=True), threshold="3")
    assert (labels, outcomes.reasons, warnings) == ([1, 0, 1, 0], [], [])
    assert "3 and above" in notes[0]


def test_labels_of_one_source_say_nothing_of_another():
    given = columns([1, 0, 1, 5], by_label=True, sources=[0, 0, 1, 1])
    outcomes, notes = Outcomes.all_train(4), []
    chosen = [Chosen(source("trl"), name, [], {}) for name in ("a", "b")]
    label_rows(given, chosen, BinarizeConfig(("a", "b")), outcomes, notes.append)
    assert given.labels.tolist() == [1, 0, NO_LABEL, NO_LABEL]
    assert outcomes.counts(REJECTED) == {"label_not_binary": 2}


def test_rows_that_have_labels_keep_them():
    given = columns([math.nan, 4.0, math.nan])
    given.labels[:] = [0, NO_LABEL, 1]
    assert settled(given, threshold="5")[0] == [0, 0, 1]


def test_ultrafeedback_has_its_threshold_at_the_mean_of_its_prompt_unless_told():
    given = columns([9, 5, 4, 8])
    given.prompts = numpy.array([0, 0, 0, 1])
    labels, outcomes, _, notes = settled(given, "ultrafeedback")
    assert labels == [1, 0, 0, NO_LABEL]  # 6 is the mean; a prompt's only score teaches nothing
    assert outcomes.counts(DROPPED) == {"undecided": 1}
    assert "(--threshold prompt-mean is the default for ultrafeedback.)" in notes[0]
    assert settled(columns([9, 5, 4, 8]), "ultrafeedback", threshold="5")[0] == [1, 1, 0, 1]


def test_scores_without_a_threshold_are_refused():
    with pytest.raises(BadInput, match=r"log has 3 scores \(from 1 to 5, median 2\)"):
        settled(columns([1, 2, 5]), "log")


# --- the spool --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, WORD), st.integers(0, 3)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_codes_number_keys_in_their_order(rows):
    """Against sorted distinct tuples."""
    order = {pair: number for number, pair in enumerate(sorted(set(rows)))}
    assert codes(numpy.array(rows, "u8").reshape(-1, 2)).tolist() == [order[pair] for pair in rows]


def block(lines: list[dict[str, Any]], start: int = 1, number: int = 0, **options: Any) -> Block:
    """Records of TRL's form, not parsed yet."""
    records = [Record(f"f:{place}", None, json.dumps(line), UNPARSED) for place, line in enumerate(lines, start)]
    return Block(records, trl.SOURCE, number, RawFile(Path("f"), "f"), BinarizeConfig(("x",), text=True, **options))


def test_the_spool_gives_back_what_it_took(tmp_path):
    """Three blocks, one without rows: texts in order, pairs numbered on, codes over all of them."""
    blocks = [
        block([{"prompt": "P", "chosen": "A", "rejected": "B"}, {"prompt": "Q", "chosen": "A", "rejected": "C"}]),
        block([{"prompt": "P"}], 3),
        block(
            [{"prompt": "P", "completion": "A", "label": True}, {"prompt": "O", "chosen": "C", "rejected": "B"}], 4, 1
        ),
    ]
    with Spool(tmp_path / "spool") as spool:
        for one in blocks:
            spool.add(to_rows.parse_block(one))
        assert spool.rows == 7
        found = spool.columns()
        spans, batches = zip(*spool.batches(), strict=True)
        rows = [row for batch in batches for row in batch.to_pylist()]
    assert not (tmp_path / "spool").exists()
    assert [(span.start, span.stop) for span in spans] == [(0, 4), (4, 4), (4, 7)]
    assert [(row["origin"], row["prompt"], row["completion"]) for row in rows] == [
        *(("f:1", "P", "A"), ("f:1", "P", "B"), ("f:2", "Q", "A"), ("f:2", "Q", "C")),
        *(("f:4", "P", "A"), ("f:5", "O", "C"), ("f:5", "O", "B")),
    ]
    assert found.pairs.tolist() == [0, 0, 1, 1, -1, 2, 2]
    assert found.labels.tolist() == [1, 0, 1, 0, 1, 1, 0]
    assert found.sources.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.completion_chars.tolist() == [1] * 7
    for name in ("prompt", "completion"):
        texts, numbers = [row[name] for row in rows], getattr(found, f"{name}s").tolist()
        assert len(set(numbers)) == max(numbers) + 1 == len(set(texts))
        assert len(set(zip(texts, numbers, strict=True))) == len(set(texts))


# --- texts and keys ---------------------------------------------------------------------------

TEXTS = st.text(max_size=8)
CHATS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": TEXTS}), max_size=3
).map(tuple)


@given(st.lists(st.tuples(CHATS, CHATS), max_size=6))
@settings(max_examples=40, deadline=None)
def test_chats_in_arrow_are_those_that_arrow_makes_of_objects(rows):
    import pyarrow as pa

    made, has_more = texts_in_arrow([ParsedRow(*row, 1, 0.0, False, -1, "f:1", "g", False) for row in rows], False)
    assert not has_more
    for place, name in enumerate(("prompt", "completion")):
        slow = pa.array([list(row[place]) for row in rows], schema(chat=True, has_more=True).field(name).type)
        assert made.column(name).type == slow.type
        assert made.column(name).equals(slow)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=6))
@settings(max_examples=30, deadline=None)
def test_texts_in_arrow_are_themselves(rows):
    made, _ = texts_in_arrow([ParsedRow(*row, 1, 0.0, False, -1, f"f:{row[0]}", "g", False) for row in rows], True)
    assert made.schema.names == ["origin", "remark", "prompt", "completion"]
    assert [tuple(row.values()) for row in made.to_pylist()] == [(f"f:{row[0]}", None, *row) for row in rows]


def test_a_key_is_the_same_everywhere():
    """`printf Hi | b2sum -l 128` says 72b2ca007b26e13625a7d479daf3691f on any machine; half a pair has a key too."""
    assert key("Hi").hex() == "72b2ca007b26e13625a7d479daf3691f"
    assert len({key("Hi"), key("hi"), key(""), key("\ud800"), key("\ud801")}) == 5


def test_ids_do_not_depend_on_the_process_or_its_hash_seed():
    """Python salts its own hashes; a dataset written twice by two processes would differ if any came in."""
    code = (
        "from test_pipeline_parts import block; from kto_cli.data.pipeline.to_rows import parse_block; "
        "made = parse_block(block([{'prompt': 'P', 'chosen': 'A', 'rejected': 'B'}])); "
        "print([made.numbers[name].tolist() for name in sorted(made.numbers)])"
    )
    places = [REPOSITORY, *(REPOSITORY / "tests" / part for part in ("", "support", "data"))]
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(map(str, places)),
            },
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] != ""


# --- ids --------------------------------------------------------------------------------------


def mixed(word: int) -> int:
    """splitmix64's finalizer, in whole numbers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & WORD
    return word ^ (word >> 31)


def test_ids_tell_rows_apart_and_pairs_share_theirs():
    """Two copies of a pair, and the same answer with the other label: six ids, and two pair ids by their definition."""
    given = columns([0.0] * 6)
    given.prompt_keys = numpy.array([[7, 1]] * 6, "u8")
    given.prompts = numpy.zeros(6, "i8")
    given.completions = numpy.array([0, 1, 0, 1, 0, 2])
    given.completion_keys = numpy.array([[place, place] for place in given.completions], "u8")
    given.labels[:] = [1, 0, 1, 0, 0, 1]
    given.pairs = numpy.array([0, 0, 1, 1, -1, -1])
    names = RowIds(given)
    assert len(set(names.rows.tolist())) == 6
    assert names.prompts.tolist() == [7] * 6
    assert names.has_pair.tolist() == [True] * 4 + [False] * 2
    for first in (0, 2):
        expected = (mixed(int(names.rows[first])) + mixed(int(names.rows[first + 1]))) & WORD
        assert names.pairs[first] == names.pairs[first + 1] == expected
    assert names.pairs[0] != names.pairs[2]
    assert hexadecimal(numpy.array([0, 255, WORD], "u8")) == ["0" * 16, "00000000000000ff", "f" * 16]


def test_a_row_keeps_its_id_wherever_it_stands(tmp_path):
    """The same rows in another order, in another file and among others have the same ids."""
    rows = [{"prompt": f"Q{place % 7}", "completion": f"A{place}", "label": place % 2 == 0} for place in range(40)]
    more = [{"prompt": f"R{place}", "completion": "B", "label": place % 2 == 0} for place in range(5)]
    ids = []
    for number, lines in enumerate((rows, random.Random(0).sample([*rows, *more], 45))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        binarize(str(path), out=tmp_path / str(number), validation=0, screen=Recorder())
        found = table(tmp_path / str(number) / TRAIN)
        ids.append({(row["prompt"][0]["content"], row["completion"][0]["content"]): row["id"] for row in found})
    assert {pair: ids[1][pair] for pair in ids[0]} == ids[0]
    assert len(ids[1]) == 45


# --- the files --------------------------------------------------------------------------------


def written(folder: Path, rows: list[Row], sizes: list[int]) -> dict[str, str]:
    """The hashes of a dataset whose rows were given so many at a time."""
    folder.mkdir()
    writer = DataWriter(folder)
    writer.open_tables(chat=False)
    start = 0
    for size in sizes:
        writer.add(TRAIN, table_of(rows[start : start + size], writer.schema))
        start += size
    assert start == len(rows)
    writer.line(REJECTS, {"text": "\ud800 é", "score": 1.5})
    return finish(writer, {"rows_in": len(rows)})["files"]


def test_the_bytes_of_a_dataset_are_those_of_its_rows_however_they_came(tmp_path, monkeypatch):
    monkeypatch.setattr("kto_cli.data.dataset_writer.ROWS_PER_GROUP", 100)
    rows = [
        Row(f"{place:016x}", "p", None, "s", f"f:{place}", "Q", f"A{place}", place % 2 == 0) for place in range(350)
    ]
    ways = [[350], [1] * 350, [99, 2, 99, 150], [100, 100, 100, 50], [350, 0]]
    hashes = [written(tmp_path / str(number), rows, way) for number, way in enumerate(ways)]
    assert all(one == hashes[0] for one in hashes)
    from pyarrow import parquet

    file = parquet.ParquetFile(tmp_path / "1" / TRAIN)
    assert [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)] == [100, 100, 100, 50]
    assert file.read().column("completion").to_pylist() == [f"A{place}" for place in range(350)]
    assert parquet.read_table(tmp_path / "1" / VALIDATION).num_rows == 0
    assert json.loads((tmp_path / "1" / REJECTS).read_text(encoding="utf-8")) == {"text": "\ud800 é", "score": 1.5}
    assert (tmp_path / "1" / FINDINGS).read_bytes() == b""


# --- blocks -----------------------------------------------------------------------------------


def lines_in_blocks(path: Path, lines: list[str]) -> list[list[str]]:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    one = Chosen(format.SOURCE, "log", [RawFile(path, path.name)], {})
    config = BinarizeConfig(("log",), desirable="stars > 3", undesirable="else")
    return [[record.raw for record in some.records] for some in parse.blocks([one], config, lambda _: None)]


def line(size: int = 0) -> str:
    return json.dumps({"prompt": "Q", "completion": "A" * size, "stars": 1})


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (512, [512]), (513, [512, 1]), (1024, [512, 512])])
def test_blocks_end_by_count(tmp_path, count, sizes):
    lines = [line() for _ in range(count)]
    found = lines_in_blocks(tmp_path / "a.jsonl", lines)
    assert [len(some) for some in found] == sizes
    assert [raw for some in found for raw in some] == lines


def test_blocks_end_by_size(tmp_path):
    """Lines of 400,000 characters: the third takes a block over 2^20; and one line may be a block by itself."""
    lines = [line(400_000)] * 4 + [line(2_000_000), line()]
    found = lines_in_blocks(tmp_path / "a.jsonl", lines)
    assert [len(some) for some in found] == [3, 2, 1]
    assert [raw for some in found for raw in some] == lines


@pytest.mark.parametrize("name", FORMS)
def test_a_block_goes_to_another_process_and_back(tmp_path, name):
    """What is sent can be pickled, whatever the source holds for this process alone, and gives the same there."""
    typed = write(tmp_path, name, made(name, range(FORMS[name].kinds)))
    config = BinarizeConfig((typed,), **FORMS[name].options)
    for some in parse.blocks(choose(config), config, lambda _: None):
        ours, theirs = (
            to_rows.parse_block(some),
            pickle.loads(pickle.dumps(to_rows.parse_block(pickle.loads(pickle.dumps(some))))),
        )
        assert ours.texts.equals(theirs.texts)
        assert ours.texts.num_rows > 0
        assert (ours.unused, ours.pairs) == (theirs.unused, theirs.pairs)
        for column, values in ours.numbers.items():
            numpy.testing.assert_array_equal(values, theirs.numbers[column])
