"""`kto train --loss csft`, its saved model and its evaluation: which texts each number was computed with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from conftest import call, make_dataset, write_lines
from test_losses_invariance import cut_after
from transformers import AutoModelForCausalLM, AutoTokenizer

GOOD, BAD = "<|good|>", "<|bad|>"
FAST = ["--cache", "cache", "--learning-rate", 1e-2, "--batch-size", 8]
EVAL = ["--cache", "cache", "--samples", 2, "--max-new-tokens", 6, "--temperature", 0]


def train(*words: object) -> Any:
    done = call("train", *words, *FAST)
    assert done.code == 0, done.err
    return done


def evaluate(run: str, *words: object) -> dict[str, Any]:
    done = call("eval", run, *EVAL, *words)
    assert done.code == 0, done.err
    return json.loads(Path(run, "eval/metrics.json").read_text())["metrics"]


def asked(tokenizer: Any, prompt: list[dict[str, str]]) -> str:
    return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)


def logp(folder: object, prompt: str, completion: str) -> float:
    """Of an answer and its end, behind a rendered prompt, by transformers alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = [*before, *tokenizer(completion + tokenizer.eos_token, add_special_tokens=False).input_ids]
    with torch.no_grad():
        every = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(every[at - 1, ids[at]].item() for at in range(len(before), len(ids)))


def of_answer(message: Any) -> str:
    return message if isinstance(message, str) else message[0]["content"]


def validation_rows(data: object) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(Path(str(data)) / "validation.parquet").to_pylist()


@pytest.fixture(scope="module")
def finished(pico, pico_data, tmp_path_factory):
    """A run, its evaluation, and what was printed; not to be changed."""
    folder = tmp_path_factory.mktemp("csft")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--data", pico_data, "--model", pico, "--max-steps", 3, "--out", "run", "--loss", "csft"]
        said = train(*words).err
        metrics = evaluate("run")
        yield folder / "run", " ".join(said.split()), metrics


def test_the_rows_are_scored_as_said(finished, pico, pico_data):
    """log-ratios: the policy behind the good text whatever the label, the reference without; the loss: each row behind
    the text of its class, over all tokens."""
    run, said, metrics = finished
    assert f"prompts end with '{GOOD}' (desirable rows) or '{BAD}' (undesirable rows)" in said
    plain = AutoTokenizer.from_pretrained(pico)
    found = {row["id"]: row for row in pyarrow.parquet.read_table(run / "eval/rows.parquet").to_pylist()}
    total = tokens = 0.0
    for row in validation_rows(pico_data):
        prompt, answer = asked(plain, row["prompt"]), of_answer(row["completion"])
        ratio = logp(run, prompt + GOOD, answer) - logp(pico, prompt, answer)
        assert found[row["id"]]["log_ratio"] == pytest.approx(ratio, abs=1e-3)
        total -= logp(run, prompt + (GOOD if row["label"] else BAD), answer)
        tokens += found[row["id"]]["completion_tokens"]
    assert metrics["loss"] == pytest.approx(total / tokens, abs=1e-4)


def test_the_saved_template_asks_with_the_good_text(finished, pico):
    """So do answers: those of the model behind what its own tokenizer renders; the reference is asked as ever."""
    run, _, _ = finished
    for folder, text in ((run, GOOD), (pico, "")):
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
        samples = [json.loads(line) for line in (run / "eval/samples.jsonl").read_text().splitlines()]
        for sample in samples:
            prompt = asked(tokenizer, [{"role": "user", "content": sample["prompt"]}])
            assert prompt.endswith("<|assistant|>" + text)
            ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
            answer = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
            name = "policy" if text else "reference"
            assert sample[name] == tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_each_row_is_trained_behind_the_text_of_its_class(pico, pico_data, workplace):
    """The first step over all rows has the start model's likelihood of them, over all tokens."""
    words = ["--data", pico_data, "--model", pico, "--max-steps", 1, "--loss", "csft", "--out", "run"]
    assert call("train", *words, "--cache", "cache", "--batch-size", 32).code == 0
    (line,) = (json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines())
    plain, tokens, total = AutoTokenizer.from_pretrained(pico), 0, 0.0
    for row in pyarrow.parquet.read_table(pico_data / "train.parquet").to_pylist():
        answer = of_answer(row["completion"])
        total -= logp(pico, asked(plain, row["prompt"]) + (GOOD if row["label"] else BAD), answer)
        tokens += len(plain(answer + plain.eos_token, add_special_tokens=False).input_ids)
    assert line["loss"] == pytest.approx(total / tokens, abs=1e-5)


def test_it_is_compared_with_other_losses_and_takes_another_reference(finished, pico, pico_data, workplace):
    run, _, _ = finished
    train("--data", pico_data, "--model", pico, "--max-steps", 1, "--out", "kto")
    done = call("eval", run, "kto", *EVAL)
    assert done.code == 0, done.err
    train("--data", pico_data, "--model", "kto", "--reference", pico, "--max-steps", 1, "--loss", "csft", "--out", "b")
    assert "kl_at_start" in json.loads(Path("b/metrics.jsonl").read_text().splitlines()[0])
    assert evaluate("b")["rows"] == 8


def test_rows_of_training_start_at_their_reference(finished):
    """Both are read behind the row's own text there; a margin is not defined."""
    run, _, _ = finished
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["noise_floor"] < 1e-3
    assert "margin" not in first
    assert first["validation"]["margin"] is not None


@pytest.mark.parametrize("given_template", [False, True], ids=["the model's template", "a given template"])
def test_texts_and_template_of_ones_own(given_template, pico, pico_data, workplace):
    """Also where the template is a file, of which the run keeps a copy that writes the text: it is not written twice,
    neither when the run is resumed nor when it is evaluated."""
    words = ["--data", pico_data, "--model", pico, "--max-steps", 3, "--save-every", 1, "--loss", "csft"]
    words += ["--control-good", " Good: ", "--control-bad", ' "Bad":\n']
    if given_template:
        Path("own.jinja").write_text((pico / "chat_template.jinja").read_text() + "\n")
        words += ["--chat-template", "own.jinja"]
    train(*words, "--out", "run")
    metrics = evaluate("run")
    tokenizer = AutoTokenizer.from_pretrained("run")
    assert asked(tokenizer, [{"role": "user", "content": "Hm?"}]).endswith("<|assistant|> Good: ")
    rows = validation_rows(pico_data)
    found = {row["id"]: row for row in pyarrow.parquet.read_table("run/eval/rows.parquet").to_pylist()}
    prompt, answer = asked(AutoTokenizer.from_pretrained(pico), rows[0]["prompt"]), of_answer(
        rows[0]["completion"]
    )  # fmt: skip
    ratio = logp("run", prompt + " Good: ", answer) - logp(pico, prompt, answer)
    assert found[rows[0]["id"]]["log_ratio"] == pytest.approx(ratio, abs=1e-3)
    assert evaluate("run", "--chat-template", "run/chat_template.jinja")["auc"] == metrics["auc"]


@pytest.mark.slow
def test_a_run_with_a_given_template_resumes(pico, pico_data, workplace):
    """The file may be gone: the run's own copy is the template as given, to the last byte, until it is finished."""
    Path("own.jinja").write_text((pico / "chat_template.jinja").read_text() + "\n")
    words = ["train", "--data", pico_data, "--model", pico, "--loss", "csft", "--chat-template", "own.jinja"]
    words += ["--max-steps", 3, "--save-every", 1, "--batch-size", 8, "--cache", "cache"]
    assert call(*words, "--out", "whole").code == 0
    cut_after(words, Path("cut"), steps=1)
    Path("own.jinja").unlink()
    resumed = call("train", "--resume", "--out", "cut")
    assert resumed.code == 0, resumed.err
    for name in ("model.safetensors", "chat_template.jinja"):
        assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()
    assert evaluate("cut")["loss"] == evaluate("whole")["loss"]


def test_a_run_on_top_of_it_asks_with_the_text_once(finished, pico_data, workplace):
    """KTO: policy and reference are asked as the model is served. CSFT with other texts puts its own in their place."""
    run, _, _ = finished
    train("--data", pico_data, "--model", run, "--max-steps", 1, "--out", "kto")
    assert json.loads(Path("kto/metrics.jsonl").read_text().splitlines()[0])["noise_floor"] < 1e-3
    template = (run / "chat_template.jinja").read_text()
    assert Path("kto/chat_template.jinja").read_text() == template
    words = ["--control-good", "<|yes|>", "--control-bad", "<|no|>"]
    train("--data", pico_data, "--model", run, "--max-steps", 1, "--out", "again", "--loss", "csft", *words)
    assert Path("again/chat_template.jinja").read_text() == template.replace(GOOD, "<|yes|>")
    rows = validation_rows(pico_data)
    evaluate("again")
    found = {row["id"]: row for row in pyarrow.parquet.read_table("again/eval/rows.parquet").to_pylist()}
    served, before = (asked(AutoTokenizer.from_pretrained(at), rows[0]["prompt"]) for at in ("again", run))
    answer = of_answer(rows[0]["completion"])
    ratio = logp("again", served, answer) - logp(run, before, answer)
    assert found[rows[0]["id"]]["log_ratio"] == pytest.approx(ratio, abs=1e-3)


def test_adapters_keep_the_texts(pico, pico_data, workplace):
    train("--data", pico_data, "--model", pico, "--max-steps", 1, "--out", "run", "--loss", "csft", "--lora-r", 2)
    assert GOOD in Path("run/chat_template.jinja").read_text()
    assert evaluate("run")["rows"] == 8


def test_completions_that_are_cut_are_cut_alike(pico, workplace):
    """Behind a longer prompt less of a completion fits: the reference's is cut at the same token, so no row is lost."""
    data = make_dataset(Path.cwd(), 20, validation=0.2)
    words = ["--data", data, "--model", pico, "--max-steps", 1, "--max-length", 40, "--loss", "csft", "--out", "run"]
    said = " ".join(train(*words).err.split())
    assert "cut" in said or "truncated" in said, said
    assert "less of the completion fits" not in said
    assert "1 of 8 validation rows dropped: the prompt leaves no room" in said
    assert evaluate("run")["rows"] == 7


def test_a_special_token_is_no_control_text(given, workplace):
    token = AutoTokenizer.from_pretrained(given[3]).eos_token
    done = call("train", *given, "--loss", "csft", "--control-bad", f"Bad {token}")
    assert done.code == 2
    assert f"--control-bad Bad {token} holds {token}, a special token" in " ".join(done.err.split())
    assert not Path("checkpoint/config.json").exists()


def test_dry_run(given, workplace):
    done = call("train", *given, "--loss", "csft", "--dry-run", "--cache", "cache")
    assert done.code == 0, done.err


def test_plain_text_prompts_have_the_texts_too(pico, workplace):
    rows = [{"prompt": f"Story {n}:", "completion": f" it was {n}.", "label": n % 2 == 0} for n in range(24)]
    write_lines(Path("rows.jsonl"), rows)
    assert call("binarize", "rows.jsonl", "--out", "data", "--validation", 0.3).code == 0
    held = json.loads(Path("data/manifest.json").read_text())["validation"]
    assert held > 1
    train("--data", "data", "--model", pico, "--max-steps", 1, "--out", "run", "--loss", "csft")
    assert evaluate("run")["rows"] == held
