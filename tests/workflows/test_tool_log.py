"""A tool-calling log from file to report: binarize, precompute, train and eval with a template that reads tools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import call, save_pico_llama
from tool_styles import STYLES

from kto_cli.data.dataset import load_data_dir
from kto_cli.data.texts import tools_of

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": {}}}]


def log(path: Path) -> None:
    """Thumbs on calls, right and wrong, and on answers to their results."""
    rows = []
    for number in range(12):
        for good in (True, False):
            arguments = json.dumps({"city": f"City {number}" if good else "?"})
            calls = [{"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
            called = {"role": "assistant", "content": None, "tool_calls": calls}
            asked = {"role": "user", "content": f"Weather in City {number}?"}
            result = {"role": "tool", "tool_call_id": "abcdefghi", "content": f"{number} degrees"}
            answer = {"role": "assistant", "content": f"It is {number} degrees." if good else "Who knows."}
            thumb = "up" if good else "down"
            rows.append({"tools": TOOLS, "messages": [asked, called], "thumb": thumb})
            rows.append({"tools": TOOLS, "messages": [asked, called, result, answer], "thumb": thumb})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_a_log_of_calls_of_tools_from_file_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    log(tmp_path / "log.jsonl")
    (tmp_path / "tools.jinja").write_text(STYLES["hermes"].template)
    rules = ["--desirable", 'thumb == "up"', "--undesirable", 'thumb == "down"']
    made = call("binarize", "log:log.jsonl", *rules, "--validation", "0.3", "--out", "data/log", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["rejected"] == {}
    assert "tools from tools" in made.err
    assert all(tools_of(row.prompt) for row in load_data_dir(Path("data/log")).validation)
    pico = save_pico_llama(tmp_path / "pico", context=1024)
    model = ["--model", pico, "--data", "data/log", "--chat-template", "tools.jinja", "--max-length", "1000"]
    trained = call("train", *model, "--out", "run", "--max-steps", "2", "--batch-size", "8", "--json")
    assert trained.code == 0, trained.err
    assert "leaves" not in trained.err
    seen = call("eval", "run", "--samples", "4", "--max-new-tokens", "4", "--json")
    assert seen.code == 0, seen.err
    samples = [json.loads(line) for line in (tmp_path / "run/eval/samples.jsonl").read_text().splitlines()]
    targets = [sample["target"] for sample in samples]
    assert any('<tool_call>\n{"name": "weather", "arguments": {"city": "City' in target for target in targets)
    behind = [sample["prompt"] for sample in samples if sample["target"].startswith("It is")]
    assert all(prompt.startswith("Weather in City") and "degrees" in prompt for prompt in behind)
    report = (tmp_path / "run/eval/report.html").read_text(encoding="utf-8")
    assert "&lt;tool_call&gt;" in report
    assert "City" in report.split("&lt;tool_call&gt;", 1)[1][:200]
