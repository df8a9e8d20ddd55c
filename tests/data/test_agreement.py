"""Agreement of raters: Fleiss' kappa by hand and against its definition, and from a file to the manifest."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import pytest
from binarizing import binarize
from hypothesis import given, settings
from hypothesis import strategies as st

from kto_cli.data.audit.agreement import fleiss, rater_agreement
from kto_cli.data.formats.counts import Ratings


def test_two_raters_by_hand():
    """Ten answers, two raters: 6 twice yes, 2 twice no, 2 differ. P = 0.8; yes 14 of 20, no 6: Pe = 0.49 + 0.09."""
    found = fleiss({("yes", "yes"): 6, ("no", "no"): 2, ("no", "yes"): 2})
    assert (found.answers, found.agree) == (10, 8)
    assert found.kappa == pytest.approx((0.8 - 0.58) / (1 - 0.58))


ANSWERS = st.lists(st.lists(st.sampled_from("abc"), min_size=2, max_size=5), min_size=1, max_size=12)


@given(ANSWERS)
@settings(max_examples=100, deadline=None)
def test_kappa_against_its_definition(answers):
    found = fleiss(Counter(tuple(sorted(each)) for each in answers))
    shares = [[one == other for one, other in combinations(each, 2)] for each in answers]
    agreeing = sum(sum(pairs) / len(pairs) for pairs in shares) / len(answers)
    everything = [value for each in answers for value in each]
    chance = sum((everything.count(value) / len(everything)) ** 2 for value in set(everything))
    assert found.agree == sum(map(all, shares))
    if len(set(everything)) == 1:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx((agreeing - chance) / (1 - chance))


def test_a_warning_needs_many_answers_and_little_agreement():
    split = {("no", "yes"): 30, ("yes", "yes"): 5, ("no", "no"): 5}
    for name, values, warns in (
        ("split", split, True),
        ("few", {key: count // 5 for key, count in split.items()}, False),
        ("same", {("yes", "yes"): 30, ("no", "no"): 30}, False),
        ("one value", {("yes", "yes"): 30}, False),
    ):
        counts = Counter({Ratings(name, key): count for key, count in values.items()})
        [finding] = rater_agreement([counts])
        assert finding.warns is warns
        assert bool(finding.advice) is warns
    assert rater_agreement([Counter()]) == []


def test_from_argilla_to_the_manifest(tmp_path):
    path = tmp_path / "records.json"
    records = [
        {
            "fields": {"prompt": f"How is {n} spelled?", "response": f"As {n * 7919}, or so."},
            "responses": {"good": [{"value": n % 2 == 0}, {"value": (n + n % 3) % 2 == 0}]},
        }
        for n in range(60)
    ]
    path.write_text(json.dumps(records))
    result = binarize(f"argilla:{path}", tmp_path / "set")
    [found] = [one for one in result["findings"] if one["finding"] == "rater_agreement"]
    assert found["facts"]["answers"] == 60
    assert found["facts"]["agree"] == 60 - result["rejected"]["raters_disagree"] == 40
    assert found["summary"].startswith(
        "All raters agree on 40 of 60 answers with several ratings of good; Fleiss' kappa 0.3"
    )
    assert found["severity"] == "warning"
