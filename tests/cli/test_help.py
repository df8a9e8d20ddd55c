"""`--help` of every command at 80 columns: each flag by its whole name, in panels; choices and renamed flags."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
from conftest import REPOSITORY, call

from kto_cli.cli.app import OLD_FLAGS, app

COMMANDS = ("binarize", "precompute", "train", "eval", "export", "sample", "label", "loop", "outcome", "demo", "theory")


def parameters(command: str) -> dict[str, Any]:
    from typer.main import get_command

    return {parameter.name: parameter for parameter in get_command(app).commands[command].params}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flag_is_cut_at_80_columns(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(command, "--help").out
    assert "…" not in shown
    words = set(shown.replace("│", " ").split())
    for parameter in parameters(command).values():
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert not name.startswith("--") or name in words, name
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_no_flags_placeholder_is_its_name_in_capitals(command):
    """typer 0.27 takes such a metavar for the flag: `--dtype` became `--DTYPE`."""
    assert not [name for name, each in parameters(command).items() if (each.metavar or "").lower() == name]


@pytest.mark.parametrize("command", ["train", "eval", "binarize"])
def test_long_help_is_in_panels_and_the_first_has_what_most_people_need(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = call(command, "--help").out
    assert shown.count("╭─ ") >= 5
    if command == "train":
        first = shown.split("╭─ Run")[1].split("╰")[0]
        assert all(flag in first for flag in ("--data", "--model", "--out", "--resume", "--dry-run"))
        assert shown.index("--beta") < shown.index("--learning-rate") < shown.index("--lora-r") < shown.index("--cache")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--dtype", "int3"),
        ("train", "--schedule", "step"),
        ("train", "--optimizer", "sgd"),
        ("train", "--gradient-checkpointing", "maybe"),
        ("train", "--track", "paper"),
        ("train", "--beta", "0"),
        ("train", "--beta", "much"),
        ("train", "--lora-alpha", "8"),
        ("train", "--nonsense"),
        ("train", "--dry-run", "--resume"),
        ("train", "--device-memory", "80"),
        ("train", "--dry-run", "--device-memory", "0"),
        ("eval", "x", "--engine", "steam"),
        ("eval",),
        ("nonsense",),
        ("binarize", "x.jsonl", "--validation", "2"),
    ],
    ids=" ".join,
)
def test_every_bad_flag_is_one_line_and_exit_status_2(words):
    ran = call(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    ran = call(*words, "--json")
    if words[0] == "nonsense":
        return
    found = json.loads(ran.out)
    assert sorted(found) == ["error", "exit", "next"]
    assert ran.code == found["exit"] == 2
    assert found["error"] in ran.err
    assert found["next"] in ran.err


def test_an_error_with_json_is_one_object_on_stdout(workplace):
    ran = call("train", "--data", "nowhere", "--json")
    assert json.loads(ran.out) == {
        "error": json.loads(ran.out)["error"],
        "next": json.loads(ran.out)["next"],
        "exit": 1,
    }
    assert "nowhere" in json.loads(ran.out)["error"]
    assert ran.out.count("\n") == 1
    assert ran.code == 1


def test_choices_are_completed(monkeypatch):
    """A shell asks for completions as Typer's own scripts do."""
    monkeypatch.setenv("_KTO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "kto train --dtype bf")
    monkeypatch.setenv("COMP_CWORD", "3")
    from typer.testing import CliRunner

    monkeypatch.setenv("COMP_WORDS", "kto train --dtype bfl")
    ran = CliRunner().invoke(app, [], prog_name="kto")
    assert ran.stdout.split() == ["bfloat16", "bfloat16-pure"]


@pytest.mark.parametrize(("old", "new"), sorted(OLD_FLAGS.items()))
def test_a_renamed_flag_still_works_and_is_not_shown(old, new, workplace, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    known = {name for parameter in parameters("binarize").values() for name in parameter.opts}
    if f"--{new}" not in known:
        pytest.skip(f"--{new} is not there yet")
    assert f"--{old} " not in call("binarize", "--help").out
    value = {"validation": "0.25", "fix": "duplicates", "threshold": "3"}[new]
    rows = [{"prompt": f"Q{n}?", "completion": f"A{n}", "score": n % 6} for n in range(40)]
    (workplace / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["binarize", "log:log.jsonl", "--score-column", "score"] + (
        [] if new == "threshold" else ["--threshold", 3]
    )
    by_old = call(*words, f"--{old}", value, "--out", "old", "--json").json
    by_new = call(*words, f"--{new}", value, "--out", "new", "--json").json
    assert by_old["options"][new] == by_new["options"][new]
    assert by_old["validation"] == by_new["validation"]


OTHER_PROGRAMS = ("launch.py", "hub.py", "charts.py", "trackers.py", "gguf.py", "commands.py")
"""Modules whose texts name flags of accelerate and torchrun, of hf and TensorBoard, of git, llama.cpp and vLLM, or
variables of a style sheet."""


def test_messages_name_flags_that_exist():
    """Every --flag in a text of the package belongs to a command of kto. (A hint of a flag that was still to come once
    reached users.)"""
    own = {
        name
        for command in COMMANDS
        for parameter in parameters(command).values()
        for name in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "--version"}
    unknown: dict[str, str] = {}
    for path in sorted((REPOSITORY / "kto_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]*", node.value):
                    if flag not in own and path.name not in OTHER_PROGRAMS:
                        unknown.setdefault(flag, path.name)
    assert unknown == {}
