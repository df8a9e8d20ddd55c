"""Mismatched partners: what qualifies, and what must not change them."""

from __future__ import annotations

import random
import time

import pytest
from encoded import partners_of_texts
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.core.mismatch import ring_key

ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("vwxyz")), min_size=2, max_size=14)


def naive_partners(rows: list[tuple[str, str]], seed: int) -> list[int]:
    """The ring walked one row at a time; -1 for a row that meets no partner."""
    ring = sorted(range(len(rows)), key=lambda row: ring_key(*rows[row], seed=seed))
    partners = {}
    for place, row in enumerate(ring):
        walk = ring[place + 1 :] + ring[:place]
        found = [other for other in walk if all(a != b for a, b in zip(rows[other], rows[row], strict=True))]
        partners[row] = found[0] if found else -1
    return [partners[row] for row in range(len(rows))]


def partners_of(rows: list[tuple[str, str]], seed: int = 0) -> list[int]:
    return list(partners_of_texts([prompt for prompt, _ in rows], [text for _, text in rows], seed=seed))


@settings(max_examples=300, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 3))
def test_fast_walk_equals_the_naive_one(rows: list[tuple[str, str]], seed: int):
    expected = naive_partners(rows, seed)
    if max(expected) < 0:
        with pytest.raises(ValueError, match=r"same prompt|same completion"):
            partners_of(rows, seed)
    else:
        assert partners_of(rows, seed) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=2, max_size=40))
def test_no_partner_shares_prompt_or_completion(rows: list[tuple[str, str]]):
    try:
        partners = partners_of(rows)
    except ValueError:
        assert max(naive_partners(rows, 0)) < 0
        return
    assert len(partners) == len(rows)
    for row, partner in enumerate(partners):
        assert partner < 0 or rows[partner][0] != rows[row][0]
        assert partner < 0 or rows[partner][1] != rows[row][1]


@settings(deadline=None)
@given(rows=ROWS, shuffle=st.randoms(use_true_random=False))
def test_order_of_the_rows_changes_nothing(rows: list[tuple[str, str]], shuffle: random.Random):
    """Exact duplicates may stand in for one another, so partners are compared by content."""
    if max(naive_partners(rows, 0)) < 0:
        return
    before = {
        row: partner if partner < 0 else rows[partner] for row, partner in zip(rows, partners_of(rows), strict=True)
    }
    mixed = rows.copy()
    shuffle.shuffle(mixed)
    found = [partner if partner < 0 else mixed[partner] for partner in partners_of(mixed)]
    assert found == [before[row] for row in mixed]


def test_appending_a_row_changes_few_partners():
    """200 rows, 50 prompts of 4 rows. A new row takes over the rows whose walk passes its place: the one before it
    (unless of its prompt) and those before that which skip. A walk passes over a place that is not its end with
    chance about 3/199, so about 1.02 rows change on average; 5 at once has a chance of under 1e-6."""
    rows = [(f"prompt {number % 50}", f"answer {number}") for number in range(200)]
    before = partners_of(rows)
    changed = []
    for number in range(60):
        after = partners_of([*rows, (f"new prompt {number}", f"new answer {number}")])
        changed.append(sum(old != new for old, new in zip(before, after[:-1], strict=True)))
    assert max(changed) <= 5
    assert 0.8 <= sum(changed) / len(changed) <= 1.3


def test_the_seed_changes_the_partners():
    rows = [(f"prompt {number}", f"answer {number}") for number in range(50)]
    same = sum(a == b for a, b in zip(partners_of(rows, 0), partners_of(rows, 1), strict=True))
    assert same < 10


def test_partners_are_pinned():
    """Cached reference log-probs stay valid only while these stay what they are (recorded 2026-11)."""
    rows = [(f"prompt {number}", f"answer {number}") for number in range(6)]
    assert partners_of(rows) == [4, 2, 3, 5, 1, 0]


def test_lengths_keep_prompt_and_completion_apart():
    assert ring_key("ab", "c") != ring_key("a", "bc")


@pytest.mark.parametrize("count", [1, 2, 9])
def test_one_prompt_only(count: int):
    with pytest.raises(ValueError, match=f"all {count} rows have the same prompt"):
        partners_of_texts(["a"] * count, [str(number) for number in range(count)])


def test_every_other_prompt_has_the_same_completion():
    with pytest.raises(ValueError, match="all 3 rows have the same completion"):
        partners_of_texts(["a", "b", "b"], ["yes", "yes", "yes"])


def test_one_row_without_a_partner_does_not_stop_the_others():
    """Row 0 (a, yes) finds only "yes" at other prompts; rows 1 and 2 have row 3, and row 3 has one of them."""
    found = list(partners_of_texts(["a", "b", "c", "a"], ["yes", "yes", "yes", "no"]))
    assert found[:3] == [-1, 3, 3]
    assert found[3] in (1, 2)


@pytest.mark.parametrize("same", ["prompt", "completion"])
def test_time_where_one_prompt_or_completion_dominates(same: str):
    """50,000 rows of which 50 qualify for the others: a walk row by row would take 50 million steps (over 10 s)."""
    count = 50_000
    common = ["rare" if number % 1000 == 0 else "common" for number in range(count)]
    own = [str(number) for number in range(count)]
    start = time.process_time()
    partners = partners_of_texts(*((common, own) if same == "prompt" else (own, common)))
    assert time.process_time() - start < 2
    assert all(common[row] != common[partner] for row, partner in enumerate(partners))
