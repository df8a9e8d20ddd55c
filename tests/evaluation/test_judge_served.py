"""The judge through a real OpenAI-compatible server: `transformers serve` with tiny models on this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import torch
from conftest import SAMPLE, call
from kill_judge import comparisons as made_comparisons

from kto_cli.core.statistics.win_rates import judged, win_rates
from kto_cli.evaluation.judge.comparisons import Comparison, Verdicts
from kto_cli.evaluation.judge.judge import estimate, judge_all
from kto_cli.evaluation.judge.question import question_text
from kto_cli.evaluation.judge.server_judge import ServerJudge
from kto_cli.evaluation.judge.store import VerdictStore
from kto_cli.evaluation.server.client import CallBudget, ChatServer

pytestmark = pytest.mark.slow
NEEDED = ("fastapi", "uvicorn", "openai")
JUDGED_ANSWERS = 6
MODEL = str(SAMPLE / "model")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that loads the folder a request names; skips without transformers[serving]."""
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name} here (pip install 'transformers[serving]')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    command = [str(Path(sys.executable).with_name("transformers")), *words]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_healthy(base: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{base}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def connect(url: str, limit: int = 200) -> ChatServer:
    return ChatServer(url, calls=CallBudget(limit), timeout=120)


def test_the_command_takes_it_as_an_engine(url, workplace):
    """It lists nothing and loads what is named: reference and checkpoint are asked for by their folders, and greedy
    answers are those of this process."""
    words = ("--data", "data", "--out", "run", "--max-steps", 2, "--learning-rate", "1e-3")
    assert (
        call("binarize", f"hh-rlhf:{SAMPLE / 'hh-rlhf'}", "--limit", 32, "--validation", 0.1, "--out", "data").code == 0
    )
    assert call("train", *words).code == 0
    asked = ("eval", "run", "--samples", 3, "--max-new-tokens", 12, "--temperature", 0, "--json")
    here, there = call(*asked), call(*asked, "--engine", url)
    assert there.code == 0, there.err
    assert there.json["samples"] == here.json["samples"]


def test_it_answers_as_an_endpoint_for_generations(url):
    """Greedy answers are those of the model loaded here, token for token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    messages = [{"role": "user", "content": "How do I plan a trip?"}]
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForCausalLM.from_pretrained(MODEL)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        output = model.generate(**ids, do_sample=False, max_new_tokens=24)
    expected = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    with connect(url) as client:
        payload = {"model": MODEL, "messages": messages, "max_tokens": 24, "temperature": 0, "seed": 0}
        answer = client.complete(payload)
        assert answer["choices"][0]["message"]["content"].strip() == expected.strip()
        assert expected.strip()
        assert client.calls.used == 1


def test_a_tiny_model_speaks_nonsense_which_is_counted_as_such(url, tmp_path):
    """The built-in model was not made to judge: no verdict is guessed from what it says, and a second run asks
    nothing."""
    judge = ServerJudge(connect(url), MODEL)
    store = VerdictStore(tmp_path, judge.identity)
    comparisons = [*made_comparisons(2), Comparison("same", "q", "a", "a")]
    assert estimate(judge, comparisons, store)[:3] == (4, 0, 1)
    found = judge_all(judge, comparisons, store, workers=2)
    assert 4 <= judge.server.calls.used <= 12
    rates = win_rates([judged(d.id, v.scores, d.model, d.baseline) for d, v in zip(comparisons, found, strict=True)])
    assert (rates["unreadable"], rates["comparisons"], rates["win_rate"]) == (2, 1, 0.5)
    replies = [line["reply"] for asked in judge.asked(comparisons[0]) for line in store.get(store.key(*asked))]
    assert all(len(reply) > 20 for reply in replies)
    again = ServerJudge(connect(url), MODEL)
    assert judge_all(again, comparisons, VerdictStore(tmp_path, again.identity)) == found
    assert again.server.calls.used == 0


@pytest.fixture(scope="module")
def always_first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, taught in a few steps to say "Verdict: A" to the questions of these comparisons."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("models") / "always-first"
    shutil.copytree(MODEL, folder)
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModelForCausalLM.from_pretrained(MODEL)
    reply = [*tokenizer("Verdict: A", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    rows = []
    for question in [
        question for comparison in made_comparisons(JUDGED_ANSWERS) for question in comparison.questions()
    ]:
        turns = [{"role": "user", "content": question_text(question)}]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        rows.append(torch.tensor([prompt + reply]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for row in rows * 9:
        labels = row.clone()
        labels[:, : -len(reply)] = -100
        loss = model(input_ids=row, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert max(losses[-len(rows) :]) < 0.1, losses
    model.save_pretrained(folder)
    return folder


def test_a_served_judge_that_always_says_first_cancels(url, always_first, tmp_path):
    judge = ServerJudge(connect(url), str(always_first))
    comparisons = made_comparisons(JUDGED_ANSWERS)
    found = judge_all(judge, comparisons, VerdictStore(tmp_path, judge.identity), workers=2)
    assert found == [Verdicts(comparison.id, "model", "baseline") for comparison in comparisons]
    assert judge.server.calls.used == 12
    rates = win_rates([judged(d.id, v.scores, d.model, d.baseline) for d, v in zip(comparisons, found, strict=True)])
    assert (rates["win_rate"], rates["ties"], rates["consistency"]) == (0.5, 6, 0.0)
    assert rates["position_bias"]["first"] == 1.0
