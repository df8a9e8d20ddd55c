"""report.html: all sections from a real run, one file that reaches for nothing, every outside text shown as text."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pyarrow
import pytest
import torch
from conftest import call, make_dataset, save_pico_llama, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from test_tasks import entry

from kto_cli.core.statistics.breakdown import by_class, row_values
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.win_rates import judged, win_rates
from kto_cli.evaluation.answers.records import Answer, Decoding
from kto_cli.evaluation.answers.statistics import describe
from kto_cli.evaluation.benchmarks.tasks import together
from kto_cli.evaluation.files import write_part
from kto_cli.evaluation.judge import win_rate
from kto_cli.evaluation.report import curves, figures
from kto_cli.evaluation.report.curves import MOST_POINTS, training_charts
from kto_cli.evaluation.report.differences import MOST_WORDS, word_differences
from kto_cli.evaluation.report.evidence import Evidence, gather
from kto_cli.evaluation.report.figures import BINS, calibration_chart, reward_chart
from kto_cli.evaluation.report.interval_chart import Measured, interval_chart
from kto_cli.evaluation.report.numbers import sections
from kto_cli.evaluation.report.page import render, write_report
from kto_cli.evaluation.report.saturation import odd_rows, saturation_grid

pytestmark = pytest.mark.charts

SECTIONS = (
    "verdict",
    "run",
    "data",
    "training",
    "rewards",
    "saturation",
    "validation",
    "answers",
    "win-rate",
    "benchmarks",
)
HOSTILE = [
    "<script>alert(1)</script>",
    "a </style> b",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "<!-- open",
    "&lt;b",
]
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Elements and the text outside of style sheets; refuses unbalanced ones."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def spaceless(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of six steps, evaluated; not to be changed (copy it)."""
    folder = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KTO_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        words = ["--data", make_dataset(folder, 20, validation=0.2), "--model", save_pico_llama(folder / "pico")]
        more = ["--batch-size", 8, "--epochs", 2, "--max-steps", 6, "--eval-every", 2, "--save-every", 2]
        trained = call("train", *words, *more, "--learning-rate", "1e-3", "--out", "run")
        assert trained.code == 0, trained.err
        seen = call("eval", "run", "--samples", 2, "--max-new-tokens", 8, "--json").json
        assert seen["report"] == "run/eval/report.html"
    return folder / "run"


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run / "eval/report.html").read_text(encoding="utf-8")


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """The same run, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def remade(run: Path) -> str:
    return write_report(run / "eval", run).read_text(encoding="utf-8")


# --- what is on it -----------------------------------------------------------------------------


def test_all_sections_are_there_with_the_numbers_of_the_files(run, page):
    found = Page(page)
    ids = [attributes["id"] for tag, attributes in found.elements if tag == "section"]
    assert ids == [*SECTIONS]
    metrics = json.loads((run / "eval/metrics.json").read_text())["metrics"]
    for name in ("auc", "margin", "z_ref_se", "auc_length_matched", "paired_accuracy"):
        assert f"{metrics[name]:.4g}" in found.text, name
    low, high = metrics["auc_interval"]
    assert f"{low:.4g} to {high:.4g}" in found.text
    stored = json.loads((run / "kto_config.json").read_text())
    for value in (stored["data"]["fingerprint"], stored["reference"]["fingerprint"], stored["versions"]["torch"]):
        assert value in found.text
    for said in ("kto train --config", "20 lines", "40 rows", "training 16 16 32"):
        assert said in found.text, said
    for sample in map(json.loads, (run / "eval/samples.jsonl").read_text().splitlines()):
        assert spaceless(sample["prompt"]) in spaceless(found.text)
        assert spaceless(sample["policy"]) in spaceless(found.text)


def test_every_chart_has_a_text_alternative_and_its_numbers(run, page):
    found = Page(page)
    drawings = [attributes for tag, attributes in found.elements if tag == "svg"]
    shown = sum(tag == "figure" for tag, _ in found.elements)
    metrics = json.loads((run / "eval/metrics.json").read_text())["metrics"]
    validation = ["rewards", "shares", *(["calibration"] if "calibration" in metrics else [])]
    assert len(drawings) == shown == 7 + len(validation), "seven curves, and those of validation rows"
    ids = Counter(attributes["id"] for _, attributes in found.elements if "id" in attributes)
    assert not [name for name, times in ids.items() if times > 1]
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert all(name in ids for name in drawing["aria-labelledby"].split())
    losses = [line["loss"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]
    (loss,) = [chart for chart in training_charts(gather(run / "eval", run)) if chart.title == "Loss"]
    assert [row[1] for row in loss.table.rows] == [f"{value:.4g}" for value in losses]
    assert f"training: from {losses[0]:.4g} at step 1 to {losses[-1]:.4g} at step 6" in loss.svg


def test_it_reaches_for_nothing_outside(page):
    found = Page(page)
    ids = {attributes.get("id") for _, attributes in found.elements}
    for tag, attributes in found.elements:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "video", "image"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "action", "data", "poster", "ping", "background"), name
            if name.endswith("href"):
                assert value.startswith("#")
                assert value[1:] in ids, value
            for target in re.findall(r"url\(([^)]*)\)", value or ""):
                assert target[:1] == "#"
                assert target[1:] in ids
    assert not re.search(r"https?:|//\w|@import|@font-face|javascript:", page, re.IGNORECASE)
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page, "a browser refuses what slips through"


def test_colours_follow_the_page(page):
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}", drawing), "no colour of its own: it would vanish in the dark"
        assert "<style" not in drawing, "it would hold for the whole page"
        assert "DejaVu" not in drawing
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_the_same_files_give_the_same_bytes(run, page, kto, monkeypatch):
    monkeypatch.chdir(run.parent)
    again = kto("eval", "run", "--report-only", "--json")
    assert again.json["report"] == "run/eval/report.html"
    assert (run / "eval/report.html").read_text(encoding="utf-8") == page


def test_without_results_there_is_nothing_to_report(kto, copied, monkeypatch):
    monkeypatch.chdir(copied.parent)
    shutil.rmtree(copied / "eval")
    ran = kto("eval", "run", "--report-only")
    assert ran.code == 1
    assert "There are no results in run/eval" in ran.err
    assert "kto eval run" in ran.err


def test_a_step_is_reported_with_the_steps_up_to_it(run, copied):
    out = copied / "eval/step-000004"
    shutil.copytree(run / "eval", out)
    evidence = gather(out, copied)
    assert [line["step"] for line in evidence.steps] == [1, 2, 3, 4]
    assert "eval/step-000004/metrics.json" in render(evidence)


@pytest.fixture
def undrawn(monkeypatch):
    """Charts without drawings, which take most of the time."""
    for module in (curves, figures):
        monkeypatch.setattr(module, "draw", lambda *words, **sizes: "<svg></svg>")


# --- hostile and missing parts -----------------------------------------------------------------


def without_seals(folder: Path) -> None:
    """The JSON files of a folder as an earlier kto wrote them, so that a test can change what they say."""
    for path in folder.glob("*.json"):
        value = json.loads(path.read_text())
        path.write_text(json.dumps({key: value[key] for key in value if key not in ("seal", "checksums")}))


def make_hostile(run: Path, data: Path) -> None:
    """Every file says something that HTML would act on."""
    without_seals(run / "eval")
    without_seals(data)
    samples = [{"id": text, "prompt": text, "reference": "x", "policy": text} for text in HOSTILE]
    (run / "eval/samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples), encoding="utf-8")
    results = json.loads((run / "eval/metrics.json").read_text())
    results["checkpoint"] = results["reference"]["name"] = HOSTILE[0]
    results["data"] = {"folder": str(data)}
    results["metrics"][HOSTILE[0]] = HOSTILE[1]
    results["metrics"]["by"] = {HOSTILE[0]: {HOSTILE[2]: 1}, HOSTILE[1]: {HOSTILE[2]: 2}}
    (run / "eval/metrics.json").write_text(json.dumps(results), encoding="utf-8")
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["rejected"] = {HOSTILE[0]: 1}
    manifest["findings"] = [{"severity": "warning", "summary": HOSTILE[0], "advice": HOSTILE[2]}]
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    rows = parquet.read_table(run / "eval/rows.parquet")
    origins = pyarrow.array([HOSTILE[0]] * rows.num_rows)
    rows = rows.set_column(rows.column_names.index("origin"), "origin", origins)
    parquet.write_table(rows, run / "eval/rows.parquet")


def test_hostile_texts_are_shown_as_text(run, copied, tmp_path):
    before = Counter(tag for tag, _ in Page(remade(copied)).elements)
    data = Path(shutil.copytree(run.parent / "set", tmp_path / "set"))
    make_hostile(copied, data)
    html = remade(copied)
    found = Page(html)
    after = Counter(tag for tag, _ in found.elements)
    for tag in ("script", "img", "style", "b"):
        assert after[tag] == before[tag], tag
    for text in HOSTILE:
        assert spaceless(text) in spaceless(found.text), text
    assert "<script" not in html.lower()
    assert html.count("</style>") == 1


def test_a_plain_model_folder_has_what_there_is(run, tmp_path):
    out = Path(shutil.copytree(run / "eval", tmp_path / "model/eval"))
    text = Page(write_report(out, None).read_text(encoding="utf-8")).text
    assert "belongs to no run" in text
    assert "there are no curves" in text
    assert "Validation rewards by class" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics.jsonl", "there are no curves"),
        ("kto_config.json", "belongs to no run"),
        ("eval/rows.parquet", "There is no rows.parquet"),
        ("eval/samples.jsonl", "No answers were sampled"),
        ("eval/metrics.json", "There is no metrics.json"),
    ],
)
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{", b"[1, 2]", b'{"step": "x"}\nnull\n[]\n{"prompt": 3}\n', None])
def test_what_is_missing_or_damaged_is_dropped_with_a_sentence(copied, undrawn, name, said, damage):
    (copied / name).unlink() if damage is None else (copied / name).write_bytes(damage)
    assert said in Page(remade(copied)).text


def test_an_audit_of_other_rows_is_not_shown(copied, undrawn, tmp_path):
    without_seals(copied / "eval")
    results = json.loads((copied / "eval/metrics.json").read_text())
    folder = results["data"]["folder"]
    assert "lines were read" in remade(copied)
    results["data"]["fingerprint"] = "another"
    (copied / "eval/metrics.json").write_text(json.dumps(results))
    assert f"{folder} was made again since" in Page(remade(copied)).text
    results["data"] = {"folder": str(tmp_path / "gone")}
    (copied / "eval/metrics.json").write_text(json.dumps(results))
    assert "is not there any more, so its audit is not shown" in Page(remade(copied)).text


def test_nothing_at_all_is_still_a_page():
    found = Page(render(Evidence("x", {})))
    assert [attributes["id"] for tag, attributes in found.elements if tag == "section"] == [*SECTIONS]
    assert not [tag for tag, _ in found.elements if tag == "svg"]


# --- its parts ---------------------------------------------------------------------------------


def test_saturation_is_shown_as_eval_computed_it():
    """beta 1, z_ref 0: a row is saturated from a log-ratio of about 5.99 on (4 sigmoid(u) sigmoid(-u) = 0.01)."""
    ratios = [6.1, 5.8, -7.0, 0.0, -6.1, 9.0, -1.0]
    labels = [True, True, True, True, False, False, False]
    scores = Scores(
        torch.tensor(ratios),
        torch.zeros(7),
        torch.tensor(labels),
        torch.ones(7, dtype=torch.int64),
        [*"abcdefg"],
        [None] * 7,
    )
    values = row_values(scores, z_ref=0.0, beta=1.0)
    names = numpy.array([f"row{index}" for index in range(7)])
    rows = {
        "id": names,
        "origin": names,
        "label": numpy.array(labels),
        "reward": values.rewards.numpy(),
        "gradient_weight": values.gradient_weights.numpy(),
        "right_side": (values.margins > 0).numpy(),
    }
    evidence = Evidence("x", {"metrics": {"by_class": by_class(scores, values)}}, rows=rows)
    table = saturation_grid(evidence)
    assert table is not None
    assert [[cell.partition(" (")[0] for cell in row] for row in table.rows] == [
        ["desirable", "4", "25.0%", "25.0%"],
        ["undesirable", "3", "33.3%", "33.3%"],
    ]
    odd = odd_rows(evidence)
    assert odd is not None
    assert [row[0] for row in odd.rows] == ["row2", "row5"], "none that agrees with its label or is undecided"


def test_the_histogram_counts_each_row_once():
    generator = numpy.random.default_rng(1)
    rewards, labels = generator.normal(size=300), generator.random(300) < 0.4
    rows = {"id": labels, "origin": labels, "label": labels, "log_ratio": rewards, "reward": rewards}
    chart = reward_chart(Evidence("x", {}, rows=rows))
    assert chart is not None
    assert len(chart.table.rows) == BINS
    width = (rewards.max() - rewards.min()) / BINS
    for column, of_class in ((1, labels), (2, ~labels)):
        bins = Counter(min(BINS - 1, int((value - rewards.min()) / width)) for value in rewards[of_class])
        shares = [f"{bins[index] / of_class.sum():.1%}" for index in range(BINS)]
        assert [row[column] for row in chart.table.rows] == shares


def test_calibration_is_drawn_from_its_bins():
    bins = [
        {"predicted": 0.25, "desirable": 0.5, "desirable_wilson": [0.4, 0.6], "rows": 7},
        {"predicted": 0.75, "desirable": 1.0, "rows": 3},
        {"predicted": None, "desirable": 0.5},
        "x",
    ]
    chart = calibration_chart(Evidence("x", {"metrics": {"calibration": {"bins": bins}}}))
    assert chart is not None
    assert chart.table.rows == [["0.25", "0.5", "0.4 to 0.6", "7"], ["0.75", "1", "", "3"]]
    assert "Implied 0.25, observed 0.5." in chart.svg
    assert calibration_chart(Evidence("x", {"metrics": {"calibration": {"bins": bins[1:]}}})) is None


def test_a_long_run_is_drawn_in_means():
    """9,999 steps: 200 points of 50, the last of 49."""
    steps = [{"step": step, "loss": math.sin(step / 500), "z_ref": None} for step in range(1, 10_000)]
    charts = training_charts(Evidence("x", {}, steps=steps))
    assert [chart.title for chart in charts] == ["Loss"], "of z_ref nothing is known"
    (chart,) = charts
    assert f"mean of {math.ceil(9999 / MOST_POINTS)} steps" in chart.caption
    assert len(chart.svg) < 20_000
    first = sum(line["loss"] for line in steps[:50]) / 50
    assert chart.table.rows[0] == ["25.5", f"{first:.4g}"]
    assert len(chart.table.rows) <= 41
    assert chart.table.rows[-1][0] == f"{sum(range(9951, 10_000)) / 49:g}"


WORDS = st.lists(st.sampled_from(["a", "b", "cc", "dd", " ", "\n", "  "]), max_size=30).map(" ".join)


@given(WORDS, WORDS)
@settings(max_examples=150, deadline=None)
def test_pieces_are_the_text_and_what_is_not_marked_is_shared(before, after):
    left, right = word_differences(before, after)
    assert "".join(piece.text for piece in left) == before
    assert "".join(piece.text for piece in right) == after
    kept = ["".join(piece.text for piece in side if not piece.differs).split() for side in (left, right)]
    assert kept[0] == kept[1]
    marked = any(piece.differs for piece in [*left, *right])
    assert marked == (before.split() != after.split())
    assert all(piece.text == piece.text.rstrip() for piece in [*left, *right] if piece.differs)


def test_one_word_that_is_shared_by_chance_is_no_island():
    left, right = word_differences("go on to you the end", "go on me that you keep the end")
    assert [piece.text for piece in left if piece.differs] == ["to you"]
    assert [piece.text for piece in right if piece.differs] == ["me that you keep"]


def test_answers_that_share_nothing_are_not_marked():
    samples = [{"prompt": "Tea?", "reference": "no", "policy": "yes please"}]
    html = render(Evidence("x", {}, samples=samples))
    assert "nothing in common" in html
    assert html.count("<del>") == html.count("<ins>") == 1, "those of the legend alone"


def test_texts_too_long_to_compare_are_shown_unmarked():
    long = "word " * (MOST_WORDS + 1)
    assert word_differences(long, "x") == ([(long, False)], [("x", False)])


def test_sections_of_any_kind_are_tables():
    metrics = {
        "auc": 0.75,
        "auc_interval": [0.7, 0.8],
        "wins": 3,
        "wins_interval": [0.3, 0.4],
        "wins_wilson": [0.1, 0.2],
        "share": 0.25,
        "share_wilson": [0.125, 0.5],
        "nothing": [],
        "per_source": {"one": {"auc": 0.5, "auc_interval": [0.4, 0.6]}, "two": {"auc": 0.9, "rows": 4}},
        "calibration": [{"from": 0.0, "share": 0.25}, {"from": 0.5, "share": math.nan}],
        "distance": {"mean": 1.5, "deep": {"er": {"still": 2}}},
        "movers": {"desirable": {"up": [{"row": 1}], "down": [{"row": 2}]}},
    }
    main, sources, calibration, distance, deep, up, down = sections(metrics, "metrics", "All")
    assert [(entry.key, entry.value, entry.interval) for entry in main.entries] == [
        ("metrics.auc", "0.75", "0.7 to 0.8"),
        ("metrics.wins", "3", "0.3 to 0.4"),
        ("metrics.share", "0.25", "Wilson 0.125 to 0.5"),
        ("metrics.nothing", "none", ""),
    ]
    assert sources.grids[0].columns == ["", "AUC", "rows"]
    assert sources.grids[0].rows == [["one", "0.5 (0.4 to 0.6)", "-"], ["two", "0.9", "4"]]
    assert calibration.grids[0].rows == [["0", "0.25"], ["0.5", "-"]]
    assert [entry.key for entry in distance.entries] == ["metrics.distance.mean"]
    assert deep.key == "metrics.distance.deep"
    assert deep.grids[0].rows == [["er", "2"]]
    assert (up.title, down.title) == ("Movers, desirable, up", "Movers, desirable, down")
    assert (up.grids[0].rows, down.grids[0].rows) == ([["1"]], [["2"]])


def test_of_a_long_list_the_first_rows_are_shown_and_the_rest_is_said():
    (section,) = sections({"movers": [{"row": index} for index in range(25)]}, "metrics", "All")
    assert [row[0] for row in section.grids[0].rows] == [str(index) for index in range(20)]
    assert section.grids[0].note == "The first 20 of 25; the file has all."
    (whole,) = sections({"movers": [{"row": index} for index in range(20)]}, "metrics", "All")
    assert len(whole.grids[0].rows) == 20
    assert whole.grids[0].note == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["auc", "auc_interval", "x", "x_wilson", "y"]), JSON))
@settings(max_examples=150, deadline=None)
def test_any_json_gives_tables_whose_rows_are_whole(value):
    for section in sections(value, "metrics", "All"):
        for grid in section.grids:
            assert all(len(row) == len(grid.columns) for row in grid.rows)
            assert len(grid.numeric) == len(grid.columns)


# --- all parts -----------------------------------------------------------------------------


def add_parts(run: Path, word: str) -> dict[str, dict[str, Any]]:
    """Every part there can be beside an evaluation, as `kto eval` makes it, with `word` wherever a name or an answer
    from outside may stand: an answer of another checkpoint, judge, benchmarks, the other checkpoint compared with."""
    out = run / "eval"
    without_seals(out)
    of = json.loads((out / "metrics.json").read_text())["of"]
    answers = {
        "reference": [Answer("It is so and it is so and it is so.", 9, False), Answer("No.", 2, True)],
        "policy": [Answer("Gladly, it is.", 4, True), Answer(word, 3, True)],
        word: [Answer(word, 5, True), Answer(f"{word} {word}", 8, False)],
    }
    samples = [
        {"id": f"row{place}", "prompt": f"{word}?", **{name: given[place].text for name, given in answers.items()}}
        for place in range(2)
    ]
    write_lines(out / "samples.jsonl", samples)
    scores = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (None, 1.0)]
    comparisons = [judged(f"{n}", score, "one two three" * (n + 1), "four five") for n, score in enumerate(scores)]
    facts = {"judge": word, "for": word, "model": word, "baseline": word, **win_rates(comparisons)}
    tasks = {"tasks": {word: entry([1.0, 0.0, 1.0, 1.0], subtasks={word: {"value": 0.5, "stderr": 0.1, "n": 4}})}}
    before = {"tasks": {word: entry([0.0] * 4)}}
    difference = {"first": 0.5, "second": 0.75, "difference": 0.25, "interval": [0.1, 0.4], "verdict": "second"}
    parts: dict[str, dict[str, Any]] = {
        "generations.json": describe(answers, Decoding(max_new_tokens=8), "auto"),
        "win_rate.json": {**facts, "sentence": win_rate.sentence(facts)},
        "benchmarks.json": {**together({**tasks, "lm_eval": word, "limit": None}, before)},
        "comparisons.json": {
            "comparisons": [
                {"first": word, "second": "run", "rows": 8, "differences": {"auc": difference, word: difference}}
            ]
        },
    }
    for name, content in parts.items():
        write_part(out, name, of, content)
    return parts


def test_all_parts_have_a_section_with_their_numbers(copied):
    """Of 4 readable comparisons 2 are won and 1 is a tie: 2.5 / 4."""
    parts = add_parts(copied, "Fern")
    found = Page(remade(copied))
    ids = [given["id"] for tag, given in found.elements if tag == "section"]
    assert ids == [*SECTIONS, "comparisons"]
    for said in (
        parts["win_rate.json"]["sentence"],
        parts["generations.json"]["sentence"],
        "62.5%",
        "how often its answer beats",
        "win_rate.json",
        "benchmarks.json",
        "comparisons.json",
        "generations.json",
        "is run better?",
        "+0.25",
    ):
        assert spaceless(said).lower() in spaceless(found.text).lower(), said
    assert parts["benchmarks.json"]["against_reference"]["Fern"]["difference"] == 0.75
    charts = [given for tag, given in found.elements if tag == "svg"]
    assert len(charts) == len([tag for tag, _ in Page(remade_without(copied)).elements if tag == "svg"]) + 2
    assert all(given.get("role") == "img" for given in charts)
    named = {given.get("aria-labelledby") for given in charts}
    assert len(named) == len(charts), "each has a text of its own"


@pytest.mark.parametrize("name", ["$x_{$", r"$\frac{$", "a\x00\x1b\nb", "x" * 300, "", " ", *HOSTILE])
@pytest.mark.filterwarnings("error::UserWarning")
def test_any_name_can_be_drawn(name):
    chart = interval_chart("n", "T", "d", [Measured(name, 0.1, [0, 0.2])], line=0, axis="a", source="s")
    assert chart is not None
    labels = ["".join(one.itertext()) for one in ElementTree.fromstring(clean(chart.svg)).iter("text")]
    seen = "".join(char for char in name if char.isprintable())
    assert spaceless(seen[:40]) in spaceless("".join(labels))
    assert chart.table.rows[0][0] == name


def clean(svg: str) -> str:
    """Without what HTML takes and XML does not."""
    return "".join(char for char in svg if char.isprintable() or char == "\n")


def remade_without(run: Path) -> str:
    """The page when the parts are of something else."""
    results = json.loads((run / "eval/metrics.json").read_text())
    (run / "eval/metrics.json").write_text(json.dumps(results | {"of": "another"}))
    html = remade(run)
    (run / "eval/metrics.json").write_text(json.dumps(results))
    assert "Fern" not in Page(html).text.partition("Win rate")[2].partition("On all validation rows")[0]
    return html


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_names_and_answers_in_all_parts_are_text(copied, undrawn, word):
    add_parts(copied, "Fern")
    before = Counter(tag for tag, _ in Page(remade(copied)).elements)
    add_parts(copied, word)
    html = remade(copied)
    found = Page(html)
    after = Counter(tag for tag, _ in found.elements)
    for tag in ("script", "img", "style", "b", "section", "table"):
        assert after[tag] == before[tag], tag
    assert spaceless(found.text).count(spaceless(word)) > 10
    assert "<script" not in html.lower()
    assert html.count("</style>") == 1


# --- a browser ---------------------------------------------------------------------------------


def chromium(*words: str) -> subprocess.CompletedProcess[str]:
    """Headless Chromium; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here")
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--allow-file-access-from-files",
    ]
    return subprocess.run([program, *flags, *words], capture_output=True, text=True, timeout=120)


def test_a_browser_takes_a_page_with_all_parts(copied):
    add_parts(copied, HOSTILE[0])
    remade(copied)
    ran = chromium("--dump-dom", (copied / "eval/report.html").as_uri())
    assert "CONSOLE" not in ran.stderr
    ids = [given.get("id") for tag, given in Page(ran.stdout).elements if tag == "section"]
    assert ids == [*SECTIONS, "comparisons"]


def test_a_browser_has_nothing_to_complain_about(run, copied, tmp_path):
    """Scripts and requests are refused by the page itself and then said on the console, so an empty one shows both."""
    make_hostile(copied, Path(shutil.copytree(run.parent / "set", tmp_path / "set")))
    remade(copied)
    ran = chromium("--dump-dom", (copied / "eval/report.html").as_uri())
    assert ran.returncode == 0
    assert "CONSOLE" not in ran.stderr
    found = Page(ran.stdout)
    assert "<script>alert(1)</script>" in found.text
    ids = [attributes.get("id") for tag, attributes in found.elements if tag == "section"]
    assert ids == [*SECTIONS]
    broken = tmp_path / "broken.html"
    broken.write_text(
        (copied / "eval/report.html").read_text().replace("<main>", "<main><img src='http://x.invalid/'>")
    )
    assert "CONSOLE" in chromium("--dump-dom", broken.as_uri()).stderr, "or this test sees nothing"


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("word", ["", "a-word-that-has-no-end" * 12], ids=["plain", "long"])
def test_nothing_is_wider_than_the_screen(copied, tmp_path, width, word):
    """In a frame of the screen's width (Chromium's own window has at least 500 pixels); also with all parts and names
    that cannot be broken between words."""
    if word:
        add_parts(copied, word)
        remade(copied)
    script = "document.title = `w${this.contentDocument.documentElement.scrollWidth}`"
    address = (copied / "eval/report.html").as_uri()
    frame = f"<iframe src='{address}' style='width:{width}px;border:0' onload='{script}'></iframe>"
    (tmp_path / "frame.html").write_text(f"<!doctype html><title></title>{frame}")
    ran = chromium("--dump-dom", "--virtual-time-budget=4000", (tmp_path / "frame.html").as_uri())
    (found,) = re.findall(r"<title>w(\d+)</title>", ran.stdout)
    assert int(found) <= width


def test_axes_of_a_run_that_has_not_moved_show_no_rounding():
    """Rewards of 1e-8 are 0, and a share starts at 0."""
    steps = [
        {
            "step": step,
            "loss": 0.5 + step * 1e-8,
            "reward_desirable": -1e-8 * step,
            "reward_undesirable": 1e-8,
            "margin": -2e-8,
            "saturated": 0.01 * step,
        }
        for step in range(1, 6)
    ]
    for chart in training_charts(Evidence("x", {}, steps=steps)):
        ticks = re.findall(r"<text[^>]*>([^<]*)</text>", chart.svg)
        assert ticks
        assert not [tick for tick in ticks if re.search(r"e[-−]|^[-−]\d+%", tick)], chart.title
