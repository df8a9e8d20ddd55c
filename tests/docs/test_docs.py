"""What docs/feedback.md says of feedback is true: its examples run, its flags and names exist.

A fenced block with a title is a file, a block of `sh` is commands, and the comment after a command claims what comes
of it: `# 2 desirable, 1 undesirable, dropped: no_label 1`. test_docs_evaluation.py does the same for
docs/evaluation.md; test_pages.py looks at all pages.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
from conftest import REPOSITORY, call

from kto_cli.cli.binarize import BinarizeFlags
from kto_cli.common.binarize_config import FIXES, FORMATS, RANKED, THRESHOLDS, BinarizeConfig
from kto_cli.data.audit import agreement, checks, cut_answers, dataset_checks, dominance
from kto_cli.data.audit.found import ABOUT
from kto_cli.data.dataset import COLUMNS, FILES, MANIFEST
from kto_cli.data.formats.records import Dropped, Reject
from kto_cli.data.formats.source import RawFile
from kto_cli.data.log import labels
from kto_cli.data.log.rules import compile_rule
from kto_cli.data.pipeline import sample
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.registry import MODULES, all_sources, source
from kto_cli.model.tokens import fit

PAGE = REPOSITORY / "docs" / "feedback.md"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OTHER_FLAGS: set[str] = set()
"""Flags of other commands that the page speaks of."""


class Example(NamedTuple):
    """A command, the files that are there by then, and the claim below it."""

    command: str
    files: dict[str, str]
    claim: str


def section(text: str, title: str) -> str:
    """The part of a page under a heading, down to the next of its level or above (one # is a comment in a block)."""
    level = len(title) - len(title.lstrip("#"))
    start = text.index(f"\n{title}\n") + 1
    end = re.search(rf"^#{{2,{level}}} ", text[start + len(title) :], re.MULTILINE)
    return text[start:] if end is None else text[start : start + len(title) + end.start()]


def examples(text: str) -> list[Example]:
    """Every command with a claim, in the order of the page."""
    files: dict[str, str] = {}
    found = []
    for language, title, content in BLOCK.findall(text):
        if title:
            assert title not in files, f"two files are called {title}"
            files[title] = content
        elif language == "sh":
            lines = content.splitlines()
            assert len(lines) % 2 == 0, f"a command without a claim: {content}"
            for command, claim in zip(lines[::2], lines[1::2], strict=True):
                assert claim.startswith("# "), f"a command without a claim: {command}"
                found.append(Example(command, dict(files), claim.removeprefix("# ")))
    return found


def claim_of(result: dict[str, Any]) -> str:
    """What a run gave, as the page says it."""
    parts = [f"{result['desirable']} desirable", f"{result['undesirable']} undesirable"]
    parts += [f"{result['validation']} validation"] if result["validation"] else []
    for name, reasons in (("dropped", result["dropped_reasons"]), ("rejected", result["rejected"])):
        if reasons:
            parts.append(f"{name}: " + ", ".join(f"{reason} {rows}" for reason, rows in sorted(reasons.items())))
    return ", ".join(parts)


EXAMPLES = examples(PAGE.read_text(encoding="utf-8"))
LINES = section(PAGE.read_text(encoding="utf-8"), "## One line of each format")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.command[:60])
def test_an_example_does_what_the_page_says(example, workplace):
    for name, content in example.files.items():
        Path(name).write_text(content, encoding="utf-8")
    words = shlex.split(example.command)
    assert words[:2] == ["kto", "binarize"]
    if words[2].startswith("sql:"):
        pytest.importorskip("duckdb")
    result = call(*words[1:], "--json").json
    assert claim_of(result) == example.claim
    out = Path(result["out"])
    assert {path.name for path in out.iterdir()} == {*FILES, MANIFEST}
    lost = [json.loads(line) for line in (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    used = result["desirable"] + result["undesirable"] + result["validation"]
    assert used + sum(line["rows"] for line in lost) == result["rows_in"]


def test_the_page_has_examples_of_every_source_with_licence_and_hub_ids():
    text = PAGE.read_text(encoding="utf-8")
    for_several = section(text, "## Scores to labels") + section(text, "## trl")
    for one in all_sources():
        part = section(text, f"## {one.name}")
        ran = [example.command for example in examples(text) if example.command in part]
        assert ran, one.name
        assert one.name == "trl" or any(f"binarize {one.name}:" in command for command in ran)
        for hub_id in one.hub_ids:
            assert f"`{hub_id}`" in part
        if one.hub_ids:
            assert one.licence.split(";")[0] in part
        for option in one.options:
            flag = option.split()[0]
            rules_of_logs = one.name != "log" and flag in section(text, "## log")
            assert flag in part or flag in for_several or rules_of_logs, f"{flag} of {one.name}"
    chats_only = ["hh-rlhf", "oasst", "open-webui", "chat-ui", "librechat", "openai-preference", "gradio"]
    assert [one.name for one in all_sources() if not one.has_texts] == chats_only


def test_the_first_table_and_the_last_name_every_source():
    first = PAGE.read_text(encoding="utf-8").split("## log")[0]
    for one in all_sources():
        assert one.name == "trl" or f"kto binarize {one.name}" in first
        assert one.name == "trl" or f"kto binarize {one.name}" in LINES


def test_the_example_lines_can_be_read():
    """Each by the source that stands beside it."""
    rows = [line.split(" | ") for line in LINES.splitlines() if line.startswith("| ") and "`{" in line]
    read = set()
    for _, typed, shown in rows:
        named = re.search(r"kto binarize ([a-z-]+)", typed)
        name, line = named[1] if named else "trl", shown.strip("| `")
        if "..." in line:
            continue
        config = BinarizeConfig((name,))
        if name == "log":
            config = BinarizeConfig((name,), desirable="resolved == true", undesirable="stars <= 2")
        elif "--label-column" in source(name).options and name != "sql":
            config = BinarizeConfig((name,), label_column="thumb")
        results = list(source(name).parse(Record("line:1", json.loads(line)), RawFile(Path("line"), "line"), config))
        assert results, name
        assert not [one for one in results if isinstance(one, (Reject, Dropped))], results
        read.add(name)
    assert read == set(MODULES) - {"oasst", "librechat"}, "of these a line is one message"


def test_the_page_has_all_flags_of_the_command_and_no_others():
    flags = set(FLAG.findall(call("binarize", "--help").out)) - {"--help"}
    said = set(FLAG.findall(PAGE.read_text(encoding="utf-8")))
    assert len(flags) > 35
    assert flags - said == set(), "flags the page leaves out"
    assert said - flags - OTHER_FLAGS == set(), "flags that do not exist"


def test_every_flag_has_a_help_text():
    for name, hint in get_type_hints(BinarizeFlags, include_extras=True).items():
        assert (hint.__metadata__[0].help or "").endswith("."), name


@pytest.mark.parametrize(
    "words", [RANKED, THRESHOLDS, FIXES, FORMATS, COLUMNS, (*FILES, MANIFEST)], ids=lambda words: words[0]
)
def test_the_page_has_all_values_of_an_option(words):
    text = PAGE.read_text(encoding="utf-8")
    for word in words:
        assert re.search(rf"[` ]{re.escape(word)}`", text), word


def test_the_page_has_the_names_of_all_findings():
    text = section(PAGE.read_text(encoding="utf-8"), "## What the doctor finds")
    names = {about.name for about in ABOUT.values()}
    for module in (agreement, checks, cut_answers, dataset_checks, dominance):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            is_finding = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
            if is_finding and isinstance(node.args[0], ast.Constant):
                names.add(node.args[0].value)
    names |= set(fit.ADVICE)
    assert len(names) == 41
    first_cells = " ".join(line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([a-z_]+)`", first_cells)) == names


def test_the_shaping_table_is_in_the_order_of_the_steps():
    text = section(PAGE.read_text(encoding="utf-8"), "## Which rows to keep")
    rows = [line for line in text.splitlines() if line.startswith("| `--")]
    said = [flag.removeprefix("--").replace("-", "_") for row in rows for flag in FLAG.findall(row.split("|")[1])]
    assert said == list(sample.DETAILS)


def test_the_rules_of_the_page_can_be_read():
    text = section(PAGE.read_text(encoding="utf-8"), "### Rules")
    table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    rules = [rule for cell in table for rule in re.findall(r"`([^`]+)`", cell) if len(rule) > 2]
    assert len(rules) >= 10
    for rule in [*rules, '`was it good?` == "yes"']:
        assert compile_rule(rule, "--desirable").columns


def test_an_empty_cell_is_no_complaint():
    """As the page says of `else`: the row with the empty cell is left out."""
    config = BinarizeConfig(("log",), desirable="stars >= 4", undesirable="else")
    with pytest.raises(labels.NoFeedback):
        labels.label_or_score({"stars": ""}, config)
    assert labels.label_or_score({"stars": "3"}, config) is False


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_of_sources_reads_well(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    ran = call("binarize", "--list")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= width
    for one in all_sources():
        assert any(re.search(rf"(^|\s){re.escape(one.name)}(\s|$)", line) for line in lines), one.name
        for hub_id in one.hub_ids:
            assert hub_id in ran.out, "a Hub id is not cut"
        for option in one.options:
            assert option.split()[0] in ran.out, "nor is a flag"
