"""`kto eval`: its files lead back to the raw feedback, its numbers agree with each other, checkpoints are compared."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import call, error_line, pairs, write_lines

from kto_cli.core.statistics.auc import auc
from kto_cli.data.dataset import read_batches

DOWN = ("--lambda-d", 0.001, "--lambda-u", 1)
"""Weights that teach only what not to say."""
LOG = ("--desirable", "label == true", "--undesirable", "label == false")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Two files of pairs in one dataset: 40 rows, a part held out."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = pairs(20)
    write_lines(folder / "one.jsonl", rows[:12])
    csv = ["prompt,completion,label"]
    for row in rows[12:]:
        csv += [f'"{row["prompt"]}","{row["chosen"]}",true', f'"{row["prompt"]}","{row["rejected"]}",false']
    (folder / "two.csv").write_text("\n".join(csv) + "\n", encoding="utf-8")
    files = (folder / "one.jsonl", f"log:{folder / 'two.csv'}")
    ran = call("binarize", *files, *LOG, "--out", folder / "set", "--validation", 0.5)
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture(scope="module")
def runs(mixed, pico, tmp_path_factory) -> Path:
    """Two runs on it: a of 3 steps at a high learning rate, b of 1 step with another beta."""
    home = tmp_path_factory.mktemp("runs")
    for name, flags in (("a", ("--max-steps", 3, "--learning-rate", 0.01)), ("b", ("--max-steps", 1, "--beta", 0.2))):
        words = ("--data", mixed / "set", "--model", pico, "--batch-size", 8, "--out", home / name, *flags)
        assert call("train", *words).code == 0
    return home


@pytest.fixture
def run(runs, workplace) -> Path:
    shutil.copytree(runs, workplace / "runs")
    return workplace / "runs"


def test_rows_lead_back_to_the_raw_files(run, mixed):
    import pyarrow.parquet

    result = call("eval", run / "a", "--samples", 0, "--json").json
    rows = pyarrow.parquet.read_table(run / "a/eval/rows.parquet").to_pylist()
    texts = {row.id: row for part in read_batches(mixed / "set/validation.parquet") for row in part}
    assert len(rows) == result["rows"] == len(texts)
    assert {row["source"] for row in rows} == set(result["by_source"])
    assert len(result["by_source"]) == 2
    for row in rows:
        text = texts[row["id"]]
        name, line = row["origin"].rsplit(":", 1)
        raw = (mixed / name).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert text.completion[-1]["content"] in raw
        assert text.prompt[-1]["content"] in raw
        assert (row["label"], row["prompt_id"], row["pair_id"]) == (text.label, text.prompt_id, text.pair_id)
        sign, u = (1 if row["label"] else -1), row["reward"] - 0.1 * result["z_ref"]
        chance = 1 / (1 + math.exp(-u))
        assert row["reward"] == pytest.approx(0.1 * row["log_ratio"])
        assert row["probability"] == pytest.approx(chance)
        assert row["gradient_weight"] == pytest.approx(4 * chance * (1 - chance))
        assert row["saturated"] == (row["gradient_weight"] < 0.01)
        assert row["right_side"] == (sign * u > 0)
        assert row["prompt_tokens"] > 0 < row["completion_tokens"]


def test_metrics_are_those_of_the_rows(run):
    import pyarrow.parquet

    result = call("eval", run / "a", "--samples", 0, "--json").json
    stored = json.loads((run / "a/eval/metrics.json").read_text())
    assert stored["metrics"] == {name: result[name] for name in stored["metrics"]}
    rows = pyarrow.parquet.read_table(run / "a/eval/rows.parquet").to_pylist()
    for name, label in (("desirable", True), ("undesirable", False)):
        part = [row for row in rows if row["label"] == label]
        found = result["by_class"][name]
        assert found["rows"] == len(part) == result[name]
        assert found["reward"] == pytest.approx(result[f"reward_{name}"], abs=1e-6)
        assert found["accuracy"] == pytest.approx(sum(row["right_side"] for row in part) / len(part))
        moved = sorted(part, key=lambda row: row["log_ratio"])
        assert [row["id"] for row in result["biggest_movers"][name]["down"]] == [
            row["id"] for row in moved[:10] if row["log_ratio"] < 0
        ]
    for name, found in result["by_source"].items():
        part = [row for row in rows if row["source"] == name]
        area = auc(torch.tensor([row["reward"] for row in part]), torch.tensor([row["label"] for row in part]))
        assert found["auc"] == pytest.approx(area)
    wrong = [row for row in rows if row["saturated"] and not row["right_side"]]
    assert {row["id"] for row in result["likely_mislabelled"]} == {row["id"] for row in wrong}
    brier = sum((row["probability"] - row["label"]) ** 2 for row in rows) / len(rows)
    assert result["calibration"]["brier"] == pytest.approx(brier)
    mean = sum(row["mismatched_log_ratio"] for row in rows) / len(rows)
    assert result["kl"] == pytest.approx(mean, abs=1e-5)


def test_what_people_see(run):
    text = call("eval", run / "a", "--samples", 1).out
    for words in (
        "By class",
        "By source",
        "predicted P(desirable)",
        "Rows to look at",
        "one.jsonl:",
        "adjusted for length",
    ):
        assert words in text
    assert max(map(len, text.splitlines()[:-3])) <= 120


@pytest.mark.slow
def test_two_checkpoints_are_compared_on_the_same_rows(run, mixed):
    ran = call("eval", run / "a", run / "b", "--samples", 1, "--json")
    result = ran.json
    assert "beta 0.1" in ran.err
    assert "0.2" in ran.err
    alone = [call("eval", run / name, "--samples", 0, "--json").json for name in ("a", "b")]
    (found,) = result["comparisons"]
    assert (found["first"], found["second"]) == (str(run / "a"), str(run / "b"))
    assert found["rows"] == alone[0]["rows"]
    for name, one in found["differences"].items():
        assert one["first"] == pytest.approx(alone[0][name], abs=1e-6)
        assert one["second"] == pytest.approx(alone[1][name], abs=1e-6)
        assert one["difference"] == pytest.approx(alone[1][name] - alone[0][name], abs=1e-6)
        low, high = one["interval"]
        assert low <= high
    assert [one["checkpoint"] for one in result["checkpoints"]] == [str(run / "a"), str(run / "b")]
    assert all((run / name / "eval/rows.parquet").is_file() for name in ("a", "b")), "each in its own folder"


@pytest.mark.slow
def test_a_step_against_its_run_and_a_third_as_people_see_it(run):
    step = sorted((run / "a/steps").iterdir())[0]
    ran = call("eval", step, run / "a", run / "b", "--samples", 1)
    assert ran.code == 0, ran.err
    folded = " ".join(ran.out.split())
    assert folded.count("better than") == 2
    assert "answered by all" in folded
    assert ran.out.count("Written to") == 3
    assert (run / "a/eval" / step.name / "metrics.json").is_file()


def test_comparing_one_with_itself_or_with_what_is_no_checkpoint_is_refused_before_any_work(run):
    twice = call("eval", run / "a", run / "a", "--json")
    assert "named twice" in error_line(twice)
    missing = call("eval", run / "a", run / "nothing", "--json")
    assert missing.code == 1
    assert "nothing" in missing.err
    assert not (run / "a/eval").exists()


@pytest.mark.slow
def test_a_run_on_other_data_is_compared_on_the_rows_of_the_first_and_it_is_said(run, pico_data, pico, workplace):
    words = ("--data", pico_data, "--model", pico, "--batch-size", 8, "--max-steps", 1, "--out", "other")
    assert call("train", *words).code == 0
    ran = call("eval", run / "a", "other", "--samples", 0, "--json")
    assert "other was trained on" in ran.err
    rows = {one["rows"] for one in ran.json["checkpoints"]}
    assert rows == {ran.json["comparisons"][0]["rows"]}


def test_each_file_of_weights_is_hashed_once(run, monkeypatch):
    """Of an 8B model that is 16 GB: the checkpoints' and the reference's, also where two checkpoints share it."""
    from kto_cli.common import files

    hashed: list[str] = []
    real = files.file_sha256
    monkeypatch.setattr(files, "file_sha256", lambda path: hashed.append(str(path)) or real(path))
    files._sha256_of.cache_clear()
    call("eval", run / "a", run / "b", "--samples", 0, "--json")
    weights = [path for path in hashed if path.endswith(".safetensors")]
    assert len(weights) == len(set(weights)) == 3, weights


# --- the verdict --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "rate", "steps", "flags"),
    [
        ("barely moved", 1e-6, 1, ()),
        ("learned", 0.01, 3, ("--beta", 0.02)),
        ("drifted", 0.03, 3, DOWN),
        ("collapsed", 0.1, 12, DOWN),
    ],
)
def test_train_eval_and_report_give_the_same_verdict(mixed, pico, workplace, word, rate, steps, flags):
    """Word, sentence and warnings, and every number, on the same rows."""
    words = ("--data", mixed / "set", "--model", pico, "--batch-size", 8, "--max-steps", steps, "--epochs", 5)
    trained = call("train", *words, "--learning-rate", rate, *flags, "--out", "run", "--json").json
    assert trained["verdict"] == word
    evaluated = call("eval", "run", "--samples", 0, "--json").json
    for key in ("verdict", "sentence", "warnings"):
        assert evaluated[key] == trained[key]
    page = html.unescape((workplace / "run/eval/report.html").read_text(encoding="utf-8"))
    reason = trained["sentence"].split(": ", 1)[1]
    assert reason[:1].upper() + reason[1:] in page
    assert trained["sentence"] in (workplace / "run/README.md").read_text(encoding="utf-8")
    assert all(warning in page for warning in trained["warnings"])
    for key, value in trained["validation"].items():
        assert evaluated[key] == pytest.approx(value, nan_ok=True, abs=1e-5), key


def test_a_broken_model_is_warned_about_without_its_curves(mixed, pico, workplace):
    """A model folder that belongs to no run: rewards of both classes fell, says `kto eval` from the rows alone."""
    words = ("--data", mixed / "set", "--model", pico, "--batch-size", 8, "--max-steps", 3, *DOWN)
    trained = call("train", *words, "--learning-rate", 0.1, "--out", "run", "--json").json
    assert trained["verdict"] == "collapsed"
    shutil.copytree(workplace / "run", workplace / "model", ignore=shutil.ignore_patterns("kto_config.json", "steps"))
    ran = call("eval", "model", "--data", mixed / "set", "--reference", pico, "--samples", 0)
    assert trained["sentence"] in ran.out
    assert "both classes fell" in ran.err


def test_curves_of_a_run_say_nothing_of_other_rows(run, mixed, workplace):
    """Its own rows: overfit, as its metrics.jsonl has it. Rows of another dataset: not."""
    lines = [json.loads(line) for line in (run / "a/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line, area in zip(lines, (0.95, 0.9, 0.5), strict=True):
        del line["seal"]  # as an earlier kto wrote it
        line["validation"] = {**lines[-1]["validation"], "auc": area, "auc_interval": [area - 0.02, area + 0.02]}
    (run / "a/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    own = call("eval", run / "a", "--samples", 0, "--json").json
    write_lines(workplace / "other.jsonl", pairs(30))
    assert call("binarize", "other.jsonl", "--out", "other", "--validation", 0.5).code == 0
    other = call("eval", run / "a", "--data", "other", "--samples", 0, "--json").json
    assert (own["verdict"], other["verdict"]) == ("overfit", "learned")


def test_validation_rows_of_one_class_show_no_nan(pico, workplace):
    """On the screen, in the warnings and on the card: a dash, or nothing."""
    rows = [{"prompt": f"What is {n} + {n}?", "completion": f"It is {2 * n}.", "label": n % 2 == 0} for n in range(30)]
    write_lines(workplace / "log.jsonl", rows)
    for seed in range(20):  # until both validation rows are of one class
        words = ("--out", f"set{seed}", "--validation", 0.07, "--seed", seed)
        made = call("binarize", "log.jsonl", *words, "--json").json
        if len({row.label for part in read_batches(Path(f"set{seed}/validation.parquet")) for row in part}) == 1:
            break
    assert made["rows_in"] == 30
    words = ("--data", f"set{seed}", "--model", pico, "--max-steps", 2, "--learning-rate", 0.1, *DOWN)
    outputs = [call("train", *words, "--out", "run", "--no-curves"), call("eval", "run", "--samples", 0)]
    for ran in outputs:
        assert ran.code == 0, ran.err
        assert not re.search(r"\bnan\b|- to -", ran.out + ran.err), ran.out + ran.err
    for name in ("README.md", "eval/report.html"):
        assert not re.search(r"\bnan\b|- to -", (workplace / "run" / name).read_text(encoding="utf-8")), name
