"""The options of `kto binarize` that choose labels and rows, on whole runs: exact counts, oracles of a few lines."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections import Counter, defaultdict
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_feedback import Recorder, binarize, check_whole, lines_of, made, table, write

from kto_cli.common.errors import BadData, BadInput
from kto_cli.data.pipeline.rankings import pair_ranks

SETTINGS = settings(max_examples=12, deadline=None)


def ratings(folder: Path, rows: list[tuple[str, str, Any]], name: str = "raw.jsonl") -> str:
    """A log of (prompt, answer, stars)."""
    path = folder / name
    lines = [json.dumps({"prompt": prompt, "completion": answer, "stars": stars}) for prompt, answer, stars in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return f"log:{path}"


def thumbs(folder: Path, up: int, down: int, prompts: int = 7, name: str = "raw.jsonl") -> str:
    """A log of thumbs up and down over a few prompts, no answer twice."""
    rows = [(f"Question {place % prompts}?", f"answer {place}", 1 if place < up else 0) for place in range(up + down)]
    return ratings(folder, rows, name)


THUMBS: dict[str, Any] = {"desirable": "stars == 1", "undesirable": "else"}


def train(folder: Path) -> list[dict[str, Any]]:
    return table(folder / "train.parquet")


def ids(folder: Path, split: str = "train") -> set[str]:
    return {row["id"] for row in table(folder / f"{split}.parquet")}


def rounded(share: float, rows: int) -> int:
    """floor(share * rows + 1/2), the share as it is written."""
    return math.floor(Fraction(str(share)) * rows + Fraction(1, 2))


# --- which rows stay --------------------------------------------------------------------------


@given(
    up=st.integers(8, 40),
    down=st.integers(8, 40),
    keep_desirable=st.sampled_from([0.145, 0.3, 0.5, 0.9, 1.0]),
    keep_undesirable=st.sampled_from([0.1, 0.25, 0.5, 0.999, 1.0]),
    seed=st.integers(0, 3),
)
@SETTINGS
def test_samples_of_a_class_are_exact_and_leave_the_validation_rows_alone(
    up, down, keep_desirable, keep_undesirable, seed
):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = thumbs(folder, up, down)
        whole = binarize(typed, out=folder / "whole", seed=seed, **THUMBS)
        kept = {"keep_desirable": keep_desirable, "keep_undesirable": keep_undesirable}
        part = binarize(typed, out=folder / "part", seed=seed, **kept, **THUMBS)
        check_whole(folder / "part", part, up + down)
        assert part["desirable"] == rounded(keep_desirable, whole["desirable"])
        assert part["undesirable"] == rounded(keep_undesirable, whole["undesirable"])
        for label in ("desirable", "undesirable"):
            assert part["dropped_reasons"].get(f"keep_{label}", 0) == whole[label] - part[label]
        assert ids(folder / "part") <= ids(folder / "whole")
        assert part["files"]["validation.parquet"] == whole["files"]["validation.parquet"]


@given(
    up=st.integers(6, 30),
    down=st.integers(6, 30),
    most=st.integers(1, 6),
    limit=st.integers(2, 40),
    seed=st.integers(0, 3),
)
@SETTINGS
def test_shapes_by_prompt_class_and_number(up, down, most, limit, seed):
    """One y per x, at most so many per prompt, balance and limit: each from the same whole, none touches validation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = thumbs(folder, up, down)
        whole = binarize(typed, out=folder / "whole", seed=seed, **THUMBS)
        per_prompt = Counter(row["prompt_id"] for row in train(folder / "whole"))

        def shaped(**options: Any) -> list[dict[str, Any]]:
            result = binarize(typed, out=folder / "part", overwrite=True, seed=seed, **options, **THUMBS)
            check_whole(folder / "part", result, up + down)
            assert result["files"]["validation.parquet"] == whole["files"]["validation.parquet"]
            assert ids(folder / "part") <= ids(folder / "whole")
            left = sum(result["dropped_reasons"].get(option, 0) for option in options)
            assert left == len(train(folder / "whole")) - len(train(folder / "part"))
            return train(folder / "part")

        # few rows may be of one prompt or one class, which is refused
        with suppress(BadData):
            counts = Counter(row["prompt_id"] for row in shaped(max_per_prompt=most))
            assert counts == {prompt: min(count, most) for prompt, count in per_prompt.items()}
        labels = Counter(row["label"] for row in shaped(balance=True))
        assert labels == dict.fromkeys((True, False), min(whole["desirable"], whole["undesirable"]))
        with suppress(BadData):
            half = min(limit // 2, whole["desirable"], whole["undesirable"])
            assert Counter(row["label"] for row in shaped(balance=True, limit=limit)) == {True: half, False: half}
        with suppress(BadData):
            assert len(shaped(limit=limit)) == min(limit, len(train(folder / "whole")))


def test_one_y_per_x_keeps_one_row_of_each_prompt_by_the_seed(tmp_path):
    typed = thumbs(tmp_path, 40, 40, prompts=20)
    chosen = set()
    for seed in range(3):
        result = binarize(typed, out=tmp_path / str(seed), seed=seed, validation=0, one_y_per_x=True, **THUMBS)
        rows = train(tmp_path / str(seed))
        assert Counter(row["prompt_id"] for row in rows).most_common(1)[0][1] == 1
        assert len(rows) == 20 == result["desirable"] + result["undesirable"]
        assert result["dropped_reasons"] == {"one_y_per_x": 60}
        chosen.add(frozenset(row["id"] for row in rows))
    assert len(chosen) == 3


@given(first=st.integers(10, 40), second=st.integers(10, 40), weights=st.sampled_from([(2, 1), (1, 1), (0.3, 0.7)]))
@SETTINGS
def test_weights_are_the_shares_of_the_sources(first, second, weights):
    """The most rows of which each source has its share, to less than one row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed = [
            thumbs(folder, first, first, name="a.jsonl"),
            thumbs(folder, second, second, prompts=9, name="b.jsonl"),
        ]
        options = {**THUMBS, "validation": 0}
        result = binarize(*typed, out=folder / "set", weights=weights, **options)
        check_whole(folder / "set", result, 2 * (first + second))
        counts = [one["desirable"] + one["undesirable"] for one in result["sources"]]
        total, whole = sum(counts), sum(Fraction(str(weight)) for weight in weights)
        for count, there, weight in zip(counts, (2 * first, 2 * second), weights, strict=True):
            share = total * Fraction(str(weight)) / whole
            assert abs(count - share) < 1
            assert count <= there
        more = (total + 1) * Fraction(str(weights[0])) / whole, (total + 1) * Fraction(str(weights[1])) / whole
        assert more[0] > 2 * first or more[1] > 2 * second
        assert result["dropped_reasons"].get("weights", 0) == 2 * (first + second) - total


# --- labels -----------------------------------------------------------------------------------


def ranked_trees(folder: Path, counts: list[int]) -> str:
    """OpenAssistant trees with so many ranked replies each; the text of a reply says its rank."""
    lines = []
    for tree, count in enumerate(counts):
        replies = [
            {"message_id": f"{tree}-{rank}", "role": "assistant", "text": f"tree {tree} rank {rank}", "rank": rank}
            for rank in reversed(range(count))
        ]
        root = {"message_id": f"t{tree}", "role": "prompter", "text": f"Question {tree}?", "replies": replies}
        lines.append(json.dumps({"message_tree_id": f"t{tree}", "prompt": root}))
    path = folder / "trees.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"oasst:{path}"


@pytest.mark.parametrize(
    ("way", "both", "of_five", "of_four"),
    [
        ("best-worst", False, {(0, 4)}, {(0, 3)}),
        ("middle", False, {(0, 4), (1, 3)}, {(0, 3), (1, 2)}),
        ("adjacent", False, {(0, 1), (2, 3)}, {(0, 1), (2, 3)}),
        ("adjacent", True, {(0, 1), (1, 2), (2, 3), (3, 4)}, {(0, 1), (1, 2), (2, 3)}),
    ],
)
def test_ranked_answers_in_every_way(tmp_path, way, both, of_five, of_four):
    """Trees of five, four, two and one replies; which pairs each way makes is written out above."""
    typed = ranked_trees(tmp_path, [5, 4, 2, 1])
    result = binarize(typed, out=tmp_path / "set", validation=0, ranked=way, both_labels=both)
    expected = {0: of_five, 1: of_four, 2: {(0, 1)}, 3: set()}
    assert {0: set(pair_ranks(5, way, both)), 1: set(pair_ranks(4, way, both))} == {0: of_five, 1: of_four}
    rows = [(pair, tree) for tree, pairs in expected.items() for pair in pairs]
    between = 9 - len({(tree, rank) for pair, tree in rows for rank in pair if tree < 2})
    check_whole(tmp_path / "set", result, 2 * len(rows) + between + 1)
    found: dict[str, dict[bool, tuple[int, int]]] = defaultdict(dict)
    for row in train(tmp_path / "set"):
        _, tree, _, rank = row["completion"][0]["content"].split()
        assert row["prompt"] == [{"role": "user", "content": f"Question {tree}?"}]
        assert row["origin"].endswith(f" message {tree}-{rank}")
        assert row["label"] not in found[row["pair_id"]]
        found[row["pair_id"]][row["label"]] = (int(tree), int(rank))
    pairs = {(found[pair][True], found[pair][False]) for pair in found}
    assert pairs == {((tree, better), (tree, worse)) for (better, worse), tree in rows}
    assert result["dropped_reasons"] == ({"ranked_between": between} if between else {}) | {"only_reply": 1}
    by_text = Counter(row["completion"][0]["content"] for row in train(tmp_path / "set"))
    assert max(by_text.values()) == (2 if both else 1)


STARS = [
    *(("a", score) for score in (1, 2, 3)),
    *(("b", score) for score in (3, 3)),
    *(("c", score) for score in (5, 4, 5, 1)),
    *(("d", score) for score in (2,)),
    *(("e", score) for score in (0, 5)),
]


def cut_by_hand(way: str, margin: float) -> list[bool | None]:
    """The label of each of STARS, in plain Python."""
    every = [score for _, score in STARS]
    middle = (
        {"mean": statistics.mean, "median": statistics.median}[way.removeprefix("prompt-")] if way[0] in "mp" else None
    )
    labels: list[bool | None] = []
    for prompt, score in STARS:
        if middle is None:
            at = float(way)
        else:
            at = middle([each for name, each in STARS if name == prompt] if way.startswith("prompt-") else every)
        derived_at = middle is not None and score == at
        labels.append(None if derived_at or abs(score - at) < margin else score >= at)
    return labels


@pytest.mark.parametrize("way", ["3", "2.5", "mean", "median", "prompt-mean", "prompt-median"])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_scores_are_labelled_in_every_way(tmp_path, way, margin):
    rows = [(prompt, f"{prompt} {place}", score) for place, (prompt, score) in enumerate(STARS)]
    typed = ratings(tmp_path, rows)
    screen = Recorder()
    result = binarize(
        typed, out=tmp_path / "set", screen=screen, score_column="stars", threshold=way, margin=margin, validation=0
    )
    expected = cut_by_hand(way, margin)
    found = {row["completion"][0]["content"]: row["label"] for row in train(tmp_path / "set")}
    assert found == {answer: label for (_, answer, _), label in zip(rows, expected, strict=True) if label is not None}
    assert result["dropped_reasons"] == ({"undecided": expected.count(None)} if None in expected else {})
    check_whole(tmp_path / "set", result, len(rows))


def test_bernoulli_labels_follow_the_score_and_the_seed(tmp_path):
    """Of 400 answers a score of +-4 units from the middle is right 98 times of 100, and one at the middle a coin."""
    rows = [(f"q{place % 50}", f"a{place}", (-4, 0, 4, 0)[place % 4]) for place in range(400)]
    typed = ratings(tmp_path, rows)
    options: dict[str, Any] = {
        "score_column": "stars",
        "threshold": "bernoulli",
        "logistic_mid": 0.0,
        "logistic_scale": 1.0,
    }
    scores = {answer: score for _, answer, score in rows}
    labels = []
    for place, seed in enumerate((0, 0, 1)):
        binarize(typed, out=tmp_path / str(place), seed=seed, validation=0, **options)
        labels.append({row["completion"][0]["content"]: row["label"] for row in train(tmp_path / str(place))})
    assert labels[0] == labels[1] != labels[2]
    for found in labels[1:]:
        wins = Counter(scores[answer] for answer, label in found.items() if label)
        assert wins[-4] <= 8
        assert wins[4] >= 92
        assert 70 <= wins[0] <= 130


def test_scores_without_a_threshold_are_refused_with_what_they_are(tmp_path):
    typed = ratings(tmp_path, [(f"q{place}", f"a{place}", place % 5) for place in range(10)])
    with pytest.raises(BadInput, match=r"log has 10 scores \(from 0 to 4, median 2\)") as refusal:
        binarize(typed, out=tmp_path / "set", score_column="stars")
    assert "--threshold NUMBER" in refusal.value.next_step
    assert not (tmp_path / "set").exists()


def test_each_source_is_labelled_on_its_own_scale(tmp_path):
    """The median of 0 to 4 is 2, that of 0 to 40 is 20: mixed, one source would be all undesirable."""
    small = ratings(tmp_path, [(f"q{place}", f"a{place}", place % 5) for place in range(50)], "small.jsonl")
    large = ratings(tmp_path, [(f"r{place}", f"b{place}", 10 * (place % 5)) for place in range(50)], "large.jsonl")
    result = binarize(small, large, out=tmp_path / "set", score_column="stars", threshold="median", validation=0)
    for one in result["sources"]:
        assert (one["desirable"], one["undesirable"]) == (20, 20)
    assert result["dropped_reasons"] == {"undecided": 20}


# --- fixes ------------------------------------------------------------------------------------

CLEAN = [(f"Question {place}?", f"Answer {place} {'good' if place % 2 else 'bad'}.", place % 2) for place in range(20)]
REFUSES, LINK = "I'm sorry, but I can't help with that.", "https://example.org/manual"
FAULTS: dict[str, list[tuple[str, str, int]]] = {
    "contradictions": [("Who?", "Me.", 1), ("Who?", "Me.", 0)],
    "duplicates": [("Where?", "There.", 1), ("Where?", "There.", 1), ("Where?", "There.", 1)],
    "refusals": [("How?", REFUSES, 0), ("Why?", REFUSES, 1)],
    "urls": [("Which?", LINK, 1)],
    "echoes": [("Is it open today?", "is it  open today?", 0)],
}
LEAVING = {"contradictions": 2, "duplicates": 2, "refusals": 2, "urls": 1, "echoes": 1}


@pytest.mark.parametrize("fix", FAULTS)
def test_each_fix_takes_its_own_rows_out_and_no_others(tmp_path, fix):
    rows = [*CLEAN, *(row for fault in FAULTS.values() for row in fault)]
    typed = ratings(tmp_path, rows)
    options = {**THUMBS, "validation": 0}
    whole = binarize(typed, out=tmp_path / "whole", **options)
    found = {one["finding"]: one["rows"] for one in whole["findings"] if one["rows"]}
    assert found == LEAVING
    result = binarize(typed, out=tmp_path / "set", fix=(fix,), **options)
    check_whole(tmp_path / "set", result, len(rows))
    assert result["dropped_reasons"] == {fix: LEAVING[fix]}
    lost = [line["origin"] for line in lines_of(tmp_path / "set/rejects.jsonl")]
    assert {rows[int(origin.split(":")[1]) - 1] for origin in lost} <= set(FAULTS[fix])
    assert {one["finding"]: one["rows"] for one in result["findings"] if one["rows"]} == {
        name: count for name, count in LEAVING.items() if name != fix
    }


def test_all_fixes_at_once_leave_nothing_to_find(tmp_path):
    rows = [*CLEAN, *(row for fault in FAULTS.values() for row in fault)]
    result = binarize(ratings(tmp_path, rows), out=tmp_path / "set", fix=("all",), validation=0, **THUMBS)
    assert result["dropped_reasons"] == LEAVING
    assert lines_of(tmp_path / "set/findings.jsonl") == []


def test_fixing_the_encoding_restores_texts_and_loses_no_row(tmp_path):
    rows = [*CLEAN, ("Who’s there?", "It’s naïve".encode().decode("cp1252"), 1), ("A\x00B?", "Bell\x07.", 0)]
    typed = ratings(tmp_path, rows)
    whole = binarize(typed, out=tmp_path / "whole", validation=0, **THUMBS)
    assert {one["finding"]: one["rows"] for one in whole["findings"] if one["rows"]} == {
        "mojibake": 1,
        "control_characters": 1,
    }
    result = binarize(typed, out=tmp_path / "set", fix=("encoding",), validation=0, **THUMBS)
    check_whole(tmp_path / "set", result, len(rows))
    assert result["dropped"] == 0
    texts = [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in train(tmp_path / "set")]
    assert texts[-2:] == [("Who’s there?", "It’s naïve"), ("AB?", "Bell.")]
    assert texts[:-2] == [(prompt, answer) for prompt, answer, _ in CLEAN]
    assert lines_of(tmp_path / "set/findings.jsonl") == []


def test_texts_of_which_a_fix_leaves_nothing_are_rejected(tmp_path):
    rows = [*CLEAN, ("Bell?", "\x07\x07", 1), ("\x07", "A bell.", 0), ("\x07\x07", "\x07", 0)]
    result = binarize(ratings(tmp_path, rows), out=tmp_path / "set", fix=("encoding",), validation=0, **THUMBS)
    check_whole(tmp_path / "set", result, len(rows))
    assert result["rejected"] == {"empty_answer": 1, "empty_prompt": 2}
    assert all(
        turn["content"].strip() for row in train(tmp_path / "set") for turn in (*row["prompt"], *row["completion"])
    )


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_fixing_near_duplicates_keeps_them_on_one_side(tmp_path):
    """Twenty pairs of prompts that differ in one word of 26: with the fix no pair is torn apart."""
    rows = [
        (" ".join(first + second for second in LETTERS) + ending, f"answer {place} {ending}", place % 2)
        for place, first in enumerate(LETTERS[:20])
        for ending in ("", " please")
    ]
    typed = ratings(tmp_path, rows)

    def torn(folder: Path) -> int:
        sides = [
            {row["prompt"][0]["content"].removesuffix(" please") for row in table(folder / f"{split}.parquet")}
            for split in ("train", "validation")
        ]
        return len(sides[0] & sides[1])

    binarize(typed, out=tmp_path / "whole", validation=0.5, **THUMBS)
    assert torn(tmp_path / "whole") > 3
    result = binarize(typed, out=tmp_path / "set", validation=0.5, fix=("near-duplicates",), **THUMBS)
    assert torn(tmp_path / "set") == 0
    check_whole(tmp_path / "set", result, 40)


@pytest.mark.parametrize("source", ["trl", "hh-rlhf"])
def test_other_tools_formats_have_the_same_rows(tmp_path, source):
    typed = write(tmp_path, source, made(source, ()))
    result = binarize(typed, out=tmp_path / "set", validation=0.5, formats=("trl", "llama-factory", "halos"))
    for split in ("train", "validation"):
        rows = table(tmp_path / f"set/{split}.parquet")
        trl = lines_of(tmp_path / f"set/trl/{split}.jsonl")
        assert trl == [{key: row[key] for key in ("prompt", "completion", "label")} for row in rows]
        factory = json.loads((tmp_path / f"set/llama-factory/{split}.json").read_text(encoding="utf-8"))
        assert [(one["conversations"][-1]["value"], one["kto_tag"]) for one in factory] == [
            (row["completion"][0]["content"], row["label"]) for row in rows
        ]
        halos = json.loads((tmp_path / f"set/halos/{split}.json").read_text(encoding="utf-8"))
        assert [(one["prompt"], one["output"], bool(one["label"])) for one in halos] == [
            (row["prompt"], row["completion"], row["label"]) for row in rows
        ]
        assert {result["exports"][f"{name}"] for name in result["exports"] if f"/{split}." in name} == {len(rows)}
    # and read again they are the same rows
    for name, kind in (
        ("trl/train.jsonl", "trl"),
        ("llama-factory/train.json", "llama-factory"),
        ("halos/train.json", "halos"),
    ):
        again = binarize(f"{kind}:{tmp_path / 'set' / name}", out=tmp_path / kind, validation=0)
        assert again["rows_in"] == len(train(tmp_path / "set"))
        assert ids(tmp_path / kind) == ids(tmp_path / "set")
