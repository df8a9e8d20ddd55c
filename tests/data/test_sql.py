"""`sql:QUERY.sql`: joins of files are read as a log's rows, the same each time; a fault of the query is one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from made_feedback import binarize, both_splits, table

from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import FILES

pytest.importorskip("duckdb")

JOIN = """
SELECT chat AS messages, vote = 'up' AS label
FROM 'chats.jsonl' JOIN 'votes.csv' ON chats.id = votes.chat_id WHERE vote <> ''
"""


@pytest.fixture
def joined(workplace: Path) -> Path:
    """A query over chats in one file and votes in another."""
    lines = [
        {"id": k, "chat": [{"role": "user", "content": f"Q{k}"}, {"role": "assistant", "content": f"A{k}"}]}
        for k in range(40)
    ]
    Path("chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    votes = [(k, "up" if k % 3 else "down") for k in range(0, 40, 2)] + [(1, "")]
    Path("votes.csv").write_text("chat_id,vote\n" + "".join(f"{k},{vote}\n" for k, vote in votes))
    Path("q.sql").write_text(JOIN)
    return workplace


def test_chats_and_votes_of_two_files_are_joined(joined):
    result = binarize("sql:q.sql", out=joined / "out", validation=0.0)
    found = {row["completion"][0]["content"]: row["label"] for row in both_splits(joined / "out")}
    assert found == {f"A{k}": bool(k % 3) for k in range(0, 40, 2)}
    assert result["rows_in"] == 20
    assert {row["origin"] for row in table(joined / "out/train.parquet")} == {f"q.sql:row {k}" for k in range(1, 21)}


def test_two_runs_give_the_same_bytes(joined):
    for name in ("one", "two"):
        binarize("sql:q.sql", out=joined / name)
    assert all((joined / "one" / name).read_bytes() == (joined / "two" / name).read_bytes() for name in FILES)


def test_scores_have_a_threshold(joined):
    Path("q.sql").write_text("SELECT 'Q' || id AS prompt, 'A' AS completion, id / 10.0 AS score FROM 'chats.jsonl'")
    result = binarize("sql:q.sql", out=joined / "out", score_column="score", threshold="2", validation=0.0)
    assert (result["desirable"], result["undesirable"]) == (20, 20)
    assert result["rows_in"] == 40


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "fails: Parser Error"),
        ("SELECT * FROM 'gone.csv'", "fails: IO Error"),
        ("SELECT 1 AS prompt, 2 AS prompt", "two columns 'prompt'"),
        ("SELECT 'Q' AS prompt, 'A' AS completion", "Nothing says which rows"),
        ("SELECT 'Q' AS prompt, 'A' AS completion, true AS label WHERE false", "No training rows"),
        ("", "no rows"),
    ],
)
def test_a_fault_is_one_line(kto, workplace, query, said):
    Path("q.sql").write_text(query)
    ran = kto("binarize", "sql:q.sql", "--out", "out")
    assert ran.code == 1
    assert said in " ".join(ran.err.split())
    assert not Path("out").exists()


def test_a_path_that_is_no_query(kto, workplace):
    Path("q.txt").write_text("SELECT 1")
    for name, said in (("gone.sql", "gone.sql does not exist"), ("q.txt", "no file of a query")):
        ran = kto("binarize", f"sql:{name}")
        assert ran.code == 1
        assert said in " ".join(ran.err.split())
    Path("q.sql").write_text("SELECT 1")
    assert "kto binarize sql:" in " ".join(kto("binarize", "q.sql").err.split())


def test_without_duckdb_the_command_that_adds_it_is_said(monkeypatch, workplace):
    Path("q.sql").write_text("SELECT 1")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(BadInput, match="needs DuckDB") as found:
        binarize("sql:q.sql", out=workplace / "out")
    assert "[sql]" in found.value.next_step
