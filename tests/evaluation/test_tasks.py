"""Benchmarks through lm-eval: the right task and shots, its numbers against naive ones, nothing asked or run twice."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, SAMPLE, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from test_imports import run_python

from kto_cli.common.errors import BadInput
from kto_cli.core.statistics.intervals import wilson
from kto_cli.core.statistics.shares import NORMAL
from kto_cli.evaluation.benchmarks import plan as planning
from kto_cli.evaluation.benchmarks import quiet, run
from kto_cli.evaluation.benchmarks.compare import compare_tasks, paired_interval
from kto_cli.evaluation.benchmarks.loading import load_task
from kto_cli.evaluation.benchmarks.plan import PAPER, plan_tasks
from kto_cli.evaluation.benchmarks.results import interval, read_results
from kto_cli.evaluation.benchmarks.run import BenchmarkModel, BenchmarkSettings, run_tasks
from kto_cli.model.load import load_model, load_tokenizer

COLOURS = ["red", "dark green", "blue and white"]
CHOICE = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
output_type: multiple_choice
test_split: test
fewshot_split: train
fewshot_config: {{sampler: first_n}}
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0}}
"""
WORDS = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["zzzz"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


pytestmark = pytest.mark.extra


@pytest.fixture(autouse=True)
def _lm_eval() -> None:
    pytest.importorskip("lm_eval")


@pytest.fixture
def few(monkeypatch) -> None:
    """lm-eval's index of the paper's benchmarks alone: that of all takes 6 s to read."""
    import lm_eval.tasks

    home, whole = Path(lm_eval.tasks.__file__).parent, lm_eval.tasks.TaskManager

    def some(include_path: Any = None, include_defaults: bool = True) -> Any:
        folders = [home / name for name in ("gsm8k", "humaneval", "bbh", "mmlu/default")] if include_defaults else []
        return whole(include_path=[*folders, *([include_path] if include_path else [])], include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", some)


@pytest.fixture
def subject(pico) -> BenchmarkModel:
    """A model that answers at random, with a chat template."""
    return BenchmarkModel(
        "pico", load_model(pico), load_tokenizer(pico, chat_template=None, trust_remote_code=False)[0], True
    )


def test_no_sequence_is_as_long_as_to_change_those_beside_it(subject):
    """A model with longrope rotates the positions of a whole batch differently beyond its original context."""
    assert run._wrapped(subject, BenchmarkSettings()).max_length == 256
    subject.model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    assert run._wrapped(subject, BenchmarkSettings()).max_length == 64


def test_questions_are_rendered_with_the_arguments_of_the_template(subject):
    subject.tokenizer.chat_template += "{% if not thinking | default(true) %}no thoughts{% endif %}"
    chat = [{"role": "user", "content": "Why?"}]
    for kwargs, end in (({"thinking": False}, "<|assistant|>no thoughts"), ({}, "<|assistant|>")):
        asked = subject._replace(template_kwargs=kwargs)
        assert run._wrapped(asked, BenchmarkSettings()).apply_chat_template(chat).endswith(end)


def plainly(subject: BenchmarkModel) -> BenchmarkModel:
    return subject._replace(own_template=False)


def questions(count: int) -> list[dict[str, Any]]:
    things = ("fern", "old kettle", "bicycle", "parrot that sings", "map")
    return [
        {"question": f"What colour is {things[n % 5]} {n}?", "choices": COLOURS, "answer": (n * n + n // 3) % 3}
        for n in range(count)
    ]


def choice_task(folder: Path, name: str = "colours", count: int = 24) -> Path:
    folder.mkdir(exist_ok=True)
    data = write_lines(folder / f"{name}.jsonl", questions(count))
    (folder / f"{name}.yaml").write_text(CHOICE.format(name=name, data=data))
    return folder


def word_task(folder: Path, answers: list[str], name: str = "words") -> Path:
    folder.mkdir(exist_ok=True)
    rows = [
        {"question": row["question"], "answer": answer} for row, answer in zip(questions(99), answers, strict=False)
    ]
    data = write_lines(folder / f"{name}.jsonl", rows)
    (folder / f"{name}.yaml").write_text(WORDS.format(name=name, data=data))
    return folder


def ran(folder: Path, subject: BenchmarkModel, *names: str, **options: Any) -> dict[str, Any]:
    keys = {key: options.pop(key) for key in ("limit", "batch_size", "seed") if key in options}
    return run_tasks(plan_tasks(names, folder=folder), subject, BenchmarkSettings(**keys), **options)


# --- naive answers -----------------------------------------------------------------------------


def prompt_of(subject: BenchmarkModel, question: str, shots: list[tuple[str, str]] = []) -> str:  # noqa: B006
    """What the model reads before it answers."""
    if not subject.own_template:
        return "".join(f"{asked} {answered}\n\n" for asked, answered in shots) + question
    turns = [turn for asked, answered in shots for turn in (("user", asked), ("assistant", answered))]
    chat = [{"role": role, "content": text} for role, text in [*turns, ("user", question)]]
    return subject.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def ids_of(subject: BenchmarkModel, text: str) -> list[int]:
    """A chat template writes the first token itself; plain text gets what the tokenizer puts before it."""
    return subject.tokenizer(text, add_special_tokens=not subject.own_template).input_ids


def naive_choice(subject: BenchmarkModel, question: str, shots: list[tuple[str, str]] = []) -> int:  # noqa: B006
    """The completion with the highest summed log-prob, one sequence at a time."""
    prompt, gap, sums = prompt_of(subject, question, shots), "" if subject.own_template else " ", []
    for choice in COLOURS:
        start, ids = len(ids_of(subject, prompt)), ids_of(subject, prompt + gap + choice)
        with torch.no_grad():
            logps = subject.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        sums.append(sum(logps[place - 1, ids[place]].item() for place in range(start, len(ids))))
    return sums.index(max(sums))


def naive_answer(subject: BenchmarkModel, question: str) -> str:
    ids = torch.tensor([ids_of(subject, prompt_of(subject, question))])
    with torch.no_grad():
        output = subject.model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=0)
    return subject.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("template", [True, False], ids=["chat", "plain"])
def test_multiple_choice_is_that_of_the_models_own_log_probs(tmp_path, subject, template):
    subject = subject._replace(own_template=template)
    result = ran(choice_task(tmp_path / "own"), subject, "colours")["tasks"]["colours"]
    right = [float(naive_choice(subject, row["question"]) == row["answer"]) for row in questions(24)]
    assert 0 < sum(right) < 24
    assert result["documents"]["colours"]["values"] == right
    assert result["value"] == pytest.approx(sum(right) / 24)
    assert result["interval"] == wilson(sum(right), 24)
    assert result["stderr"] == pytest.approx(math.sqrt(result["value"] * (1 - result["value"]) / 23))
    told = {
        key: result[key] for key in ("lm_eval_name", "shots", "metric", "n", "chat_template", "version", "truncated")
    }
    assert told == {
        "lm_eval_name": "colours",
        "shots": 0,
        "metric": "acc,none",
        "n": 24,
        "chat_template": template,
        "version": 2.0,
        "truncated": False,
    }


@pytest.mark.parametrize("template", [True, False], ids=["chat", "plain"])
def test_solved_examples_are_earlier_turns(tmp_path, subject, template, monkeypatch):
    subject, real, read = subject._replace(own_template=template), run._evaluate, []

    def noted(*given: Any) -> Any:
        found = real(*given)
        read.extend(sample["arguments"][0][0] for sample in found[0]["samples"]["colours"])
        return found

    monkeypatch.setattr(run, "_evaluate", noted)
    result = ran(choice_task(tmp_path / "own"), subject, "colours@1", limit=12)["tasks"]["colours@1"]
    rows, right = questions(24), []
    shots = [(rows[0]["question"], COLOURS[rows[0]["answer"]])]
    for index, row in enumerate(rows[:12]):
        right.append(float(naive_choice(subject, row["question"], shots) == row["answer"]))
        assert read[index] == prompt_of(subject, row["question"], shots)
    assert (result["shots"], result["n"]) == (1, 12)
    assert result["documents"]["colours"]["values"] == right


@pytest.mark.parametrize("template", [True, False], ids=["chat", "plain"])
def test_exact_match_is_that_of_greedy_answers(tmp_path, subject, template):
    subject = subject._replace(own_template=template)
    answers = [naive_answer(subject, row["question"]) for row in questions(9)]
    wanted = [answer if index % 3 else answer + "?" for index, answer in enumerate(answers)]
    result = ran(word_task(tmp_path / "own", wanted), subject, "words", batch_size=4)["tasks"]["words"]
    assert result["documents"]["words"]["values"] == [0.0, 1.0, 1.0] * 3
    assert result["value"] == pytest.approx(6 / 9)


def test_an_adapted_model_is_run_as_it_is(tmp_path, subject):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(subject.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    whole = subject._replace(model=adapted.eval())
    result = ran(choice_task(tmp_path / "own"), whole, "colours")["tasks"]["colours"]
    right = [float(naive_choice(whole, row["question"]) == row["answer"]) for row in questions(24)]
    assert result["documents"]["colours"]["values"] == right


def test_a_bfloat16_model_gives_almost_the_same(tmp_path, subject):
    """Its log-probs are taken in float32; only the model itself rounds."""
    folder = choice_task(tmp_path / "own")
    exact = ran(folder, subject, "colours")["tasks"]["colours"]["documents"]["colours"]["values"]
    subject.model.to(torch.bfloat16)
    rounded = ran(folder, subject, "colours")["tasks"]["colours"]["documents"]["colours"]["values"]
    assert sum(a != b for a, b in zip(exact, rounded, strict=True)) <= 3


# --- what is left behind ------------------------------------------------------------------------


def test_all_is_as_before(tmp_path, subject, capfd):
    import lm_eval.api.task

    torch.manual_seed(7)
    random.seed(7)
    before = (torch.get_rng_state().tolist(), random.getstate(), lm_eval.api.task.tqdm, dict(os.environ))
    logger = logging.getLogger("lm_eval")
    handlers = (logger.handlers[:], logger.propagate, logger.level)
    subject.tokenizer.pad_token = None
    subject.model.train()
    said: list[str] = []
    ran(choice_task(tmp_path / "own"), subject, "colours", say=said.append)
    assert subject.model.training
    assert not any(module._forward_hooks for module in subject.model.modules())
    assert subject.tokenizer.pad_token is None
    assert (torch.get_rng_state().tolist(), random.getstate(), lm_eval.api.task.tqdm, dict(os.environ)) == before
    assert (logger.handlers, logger.propagate, logger.level) == handlers
    assert capfd.readouterr() == ("", "")
    assert said[0].startswith("Benchmarks: the chat template is applied")
    assert said[1:] == ["colours: lm-eval's colours, 0 shots, 24 documents."]


def test_dropout_is_off_meanwhile(tmp_path, subject):
    folder = choice_task(tmp_path / "own")
    once = ran(folder, subject, "colours")
    for layer in subject.model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    subject.model.train()
    assert ran(folder, subject, "colours") == once


def test_nothing_of_lm_eval_is_imported_unasked():
    names = ("run", "compare")
    imported = "\n".join(f"import kto_cli.evaluation.benchmarks.{name}" for name in names)
    code = f"import sys\n{imported}\nprint('lm_eval' in sys.modules)"
    found = run_python("-c", code)
    assert found.stdout.strip() == "False", found.stderr


# --- kept results -------------------------------------------------------------------------------


@pytest.fixture
def evaluated(monkeypatch) -> list[str]:
    """The benchmarks that were really run."""
    done, real = [], run._evaluate
    monkeypatch.setattr(run, "_evaluate", lambda *given: (done.append(given[-1].name), real(*given))[1])
    return done


def test_a_killed_run_repeats_one_benchmark_at_most(tmp_path, subject, evaluated, monkeypatch):
    folder, cache = choice_task(choice_task(tmp_path / "own"), "second"), tmp_path / "cache"
    real = run._evaluate

    def killed(*given: Any) -> Any:
        if given[-1].name == "second":
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            ran(folder, subject, "colours", "second", cache=cache)
    assert evaluated == ["colours"]
    whole = ran(folder, subject, "colours", "second", cache=cache)
    assert evaluated == ["colours", "second"]
    assert ran(folder, subject, "colours", "second", cache=cache) == whole
    assert evaluated == ["colours", "second"]
    assert whole == ran(folder, subject, "colours", "second")


def test_what_changes_a_number_is_not_taken_from_the_cache(tmp_path, subject, evaluated):
    folder, cache = choice_task(tmp_path / "own"), tmp_path / "cache"
    template = subject._replace(
        tokenizer=load_tokenizer(SAMPLE / "model", chat_template=None, trust_remote_code=False)[0]
    )
    template.tokenizer.chat_template += "\n"
    for number, (other, name, options) in enumerate(
        [
            (subject, "colours", {}),
            (subject._replace(fingerprint="another"), "colours", {}),
            (plainly(subject), "colours", {}),
            (template, "colours", {}),
            (subject, "colours@1", {}),
            (subject, "colours", {"limit": 5}),
            (subject, "colours", {"seed": 1}),
        ]
    ):
        ran(folder, other, name, cache=cache, **options)
        ran(folder, other, name, cache=cache, **options, batch_size=3)
        assert len(evaluated) == number + 1
    (folder / "colours.yaml").write_text((folder / "colours.yaml").read_text().replace("{{question}}", "{{question}} "))
    ran(folder, subject, "colours", cache=cache)
    write_lines(folder / "colours.jsonl", questions(25))
    assert ran(folder, subject, "colours", cache=cache)["tasks"]["colours"]["n"] == 25
    ran(folder, subject._replace(model=subject.model.double()), "colours", cache=cache)
    assert len(evaluated) == 10


# --- the paper's benchmarks, with made-up documents -----------------------------------------------


@pytest.fixture
def made_up(monkeypatch) -> list[str]:
    """Every dataset has two made-up documents; the names of those asked for."""
    import datasets

    asked: list[str] = []
    row = {
        "question": "How many legs have two cats?",
        "answer": "Four each. #### 8",
        "input": "not True is",
        "target": "False",
        "prompt": "def one():\n",
        "test": "def check(f):\n    assert f() == 1\n",
        "entry_point": "one",
    }

    def load(path: str, name: str | None = None, **options: Any) -> Any:
        asked.append(path)
        rows = [{**row, "question": f"{row['question']} {index}"} for index in range(2)]
        if path == "cais/mmlu":
            rows = [{"question": each["question"], "choices": list("wxyz"), "answer": len(name) % 4} for each in rows]
        return datasets.DatasetDict(dict.fromkeys(("train", "dev", "test"), datasets.Dataset.from_list(rows)))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


@pytest.fixture(scope="module")
def small() -> BenchmarkModel:
    """The built-in model: 512 tokens of context."""
    folder = SAMPLE / "model"
    tokenizer, _ = load_tokenizer(folder, chat_template=None, trust_remote_code=False)
    return BenchmarkModel("small", load_model(folder), tokenizer, True)


def test_the_papers_shots_and_tasks():
    """arXiv 2402.01306, section 4.2 and Table 2."""
    assert {name: (each.task, each.shots, each.metric) for name, each in PAPER.items()} == {
        "mmlu": ("mmlu", 0, "acc,none"),
        "gsm8k": ("gsm8k_cot", 8, "exact_match,strict-match"),
        "humaneval": ("humaneval", 0, "pass@1,create_test"),
        "bbh": ("bbh_cot_fewshot", 3, "exact_match,get-answer"),
    }


@pytest.mark.usefixtures("few")
def test_gsm8k_has_eight_solved_examples(made_up):
    plan = plan_tasks(["gsm8k"])
    assert made_up == []
    (task,) = load_task(plan, "gsm8k_cot", plan.asked[0], 0)["tasks"].values()
    task.build_all_requests(limit=1)
    prompt, how = task.instances[0].arguments
    assert made_up == ["openai/gsm8k"]
    assert (prompt.count("Q:"), prompt.count("The answer is")) == (9, 8)
    assert not how["do_sample"]


@pytest.mark.usefixtures("few", "made_up")
def test_gsm8k_runs_and_says_what_was_cut_off(small):
    said: list[str] = []
    found = run_tasks(plan_tasks(["gsm8k"]), small, BenchmarkSettings(limit=1), say=said.append)["tasks"]["gsm8k"]
    assert (found["lm_eval_name"], found["shots"], found["n"], found["value"]) == ("gsm8k_cot", 8, 1, 0.0)
    assert set(found["all_metrics"]) >= {"exact_match,strict-match", "exact_match,flexible-extract"}
    assert found["documents"]["gsm8k_cot"]["values"] == [0.0]  # of one of its two filters
    assert found["truncated"]
    assert said[1:] == [
        "gsm8k: lm-eval's gsm8k_cot, 8 shots, 1 document.",
        "gsm8k: some prompts are longer than the model's context; their beginnings were cut off.",
    ]


@pytest.mark.usefixtures("few", "made_up")
def test_mmlu_is_the_mean_over_its_57_tasks(subject):
    found = run_tasks(plan_tasks(["mmlu"]), plainly(subject), BenchmarkSettings())["tasks"]["mmlu"]
    leaves = {name: kept["values"] for name, kept in found["documents"].items()}
    assert (len(leaves), found["n"], found["shots"]) == (57, 114, 0)
    everything = [value for values in leaves.values() for value in values]
    assert 0 < sum(everything) < 114
    assert found["value"] == pytest.approx(sum(everything) / 114)
    assert found["interval"] == wilson(sum(everything), 114)
    assert len(found["subtasks"]) == 57 + 4
    for name, values in leaves.items():
        assert found["subtasks"][name]["value"] == pytest.approx(sum(values) / 2)
        assert found["subtasks"][name]["n"] == 2


@pytest.mark.usefixtures("few", "made_up")
def test_bbh_asks_for_longer_answers_than_a_small_model_can_read(small):
    with pytest.raises(BadInput, match=r"bbh asks for answers of up to 1024 tokens.* context is 512 tokens"):
        run_tasks(plan_tasks(["bbh"]), small, BenchmarkSettings())


@pytest.mark.usefixtures("few", "made_up")
def test_bbh_has_three_solved_examples():
    plan = plan_tasks(["bbh"])
    loaded = load_task(plan, "bbh_cot_fewshot", plan.asked[0], 0)
    assert {task.get_config("num_fewshot") for task in loaded["tasks"].values()} == {3}
    assert len(loaded["tasks"]) == 27
    task = loaded["tasks"]["bbh_cot_fewshot_boolean_expressions"]
    task.build_all_requests(limit=1)
    assert task.instances[0].arguments[0].count("Let's think step by step") == 4


# --- code of the model's -------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct"])
def test_code_is_not_executed_unasked(name, made_up):
    with pytest.raises(BadInput, match="--allow-code-execution"):
        plan_tasks(["gsm8k", name])
    assert made_up == []
    assert quiet.ALLOWS_CODE not in os.environ


@pytest.fixture
def fresh(monkeypatch) -> None:
    """lm-eval loads the place where code is executed once a process."""
    monkeypatch.delitem(sys.modules, "lm_eval.tasks.humaneval.utils", raising=False)


@pytest.mark.parametrize(("allowed", "seen"), [(True, "1"), (False, None)])
@pytest.mark.parametrize("before", ["1", None])
def test_the_flag_alone_says_whether_code_may_run(monkeypatch, allowed, seen, before):
    monkeypatch.delenv(quiet.ALLOWS_CODE, raising=False)
    if before:
        monkeypatch.setenv(quiet.ALLOWS_CODE, before)
    with suppress(ZeroDivisionError), quiet.code_allowed(allowed):
        assert os.environ.get(quiet.ALLOWS_CODE) == seen
        raise ZeroDivisionError
    assert os.environ.get(quiet.ALLOWS_CODE) == before


@pytest.mark.usefixtures("few", "made_up", "fresh")
@pytest.mark.parametrize("template", [True, False], ids=["chat", "plain"])
def test_code_is_executed_only_meanwhile(monkeypatch, subject, template):
    """The place of Hugging Face's code_eval, which comes from the Hub, is taken by one that notes what it is given."""
    import evaluate

    seen: list[tuple[str | None, str]] = []

    class Judge:
        def compute(self, *, references: list[str], predictions: list[list[str]], k: list[int]) -> Any:
            seen.append((os.environ.get(quiet.ALLOWS_CODE), predictions[0][0]))
            return {"pass@1": float(len(seen) % 2)}, {}

    monkeypatch.setattr(evaluate, "load", lambda name: Judge())
    subject.model.config.max_position_embeddings = 1100
    subject = subject._replace(own_template=template)
    monkeypatch.setattr(subject.model, "generate", lambda input_ids, **_: torch.cat([input_ids, input_ids[:, -1:]], 1))
    found = run_tasks(plan_tasks(["humaneval"], allow_code=True), subject, BenchmarkSettings())["tasks"]["humaneval"]
    assert found["lm_eval_name"] == ("humaneval_instruct" if template else "humaneval")
    assert (found["metric"], found["shots"], found["higher_is_better"]) == ("pass@1,create_test", 0, True)
    assert found["n"] == 2
    assert found["value"] == 0.5
    assert {allowed for allowed, _ in seen} == {"1"}
    assert all(code.startswith("def one():") for _, code in seen[-2:])
    assert quiet.ALLOWS_CODE not in os.environ


@pytest.mark.usefixtures("few", "made_up", "fresh")
def test_code_eval_out_of_reach_is_said(subject):
    with pytest.raises(BadInput, match=r"humaneval .*cannot be loaded"):
        run_tasks(plan_tasks(["humaneval"], allow_code=True), subject, BenchmarkSettings())
    assert quiet.ALLOWS_CODE not in os.environ


# --- what a user can fix -------------------------------------------------------------------------


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm8", "no task gsm8. Did you mean gsm8k"),
        ("qqqqqqqq", "Short names: mmlu, gsm8k, humaneval, bbh"),
        ("gsm8k@many", "'gsm8k@many' is neither a task nor task@shots"),
        ("gsm8k@", "neither a task"),
        ("@3", "neither a task"),
        ("", "neither a task"),
    ],
)
def test_an_unknown_task_is_said_before_anything_is_loaded(name, said, made_up):
    with pytest.raises(BadInput) as caught:
        plan_tasks(["mmlu", name])
    assert said in str(caught.value)
    assert made_up == []


@pytest.mark.usefixtures("few", "made_up")
def test_shots_that_cannot_be_had_are_said(tmp_path, subject):
    with pytest.raises(BadInput, match="fixes it at 0 shots"):
        plan_tasks(["humaneval@2"], allow_code=True)
    with pytest.raises(BadInput, match="exceeds the 8 that are available"):
        run_tasks(plan_tasks(["gsm8k@9"]), subject, BenchmarkSettings())


@pytest.mark.usefixtures("few")
def test_an_unreachable_dataset_is_named_before_another_benchmark_is_run(tmp_path, subject, evaluated):
    with pytest.raises(BadInput, match=r"gsm8k \(dataset openai/gsm8k\) cannot be loaded: .*Hub"):
        ran(choice_task(tmp_path / "own"), subject, "colours", "gsm8k")
    assert evaluated == []


def test_lm_eval_may_be_missing(monkeypatch):
    monkeypatch.setattr(planning, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install .*\[tasks\]"):
        plan_tasks(["mmlu"])


@pytest.mark.usefixtures("few")
def test_tasks_of_ones_own(tmp_path, subject):
    folder = choice_task(tmp_path / "own", "gsm8k")
    assert plan_tasks(["gsm8k"], folder=folder).asked[0].benchmark.task == "gsm8k"  # not gsm8k_cot
    choice_task(folder)
    with pytest.raises(BadInput, match=r"no task colour\. Did you mean colours.* defines colours, gsm8k\."):
        plan_tasks(["colour"], folder=folder)
    assert [asked.name for asked in plan_tasks(["colours", "mmlu"], folder=folder).asked] == ["colours", "mmlu"]
    with pytest.raises(BadInput, match="is not a folder of tasks"):
        plan_tasks(["colours"], folder=tmp_path / "none")
    path = folder / "colours.yaml"
    path.write_text(path.read_text().replace("question", "no_such_column.of_it"))
    with pytest.raises(BadInput, match=r"The task in .*colours.yaml cannot be loaded"):
        ran(folder, subject, "colours")


def test_a_group_and_a_tag_of_ones_own(tmp_path, subject):
    """The group weighs its tasks alike: its value is no mean over documents. The tag has none."""
    folder = choice_task(choice_task(tmp_path / "own", "large", 18), "little", 6)
    for path in folder.glob("*.yaml"):
        path.write_text(path.read_text() + "tag: both_tagged\n")
    (folder / "both.yaml").write_text(
        "group: both\ntask: [large, little]\n"
        "aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: false}]\n"
    )
    found = ran(folder, subject, "both", "both_tagged")["tasks"]
    single = ran(folder, subject, "large", "little")["tasks"]
    values = [single[name]["value"] for name in ("large", "little")]
    assert found["both"]["value"] == pytest.approx(sum(values) / 2)
    assert [found["both"]["subtasks"][name]["value"] for name in ("large", "little")] == values
    assert (found["both"]["n"], found["both_tagged"]["n"]) == (24, 24)
    assert found["both_tagged"]["value"] is None
    assert found["both_tagged"]["interval"] is None
    assert found["both_tagged"]["documents"] == found["both"]["documents"]
    compared = compare_tasks({"tasks": found}, {"tasks": found})
    assert (compared["both_tagged"]["difference"], compared["both_tagged"]["verdict"]) == (None, "not shown")
    assert compared["both"]["difference"] == 0


@pytest.mark.long
def test_the_short_names_are_in_lm_evals_whole_index():
    plan = plan_tasks([*PAPER, "arc_easy", "hellaswag@5"], allow_code=True)
    shots = {asked.name: asked.benchmark.shots for asked in plan.asked}
    assert shots == {"mmlu": 0, "gsm8k": 8, "humaneval": 0, "bbh": 3, "arc_easy": None, "hellaswag@5": 5}
    assert [asked.name for asked in plan.asked if asked.runs_code] == ["humaneval"]
    assert all(each.chat_task in plan.manager.task_index for each in PAPER.values() if each.chat_task)
    with pytest.raises(BadInput, match="Did you mean hellaswag"):
        plan_tasks(["hellaswagg"])


# --- did anything break? --------------------------------------------------------------------------


def entry(values: list[float], **changes: Any) -> dict[str, Any]:
    made = {
        "lm_eval_name": "t",
        "shots": 0,
        "chat_template": True,
        "metric": "acc,none",
        "version": 1,
        "n": len(values),
        "value": sum(values) / len(values),
        "stderr": 0.1,
        "higher_is_better": True,
        "documents": {"t": {"hash": "h", "values": values}},
    }
    return made | changes


def compared(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return compare_tasks({"tasks": {"t": after}}, {"tasks": {"t": before, "other": before}})["t"]


def test_paired_difference_of_a_worked_example():
    """Of 20 documents 6 gained, 1 lost; the derivation is in `paired_interval`."""
    before, after = [0.0] * 6 + [1.0] + [1.0] * 9 + [0.0] * 4, [1.0] * 6 + [0.0] + [1.0] * 9 + [0.0] * 4
    found = compared(entry(after), entry(before))
    assert found["difference"] == pytest.approx(0.25)
    assert found["interval"] == pytest.approx([0.0314, 0.4231], abs=1e-4)
    assert (found["paired"], found["verdict"]) == (True, "better")
    assert compared(entry(before), entry(after))["verdict"] == "worse"
    lower = {"higher_is_better": False}
    assert compared(entry(after, **lower), entry(before, **lower))["verdict"] == "worse"
    unknown = {"higher_is_better": None}
    assert compared(entry(after, **unknown), entry(before, **unknown))["verdict"] == "not shown"
    same = compared(entry(before), entry(before))
    assert same["verdict"] == "not shown"
    assert same["interval"][0] < 0 < same["interval"][1]


def test_paired_difference_of_other_numbers():
    before, after = [0.1, 0.4, 0.7, 0.2], [0.3, 0.5, 0.6, 0.8]
    differences = [0.2, 0.1, -0.1, 0.6]
    error = math.sqrt(sum((each - 0.2) ** 2 for each in differences) / 3 / 4)
    reach = 2.353 * error  # Student's t with 3 degrees of freedom
    assert paired_interval(after, before) == pytest.approx([0.2 - reach, 0.2 + reach], rel=1e-3)


def test_without_documents_the_standard_errors_are_added():
    found = compared(entry([0.5], value=0.9, stderr=0.3), entry([0.5], value=0.1, stderr=0.4))
    assert not found["paired"]
    assert found["interval"] == pytest.approx([0.8 - NORMAL * 0.5, 0.8 + NORMAL * 0.5])
    assert compared(entry([0.5], value=0.9, stderr=None), entry([0.5], value=0.1))["verdict"] == "not shown"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"shots": 5}, "shots"),
        ({"chat_template": False}, "chat_template"),
        ({"documents": {"t": {"hash": "other", "values": [1.0, 0.0]}}}, "documents"),
    ],
)
def test_what_was_not_run_alike_is_not_compared(change, named):
    with pytest.raises(BadInput, match=f"{named} differ"):
        compared(entry([1.0, 0.0]), entry([1.0, 0.0], **change))


def test_paired_intervals_cover_nine_times_in_ten():
    """3,000 sets of 60 documents whose true difference is 0.1; two thirds answered alike by both models."""
    generator, held = torch.Generator().manual_seed(0), 0
    for _ in range(3000):
        draws = torch.multinomial(torch.tensor([0.2, 0.1, 0.4, 0.3]), 60, replacement=True, generator=generator)
        after = ((draws == 0) | (draws == 2)).double().tolist()
        before = ((draws == 1) | (draws == 2)).double().tolist()
        low, high = paired_interval(after, before)
        held += low <= 0.1 <= high
    assert 0.88 <= held / 3000 <= 0.93


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_order_of_models_only_turns_the_sign(answers):
    after, before = [float(one) for one, _ in answers], [float(two) for _, two in answers]
    low, high = paired_interval(after, before)
    assert paired_interval(before, after) == pytest.approx([-high, -low])
    assert low < high


def test_policy_and_reference_of_the_same_weights_do_not_differ(tmp_path, subject):
    folder = choice_task(tmp_path / "own")
    policy, reference = ran(folder, subject, "colours"), ran(folder, subject, "colours")
    found = compare_tasks(policy, reference)["colours"]
    assert (found["difference"], found["paired"], found["verdict"]) == (0.0, True, "not shown")


# --- what lm-eval gives ----------------------------------------------------------------------------


def test_numbers_that_lm_eval_has_not():
    """ "N/A" and NaN are no numbers; a metric over all documents (F1) has no values of single ones."""
    found = {
        "results": {
            "t": {"alias": "t", "sample_len": 2, "f1,none": 0.7, "f1_stderr,none": "N/A", "acc,none": math.nan}
        },
        "samples": {
            "t": [{"doc_id": n, "filter": "none", "f1": (1, 0), "doc_hash": "d", "prompt_hash": "p"} for n in (0, 1)]
        },
        "n-samples": {"t": {"effective": 2}},
        "n-shot": {"t": 3},
        "versions": {"t": 1},
        "higher_is_better": {"t": {"f1": True}},
    }
    read = read_results(found, "t", None)
    assert (read["metric"], read["value"], read["stderr"], read["interval"]) == ("f1,none", 0.7, None, None)
    assert read["all_metrics"] == {"f1,none": 0.7, "f1_stderr,none": None, "acc,none": None}
    assert (read["documents"], read["shots"]) == ({}, 3)
    assert json.loads(json.dumps(read, allow_nan=False)) == read


def test_intervals():
    assert interval(0.75, 0.2, [1.0, 1.0, 0.0, 1.0]) == wilson(3, 4)
    assert interval(0.5, 0.1, [0.2, 0.8]) == pytest.approx([0.5 - NORMAL * 0.1, 0.5 + NORMAL * 0.1])
    assert interval(0.6, 0.1, [1.0, 0.0]) == pytest.approx([0.6 - NORMAL * 0.1, 0.6 + NORMAL * 0.1])
    assert interval(None, None, []) is None


def test_the_extra_is_declared():
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert 'tasks = ["lm-eval' in text
