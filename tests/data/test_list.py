"""`kto binarize --list`: every source with lines that can be copied, and options that it does take."""

from __future__ import annotations

import re

import pytest

from kto_cli.common.binarize_config import OF_SOURCES, BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.formats.listing import raw_files
from kto_cli.data.pipeline.parse import blocks
from kto_cli.data.pipeline.to_rows import parse_block
from kto_cli.data.registry import MODULES, all_sources, source
from kto_cli.data.select import choose

SUFFIXES = {"log": "csv", "alpaca-eval": "json", "halos": "json", "llama-factory": "json", "sql": "sql"}
OPTIONS = {"log": {"desirable": "resolved == true", "undesirable": "else"}}
VALUES = {
    **{"ranked": "middle", "threshold": "3", "margin": 0.5, "score": "thumbs", "min_ratio": 3.0, "desirable": "a == 1"},
    **{"undesirable": "a == 2", "both_labels": True},
}


def test_the_list_is_all_sources_in_full(kto):
    listed = kto("binarize", "--list", "--json").json["sources"]
    assert [one["name"] for one in listed] == list(MODULES)
    known = set(re.findall(r"--[a-z-]+", kto("binarize", "--help").out))
    for one in listed:
        assert one["about"]
        assert one["gives"]
        assert one["example"]
        assert {word for option in one["options"] for word in re.findall(r"--[a-z-]+", option)} <= known
        assert all(one["licence"] and hub_id.count("/") == 1 for hub_id in one["hub_ids"])


@pytest.mark.parametrize("name", MODULES)
def test_the_example_of_a_source_is_a_raw_file_of_it(name, tmp_path):
    """Every row of it is feedback: none is rejected or left out."""
    if name == "sql":
        pytest.importorskip("duckdb")
    path = tmp_path / f"example.{SUFFIXES.get(name, 'jsonl')}"
    path.write_text("\n".join(source(name).example) + "\n", encoding="utf-8")
    config = BinarizeConfig((f"{name}:{path}",), **OPTIONS.get(name, {}))
    made = [parse_block(block) for block in blocks(choose(config), config, lambda _: None)]
    assert sum(one.texts.num_rows for one in made) >= 1
    assert [lost for one in made for lost in one.unused] == []


@pytest.mark.parametrize("option", OF_SOURCES)
@pytest.mark.parametrize("name", MODULES)
def test_an_option_is_taken_by_the_sources_that_list_it_and_by_no_other(name, option, tmp_path):
    path = tmp_path / ("annotations.sql" if name == "sql" else "annotations.jsonl")
    path.write_text("{}\n", encoding="utf-8")
    given = {option: VALUES.get(option, "column")} | ({"ranked": "adjacent"} if option == "both_labels" else {})
    config = BinarizeConfig((f"{name}:{path}",), **given)
    flag = "--" + option.replace("_", "-")
    assert raw_files(path, source(name))
    if flag in source(name).options:
        assert [one.name for one in choose(config)] == [name]
    else:
        with pytest.raises(BadInput, match="does not apply to") as refusal:
            choose(config)
        takers = [each.name for each in all_sources() if flag in each.options]
        assert flag in refusal.value.what or option == "both_labels"
        assert not takers or takers[0] in refusal.value.next_step
