"""`kto outcome`: what it reads, each number of its tables from the file directly, and what it refuses."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from conftest import call, error_line

from kto_cli.core.statistics.clustered import ClusteredRow, difference, shares
from kto_cli.workflows.outcome_tables import percent, points

RULES = ("--desirable", 'thumb == "up"', "--undesirable", 'thumb == "down"')


def made_log() -> list[dict]:
    """A log of two versions: 90 users, chats of two answers, half of them unrated, another mix of topics with v2."""
    rng = random.Random(7)
    rows = []
    for index in range(1200):
        version = "v2" if index >= 500 else "v1"
        topic = rng.choices(["billing", "shipping"], [3, 2] if version == "v1" else [2, 3])[0]
        thumb = None if rng.random() < 0.5 else "up" if rng.random() < 0.5 + 0.2 * (version == "v2") else "down"
        rows.append(
            {
                "question": f"Question {index}?",
                "answer": f"Answer {index}.",
                "meta": {"model": version},
                "user": f"u{rng.randrange(90)}",
                "topic": topic,
                "day": f"2026-10-{1 + index * 30 // 1200:02d}T08:00:00Z",
                "conversation_id": f"c{index // 2}",
                "thumb": thumb,
            }
        )
    return rows


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made_log()), encoding="utf-8")
    return path


def rated_rows(rows: list[dict], version) -> list[ClusteredRow]:
    return [
        ClusteredRow(version(row), row["topic"], row["thumb"] == "up", (row["conversation_id"], row["user"]))
        for row in rows
        if row["thumb"]
    ]


def test_every_number_is_that_of_the_file(log, tmp_path):
    given = (log, "--by", "meta.model", *RULES, "--user", "user", "--mix", "topic", "--out", tmp_path / "out")
    ran = call("outcome", *given, "--json")
    found = ran.json
    rows = made_log()
    assert json.loads((tmp_path / "out" / "outcome.json").read_text()) == found
    for one, name in zip(found["versions"], ("v1", "v2"), strict=True):
        own = [row for row in rows if row["meta"]["model"] == name]
        thumbs = [row["thumb"] for row in own if row["thumb"]]
        assert (one["version"], one["answers"], one["rated"]) == (name, len(own), len(thumbs))
        assert (one["desirable"], one["undesirable"]) == (thumbs.count("up"), thumbs.count("down"))
        assert one["share"] == pytest.approx(thumbs.count("up") / len(thumbs))
        assert one["rated_share"] == pytest.approx(len(thumbs) / len(own))
    rated = rated_rows(rows, lambda row: int(row["meta"]["model"] == "v2"))
    plain = shares([row._replace(stratum="") for row in rated], [0, 1], {"": 1.0})
    (one,) = found["differences"]
    assert (one["difference"], one["interval"]) == (difference(plain).value, difference(plain).interval)
    assert [each["interval"] for each in found["versions"]] == [share.interval() for share in plain.shares]
    weights = {topic: sum(row.stratum == topic for row in rated) / len(rated) for topic in ("billing", "shipping")}
    at_one_mix = difference(shares(rated, [0, 1], weights))
    assert one["mix"]["difference"] == pytest.approx(at_one_mix.value)
    assert one["mix"]["interval"] == pytest.approx(at_one_mix.interval)
    for stratum in found["mix"]["strata"]:
        for index, name in enumerate(("v1", "v2")):
            cell = [row.value for row in rated if (row.version, row.stratum) == (index, stratum["stratum"])]
            assert stratum["versions"][name] == {"rated": len(cell), "desirable": sum(cell)}
    shown = call("outcome", *given)
    for number in (one["difference"], *one["interval"], one["mix"]["difference"], one["rated"]["difference"]):
        assert points(number) in shown.out
    for each in found["versions"]:
        assert all(percent(each[name]) in shown.out for name in ("share", "rated_share"))
    assert "v2: thumbs rose against v1" in shown.out


def test_a_day_divides_a_log_as_a_column_would(log):
    ran = call("outcome", log, "--before-after", "2026-10-20", "--time-column", "day", *RULES, "--json").json
    rows = made_log()
    before = [row for row in rows if row["day"] < "2026-10-20"]
    assert [one["version"] for one in ran["versions"]] == ["before", "after"]
    assert [one["answers"] for one in ran["versions"]] == [len(before), len(rows) - len(before)]
    assert ran["baseline"] == "before"


@pytest.mark.parametrize("seconds", [1, 1000])
def test_seconds_and_milliseconds_are_times_and_rows_without_one_are_counted(tmp_path, seconds):
    days = [1791000000 + 86400 * day for day in range(40)]
    rows = [
        {"prompt": f"P{n}", "completion": "A", "up": n % 2, "time": day * seconds if n % 5 else None}
        for n, day in enumerate(days)
    ]
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    ran = call(
        "outcome", path, "--before-after", "2026-10-23", "--time-column", "time", "--label-column", "up", "--json"
    )
    assert sum(one["answers"] for one in ran.json["versions"]) == 32
    assert ran.json["not_used"] == {"time is empty or no time": 8}
    assert "Not compared: 8 answers" in ran.err


def test_scores_need_a_number_and_are_read_as_binarize_reads_them(tmp_path):
    path = tmp_path / "log.csv"
    lines = [f"Q{n},A,{1 + n % 5},{'ab'[n % 2]}" for n in range(100)]
    path.write_text("prompt,completion,stars,model\n" + "\n".join(lines) + "\n")
    given = ("outcome", path, "--by", "model", "--score-column", "stars")
    assert "Add --threshold NUMBER" in error_line(call(*given))
    assert "--threshold median" in error_line(call(*given, "--threshold", "median"))
    found = call(*given, "--threshold", "4", "--json").json
    assert [one["desirable"] for one in found["versions"]] == [20, 20]


def test_more_versions_are_each_compared_with_the_baseline(tmp_path):
    path = tmp_path / "log.csv"
    lines = [f"Q{n},A,{str(n % 4 > 0).lower()},{'abc'[n % 3]}" for n in range(300)]
    path.write_text("prompt,completion,label,model\n" + "\n".join(lines) + "\n")
    found = call("outcome", path, "--by", "model", "--baseline", "b", "--json").json
    assert found["baseline"] == "b"
    assert [one["version"] for one in found["differences"]] == ["a", "c"]
    assert [one["verdict"] for one in found["differences"]] == ["not settled", "not settled"]
    assert "would settle it" in call("outcome", path, "--by", "model").out or found["differences"][0]["difference"] == 0


@pytest.mark.parametrize("flag", ["--by", "--user", "--mix"])
@pytest.mark.parametrize(
    "name", [lambda n: f"{'models/' * 20}step-{n}", lambda n: {"model": "m" * 50, "step": n}], ids=["text", "JSON"]
)
def test_long_names_that_differ_at_their_end_are_different(tmp_path, flag, name):
    """100 answers by two versions, of two users and two kinds, of which one column has long names."""
    path = tmp_path / "log.jsonl"
    columns = {"--by": "version", "--user": "person", "--mix": "kind"}
    rows = [
        {
            "prompt": f"Q{n}",
            "completion": "A",
            "label": n % 3 == 0,
            **{column: str(n // (at + 1) % 2) for at, column in enumerate(columns.values())},
        }
        for n in range(100)
    ]
    short = "".join(json.dumps(row) + "\n" for row in rows)
    long = "".join(json.dumps({**row, columns[flag]: name(row[columns[flag]])}) + "\n" for row in rows)
    found = []
    for text in (short, long):
        path.write_text(text)
        ran = call("outcome", path, *(word for pair in columns.items() for word in pair), "--json")
        found.append(ran.json)
    counts = [[(one["rated"], one["desirable"], one["clusters"]) for one in each["versions"]] for each in found]
    assert counts[0] == counts[1]
    assert counts[0][0][2] == 2
    assert len(found[1]["mix"]["strata"]) == 2


def test_kinds_that_are_not_shown_are_counted(tmp_path):
    path = tmp_path / "log.csv"
    lines = [f"Q{n},A,{n % 3 > 0},{'ab'[n % 2]},kind {n // 10:02d}" for n in range(120)]
    path.write_text("prompt,completion,label,model,kind\n" + "\n".join(lines) + "\n")
    shown = call("outcome", path, "--by", "model", "--mix", "kind").out
    assert "(the first 10 of 12 kinds)" in " ".join(shown.split())
    assert "kind 09" in shown
    assert "kind 10" not in shown


def test_two_files_are_one_log(log, tmp_path):
    lines = log.read_text().splitlines(keepends=True)
    parts = [tmp_path / "october.jsonl", tmp_path / "november.jsonl"]
    for part, some in zip(parts, (lines[:400], lines[400:]), strict=True):
        part.write_text("".join(some))
    whole = call("outcome", log, "--by", "meta.model", *RULES, "--json").json
    assert call("outcome", *parts, "--by", "meta.model", *RULES, "--json").json["versions"] == whole["versions"]


REFUSED = {
    "no way to tell versions": ((*RULES,), ["--by COLUMN", "--before-after DATE"]),
    "two ways": (("--by", "topic", "--before-after", "2026-10-02", "--time-column", "day"), ["Give one of the two"]),
    "a date without a column": (("--before-after", "2026-10-02"), ["go together"]),
    "no date": (("--before-after", "soon", "--time-column", "day"), ["soon is no date", "2026-11-02"]),
    "a date after all": (("--before-after", "2027-01-01", "--time-column", "day"), ["are before", "2026-10-30"]),
    "no times": (("--before-after", "2026-10-02", "--time-column", "topic"), ["No answer has a time (topic)"]),
    "an unknown column": (("--by", "modle"), ["no column 'modle' (--by)", "It has: question, answer, meta"]),
    "an unknown user column": (("--by", "topic", "--user", "usr"), ["'usr' (--user)", "did you mean 'user'"]),
    "an unknown mix column": (("--by", "topic", "--mix", "kind"), ["'kind' (--mix)", "It has"]),
    "too many versions": (("--by", "user"), ["user has 90 values", "at most 20"]),
    "an unknown baseline": (("--by", "topic", "--baseline", "v0"), ["v0 is no value of topic", "billing"]),
}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_one_line(log, tmp_path, words):
    flags, expected = words
    rules = () if "--desirable" in flags else RULES
    ran = call("outcome", log, *flags, *rules, "--out", tmp_path / "out")
    for word in expected:
        assert word in error_line(ran)
    assert not list((tmp_path / "out").glob("*"))


def test_a_log_without_ratings_or_versions_says_so(log, tmp_path):
    unrated = call("outcome", log, "--by", "topic", "--desirable", 'thumb == "u"', "--undesirable", 'thumb == "d"')
    assert "None of 1,200 answers has a label" in error_line(unrated)
    one = tmp_path / "one.csv"
    one.write_text("prompt,completion,label,model,half\nP,A,true,v1,a\nQ,B,false,v1,\n")
    assert "model is v1 in all 2 rows" in error_line(call("outcome", one, "--by", "model"))
    assert "half is a in all 1 row" in error_line(call("outcome", one, "--by", "half"))
    two = tmp_path / "two.csv"
    two.write_text("prompt,completion,label,model\nP,A,true,v1\nQ,B,,v2\n")
    assert "No answer of v2 is rated" in error_line(call("outcome", two, "--by", "model"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "P", "chosen": "A", "rejected": "B"}) + "\n")
    assert "compared with each other" in error_line(call("outcome", f"trl:{pairs}", "--by", "model"))
    assert "No log is given" in error_line(call("outcome", "--by", "model"))
