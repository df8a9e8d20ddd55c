"""All pages: every `kto` command can be typed, every flag, link, file, function and test they name exists.

test_docs.py and test_docs_evaluation.py also run the examples of feedback.md and evaluation.md.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from conftest import REPOSITORY, call
from losses_table import table
from test_docs import FLAG, section

from kto_cli.cli.app import app
from kto_cli.common.model_config import DTYPES
from kto_cli.common.train_config import OPTIMIZERS, SCHEDULES, SWITCH, TRACKERS, TrainConfig
from kto_cli.core.statistics import curves, verdict
from kto_cli.training.loss_flags import loss_kind
from kto_cli.training.settings import default_learning_rate

DOCS = REPOSITORY / "docs"
README, CONTRIBUTING = REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"
PAGES = (README, CONTRIBUTING, *sorted(DOCS.glob("*.md")))
LINKING = (
    *PAGES,
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "benchmarks/README.md",
    REPOSITORY / "sample_data/README.md",
)
CONFIGS = sorted((REPOSITORY / "examples").glob("*.yaml"))
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = r"[\w/]+\.py"
ELSEWHERE = {
    *("--quick", "--people", "--logs"),  # examples/three_weeks.py
    *(
        "--enable-lora",
        "--lora-modules",
        "--served-model-name",
        "--default-chat-template-kwargs",
        "--max-lora-rank",
        "--outfile",
    ),  # vLLM, llama.cpp
    *("--depth", "--index-url", "--num_processes", "--multi_gpu", "--config_file"),  # git, pip, accelerate
}
"""Flags of other programs that the pages name."""


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def lines_of(path: Path) -> Iterator[str]:
    """Lines that are typed in a shell: of a page those in fenced blocks, of a YAML file its comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        text = "\n".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE))
    else:
        text = "\n".join(FENCED.findall(text))
    yield from text.replace("\\\n", " ").splitlines()


def commands_of(path: Path) -> list[list[str]]:
    """What follows `kto`, or `-m kto_cli` of a launcher, in every command on a page."""
    found = []
    for line in lines_of(path):
        for typed in re.split(r"&&|;", line):
            if not re.match(r"\s*(\$ )?(kto |.* -m kto_cli )", typed):
                continue
            words = shlex.split(typed.strip().removeprefix("$ "), comments=True)
            found.append(words[words.index("kto_cli" if "kto_cli" in words else "kto") + 1 :])
    return found


WORKFLOWS = (
    *(
        "binarize",
        "compare",
        "demo",
        "device_memory",
        "dry_run",
        "evaluate",
        "label",
        "list_sources",
        "loop",
        "outcome",
    ),
    *("export", "precompute", "sample", "theory", "theory_loss", "train"),
)
COMMANDS = [(path, words) for path in (*PAGES, *CONFIGS) for words in commands_of(path)]


def known_flags(command: str | None = None) -> set[str]:
    """Flags of a command, else of all, hidden ones and `--no-` forms too."""
    group: Any = typer.main.get_command(app)
    chosen = [group.commands[command]] if command else [group, *group.commands.values()]
    options = [option for one in chosen for option in one.params]
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)} | {"--help"}


@pytest.mark.parametrize(
    ("path", "words"), COMMANDS, ids=[f"{name_of(path)}: {' '.join(words)[:60]}" for path, words in COMMANDS]
)
def test_a_command_can_be_typed(path, words, monkeypatch):
    """Its flags exist, go together and have values that are taken; nothing is run."""
    for name in WORKFLOWS:
        module = importlib.import_module(f"kto_cli.workflows.{name}")
        monkeypatch.setattr(module, "run", lambda *given, **named: {})
    evaluate = importlib.import_module("kto_cli.workflows.evaluate")
    monkeypatch.setattr(evaluate, "report_only", lambda *given, **named: {})
    ran = call(*words)
    assert ran.code == 0, ran.err
    for word in words:
        if word.startswith("examples/"):
            assert (REPOSITORY / word).is_file(), word


def test_all_pages_have_commands_that_are_looked_at():
    """The reader of pages has not gone blind."""
    found = {name_of(path): len(commands_of(path)) for path in (*PAGES, *CONFIGS)}
    assert found["README.md"] >= 10
    assert found["docs/training.md"] >= 6
    assert found["docs/feedback.md"] >= 15
    assert all(found[name_of(config)] for config in CONFIGS)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_in_a_line_of_text_have_flags_that_exist(path):
    for words in re.findall(r"`kto ([^`]+)`", path.read_text(encoding="utf-8").replace("\n", " ")):
        command = words.split()[0]
        if command.islower() and command.isalpha():
            assert set(FLAG.findall(words)) <= known_flags(command), words


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.name not in ("feedback.md", "evaluation.md")], ids=name_of
)
def test_flags_that_a_page_names_exist(path):
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", path.read_text(encoding="utf-8")))
    assert {flag for flag in named - known_flags() - ELSEWHERE if not flag.endswith("-")} == set()


@pytest.mark.parametrize("path", LINKING, ids=name_of)
def test_links_within_the_repository_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_every_page_is_linked_from_the_readme_and_the_index():
    readme, index = (path.read_text(encoding="utf-8") for path in (README, DOCS / "index.md"))
    for path in DOCS.glob("*.md"):
        if path.name != "index.md":
            assert f"(docs/{path.name})" in readme, path
            assert f"({path.name})" in index, path


# --- the code that pages name -----------------------------------------------------------------


@functools.cache
def defined_in(path: Path) -> set[str]:
    """Functions, classes, methods as CLASS.METHOD, and constants of a module."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {target.id for root in targets for target in ast.walk(root) if isinstance(target, ast.Name)}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def file_named(path: str) -> Path:
    """A path from the repository or from kto_cli/; of a bare name any file that is called so."""
    for root in (REPOSITORY, REPOSITORY / "kto_cli"):
        if (root / path).is_file():
            return root / path
    found = [] if "/" in path else sorted((REPOSITORY / "kto_cli").rglob(path))
    assert found, f"there is no {path}"
    return found[0]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_functions_and_tests_that_a_page_names_exist(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for path in set(re.findall(NAME, text)):
        if "NAME" not in path:
            file_named(path)
    for path, _, name in re.findall(rf"({NAME})(::?)([\w.]+)", text):
        assert name in defined_in(file_named(path)), f"{path} has no {name}"


def test_every_invariant_has_its_line():
    """Thirteen, each with a test; where one does not hold yet, that is said."""
    text = section((DOCS / "architecture.md").read_text(encoding="utf-8"), "## Invariants")
    lines = dict(re.findall(r"^\| (\d+) \| (.*)$", text, re.MULTILINE))
    assert sorted(map(int, lines)) == list(range(1, 14))
    assert all(re.search(r"`tests/[\w/]+\.py::test_\w+`|invariant \d", line) for line in lines.values())


# --- training.md ------------------------------------------------------------------------------


def test_the_training_page_has_all_flags_of_the_command():
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    shown = set(FLAG.findall(call("train", "--help").out))
    assert len(shown) > 35
    assert {flag for flag in shown if f"{flag}" not in text} - {"--help", "--curves"} == set()


def test_the_table_of_losses_is_that_of_the_code():
    assert table() in (DOCS / "losses.md").read_text(encoding="utf-8")


def test_the_training_page_has_all_values_of_an_option():
    text = (DOCS / "training.md").read_text(encoding="utf-8")
    for values in (DTYPES[1:], OPTIMIZERS[1:], SCHEDULES, SWITCH[:2], TRACKERS):
        for value in values:
            assert re.search(rf"[` ,]{re.escape(value)}[`,]", text), value


def test_the_learning_rates_of_the_training_page():
    text = section((DOCS / "training.md").read_text(encoding="utf-8"), "## Flags by task")
    rates = [default_learning_rate(size, built_in=False, adapters=False) for size in (2e9, 2e8, 2e7, 2e6)]
    assert rates == [5e-6, 1e-5, 3e-5, 5e-5]
    assert default_learning_rate(2e9, built_in=False, adapters=True) == pytest.approx(10 * rates[0])
    assert "5e-6 from a billion parameters up, 1e-5 from 100M, 3e-5 from 10M, 5e-5 below" in text


# --- reading.md -------------------------------------------------------------------------------

READING = (DOCS / "reading.md").read_text(encoding="utf-8")


def test_the_rules_of_the_verdict():
    """Every word with its rule, in the order in which they are tried, and the thresholds of the code."""
    text = section(READING, "## The verdict")
    rules = dict(re.findall(r"^\| `([\w ]+)` \|[^|]*\| ([^|]*) \|", text, re.MULTILINE))
    assert list(rules) == ["unknown", *verdict.RULES]
    said = {
        "blown up": (verdict.BLOWN_UP_NATS, verdict.BLOWN_UP_PER_TOKEN),
        "collapsed": (-verdict.COLLAPSED_PER_TOKEN, -verdict.LEAST_LOSS, verdict.BEYOND_INTERVAL),
        "drifted": (-verdict.DRIFTED_PER_TOKEN,),
        "overfit": (curves.LEAST_FALL, curves.OUTSIDE, curves.LEAST_GAP),
        "barely moved": (verdict.LEAST_NATS,),
        "unclear": (verdict.SURE,),
        "length": (verdict.BEYOND_LENGTH,),
    }
    for word, numbers in said.items():
        assert {f"{number:g}" for number in numbers} <= set(re.findall(r"[\d.]*\d", rules[word])), word
    assert f"more than {verdict.SURE:.1%}".replace("%", " %") in rules["too few rows"]


class RunFiles(NamedTuple):
    """File names of finished runs, and of what lies in their folders."""

    top: set[str]
    below: set[str]


@pytest.fixture(scope="module")
def run_files(pico, pico_data, tmp_path_factory) -> RunFiles:
    """Of a full run and a LoRA run, both evaluated."""
    home = tmp_path_factory.mktemp("runs")
    words = ["--data", pico_data, "--model", pico, "--cache", home / "cache", "--batch-size", 8, "--save-every", 2]
    top: set[str] = set()
    below: set[str] = set()
    for name, more in (("full", []), ("lora", ["--lora-r", 2])):
        assert call("train", *words, *more, "--out", home / name).code == 0
        assert call("eval", home / name, "--samples", 0, "--cache", home / "cache").code == 0
        top |= {path.name for path in (home / name).iterdir()}
        below |= {path.name for path in (home / name).rglob("*/*") if path.is_file()}
    return RunFiles(top, below)


@pytest.mark.slow
def test_the_run_directory_of_the_page_is_the_real_one(run_files):
    (tree,) = re.findall(r"^```\n(checkpoint/\n.*?)^```", READING, re.MULTILINE | re.DOTALL)
    listed = set(re.findall(r"^  (\S+?)/?(?=[ /\n]|$)", tree, re.MULTILINE)) - {""}
    named = set(re.findall(r"[\w.-]+\.(?:json|jsonl|safetensors|jinja|md|html)\b", tree))
    assert run_files.top - listed - named == set(), "files the page does not list"
    assert listed - run_files.top == {"best", "after.json", "tracking"}, "files that are not there"
    assert named - run_files.top - run_files.below == {"after.json", "evaluation.md", "runs.json"}


# --- examples/ and the README's recipe --------------------------------------------------------


def test_the_example_configs_are_those_that_the_pages_name():
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert not [path.name for path in CONFIGS if f"examples/{path.name}" not in pages]


RECIPES = sorted(path.stem for path in CONFIGS if path.stem != "fsdp2")


@pytest.mark.parametrize("name", RECIPES)
def test_the_flags_of_a_recipe_go_with_its_loss(name):
    loss_kind(settings_of(f"{name}.yaml"))


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("qlora")])
def test_a_recipe_passes_the_dry_run(name, workplace, pico, pico_data):
    """With a model that is at hand in place of its own."""
    words = ["--config", REPOSITORY / "examples" / f"{name}.yaml", "--model", pico, "--data", pico_data]
    ran = call("train", *words, "--max-length", 128, "--dry-run", "--cache", "cache")
    assert ran.code == 0, ran.err
    assert "No problems found" in ran.err + ran.out


def test_each_number_of_a_recipe_has_its_source():
    """A learning rate and a beta have a comment on their line, or on the next."""
    for name in RECIPES:
        lines = (REPOSITORY / "examples" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            if re.match("(learning_rate|beta):", line):
                assert "#" in line or "#" in after, (name, line)


def settings_of(name: str) -> TrainConfig:
    from kto_cli.common.config_file import read_config_file, train_config

    path = REPOSITORY / "examples" / name
    return train_config(read_config_file(path), where=name)


@pytest.mark.parametrize(("name", "parameters"), [("lora-1b", 1.2e9), ("qlora-8b", 8e9), ("full-finetune", 1.2e9)])
def test_an_example_config_is_read_and_sensible(name, parameters):
    """The learning rate is the default at that size, and every value that is not a default is one of its file."""
    config = settings_of(f"{name}.yaml")
    adapters = config.lora_r is not None
    assert adapters == ("lora" in name)
    rate = default_learning_rate(int(parameters), built_in=False, adapters=adapters)
    assert config.learning_rate == pytest.approx(rate)
    assert config.load_in_4bit == name.startswith("qlora")
    assert config.lambda_d is config.lambda_u is None


@pytest.mark.parametrize("name", ["lora-1b", "full-finetune"])
def test_an_example_config_trains(name, workplace, pico, pico_data):
    words = ["--config", REPOSITORY / "examples" / f"{name}.yaml", "--model", pico, "--data", pico_data]
    ran = call("train", *words, "--max-steps", 1, "--max-length", 128, "--out", "out")
    assert ran.code == 0, ran.err
    assert Path("out/adapter_config.json" if name == "lora-1b" else "out/model.safetensors").is_file()


def test_the_fsdp2_config_is_taken(monkeypatch):
    """As accelerate's own launcher hands it on."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    from kto_cli.model.distributed import processes

    typed = ["--config_file", str(REPOSITORY / "examples/fsdp2.yaml"), "--main_process_port", "0", "-m", "kto_cli"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args([*typed, "train"]))
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    processes.refuse_untested(os.environ)
    sharding = processes.sharding_asked_for(8)
    assert sharding is not None
    assert sharding.sharded_files
    assert processes.launch_kind(8) == "FSDP2"
    processes.refuse_untested_combinations(8, settings_of("full-finetune.yaml"))


def test_the_recipe_of_the_readme_runs(workplace, pico):
    """On the log that it describes, with a pico model in the place of its model; what needs a server is left out."""
    recipe = section(README.read_text(encoding="utf-8"), "## From a log to a served model")
    things = ("fern", "kettle", "bicycle", "parrot", "violin", "map", "lantern", "tent", "kite", "clock")
    lines = [
        f"How do I clean a {thing} {n}?,{['Dry cloth', 'Go away'][n % 2]} {thing}.,{['up', 'down'][n % 2]},v{n // 60}"
        for n, thing in enumerate(12 * things)
    ]
    Path("support.csv").write_text("\n".join(["user_msg,bot_reply,thumb,model", *lines]) + "\n", encoding="utf-8")
    page = workplace / "recipe.md"
    page.write_text(recipe, encoding="utf-8")
    ran = []
    for words in commands_of(page):
        if not {"--judge-url", "--check"} & set(words):
            words = [str(pico) if word.startswith("HuggingFaceTB/") else word for word in words]
            done = call(*words, *(["--samples", "1", "--max-new-tokens", "4"] if words[0] == "eval" else []))
            assert done.code == 0, done.err
            ran.append(words[0])
    assert ran == ["binarize", "train", "train", "eval", "outcome", "export"]
    assert Path("aligned/model.safetensors").is_file()
    assert Path("aligned/eval/report.html").is_file()


def declared() -> dict[str, str]:
    """Lower bounds of pyproject.toml: name -> version."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?$", dependency) for dependency in project["dependencies"]]
    assert all(bounds), "each dependency has a lower bound, which `.ci/lowest` installs"
    return {
        "python": project["requires-python"].removeprefix(">="),
        **dict(bound.groups() for bound in bounds if bound),
    }


def test_versions_that_pages_state_are_those_declared():
    """ "torch 2.11 or newer" is the lower bound of pyproject.toml, on every page."""
    bounds, stated = declared(), 0
    for page in PAGES:
        for name, least in re.findall(r"([\w-]+) (\d[\d.]*) or newer", page.read_text(encoding="utf-8")):
            assert bounds.get(name.lower()) == least, f"{name_of(page)}: {name} {least}"
            stated += 1
    assert stated >= 3


def test_the_script_of_lowest_versions_finds_every_bound():
    (line,) = (
        line for line in (REPOSITORY / ".ci/lowest").read_text(encoding="utf-8").splitlines() if "sed -nE" in line
    )
    command = line.partition(" >")[0]
    assert command.endswith(" pyproject.toml")
    ran = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    pinned = dict(bound.split("==") for bound in ran.stdout.split())
    assert {"python": declared()["python"], **pinned} == declared()
