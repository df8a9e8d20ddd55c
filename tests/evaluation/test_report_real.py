"""The report of a run over real feedback with a real small model, in a browser."""

from __future__ import annotations

import json

import pytest
from conftest import call
from judge_server import saying, serving
from shared import shared
from test_report import SECTIONS, Page, chromium, spaceless

pytestmark = pytest.mark.charts

HOSTILE = 'Sure. <script>alert(1)</script> & "more"'


@pytest.mark.slow
def test_a_run_over_real_feedback_has_its_whole_report_in_a_browser(workplace):
    """hh-rlhf and cardputer-chat-3m: trained, answered, judged in a real run; a file of answers stands against it, and
    every one of its answers is a script."""
    raw, model = shared("data", "hh-rlhf"), shared("data", "models", "cardputer-chat-3m")
    chromium("--version")  # skips before the work where there is none
    assert call("binarize", f"hh-rlhf:{raw}", "--limit", 32, "--validation", 0.008, "--out", "data").code == 0
    words = ("--data", "data", "--model", model, "--batch-size", 16, "--max-length", 128)
    trained = call("train", *words, "--learning-rate", "1e-4", "--eval-every", 2, "--out", "run")
    assert trained.code == 0, trained.err
    first = call("eval", "run", "--samples", 6, "--max-new-tokens", 24, "--json")
    assert first.code == 0, first.err
    prompts = [sample["prompt"] for sample in first.json["samples"]]
    answers = [{"instruction": prompt, "output": HOSTILE, "generator": "<b>other</b>"} for prompt in prompts]
    (workplace / "other.json").write_text(json.dumps(answers), encoding="utf-8")
    with serving(saying("Verdict: A")) as server:
        judge = ("--judge-url", server.url, "--judge-model", "<i>judge</i>", "--against", "other.json")
        seen = call("eval", "run", "--samples", 6, "--max-new-tokens", 24, *judge)
    assert seen.code == 0, seen.err
    ran = chromium("--dump-dom", (workplace / "run/eval/report.html").as_uri())
    assert ran.returncode == 0
    assert "CONSOLE" not in ran.stderr  # the page refuses scripts and requests, and Chromium says there what it refused
    page = Page(ran.stdout)
    assert [given.get("id") for tag, given in page.elements if tag == "section"] == [*SECTIONS]
    assert not [tag for tag, given in page.elements if tag in ("script", "i", "b", "link", "iframe")]
    text = spaceless(page.text)
    samples = [json.loads(line) for line in (workplace / "run/eval/samples.jsonl").read_text().splitlines()]
    assert len(samples) == 6
    for sample in samples:
        for name in ("prompt", "reference", "policy", "target"):
            assert spaceless(sample[name]) in text, name
        assert sample["<b>other</b>"] == HOSTILE
    assert text.count(spaceless(HOSTILE)) >= len(samples), "each as text, beside the others"
    found = json.loads((workplace / "run/eval/win_rate.json").read_text())
    assert found["win_rate"] == 0.5
    assert found["ties"] == found["comparisons"] == 6
    for said in ("50.0%", "<b>other</b>", "<i>judge</i>", "harmless-base_test.jsonl.gz", "z_ref"):
        assert spaceless(said) in text, said
