"""`kto binarize` for losses other than KTO's: pairs made of single rows, and datasets of desirable answers alone."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from binarizing import Recorder, adds_up, binarize, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.errors import BadData, BadInput
from kto_cli.core.pairs import pairing_of
from kto_cli.data.dataset import Row, load_data_dir

RATED = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.booleans()), min_size=4, max_size=40, unique=True)


def rated(rows: list[tuple[int, int, bool]]) -> list[dict[str, Any]]:
    return [{"prompt": f"Q{prompt}", "completion": f"A{answer}", "label": label} for prompt, answer, label in rows]


def pairs_of(rows: list[Row]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        if row.pair_id is not None:
            found[row.pair_id].append(row)
    return found


@settings(max_examples=60, deadline=None)
@given(rows=RATED, most=st.integers(1, 4), validation=st.sampled_from([0, 0.3]), shuffle=st.randoms())
def test_pairs_within_prompts(tmp_path_factory, rows, most, validation, shuffle):
    """As many pairs as N and the scarcer class of each prompt allow, answers of both labels aside; each row once, and
    the same pairs whatever the order of the rows."""
    rows += [(8, 0, True), (8, 1, False), (9, 2, True), (9, 3, False)]
    folder = tmp_path_factory.mktemp("pairs")
    out, found = [], []
    for name in ("one", "two"):
        path = write_lines(folder / f"{name}.jsonl", *rated(rows))
        result = binarize(path, folder / name, validation=validation, pair_within_prompts=most)
        data = load_data_dir(folder / name)
        out.append((data, result))
        found.append({frozenset(row.id for row in both) for both in pairs_of(data.train + data.validation).values()})
        shuffle.shuffle(rows)
    assert found[0] == found[1]
    data, result = out[0]
    kept = data.train + data.validation
    labels = defaultdict(set)
    for row in kept:
        labels[str(row.prompt), str(row.completion)].add(row.label)
    for both in pairs_of(kept).values():
        assert sorted(row.label for row in both) == [False, True]
        assert len({row.prompt_id for row in both}) == 1
    counts = Counter(
        (row.prompt_id, row.label) for row in kept if len(labels[str(row.prompt), str(row.completion)]) == 1
    )
    expected = sum(min(most, counts[prompt, True], counts[prompt, False]) for prompt in {row.prompt_id for row in kept})
    assert result["made_pairs"]["pairs"] == len(found[0]) == expected
    assert result["made_pairs"]["contradicting"] == len(kept) - counts.total()
    alone = Counter(row.label for row in kept if row.pair_id is None)
    assert (result["made_pairs"]["desirable"], result["made_pairs"]["undesirable"]) == (alone[True], alone[False])
    assert data.manifest["made_pairs"] == result["made_pairs"]


def test_pairs_of_the_source_stay_and_the_rest_is_paired(tmp_path: Path):
    """A file of pairs mixed with single rows: the pairs keep their ids, single rows of one prompt make further ones."""
    pairs = write_lines(
        tmp_path / "pairs.jsonl", *[{"prompt": f"P{n}", "chosen": "a", "rejected": "b"} for n in range(3)]
    )
    single = write_lines(tmp_path / "single.jsonl", *rated([(0, 1, True), (0, 2, False), (0, 3, False), (1, 1, True)]))
    screen = Recorder()
    plain, made = (
        binarize_both(pairs, single, tmp_path / name, screen, **options)
        for name, options in (("plain", {}), ("made", {"pair_within_prompts": 2}))
    )
    before, after = pairs_of(plain.train), pairs_of(made.train)
    assert before.keys() < after.keys()
    assert len(after) == len(before) + 1 == 4
    pairing = pairing_of([row.pair_id for row in made.train], [row.label for row in made.train])
    assert pairing.pairs == 4
    said = "--pair-within-prompts 2 made 1 pair; 1 desirable and 1 undesirable rows stay without one."
    assert said in screen.notes


def binarize_both(one: Path, other: Path, out: Path, screen: Recorder, **options: Any) -> Any:
    from kto_cli.common.binarize_config import BinarizeConfig
    from kto_cli.workflows.binarize import run

    run(BinarizeConfig((str(one), str(other)), out=str(out), validation=0, **options), screen)
    return load_data_dir(out)


def test_pairs_of_a_log(tmp_path: Path):
    """Rules over the rows of a log; another seed pairs otherwise, the same seed alike."""
    rows = [{"question": f"Q{n % 3}", "answer": f"A{n}", "stars": 5 if n % 2 else 1} for n in range(60)]
    path = write_lines(tmp_path / "log.jsonl", *rows)
    made = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        rules = {"desirable": "stars >= 4", "undesirable": "else", "validation": 0}
        binarize(f"log:{path}", tmp_path / name, pair_within_prompts=4, seed=seed, **rules)
        both = pairs_of(load_data_dir(tmp_path / name).train).values()
        made.append({frozenset(str(row.completion) for row in pair) for pair in both})
    assert len(made[0]) == 12
    assert made[0] == made[1] != made[2]


def test_no_pair_can_be_made(tmp_path: Path):
    path = write_lines(tmp_path / "f.jsonl", *rated([(n, n, n % 2 == 0) for n in range(8)]))
    result = binarize(path, tmp_path / "out", validation=0, pair_within_prompts=3)
    assert result["made_pairs"] == {"pairs": 0, "desirable": 4, "undesirable": 4, "contradicting": 0}


# --- desirable answers alone ----------------------------------------------------------------------


def good_rows(count: int = 12) -> list[dict[str, Any]]:
    return rated([(number, number, True) for number in range(count)])


def test_desirable_answers_alone_are_a_dataset_for_sft(tmp_path: Path):
    path, screen = write_lines(tmp_path / "good.jsonl", *good_rows()), Recorder()
    with pytest.raises(BadData, match="KTO needs both classes") as refused:
        binarize(path, tmp_path / "out")
    assert "add --for sft" in str(refused.value)
    result = binarize(path, tmp_path / "out", screen, purpose="sft", validation=0.2)
    assert adds_up(result)
    assert (result["undesirable"], result["lambda_interval"]) == (0, None)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["options"]["purpose"] == "sft"
    names = {one["finding"] for one in result["findings"]}
    assert names.isdisjoint({"balance", "length_bias", "one_label_prompts", "one_rule"})
    assert any("kto train --loss sft" in said for said in screen.said)
    assert not any("Eq. 8" in said for said in screen.said)
    assert all(row.label for row in load_data_dir(tmp_path / "out").train)


def test_undesirable_answers_alone_are_none(tmp_path: Path):
    path = write_lines(tmp_path / "bad.jsonl", *rated([(number, number, False) for number in range(9)]))
    with pytest.raises(BadData, match="no desirable rows among 9 training rows; --for sft needs some"):
        binarize(path, tmp_path / "out", purpose="sft", validation=0)
    assert not (tmp_path / "out").exists()


def test_rows_of_both_classes_are_the_same_for_both(tmp_path: Path):
    rows = rated([(n, n, random.Random(n).random() < 0.5) for n in range(30)])
    path = write_lines(tmp_path / "f.jsonl", *rows)
    fingerprints = {
        load_data_dir(tmp_path / name).fingerprint
        for name in ("kto", "sft")
        if binarize(path, tmp_path / name, purpose=name)
    }
    assert len(fingerprints) == 1


def test_one_rule_is_enough_for_sft(tmp_path: Path):
    """Rows that the rule is false or unknown of are dropped: none of them becomes undesirable."""
    cells = [True, False, None, True]
    rows = [{"question": f"Q{n}", "answer": f"A{n}", "ok": cell} for n, cell in enumerate(cells)]
    source = f"log:{write_lines(tmp_path / 'log.jsonl', *rows)}"
    with pytest.raises(BadInput, match="says nothing of the other rows"):
        binarize(source, tmp_path / "out", desirable="ok == true")
    result = binarize(source, tmp_path / "out", desirable="ok == true", purpose="sft", validation=0)
    assert (result["desirable"], result["undesirable"]) == (2, 0)
    assert result["dropped_reasons"] == {"matches_neither": 2}
    with pytest.raises(BadInput, match="--undesirable says nothing of the other rows"):
        binarize(source, tmp_path / "none", undesirable="ok == false", purpose="sft")


def test_the_flags(kto, workplace: Path):
    write_lines(workplace / "good.jsonl", *good_rows())
    done = kto("binarize", "good.jsonl", "--for", "sft", "--json")
    assert done.json["options"]["purpose"] == "sft"
    refused = kto("binarize", "good.jsonl", "--pair-within-prompts", "0")
    assert refused.code in (1, 2)
    assert "--pair-within-prompts" in refused.err
