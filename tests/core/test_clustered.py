"""Shares of rows in clusters against direct computations, and their intervals' coverage where users are alike."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest

from kto_cli.core.statistics.clustered import ClusteredRow, difference, shares
from kto_cli.core.statistics.outcome import NEEDED, Answer, compare_versions, more_ratings, version_counts
from kto_cli.core.statistics.shares import NORMAL, share_variance, student


def drawn(rng: random.Random, users: int, *, base: float = 0.6, lift: float = 0.0) -> list[ClusteredRow]:
    """Ratings of users who differ (their own share is beta-distributed with a correlation of 0.15), in conversations
    that differ again (0.1); a user's conversations are of both versions. The share of version 1 is higher by `lift`,
    and its prompts are of another mix."""
    rows: list[ClusteredRow] = []
    for user in range(users):
        own = rng.betavariate(base / 0.15 * 0.85, (1 - base) / 0.15 * 0.85)
        for number in range(1 + int(rng.expovariate(1 / 3))):
            own = min(max(own, 1e-6), 1 - 1e-6)
            share = rng.betavariate(own * 9, (1 - own) * 9)
            version = int(rng.random() < 0.5)
            for _ in range(rng.randint(1, 3)):
                chance = share + version * lift * share * (1 - share) / (base * (1 - base))
                kind = "ab"[rng.random() < 0.4 + 0.3 * version]
                names = (f"chat {user} {number}", f"user {user}")
                rows.append(ClusteredRow(version, kind, rng.random() < chance, names))
    return rows


def share_without(rows: list[ClusteredRow], version: int, weights: dict[str, float], left_out: set[int]) -> float:
    """The standardised share of a version, less some rows, as its definition says."""
    total = 0.0
    for stratum, weight in weights.items():
        cell = [
            row.value
            for index, row in enumerate(rows)
            if index not in left_out and (row.version, row.stratum) == (version, stratum)
        ]
        total += weight * sum(cell) / len(cell)
    return total


def slow_covariance(rows: list[ClusteredRow], weights: dict[str, float], ways: tuple[int, ...]) -> list[list[float]]:
    """The jackknife by leaving out one cluster after the other."""
    clusters: dict[tuple, set[int]] = {}
    for index, row in enumerate(rows):
        clusters.setdefault(tuple(row.clusters[way] for way in ways), set()).add(index)
    whole = [share_without(rows, version, weights, set()) for version in (0, 1)]
    counts = [len({key for key, held in clusters.items() if any(rows[i].version == v for i in held)}) for v in (0, 1)]
    changes = [
        [share_without(rows, version, weights, held) - whole[version] for version in (0, 1)]
        for held in clusters.values()
    ]
    factors = [math.sqrt((count - 1) / count) for count in counts]
    return [[factors[v] * factors[w] * sum(c[v] * c[w] for c in changes) for w in (0, 1)] for v in (0, 1)]


@pytest.mark.parametrize("weights", [{"": 1.0}, {"a": 0.3, "b": 0.7}], ids=["plain", "one mix"])
def test_shares_and_covariance_are_those_of_leaving_out_one_cluster_at_a_time(weights):
    rows = drawn(random.Random(5), 40)
    rows = rows if "a" in weights else [row._replace(stratum="") for row in rows]
    found = shares(rows, [0, 1], weights)
    for version in (0, 1):
        assert found.shares[version].value == pytest.approx(share_without(rows, version, weights, set()), abs=1e-12)
    by_chat, by_user, by_both = (slow_covariance(rows, weights, ways) for ways in ((0,), (1,), (0, 1)))
    for v in (0, 1):
        for w in (0, 1):
            expected = by_chat[v][w] + by_user[v][w] - by_both[v][w]
            expected = max(expected, by_chat[v][v], by_user[v][v]) if v == w else expected
            assert found.covariance[v][w] == pytest.approx(expected, rel=1e-9)


def wilson(value: float, trials: float) -> tuple[float, float]:
    """Wilson's interval in closed form."""
    middle = (value + NORMAL**2 / (2 * trials)) / (1 + NORMAL**2 / trials)
    reach = NORMAL * math.sqrt(value * (1 - value) / trials + NORMAL**2 / (4 * trials**2)) / (1 + NORMAL**2 / trials)
    return middle - reach, middle + reach


def test_intervals_are_wilsons_of_the_effective_number_of_ratings_and_newcombes_for_the_difference():
    """The ratio is (knows r + 0.5 copies) / (knows + 0.5): r the jackknife's variance, widened as Student's t is, over
    p (1 - p) / n; knows = 4 p (1 - p) G; copies = sum of squares / sum of the sizes of clusters, the larger one."""
    rows = [row._replace(stratum="") for row in drawn(random.Random(6), 30)]
    found = shares(rows, [0, 1], {"": 1.0})
    edges = []
    for version in (0, 1):
        own = [row for row in rows if row.version == version]
        share = sum(row.value for row in own) / len(own)
        sizes = [
            [sum(row.clusters[way] == name for row in own) for name in {r.clusters[way] for r in own}] for way in (0, 1)
        ]
        groups = min(map(len, sizes))
        ratio = found.covariance[version][version] * (student(groups - 1) / NORMAL) ** 2
        ratio /= share * (1 - share) / len(own)
        copies = max(sum(size**2 for size in each) / sum(each) for each in sizes)
        knows = 4 * share * (1 - share) * groups
        ratio = (knows * ratio + 0.5 * copies) / (knows + 0.5)
        assert found.shares[version].ratio == pytest.approx(ratio, rel=1e-9)
        edges.append((share, *wilson(share, len(own) / ratio)))
        assert found.shares[version].interval() == pytest.approx(list(edges[-1][1:]), abs=1e-9)
    (p1, l1, u1), (p2, l2, u2) = edges
    deviations = [math.sqrt(share.ratio * share.variance(share.value)) for share in found.shares]
    r = found.covariance[0][1] / deviations[0] / deviations[1]
    low = p2 - p1 - math.sqrt((p2 - l2) ** 2 - 2 * r * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    high = p2 - p1 + math.sqrt((u2 - p2) ** 2 - 2 * r * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2)
    assert difference(found).interval == pytest.approx([low, high], abs=1e-9)


def test_independent_ratings_have_about_wilsons_interval():
    """One rating a user: the design effect is 1, but for Student's t and the rounding of a sample."""
    rows = [ClusteredRow(0, "", index % 3 > 0, (str(index),)) for index in range(600)]
    (share,) = shares(rows, [0], {"": 1.0}).shares
    assert share.interval() == pytest.approx(wilson(2 / 3, 600), abs=2e-4)


def test_ratings_that_all_agree_have_an_interval_with_a_width():
    rows = [ClusteredRow(version, "", True, (f"{version} {index // 5}",)) for version in (0, 1) for index in range(50)]
    found = shares(rows, [0, 1], {"": 1.0})
    low, high = found.shares[0].interval()
    assert (high, found.shares[0].ratio) == (1.0, 5.0)
    assert low == pytest.approx(wilson(1.0, 10)[0], abs=1e-9)
    assert difference(found).interval[0] < -0.1
    one_cluster = shares([row._replace(clusters=("one",)) for row in rows], [0, 1], {"": 1.0})
    assert one_cluster.clusters == (1, 1)
    assert one_cluster.shares[0].ratio == 50


def answers(rows: list[ClusteredRow], rng: random.Random) -> list[Answer]:
    """Answers of which a third are not rated."""
    return [Answer(row.version, row.value if rng.random() < 2 / 3 else None, row.stratum, row.clusters) for row in rows]


def test_more_ratings_are_as_many_as_make_the_difference_large_enough():
    """With them the standard error is the difference / 2.49: 5 % outside each end of the interval, 80 % power."""
    found = difference(shares([row._replace(stratum="") for row in drawn(random.Random(2), 60)], [0, 1], {"": 1.0}))
    found = found._replace(value=0.05, variances=(2e-4, 9e-4), covariance=1e-4)
    more = more_ratings(found, 300, 200)
    goal = (0.05 / NEEDED) ** 2
    assert (2e-4 + 9e-4 - 2e-4) * 500 / (500 + more["both"]) == pytest.approx(goal, rel=2e-3)
    assert 2e-4 + (9e-4 - 2e-4) * 200 / (200 + more["second"]) == pytest.approx(goal, rel=2e-3)
    assert more["detectable"] == pytest.approx(NEEDED * 0.03)
    assert more_ratings(found._replace(value=0.02), 300, 200)["second"] is None, "the first version alone is too unsure"
    assert more_ratings(found._replace(value=0.0), 300, 200)["both"] is None


def test_a_mix_that_changed_is_told_from_answers_that_did():
    """Version 1 is no better at either kind of prompt; it only has more of the kind that people like."""
    rng = random.Random(4)
    given = [
        Answer(version, rng.random() < {"easy": 0.9, "hard": 0.3}[kind], kind, (str(index),))
        for index, (version, kind) in enumerate(
            [(0, "easy")] * 300 + [(0, "hard")] * 700 + [(1, "easy")] * 700 + [(1, "hard")] * 300 + [(1, "new")] * 50
        )
        if kind != "new"
    ] + [Answer(1, True, "new", (f"new {index}",)) for index in range(50)]
    found = compare_versions(given, 0, 1, is_mixed=True)
    assert found["verdict"] == "rose"
    mix = found["mix"]
    assert mix["verdict"] == "not settled"
    assert mix["interval"][0] < 0 < mix["interval"][1]
    assert (mix["not_compared"], mix["covered"]) == (["new"], 2000 / 2050)
    shares_of = {
        (version, kind): sum(a.label for a in given if (a.version, a.stratum) == (version, kind))
        / sum((a.version, a.stratum) == (version, kind) for a in given)
        for version in (0, 1)
        for kind in ("easy", "hard")
    }
    direct = sum(0.5 * (shares_of[1, kind] - shares_of[0, kind]) for kind in ("easy", "hard"))
    assert mix["difference"] == pytest.approx(direct, abs=1e-12)


def test_counts_of_a_version():
    rng = random.Random(3)
    given = answers(drawn(rng, 30), rng)
    own = [answer for answer in given if answer.version == 1]
    labels = [answer.label for answer in own if answer.label is not None]
    found = version_counts(given, 1)
    assert (found["answers"], found["rated"]) == (len(own), len(labels))
    assert (found["desirable"], found["undesirable"]) == (sum(labels), len(labels) - sum(labels))
    assert (found["share"], found["rated_share"]) == (sum(labels) / len(labels), len(labels) / len(own))
    assert found["clusters"] == len({answer.clusters[1] for answer in own if answer.label is not None})
    unrated = version_counts([answer._replace(label=None) for answer in given], 1)
    assert (unrated["share"], unrated["interval"], unrated["rated_share"]) == (None, None, 0.0)


def test_few_users_are_too_few_ratings():
    given = [
        Answer(version, version == 1, "", (f"{version} {index % 9}",)) for version in (0, 1) for index in range(90)
    ]
    assert compare_versions(given, 0, 1, is_mixed=False)["verdict"] == "too few ratings"


@pytest.mark.slow
@pytest.mark.parametrize("base", [0.6, 0.85])
def test_intervals_cover_where_users_are_alike_and_the_naive_ones_do_not(base):
    """1,000 studies of 60 users: 90 % +- 3 of the intervals hold the truth; those of independent ratings far fewer."""
    rng, studies, lift = random.Random(11), 1000, 0.08
    truth = {"share": base, "difference": true_lift(base, lift), "one mix": true_lift(base, lift)}
    covered = dict.fromkeys((*truth, "naive share"), 0)
    for _ in range(studies):
        rows = drawn(rng, 60, base=base, lift=lift)
        found = shares([row._replace(stratum="") for row in rows], [0, 1], {"": 1.0})
        intervals = {
            "share": found.shares[0].interval(),
            "difference": difference(found).interval,
            "one mix": difference(shares(rows, [0, 1], {"a": 0.5, "b": 0.5})).interval,
        }
        for name, (low, high) in intervals.items():
            covered[name] += low <= truth[name] <= high
        count = sum(row.version == 0 for row in rows)
        low, high = wilson(found.shares[0].value, count)
        covered["naive share"] += low <= base <= high
    rates = {name: count / studies for name, count in covered.items()}
    assert all(0.87 <= rates[name] <= 0.93 for name in truth), rates
    assert rates["naive share"] < 0.80, rates


def true_lift(base: float, lift: float) -> float:
    """Difference of the versions' true shares: the mean of lift * p (1 - p) over users and conversations.

    E[p (1 - p)] of a beta variable with mean m and correlation c is m (1 - m) (1 - c): here twice.
    """
    return lift * (1 - 0.15) * (1 - 0.1)


def test_the_score_interval_agrees_with_its_definition():
    """All x with |p - x| <= 1.645 sqrt(ratio x (1 - x) / n)."""
    rows = [row._replace(stratum="") for row in drawn(random.Random(8), 25)]
    (share,) = shares(rows, [0], {"": 1.0}).shares
    variance = partial(share_variance, trials=sum(row.version == 0 for row in rows))
    for edge in share.interval():
        assert abs(share.value - edge) == pytest.approx(NORMAL * math.sqrt(share.ratio * variance(edge)), rel=1e-9)
