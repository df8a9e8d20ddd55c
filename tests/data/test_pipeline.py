"""`kto binarize` as a whole, on every source: nothing is lost, splits share nothing, runs repeat to the byte."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_feedback import FORMS, binarize, both_splits, check_whole, first_turn, is_of, lines_of, made, table, write

from kto_cli.data.dataset import FILES
from kto_cli.data.formats.counts import Counts, LabelCell, count, count_label, counting
from kto_cli.data.pipeline import parse

SOURCES = tuple(FORMS)


@pytest.mark.parametrize("source", SOURCES)
@given(data=st.data(), seed=st.integers(0, 5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_of_any_file_is_accounted_for(source, data, seed):
    """Sound and broken records in any order: rows in = train + held out + dropped + rejected, in every place said."""
    kinds = data.draw(st.lists(st.integers(0, FORMS[source].kinds - 1), max_size=25))
    records = made(source, kinds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = write(folder, source, records)
        result = binarize(typed, out=folder / "set", seed=seed, validation=0.1, **FORMS[source].options)
        check_whole(folder / "set", result, sum(one.rows for one in records))
        assert result["lines_in"] == len(records)
        if source in ("hh-rlhf", "trl", "log", "llama-factory"):
            train, validation = (
                {first_turn(row) for row in table(folder / f"set/{split}.parquet")} for split in ("train", "validation")
            )
            assert not train & validation


@pytest.mark.parametrize("source", SOURCES)
def test_each_kind_of_broken_record_is_counted_by_itself(source, tmp_path):
    """One record of each kind after twelve sound ones: its rows, and no others, are in rejects.jsonl or the tables."""
    form = FORMS[source]
    clean = made(source, ())
    for kind in range(form.kinds):
        folder = tmp_path / str(kind)
        folder.mkdir()
        records = made(source, (kind,))
        typed = write(folder, source, records)
        result = binarize(typed, out=folder / "set", **form.options)
        check_whole(folder / "set", result, sum(one.rows for one in records))
        lost = [line for line in lines_of(folder / "set/rejects.jsonl") if is_of(line, len(records))]
        kept = [row for row in both_splits(folder / "set") if is_of(row, len(records))]
        assert sum(line["rows"] for line in lost) + len(kept) == records[-1].rows
        assert sum(one.rows for one in clean) + records[-1].rows == result["rows_in"]


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_seed_gives_the_same_bytes_and_another_another_split(source, tmp_path):
    typed = write(tmp_path, source, made(source, tuple(range(FORMS[source].kinds))))
    options = {**FORMS[source].options, "validation": 0.4}
    runs = [binarize(typed, out=tmp_path / str(place), seed=seed, **options) for place, seed in enumerate((3, 3))]
    assert runs[0]["files"] == runs[1]["files"]
    for name in FILES:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    others = [binarize(typed, out=tmp_path / "other", seed=seed, overwrite=True, **options) for seed in range(4, 9)]
    assert any(one["files"]["validation.parquet"] != runs[0]["files"]["validation.parquet"] for one in others)


def test_several_processes_give_the_bytes_of_one(tmp_path, monkeypatch):
    """27 blocks of two sources, with rejects, pairs and scores among them: more than two processes have under way."""
    monkeypatch.setattr(parse, "RECORDS", 100)
    kinds = [place % FORMS["halos"].kinds for place in range(1300)]
    typed = []
    for source in ("halos", "hh-rlhf"):
        folder = tmp_path / source
        folder.mkdir()
        typed.append(write(folder, source, made(source, kinds)))
    one, two = (
        binarize(*typed, out=tmp_path / f"set{workers}", workers=workers, threshold="2", fix=("encoding",))
        for workers in (1, 2)
    )
    assert one["files"] == two["files"]
    for name in ("options", "out"):
        del one[name], two[name]
    assert one == two
    check_whole(
        tmp_path / "set2",
        {**two, "options": json.loads((tmp_path / "set2/manifest.json").read_text())["options"]},
        one["rows_in"],
    )


def test_sources_of_one_kind_keep_names_of_their_own(tmp_path):
    """Two logs: counts, findings and rows tell them apart."""
    typed = []
    for name in ("thumbs", "stars"):
        (tmp_path / name).mkdir()
        typed.append(write(tmp_path / name, "log", made("log", ())))
    path = Path(typed[1].partition(":")[2])
    path = path.rename(path.with_name("other.jsonl"))
    options = FORMS["log"].options
    result = binarize(typed[0], f"log:{path}", out=tmp_path / "set", **options)
    names = ["log:raw.jsonl", "log:other.jsonl"]
    assert [one["name"] for one in result["sources"]] == names
    assert [one["kind"] for one in result["sources"]] == ["log", "log"]
    assert {row["source"] for row in table(tmp_path / "set/train.parquet")} == set(names)
    (balance,) = (one for one in result["findings"] if one["finding"] == "balance")
    assert list(balance["facts"]["sources"]) == names
    same = binarize(typed[0], typed[0], out=tmp_path / "twice", **options)
    assert [one["name"] for one in same["sources"]] == ["log:raw.jsonl (1)", "log:raw.jsonl (2)"]
    alone = binarize(typed[0], out=tmp_path / "alone", **options)
    assert [one["name"] for one in alone["sources"]] == ["log"]


def test_rows_lead_back_to_their_file_when_several_are_mixed(tmp_path):
    sources = ("shp", "llama-factory", "trl")
    typed = []
    for source in sources:
        (tmp_path / source).mkdir()
        typed.append(write(tmp_path / source, source, made(source, range(6))))
    result = binarize(*typed, out=tmp_path / "set", validation=0.2)
    rows = both_splits(tmp_path / "set")
    assert [one["name"] for one in result["sources"]] == list(sources)
    for one in result["sources"]:
        of_source = [row for row in table(tmp_path / "set/train.parquet") if row["source"] == one["name"]]
        assert sum(row["label"] for row in of_source) == one["desirable"]
        assert sum(not row["label"] for row in of_source) == one["undesirable"]
    assert {row["source"] for row in rows} == set(sources)
    assert {row["source"]: row["origin"].partition(":")[0] for row in rows} == {
        source: FORMS[source].file for source in sources
    }


def test_decisions_of_parsing_are_counted_within_a_block_and_added():
    """Nothing is counted outside of `counting`; the counts of two blocks add up."""
    count("not collected")
    with counting() as inner:
        count("read in another way")
        count_label("thumb", "up", "desirable")
    assert inner.notes == {"read in another way": 1}
    assert inner.labels == {LabelCell("thumb", "up", "desirable"): 1}
    total = Counts()
    total.add(inner)
    total.add(inner)
    assert (total.notes["read in another way"], total.labels[LabelCell("thumb", "up", "desirable")]) == (2, 2)
