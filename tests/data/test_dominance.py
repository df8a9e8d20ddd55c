"""Users and days that dominate, and labels that one thing tells."""

from __future__ import annotations

import json
import random
from datetime import date

import numpy
import pytest
from binarizing import binarize
from test_doctor import by_name, columns_of

from kto_cli.data.audit.facets import NO_FACETS, Facets, facets_of

DAY = date(2026, 3, 1).toordinal()


def rows_of(count: int, **of_row):
    draw = random.Random(0)
    rows = [{"prompt": n, "completion": n, "label": n % 2, "chars": draw.randint(10, 900)} for n in range(count)]
    for n, row in enumerate(rows):
        row["facets"] = tuple(of_row.get(name, lambda n: 0)(n) for name in Facets._fields)
    return columns_of(rows, numpy.zeros((count, 4), numpy.uint64))


@pytest.mark.parametrize(
    ("of_row", "summary"),
    [
        ({"user": lambda n: 7 if n % 3 else 100 + n}, "67% of 300 rows are of one user (of 101)"),
        ({"user": lambda n: 7}, "100% of 300 rows are of one user (of 1)"),
        ({"day": lambda n: DAY if n % 5 else DAY + n}, "80% of 300 rows are of one day (of 60)"),
        ({"user": lambda n: n % 9 + 1, "day": lambda n: DAY + n % 40, "model": lambda n: 5}, ""),
        ({"user": lambda n: 7 if n < 40 else 0}, ""),
        ({}, ""),
    ],
)
def test_one_user_or_day_that_dominates(of_row, summary):
    found = by_name(rows_of(300, **of_row))
    assert (found["dominance"].summary if summary else "") == summary
    assert ("dominance" in found) is bool(summary)


@pytest.mark.parametrize(
    ("of_row", "things"),
    [
        ({"model": lambda n: 1 + n % 2}, {"model"}),
        ({"model": lambda n: 1 + n % 6}, {"model"}),
        ({"user": lambda n: 1 + n % 2 + 2 * (n % 7)}, {"user"}),
        ({"day": lambda n: DAY + n % 4}, {"day"}),
        ({"model": lambda n: 1 + n % 3}, set()),
        ({"model": lambda n: 5}, set()),
        ({"user": lambda n: 1 + n}, set()),
    ],
)
def test_labels_that_one_facet_tells(of_row, things):
    found = by_name(rows_of(420, **of_row))
    assert set(found["one_rule"].facts if things else ()) == things
    assert ("one_rule" in found) is bool(things)


def naive_threshold(lengths, labels) -> float:
    """Best mean of the two classes' shares that are right, over all thresholds and both ways round."""
    best = 0.0
    for threshold in {0, *lengths}:
        above = [length > threshold for length in lengths]
        good = [flag for flag, label in zip(above, labels, strict=True) if label]
        bad = [not flag for flag, label in zip(above, labels, strict=True) if not label]
        share = (sum(good) / len(good) + sum(bad) / len(bad)) / 2
        best = max(best, share, 1 - share)
    return best


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scarce", [2, 12])
def test_labels_that_length_tells(sign, scarce):
    draw = random.Random(scarce)
    labels = [n % scarce == 0 for n in range(400)]
    lengths = [500 + sign * (100 if label else -100) + draw.randint(-95, 95) for label in labels]
    lengths[0] = 500 - sign * 200
    rows = [
        {"prompt": n, "completion": n, "label": int(label), "chars": length}
        for n, (label, length) in enumerate(zip(labels, lengths, strict=True))
    ]
    found = by_name(columns_of(rows, numpy.zeros((400, 4), numpy.uint64)))
    exact = naive_threshold(lengths, labels)
    assert found["one_rule"].facts == {"length": pytest.approx(exact)} if exact >= 0.98 else "one_rule" not in found


def test_many_rows_of_one_label_are_no_rule():
    rows = [{"prompt": n, "completion": n, "label": int(n % 200 > 0), "chars": n % 37} for n in range(4000)]
    assert "one_rule" not in by_name(columns_of(rows, numpy.zeros((4000, 4), numpy.uint64)))


@pytest.mark.parametrize(
    ("values", "day"),
    [
        ({"created_at": "2026-03-01T10:00:00Z"}, DAY),
        ({"timestamp": "2026-03-01 23:59"}, DAY),
        ({"createdAt": 1772359200}, DAY),
        ({"created": 1772359200000}, DAY),
        ({"metadata": {"time": "2026/03/01"}}, DAY),
        ({"created_at": "yesterday"}, 0),
        ({"created_at": "2026-13-01"}, 0),
        ({"time": 12.5}, 0),
        ({"time": float("nan")}, 0),
        ({"time": None}, 0),
    ],
)
def test_the_day_of_a_record(values, day):
    assert facets_of(values).day == day


def test_the_user_and_the_model_of_a_record():
    one, other = facets_of({"user_id": "ann", "model": "m"}), facets_of({"user": "ann", "data": {"model_id": "m"}})
    assert one == other
    assert 0 not in (one.user, one.model)
    assert one.user != facets_of({"user_id": "bob"}).user
    assert facets_of({"user_id": 7}).user == facets_of({"user_id": "7"}).user
    assert facets_of({"prompt": "Hi", "completion": "Hello"}) is NO_FACETS
    assert facets_of(None) is NO_FACETS
    assert facets_of({"user": {"id": 1}, "model": ["m"]}) == NO_FACETS


def test_from_a_log_to_the_screen(tmp_path):
    """No name of a user or a model is on the screen or in the manifest."""
    path = tmp_path / "log.jsonl"
    lines = [
        {
            "prompt": f"How is {n} spelled?",
            "completion": f"As {n * 7919}." + " So it is." * (n * 31 % 17),
            "label": n % 2 == 0,
            "user_id": "maria.keller" if n % 4 < 3 else f"user-{n}",
            "model": ("secret-model-a", "secret-model-b")[n % 2],
        }
        for n in range(200)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = binarize(f"log:{path}", tmp_path / "set", label_column="label")
    found = {one["finding"]: one for one in result["findings"]}
    assert found["dominance"]["summary"] == "75% of 200 rows are of one user (of 51)"
    assert found["one_rule"]["facts"] == {"model": pytest.approx(1.0)}
    assert "maria" not in json.dumps(result["findings"])
    assert "secret-model" not in json.dumps(result["findings"])
