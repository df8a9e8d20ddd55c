"""examples/three_weeks.py, labelled in a headless browser where there is one: each number of its last table is that of
a computation from the files of its runs."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy
import pyarrow.parquet as parquet
import pytest
from browser import BINARY, Page, browsing
from conftest import REPOSITORY
from weeks_script import SCRIPT, script

from kto_cli.core.statistics.clustered import ClusteredRow, shares
from kto_cli.core.statistics.judge_errors import corrected, one_rate, two_rates
from kto_cli.core.statistics.kappa import cohen

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
__all__ = ["script"]
WEEKS = (1, 2, 3)
PEOPLE = ("ana", "ben")
NORMAL = 1.6448536


class Played(NamedTuple):
    """The three weeks."""

    folder: Path
    said: str
    table: dict[str, list[str]]
    """Name of a line -> its cell of each week."""


@pytest.fixture(scope="module")
def played(script, tmp_path_factory) -> Played:
    home = tmp_path_factory.mktemp("weeks")
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--quick", "--out", "three", *(["--people"] if BINARY else [])],
        cwd=home,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "KTO_CACHE": str(home / "cache"), "COLUMNS": "80"},
    )
    try:
        said = answered(process, script, home)
        assert process.wait(60) == 0, said
    finally:
        process.kill()
        process.communicate()
    lines = [re.split(r" {2,}", line) for line in said.splitlines()]
    head = lines.index(["", "week 1", "week 2", "week 3"])
    return Played(home / "three", said, {name: cells for name, *cells in lines[head + 1 : head + 10] if cells})


def answered(process: subprocess.Popen[str], script: ModuleType, home: Path) -> str:
    """All that the script says; its pages are labelled in a browser on the way."""
    said = ""
    assert process.stdout is not None
    assert process.stdin is not None
    for line in process.stdout:
        said += line
        if found := re.match(r"Open (http://\S+/\?token=\w+)", line):
            with browsing(home / f"profile-{len(said)}") as page:
                for name, taste in tastes(script).items():
                    label(page, f"{found[1]}&name={name}", taste)
                assert page.complaints() == []
            process.stdin.write("\n")
            process.stdin.flush()
    return said


def tastes(script: ModuleType) -> dict[str, Any]:
    """Two people who differ now and then."""
    rows = [row for log in script.built_in_logs() for row in log]
    return {name: script.Taste(rows[index::2]) for index, name in enumerate(PEOPLE)}


def label(page: Page, link: str, taste: Any) -> None:
    """Presses a key for all that the page shows."""
    page.size(1280, 800)
    page.open(link)
    page.wait("state && !busy")
    while page.value("Boolean(state.item)"):
        done = page.value("state.done")
        liked = [taste.of(text) for text in page.value("state.item.answers.map((each) => each[0].text)")]
        page.press("1" if liked[0] > (liked[1] if len(liked) == 2 else 0) else "2")
        page.wait(f"state.done === {done + 1} && !busy")


# --- the table ----------------------------------------------------------------------------------


def numbers(cell: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", cell.replace(",", ", "))]


def spread(value: float, interval: Any, percent: bool = False) -> list[float]:
    """As the table rounds."""
    scale, digits = (100, 1) if percent else (1, 2)
    return [round(scale * each, digits) for each in (value, *interval)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_is_served_is_checked(played):
    """Where transformers can serve; a check that finds another model ends the script."""
    assert (played.folder / "export/model.safetensors").is_file()
    assert ("What is served" in played.said) != ("Not served: there is no " in played.said)


def test_every_line_of_the_table_is_there_and_fits(played):
    """The lines that the tests below compute, at 80 columns."""
    expected = ["training rows", "validation rows", "AUC", "margin", "win rate", "corrected", "kappa", "thumbs up"]
    assert list(played.table) == expected
    assert all(len(cells) == 3 for cells in played.table.values())
    last = played.said[played.said.rindex("week 1") :]
    assert max(map(len, last.splitlines())) <= 80


@pytest.mark.parametrize("week", WEEKS)
def test_rows(played, week):
    """Those of the week's dataset, and in later weeks some of the week before; all of both are for validation."""
    for name, side in (("training rows", "train"), ("validation rows", "validation")):
        found = parquet.read_metadata(rows_of_run(played.folder, week) / f"{side}.parquet").num_rows
        own = parquet.read_metadata(played.folder / f"data/week{week}/{side}.parquet").num_rows
        assert played.table[name][week - 1] == f"{found:,}"
        assert found == own if week == 1 else found > own


def rows_of_run(folder: Path, week: int) -> Path:
    """The dataset that a run was trained and validated on."""
    return folder / read(folder / f"runs/week{week}/kto_config.json")["data"]["folder"]


def test_no_validation_prompt_is_trained_on_later(played):
    def prompts(week: int, side: str) -> set[str]:
        path = rows_of_run(played.folder, week) / f"{side}.parquet"
        return set(parquet.read_table(path, columns=["prompt_id"])["prompt_id"].to_pylist())

    for week in WEEKS[1:]:
        for before in range(1, week + 1):
            assert not prompts(week, "train") & prompts(before, "validation")


def areas(rewards: Any, labels: Any) -> float:
    """Share of couples of a desirable and an undesirable row that are in order, ties half."""
    above = rewards[labels][:, None] - rewards[~labels][None, :]
    return float(((above > 0) + (above == 0) / 2).mean())


@pytest.mark.parametrize("week", WEEKS)
def test_auc_and_margin_with_intervals_like_those_of_a_plain_bootstrap(played, week):
    run = played.folder / f"evals/week{week}"
    rows = parquet.read_table(run / "rows.parquet").to_pydict()
    rewards, labels = numpy.array(rows["reward"]), numpy.array(rows["label"])
    members: dict[str, list[int]] = {}
    for index, name in enumerate(rows["prompt_id"]):
        members.setdefault(name, []).append(index)
    groups, random = list(members.values()), numpy.random.default_rng(0)
    drawn = [
        numpy.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))]) for _ in range(2000)
    ]
    for name, estimate in (
        ("AUC", areas),
        ("margin", lambda rewards, labels: float(rewards[labels].mean() - rewards[~labels].mean())),
    ):
        value, low, high = numbers(played.table[name][week - 1])
        assert value == round(estimate(rewards, labels), 2)
        stored = read(run / "metrics.json")["metrics"][f"{name.lower()}_interval"]
        assert [low, high] == [round(edge, 2) for edge in stored]
        edges = numpy.percentile([estimate(rewards[i], labels[i]) for i in drawn], [5, 95])
        assert abs(edges - stored).max() < 0.3 * (edges[1] - edges[0]) + 0.01, name


def wilson(total: float, count: int) -> list[float]:
    share, square = total / count, NORMAL**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL / (1 + square / count) * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5
    return [middle - half, middle + half]


def outcomes(folder: Path, week: int) -> list[float]:
    """Of the comparisons: 1 for the week's model, 0 for that of the week before, 0.5 for a tie."""
    votes = {"model": 1.0, "tie": 0.5, "baseline": 0.0}
    rows = lines_of(folder / f"evals/week{week}/judged.jsonl")
    totals = [votes[row["model_first"]] + votes[row["baseline_first"]] for row in rows]
    return [0.5 if total == 1 else float(total > 1) for total in totals]


@pytest.mark.parametrize("week", WEEKS)
def test_win_rate(played, week):
    found = outcomes(played.folder, week)
    expected = spread(sum(found) / len(found), wilson(sum(found), len(found)), percent=True)
    assert numbers(played.table["win rate"][week - 1]) == pytest.approx(expected)


@pytest.mark.parametrize("week", WEEKS)
def test_corrected_win_rate(played, script, week):
    """The judge is asked anew about the pairs in the file of labels on which both people agree."""
    judge = script.Taste([row for log in script.built_in_logs() for row in log][::5])
    items: dict[str, list[dict[str, Any]]] = {}
    for row in lines_of(played.folder / f"labels/week{week}.jsonl"):
        items.setdefault(row["item"], []).append(row)
    right: dict[bool, list[float]] = {True: [], False: []}
    for rows in items.values():
        better = {row["completion"][0]["content"]: row["model"] for row in rows if row["choice"] == "better"}
        worse = {row["completion"][0]["content"] for row in rows if row["choice"] == "worse"}
        if len(better) == len(worse) == 1:
            [(text, model)] = better.items()
            mine, other = judge.of(text), judge.of(*worse)
            right[model.endswith(f"week{week}")].append(0.5 if mine == other else float(mine > other))
    by_side = min(map(len, right.values())) >= 10
    errors = two_rates(right[True], right[False]) if by_side else one_rate(right[True] + right[False])
    found, cell = corrected(outcomes(played.folder, week), errors), played.table["corrected"][week - 1]
    if found["known"]:
        assert numbers(cell) == pytest.approx(spread(found["win_rate"], found["interval"], percent=True))
    else:
        assert cell == script.NOT_KNOWN[found["why"]]


@pytest.mark.parametrize("week", WEEKS)
def test_kappa(played, week):
    """What a person gave to an item are the choices of its answers, in the order of their texts."""
    rows = lines_of(played.folder / f"labels/week{week}.jsonl")
    given: dict[str, dict[str, tuple[str, ...]]] = {name: {} for name in PEOPLE}
    for row in sorted(rows, key=lambda row: json.dumps(row["completion"], sort_keys=True)):
        own = given[row["rater"]]
        own[row["item"]] = (*own.get(row["item"], ()), row["choice"])
    ana, ben = given.values()
    assert ana.keys() == ben.keys()
    found = cohen(Counter((ana[item], ben[item]) for item in ana))
    assert found.kappa == pytest.approx(kappa_score([*map(str, ana.values())], [str(ben[item]) for item in ana]))
    assert numbers(played.table["kappa"][week - 1]) == spread(found.kappa, found.interval)


def kappa_score(first: list[str], second: list[str]) -> float:
    """Cohen's kappa as it is defined."""
    count = len(first)
    agree = sum(one == other for one, other in zip(first, second, strict=True)) / count
    chance = sum(first.count(value) * second.count(value) for value in {*first}) / count**2
    return (agree - chance) / (1 - chance)


@pytest.mark.parametrize("week", WEEKS)
def test_thumbs(played, week):
    """Shares of thumbs up in the logs, with prompts as conversations."""
    rows = []
    for number in WEEKS:
        with (played.folder / f"week{number}.csv").open(encoding="utf-8", newline="") as file:
            rows += [ClusteredRow(number, "", row["thumb"] == "up", (row["prompt"],)) for row in csv.DictReader(file)]
    found = shares(rows, [week], {"": 1.0}).shares[0]
    own = [row.value for row in rows if row.version == week]
    assert found.value == pytest.approx(sum(own) / len(own))
    expected = spread(found.value, found.interval(), percent=True)
    assert numbers(played.table["thumbs up"][week - 1]) == pytest.approx(expected)
