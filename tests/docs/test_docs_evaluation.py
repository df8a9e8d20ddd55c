"""What docs/evaluation.md says is true: its examples run and write what they claim, its flags, tables and numbers hold.

As in test_docs.py; a claim is `# writes ...`, the files of an eval folder that are new or made anew.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, call
from judge_server import Handler, JudgeServer, serving
from test_docs import FLAG, Example, examples, section
from test_reward_judge import made as make_reward_model

from kto_cli.common.eval_config import ENGINES, JUDGED, SAMPLES, EvalConfig, is_url
from kto_cli.common.train_config import TRACKERS
from kto_cli.core.statistics.intervals import wilson
from kto_cli.evaluation import files
from kto_cli.evaluation.answers import statistics
from kto_cli.evaluation.answers.vllm import AT_ONCE
from kto_cli.evaluation.benchmarks.plan import PAPER, plan_tasks
from kto_cli.evaluation.server.client import TRIES

PAGE = REPOSITORY / "docs" / "evaluation.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = examples(TEXT)
OTHER_FLAGS = {"--track", "--no-curves", "--resume", "--logdir", "--project"}
"""Flags of other commands that the page speaks of."""
PARTS = {value for name, value in vars(files).items() if name.isupper() and isinstance(value, str)} - {
    files.FILES,
    files.WHAT,
}


def words_of(example: Example) -> list[str]:
    """What follows `kto`."""
    words = shlex.split(example.command)
    assert words[:2] == ["kto", "eval"]
    return words[1:]


def option(words: list[str], flag: str) -> str | None:
    """The value of a flag."""
    return words[words.index(flag) + 1] if flag in words else None


def table(title: str, first: str) -> list[list[str]]:
    """The rows of the table under a heading whose head begins so."""
    lines = section(TEXT, title).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {first}"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.command[:70])
def test_an_example_can_be_typed(example, monkeypatch):
    """Its flags go together; what they mean is the test after this one's."""
    from kto_cli.workflows import compare, evaluate

    seen: list[EvalConfig] = []
    monkeypatch.setattr(evaluate, "run", lambda config, screen: seen.append(config) or {})
    monkeypatch.setattr(evaluate, "report_only", lambda config, screen: seen.append(config) or {})
    monkeypatch.setattr(compare, "run", lambda configs, screen: seen.extend(configs) or {})
    ran = call(*words_of(example), "--json")
    assert ran.code == 0, ran.err
    assert [config.checkpoint for config in seen] == re.findall(r"(?<=[ ])(checkpoint|another)(?= |$)", example.command)


def stamps(folder: Path) -> dict[str, Any]:
    """What each file or folder of an eval folder is right now."""
    return {
        path.name: sorted((one.stat().st_ino, one.stat().st_mtime_ns) for one in (path, *path.glob("*")))
        for path in folder.glob("*")
    }


def helpful(handler: Handler, asked: dict[str, Any]) -> None:
    """Answers as a model, or, asked for a verdict, as a judge that likes longer answers."""
    question = asked["messages"][-1]["content"]
    found = re.findall(r"answer [AB] begins\n(.*?)\n--- ", question, re.DOTALL)
    if not found:
        return handler.say("Gladly, as soon as I can.")
    lengths = [len(text) for text in found]
    return handler.say(f"Verdict: {'A' if lengths[0] > lengths[1] else 'B' if lengths[0] < lengths[1] else 'tie'}")


@pytest.fixture
def server(monkeypatch) -> Iterator[JudgeServer]:
    """In place of every server on the page; it lists the checkpoint and its reference."""
    models = {"object": "list", "data": [{"id": "checkpoint"}, {"id": "base/pico"}]}
    monkeypatch.setattr(Handler, "do_GET", lambda handler: handler.reply(200, models))
    monkeypatch.delenv("KTO_JUDGE_KEY", raising=False)
    with serving(helpful) as server:
        yield server


@pytest.fixture
def trained(workplace, given) -> Path:
    """Two runs, a reward model and the page's files where its commands expect them."""
    for name, rate in (("checkpoint", 0.01), ("another", 0.003)):
        ran = call("train", *given, "--max-steps", 1, "--batch-size", 8, "--learning-rate", rate, "--out", name)
        assert ran.code == 0, ran.err
    shutil.copytree(make_reward_model(workplace / "made"), workplace / "reward-model")
    for name, content in EXAMPLES[-1].files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content, encoding="utf-8")
    return workplace


def check(example: Example, words: list[str]) -> None:
    """Runs it; in the eval folder of each checkpoint it writes what it claims, and nothing else."""
    folders = [Path(word) / "eval" for word in words if word in ("checkpoint", "another")]
    before = [stamps(folder) for folder in folders]
    ran = call(*words, "--json")
    assert ran.code == 0, f"{example.command}: {ran.err}"
    for folder, earlier in zip(folders, before, strict=True):
        now = stamps(folder)
        claimed = example.claim.removeprefix("writes ").split(", ")
        assert sorted(claimed) == sorted(name for name in now if now[name] != earlier.get(name)), example.command


@pytest.mark.slow
def test_the_examples_do_what_the_page_says(trained, server):
    """In the order of the page; any URL is that of the test's server."""
    for example in EXAMPLES:
        words = words_of(example)
        if "--tasks" not in words:
            asked = len(server.asked)
            check(example, [server.url if is_url(word) else word for word in words])
            assert (len(server.asked) > asked) == any(map(is_url, words)), example.command


@pytest.mark.slow
def test_the_benchmarks_of_the_page(trained):
    """Those without a download are run, the others looked up."""
    pytest.importorskip("lm_eval")
    for example in EXAMPLES:
        words = words_of(example)
        names = option(words, "--tasks")
        if names and "--task-folder" in words:
            check(example, words)
        elif names:
            assert [asked.name for asked in plan_tasks(names.split(",")).asked] == names.split(",")


def test_the_page_has_all_flags_of_the_command_and_no_others():
    typed_here = re.sub(r"^```console\n.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    flags = set(FLAG.findall(call("eval", "--help").out)) - {"--help"}
    said = set(FLAG.findall(typed_here))
    assert len(flags) > 25
    assert flags - said == set(), "flags the page leaves out"
    assert said - flags == OTHER_FLAGS, "flags that do not exist"
    assert {"--track", "--no-curves", "--resume"} <= set(FLAG.findall(call("train", "--help").out))


def test_the_defaults_of_the_page():
    config = EvalConfig()
    for said in (
        f"`--samples` {SAMPLES} of them, {JUDGED} where a judge",
        f"`--temperature {config.temperature}`",
        f"`--top-p` {config.top_p} of",
        f"`--max-new-tokens` {config.max_new_tokens}.",
        f'`--judge-for` "{config.judge_for}"',
        f"`--judge-calls` {config.judge_calls},",
        f"`--judge-workers` {config.judge_workers} requests",
        f"at most {AT_ONCE})",
        {6: "six"}[TRIES] + " times in all",
        f"cut {statistics.CUT * 100:.0f} points more often than the reference's and are {statistics.LONGER} times as",
        f"cut {2 * statistics.CUT * 100:.0f} points more often\nalone",
        f"by {statistics.REPEATED * 100:.0f} points",
    ):
        assert said in TEXT, said


def test_the_engines_and_trackers_of_the_page():
    assert [row[0].strip("`") for row in table("### Engines", "`--engine`")] == [*ENGINES, "a URL"]
    assert {row[0].strip("`") for row in table("## While it trains", "tracker")} == set(TRACKERS)


def test_how_many_comparisons_are_enough():
    rows = table("### Reading it", "comparisons")
    assert [int(row[0]) for row in rows] == [100, 128, 400, 800]
    for count, calls, interval, better in rows:
        comparisons = int(count)
        low, high = wilson(comparisons / 2, comparisons)
        least = next(
            halves / 2 for halves in range(comparisons, 2 * comparisons) if wilson(halves / 2, comparisons)[0] > 0.5
        )
        assert (calls, interval) == (str(2 * comparisons), f"{low:.1%} to {high:.1%}".replace("%", " %"))
        assert better == f"{least / comparisons:.1%}".replace("%", " %")


def test_the_benchmarks_table_is_what_is_run():
    metrics = {
        "accuracy": "acc",
        "exact match (strict)": "exact_match",
        "exact match": "exact_match",
        "pass@1": "pass@1",
    }
    rows = {row[0].strip("`"): row[1:] for row in table("## Benchmarks", "`--tasks`")}
    assert rows.keys() == PAPER.keys()
    for name, (shots, task, metric) in rows.items():
        asked = PAPER[name]
        assert int(shots.split(",")[0]) == asked.shots
        assert re.findall(r"`(\w+)`", task) == [one for one in (asked.task, asked.chat_task) if one]
        assert metrics[metric] == (asked.metric or "").partition(",")[0]


def test_the_files_of_the_page_are_those_that_are_written():
    assert {row[0].strip("`/") for row in table("## Files", "in `checkpoint")} == PARTS
    claimed = {name for example in EXAMPLES for name in example.claim.removeprefix("writes ").split(", ")}
    assert claimed == PARTS
