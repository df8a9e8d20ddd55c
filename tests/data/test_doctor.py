"""Findings over all rows, each against a naive search; and which rows leave."""

from __future__ import annotations

import json
import math
import random
from functools import partial

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.common.binarize_config import FIXES
from kto_cli.core.statistics.shares import all_pairs, auc_variance, share_of
from kto_cli.data.audit.checks import examine, fix_mask, prompt_clusters
from kto_cli.data.audit.dataset_checks import length_auc, longer_in_pairs
from kto_cli.data.audit.exporter_damage import Shape
from kto_cli.data.audit.findings import Finding, as_json, mark, other_row
from kto_cli.data.audit.found import ABOUT, Found
from kto_cli.data.audit.minhash import sketches
from kto_cli.data.columns import NO_LABEL, Columns
from kto_cli.data.pipeline.split import split_units

TAKING_ROWS = ("contradictions", "refusals", "urls", "echoes", "cut-answers", "duplicates")


def columns_of(rows, sketches=None) -> Columns:
    """Rows (prompt, completion, label) or dicts of columns' entries; a prompt is its own group unless said."""
    rows = [
        row if isinstance(row, dict) else dict(zip(("prompt", "completion", "label"), row, strict=True)) for row in rows
    ]

    def column(name, default, dtype=numpy.int64):
        return numpy.array([row.get(name, default(row) if callable(default) else default) for row in rows], dtype)

    keys = numpy.zeros((len(rows), 2), numpy.uint64)
    prompts = column("prompt", 0)
    if sketches is None:
        sketches = numpy.random.RandomState(0).randint(0, 2**62, (100, 4)).astype(numpy.uint64)
    return Columns(
        prompt_keys=keys,
        completion_keys=keys,
        group_keys=keys,
        root_keys=keys,
        prompts=prompts,
        completions=column("completion", 0),
        groups=column("group", lambda row: row["prompt"]),
        roots=prompts,
        pairs=column("pair", -1),
        labels=column("label", 1, numpy.int8),
        scores=column("score", math.nan, numpy.float64),
        by_label=column("by_label", False, bool),
        official=column("official", False, bool),
        sources=column("source", 0, numpy.int16),
        prompt_chars=column("prompt_chars", 10, numpy.int32),
        completion_chars=column("chars", 10, numpy.int32),
        findings=column("findings", 0, numpy.uint32),
        shapes=column("shape", 0, numpy.uint8),
        facets=column("facets", (0, 0, 0), numpy.uint32).reshape(-1, 3),
        sketches=sketches[prompts] if len(rows) else sketches[:0],
    )


def by_name(columns, sources=("one",), **options):
    return {finding.name: finding for finding in examine(columns, sources, **options)}


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0, 1, 1, NO_LABEL])), max_size=25)


@given(ROWS, st.integers(0, 2**25 - 1))
@settings(max_examples=150, deadline=None)
def test_contradictions_and_duplicates_against_a_naive_search(rows, asked):
    among = numpy.array([bool(asked >> n & 1) for n in range(len(rows))], bool)
    found = by_name(columns_of(rows), among=among)
    there = [n for n in range(len(rows)) if among[n] and rows[n][2] != NO_LABEL]
    against = {n: [m for m in there if rows[m][:2] == rows[n][:2] and rows[m][2] != rows[n][2]] for n in there}
    before = {n: [m for m in there if m < n and rows[m] == rows[n]] for n in there}
    for name, others in (("contradictions", against), ("duplicates", before)):
        expected = [(n, min(others[n])) for n in there if others[n]]
        if not expected:
            assert name not in found
        else:
            assert list(zip(found[name].rows.tolist(), found[name].others.tolist(), strict=True)) == expected


@given(ROWS, st.lists(st.integers(0, 7), min_size=25, max_size=25), st.sets(st.sampled_from(TAKING_ROWS)))
@settings(max_examples=150, deadline=None)
def test_rows_leave_once_and_nothing_is_left_of_what_was_asked_for(rows, bits, fixes):
    columns = columns_of(rows)
    columns.findings = numpy.array(bits[: len(rows)], numpy.uint32)
    before = numpy.random.RandomState(0).rand(len(rows)) < 0.8
    leaving = fix_mask(columns, frozenset(fixes | {"encoding", "near-duplicates"}), among=before)
    assert set(leaving) == fixes
    together = sum((flags.astype(int) for flags in leaving.values()), numpy.zeros(len(rows), int))
    assert together.max(initial=0) <= 1
    there = before & (columns.labels != NO_LABEL)
    assert not (together.astype(bool) & ~there).any()
    after = by_name(columns, among=there & (together == 0))
    assert not fixes & set(after)
    for name, bit in (("refusals", 1), ("urls", 2), ("echoes", 4)):
        if name in fixes:
            assert (columns.findings[leaving[name]] & bit).all()
    if fixes == {"duplicates"}:
        kept = [rows[n] for n in range(len(rows)) if there[n] and not together[n]]
        assert sorted(kept) == sorted({rows[n] for n in range(len(rows)) if there[n]})


def test_contradictions_leave_before_duplicates():
    """Row 0 and 2 contradict each other, row 1 repeats row 0: all three leave as contradictions."""
    columns = columns_of([(0, 0, 1), (0, 0, 1), (0, 0, 0), (1, 0, 1), (1, 0, 1)])
    leaving = fix_mask(columns, frozenset(TAKING_ROWS))
    assert numpy.flatnonzero(leaving["contradictions"]).tolist() == [0, 1, 2]
    assert numpy.flatnonzero(leaving["duplicates"]).tolist() == [4]
    assert numpy.flatnonzero(fix_mask(columns, frozenset({"duplicates"}))["duplicates"]).tolist() == [1, 4]


def test_what_was_found_in_texts():
    rows = [
        {"prompt": n, "completion": n, "label": n % 2, "findings": bits} for n, bits in enumerate([1, 0, 9, 8, 256])
    ]
    rows.append({"prompt": 9, "completion": 9, "label": NO_LABEL, "findings": 1})
    found = by_name(columns_of(rows))
    assert found["refusals"].rows.tolist() == [0, 2]
    assert found["refusals"].facts == {"desirable": 0, "undesirable": 2}
    assert found["mojibake"].rows.tolist() == [2, 3]
    assert found["mojibake"].warns
    assert found["repetition"].rows.tolist() == [4]
    assert "urls" not in found
    assert "in 2 of 5 rows (0 desirable)" in found["refusals"].summary


def test_leaks_between_splits():
    rows = [
        {"prompt": 0, "group": 0},
        {"prompt": 0, "group": 0, "completion": 1},
        {"prompt": 1, "group": 1},
        {"prompt": 2, "group": 1},
        {"prompt": 3, "group": 3},
        {"prompt": 3, "group": 4, "completion": 1},
        {"prompt": 5, "group": 5},
    ]
    validation = numpy.array([0, 1, 0, 1, 1, 1, 0], bool)
    found = by_name(columns_of(rows), validation=validation)
    assert found["leakage"].rows.tolist() == [0, 2]
    assert found["leakage"].others.tolist() == [1, 3]
    assert "leakage" not in by_name(columns_of(rows), validation=numpy.zeros(7, bool))
    assert "leakage" not in by_name(columns_of(rows))


PROMPTS = [
    "How do I bake a cake without any sugar for my friends at home?",
    "How do I bake a pie without any sugar for my friends at home?",
    "What is the quickest way to learn the piano when I have little time?",
    "Yes.",
    "HOW DO I BAKE A CAKE WITHOUT ANY SUGAR FOR MY FRIENDS AT HOME",
]


def test_near_duplicate_prompts_and_families():
    """Prompts 0, 1 and 4 are nearly the same; 4 is of the same conversation as 3, so that it joins the family too."""
    groups = [0, 1, 2, 3, 3]
    rows = [{"prompt": n, "group": groups[n], "completion": k} for n in range(5) for k in range(2)]
    columns = columns_of(rows, sketches(PROMPTS))
    clusters = prompt_clusters(columns)
    assert clusters.tolist() == [0, 0, 2, 3, 0]
    validation = numpy.array([groups[n // 2] == 1 for n in range(10)])
    finding = by_name(columns, clusters=clusters, validation=validation)["near_duplicates"]
    assert finding.rows.tolist() == [2, 3, 8, 9]
    assert finding.others.tolist() == [0, 0, 0, 0]
    assert finding.warns
    assert finding.facts == {"prompts": 3, "clusters": 1, "largest": 6, "clusters_in_both_splits": 1}
    unsplit = by_name(columns, clusters=clusters)["near_duplicates"]
    assert not unsplit.warns
    assert split_units(columns.prompts, columns.groups, clusters[columns.prompts]).tolist() == [
        0,
        0,
        0,
        0,
        2,
        2,
        0,
        0,
        0,
        0,
    ]
    assert "near_duplicates" not in by_name(columns)


def test_near_duplicates_within_one_conversation_are_no_finding():
    columns = columns_of([{"prompt": 0, "group": 7}, {"prompt": 1, "group": 7}], sketches(PROMPTS))
    assert "near_duplicates" not in by_name(columns, clusters=prompt_clusters(columns))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=15))
@settings(max_examples=100, deadline=None)
def test_families_are_the_connected_components(members):
    """Rows (group, cluster); each row is a prompt of its own."""
    rows = [{"prompt": n, "group": group} for n, (group, _) in enumerate(members)]
    numbers = [cluster for _, cluster in members]
    columns = columns_of(rows)
    made = split_units(
        columns.prompts, columns.groups, numpy.array([numbers.index(number) for number in numbers])
    ).tolist()
    naive = list(range(len(members)))
    for _ in members:
        for n, one in enumerate(members):
            for m, two in enumerate(members):
                if one[0] == two[0] or one[1] == two[1]:
                    naive[n] = naive[m] = min(naive[n], naive[m])
    assert made == naive


def naive_auc(lengths, desirable) -> float:
    good = [length for length, wanted in zip(lengths, desirable, strict=True) if wanted]
    bad = [length for length, wanted in zip(lengths, desirable, strict=True) if not wanted]
    return sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / (len(good) * len(bad))


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
@settings(max_examples=150, deadline=None)
def test_the_area_against_its_definition(rows):
    lengths, desirable, prompts = (list(values) for values in zip(*rows, strict=True))
    made = length_auc(numpy.array(lengths), numpy.array(desirable), numpy.array(prompts))
    if len(set(desirable)) < 2:
        assert math.isnan(made.auc)
        return
    assert made.auc == pytest.approx(naive_auc(lengths, desirable))
    if len(set(prompts)) == 1:
        assert math.isnan(made.low)
    else:
        assert 0 <= made.low <= made.auc <= made.high <= 1


def test_the_interval_is_obuchowskis():
    """His formula as printed, sum by sum, for six rows of three prompts."""
    lengths, desirable, prompts = [5, 3, 8, 4, 4, 9], [True, False, True, False, True, False], [0, 0, 1, 1, 2, 2]
    good = [n for n in range(6) if desirable[n]]
    bad = [n for n in range(6) if not desirable[n]]

    def wins(g, b):
        return (lengths[g] > lengths[b]) + 0.5 * (lengths[g] == lengths[b])

    auc = naive_auc(lengths, desirable)
    v10 = {g: sum(wins(g, b) for b in bad) / len(bad) for g in good}
    v01 = {b: sum(wins(g, b) for g in good) / len(good) for b in bad}
    s10 = s01 = s11 = 0.0
    for prompt in range(3):
        mine_g, mine_b = [g for g in good if prompts[g] == prompt], [b for b in bad if prompts[b] == prompt]
        left = sum(v10[g] for g in mine_g) - len(mine_g) * auc
        right = sum(v01[b] for b in mine_b) - len(mine_b) * auc
        s10, s01, s11 = s10 + left**2, s01 + right**2, s11 + left * right
    s10, s01, s11 = (3 / (2 * 3) * s for s in (s10, s01, s11))  # I / ((I - 1) m), m = n = 3; for s11 I / (I - 1)
    variance = s10 / 3 + s01 / 3 + 2 * (s11 * 3) / 9
    made = length_auc(numpy.array(lengths), numpy.array(desirable), numpy.array(prompts))
    expected = share_of(auc, variance, partial(auc_variance, counts=all_pairs(3, 3)), prompts=3, copies=1.0)
    assert (made.low, made.high) == pytest.approx(expected.interval())


def test_four_rows_in_perfect_order_are_no_length_bias():
    made = length_auc(numpy.array([90, 10, 80, 20]), numpy.array([True, False, True, False]), numpy.arange(4))
    assert (made.auc, made.high) == (1, 1)
    assert made.low < 0.5


def test_the_interval_covers_nine_times_in_ten():
    """Pairs of which both lengths hang on the prompt; the AUC of two normals 0.5 apart, each of variance 2."""
    truth = 0.5 * (1 + math.erf(0.5 / 2 / math.sqrt(2)))
    draws = numpy.random.RandomState(0)
    prompts = numpy.repeat(numpy.arange(150), 2)
    desirable = numpy.tile([True, False], 150)
    covered = 0
    for _ in range(300):
        shared = numpy.repeat(draws.randn(150), 2)
        made = length_auc(shared + draws.randn(300) + 0.5 * desirable, desirable, prompts)
        covered += made.low <= truth <= made.high
    assert 0.85 <= covered / 300 <= 0.95


def test_length_bias_in_words():
    rng = random.Random(0)
    rows = []
    for n in range(400):
        for label in (0, 1):
            chars = rng.randint(50, 150) + 40 * label
            rows.append({"prompt": n, "completion": 2 * n + label, "label": label, "pair": n, "chars": chars})
    found = by_name(columns_of(rows, numpy.zeros((400, 4), numpy.uint64)))["length_bias"]
    exact = naive_auc([row["chars"] for row in rows], [row["label"] for row in rows])
    assert found.warns
    assert found.facts["auc"] == pytest.approx(exact)
    assert found.summary.startswith(f"Desirable answers are longer: AUC of length alone {exact:.2f} [")
    assert found.summary.endswith("a KTO model will learn length")
    longer = sum(
        (rows[2 * n + 1]["chars"] > rows[2 * n]["chars"]) + 0.5 * (rows[2 * n + 1]["chars"] == rows[2 * n]["chars"])
        for n in range(400)
    )
    assert found.facts["desirable_longer_in_pairs"] == pytest.approx(longer / 400)
    for row in rows:
        row["chars"] = 200 - row["chars"]
    assert "shorter" in by_name(columns_of(rows, numpy.zeros((400, 4), numpy.uint64)))["length_bias"].summary
    for row in rows:
        row["chars"] = rng.randint(50, 150)
    quiet = by_name(columns_of(rows, numpy.zeros((400, 4), numpy.uint64)))["length_bias"]
    assert not quiet.warns
    assert quiet.summary.startswith("Neither label has the longer answers")


def test_opposite_biases_of_two_sources_do_not_hide_each_other():
    rows = [
        {
            "prompt": n,
            "completion": n,
            "label": n % 2,
            "source": n % 4 // 2,
            "chars": 100 + (n % 4 in (1, 2)) * 50 + n % 7,
        }
        for n in range(96)
    ]
    found = by_name(columns_of(rows), ("a", "b"))["length_bias"]
    assert abs(found.facts["auc"] - 0.5) < 0.05
    assert found.facts["sources"]["a"]["auc"] == 1.0
    assert found.facts["sources"]["b"]["auc"] == 0.0
    assert found.warns
    assert "in a 1.00" in found.summary


def test_pairs_that_lost_a_row_count_for_nothing():
    rows = [
        {"prompt": 0, "label": 1, "pair": 3, "chars": 9},
        {"prompt": 0, "label": 0, "pair": 3, "chars": 5},
        {"prompt": 1, "label": 1, "pair": 4, "chars": 9},
        {"prompt": 2, "label": 1, "pair": 5, "chars": 5},
        {"prompt": 2, "label": 0, "pair": 5, "chars": 5},
        {"prompt": 3, "label": 0, "chars": 5},
    ]
    assert longer_in_pairs(columns_of(rows), numpy.arange(6)) == (2, 0.75)
    assert longer_in_pairs(columns_of(rows), numpy.array([5]))[0] == 0


def test_balance():
    rows = [{"prompt": n, "label": int(n < 20), "source": int(n < 10)} for n in range(50)]
    found = by_name(columns_of(rows), ("a", "b"))["balance"]
    assert (found.facts["desirable"], found.facts["undesirable"]) == (20, 30)
    assert found.facts["sources"] == {
        "a": {"desirable": 10, "undesirable": 30},
        "b": {"desirable": 10, "undesirable": 0},
    }
    assert found.facts["lambda_d"] == pytest.approx([1.5, 2.0])
    assert "with lambda_u 1, lambda_d may be 1.5 to 2 (paper, Eq. 8)" in found.summary
    assert found.warns
    assert "one label only in b" in found.advice
    even = [{"prompt": n, "label": n % 2} for n in range(50)]
    assert not by_name(columns_of(even))["balance"].warns
    scarce = [{"prompt": n, "label": int(n < 4)} for n in range(50)]
    assert by_name(columns_of(scarce))["balance"].warns


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_label_have_no_findings_that_compare_labels(label: int):
    found = by_name(columns_of([(0, 0, label), (1, 1, label)]))
    assert found.keys().isdisjoint({"balance", "length_bias", "one_label_prompts", "one_rule"})


def test_prompts_of_one_label():
    found = by_name(columns_of([(0, 0, 1), (0, 1, 0), (1, 2, 1), (1, 3, 1), (2, 4, 0)]))["one_label_prompts"]
    assert found.facts == {"prompts": 3, "desirable_only": 1, "undesirable_only": 1}
    assert found.summary == "2 of 3 prompts have answers of one label only"


def test_nothing_there():
    assert examine(columns_of([]), ("one",)) == []
    assert examine(columns_of([(0, 0, NO_LABEL)]), ("one",)) == []
    assert fix_mask(columns_of([]), frozenset(TAKING_ROWS))["duplicates"].tolist() == []
    assert split_units(*[numpy.zeros(0, numpy.int64)] * 3).tolist() == []


def test_as_table_as_json_and_as_marks():
    rows = [(0, 0, 1), (0, 0, 1), (0, 0, 0), (1, 1, 1)]
    columns = columns_of(rows)
    columns.findings[3] = Found.URL
    found = examine(columns, ("one",))
    assert [finding.name for finding in found] == [
        "contradictions",
        "duplicates",
        "urls",
        "length_bias",
        "balance",
        "one_label_prompts",
    ]
    assert (found[0].advice, len(found[0].rows)) == ("--fix contradictions drops all of them", 3)
    assert not len(found[4].rows)
    written = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert written[0]["rows"] == 3
    assert written[0]["severity"] == "warning"
    assert written[5]["severity"] == "note"
    marks, of_bits = mark(found, 4)
    assert [finding.name for finding in of_bits] == ["contradictions", "duplicates", "urls"]
    assert marks.tolist() == [1, 3, 1, 4]
    assert [other_row(of_bits[0], row) for row in (0, 1, 2)] == [2, 2, 0]
    assert other_row(of_bits[2], 3) is None


def near_duplicates_in_both_splits():
    """Two conversations with prompts nearly the same, one row of each label; the second one is for validation."""
    rows = [{"prompt": n, "group": n, "completion": n, "label": n} for n in range(2)]
    columns = columns_of(rows, sketches(PROMPTS))
    return columns, {"clusters": prompt_clusters(columns), "validation": numpy.array([False, True])}


@pytest.mark.parametrize("made", FIXES)
def test_no_finding_advises_a_fix_that_was_made(made):
    """Every finding with a fix, with all its rows still there: as after a fix that could not do more."""
    bits = sum(int(bit) for bit, about in ABOUT.items() if about.fix)
    rows = [{"prompt": n, "completion": n % 9, "label": n % 2, "findings": bits, "chars": 300} for n in range(12)]
    rows = [*rows, *rows, {**rows[0], "label": 1}]
    rows = [*rows, *({"prompt": 20 + n, "completion": 20 + n, "chars": 800, "shape": Shape.UNENDED} for n in range(9))]
    columns = columns_of(rows)
    near, options = near_duplicates_in_both_splits()

    def found(*fixes):
        made = frozenset(fixes)
        return [*examine(columns, ("one",), fixes=made), *examine(near, ("one",), **options, fixes=made)]

    assert any(f"--fix {made} " in finding.advice for finding in found())
    assert [finding.name for finding in found(made)] == [finding.name for finding in found()]
    assert not [finding.advice for finding in found(made) if f"--fix {made} " in finding.advice]
    assert not [finding.advice for finding in found(*FIXES) if "--fix" in finding.advice]


def test_near_duplicates_on_one_side_of_the_split_need_no_fix():
    columns, options = near_duplicates_in_both_splits()
    advice = by_name(columns, **options)["near_duplicates"].advice
    assert advice == "--fix near-duplicates keeps them on one side of the split"
    together = by_name(columns, **{**options, "validation": numpy.array([False, False])})["near_duplicates"]
    assert (together.advice, together.warns) == ("", False)


def test_more_findings_than_32_are_marked():
    rows = numpy.arange(2)
    found = [Finding(f"finding_{n}", "", "", rows=rows[n % 2 :]) for n in range(40)]
    marks, of_bits = mark(found, 2)
    assert [finding.name for bit, finding in enumerate(of_bits) if int(marks[0]) >> bit & 1] == [
        f"finding_{n}" for n in range(0, 40, 2)
    ]
