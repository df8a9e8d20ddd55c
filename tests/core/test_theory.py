"""What `kto theory` says: every number is derived again, or is one that the paper or a hand computation gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kto_cli.core.halos import check, random_units, shape
from kto_cli.core.loss_kinds import LOSSES
from kto_cli.core.theory import optima
from kto_cli.core.theory.comparison import answer, compare
from kto_cli.core.theory.constructions import ALIKE, CLIP, CONSTRUCTIONS, WITHOUT
from kto_cli.core.theory.gradients import MARGINS, gradient_weights, tail, tail_words
from kto_cli.core.theory.theorems import contradiction, equivalence, majority
from kto_cli.core.theory.worlds import CONDITIONS, Condition, Worlds, best_gain, gain, make_worlds, together

BY_NAME = {one.words: one for one in CONSTRUCTIONS}
UNITS = random_units()
FAIL = {
    "kto, undesirable, r = q",
    "ipo, pair",
    "nca, desirable",
    "ppo-clip, A = +1, the paper's",
    "ppo-clip, A = -1, the paper's",
}


def doubles(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- Definition 3.4 ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_NAME)
def test_which_constructions_meet_the_definition(name: str):
    found = check(BY_NAME[name], UNITS)
    assert found.is_the_loss
    assert found.meets == (name not in FAIL)


def test_ppo_clip_as_the_paper_writes_it_fails_as_derived():
    """A > 0: v = e^z up to log(1 + e), so its slope rises from 1 at 0 to 1 + e, by e, and convex it is. A < 0: v = -e^z
    above log(1 - e), which falls. Both reproduce the loss, so the failure is not one of copying."""
    up, down = (check(BY_NAME[f"ppo-clip, A = {sign}1, the paper's"], UNITS) for sign in "+-")
    assert up.bend == pytest.approx(CLIP, abs=3e-3)
    assert up.never_falls
    assert not up.is_concave
    assert down.fall > 1
    assert not down.never_falls


def test_an_undesirable_row_with_its_plain_reward_meets_v5_alone():
    """The loss rises with q, and v does, so t must rise."""
    found = check(BY_NAME["kto, undesirable, r = q"], UNITS)
    assert (found.slope > 0, found.meets, found.meets_v5) == (True, False, True)


def test_every_loss_that_can_be_trained_has_its_place():
    named = {one.loss for one in CONSTRUCTIONS} | set(ALIKE) | set(WITHOUT)
    assert set(LOSSES) <= named


def test_a_construction_of_another_loss_is_noticed():
    """Without its weight, kto's is not kto's."""
    one = BY_NAME["kto, desirable"]
    assert check(one._replace(slope=-1.0), UNITS).spread > 0.1
    assert not check(one._replace(reference_point=lambda units: 0 * units.points), UNITS).meets


@pytest.mark.parametrize(
    ("name", "losses", "aversion"),
    [
        ("kto, desirable", "convex", 1.0),
        ("kahneman-tversky, desirable", "convex", 2.25),
        ("linear, desirable", "linear", 1.0),
        ("slic, pair, calibration", "linear", 1.0),
        ("dpo, pair", "concave", (math.log1p(math.e) - math.log(2)) / (math.log(2) - math.log1p(1 / math.e))),
    ],
)
def test_shapes(name: str, losses: str, aversion: float):
    """At z = 1: dpo loses log(1 + e) - log 2 and gains log 2 - log(1 + 1/e); slic's hinge at 1 is not reached."""
    found = shape(BY_NAME[name].value)
    assert found.losses == losses
    assert found.aversion[0] == pytest.approx(aversion, rel=1e-9)


# --- Proposition 4.1 -------------------------------------------------------------------------------


def test_gradient_weights_by_formula():
    u = np.array(MARGINS)
    sigma = 1 / (1 + np.exp(-u))
    power = (u * u + 1e-6) ** -0.06
    expected = {
        "logistic": np.exp(-abs(u)) / (1 + np.exp(-abs(u))) ** 2,
        "concave": np.where(u > 0, np.exp(-abs(u)) / (1 + np.exp(-abs(u))), 1 - sigma),
        "linear": np.ones(len(u)),
        "kahneman-tversky": np.where(u < 0, 2.25, 1) * power * (1 - 0.12 * u * u / (u * u + 1e-6)),
    }
    found = gradient_weights()
    assert list(found) == list(expected)
    for name, row in found.items():
        np.testing.assert_allclose(row, expected[name], rtol=1e-9)


def test_tails():
    """logistic vanishes as e^-|u| at both ends, concave on the right only, kahneman-tversky as |u|^-0.12."""
    words = {name: [tail_words(name, side) for side in (-1, 1)] for name in gradient_weights()}
    assert words == {
        "logistic": ["e^-|u|", "e^-|u|"],
        "concave": ["constant", "e^-|u|"],
        "linear": ["constant", "constant"],
        "kahneman-tversky": ["|u|^-0.12", "|u|^-0.12"],
    }
    assert tail("kahneman-tversky", 1)[1] == pytest.approx(0.88 - 1, abs=1e-6)


# --- Theorems --------------------------------------------------------------------------------------


def test_theorem_4_3_of_v1():
    """Equal weights: 1 - sigmoid(u) + 1 - sigmoid(-u) = 1 for each answer, so nothing moves. Else both are pushed down.

    Person A values the answers at 1, -1 and -3, in Kahneman and Tversky's units 1, -2.25 and -2.25 * 3^.88.
    """
    found = contradiction()
    assert found.equal < 1e-15
    assert 1e-4 < found.unequal[0] <= found.unequal[1] < 1e-2
    assert found.pushed < 0
    assert found.dpo == pytest.approx((math.log(2), math.log(2)), abs=1e-12)
    worst = -2.25 * 3**0.88
    assert found.worth == pytest.approx(((1 - 2.25 + worst) / 3, worst), abs=1e-4)
    assert found.worth[1] < found.worth[0]


def test_theorem_4_3_of_v5():
    """p = .6, beta = 1, ref (.3, .7): odds 1.5 * 3/7 = 9/14, so DPO's a is 9/23 = .391. KTO follows the majority."""
    found = majority()
    assert found.condition
    assert found.dpo_closed == pytest.approx((9 / 23, 14 / 23), abs=1e-12)
    assert found.dpo == pytest.approx(found.dpo_closed, abs=1e-9)
    assert found.kto == pytest.approx((0.996, 0.004), abs=5e-4)


def test_without_its_condition_dpo_follows_the_majority():
    """ref (.5, .5): odds 1.5, a = .6."""
    found = majority(reference=(0.5, 0.5))
    assert not found.condition
    assert found.dpo == pytest.approx((0.6, 0.4), abs=1e-9)


def test_theorem_4_2():
    found = equivalence()
    assert found.policy < 1e-12
    assert found.preferences < 1e-12
    assert found.values[0] > 0.1


# --- worlds ----------------------------------------------------------------------------------------


def test_conditions_share_their_people_and_differ_in_comparisons():
    plain, noisy = make_worlds(Condition(), 20), make_worlds(Condition(noise=0.2), 20)
    assert torch.equal(plain.references, noisy.references)
    assert torch.equal(plain.values, noisy.values)
    assert not torch.equal(plain.wins, noisy.wins)
    for worlds in (plain, noisy):
        torch.testing.assert_close(worlds.wins.sum((1, 2)), torch.ones(20, dtype=torch.float64))
        assert not worlds.wins.diagonal(dim1=1, dim2=2).any()


def test_noise_and_contradiction_flip_as_many_comparisons_as_they_say():
    """Without either nobody contradicts anybody: of two answers one always wins. Flips show as 20 % of them."""
    plain = make_worlds(Condition(pairs=400), 50)
    assert torch.minimum(plain.wins, plain.wins.transpose(1, 2)).sum() == 0
    better = plain.wins > 0
    for condition in (Condition(noise=0.2, pairs=400), Condition(contradiction=0.2, pairs=400)):
        wins = make_worlds(condition, 50).wins
        known = better | better.transpose(1, 2)
        assert (wins * (known & ~better)).sum() / (wins * known).sum() == pytest.approx(0.2, abs=0.01)


def test_contradicting_people_value_answers_as_their_mixture():
    """A person who wants the opposite feels u - z as z - u: half of each is a loss everywhere, by loss aversion."""
    values = make_worlds(Condition(contradiction=0.5), 50).values
    assert (values <= 0).all()


def test_gains_of_the_reference_and_of_the_best_policy():
    worlds = make_worlds(Condition(), 30)
    assert not gain(worlds, worlds.references).any()
    best = torch.full_like(worlds.values, -1e9).scatter(1, worlds.values.argmax(1, keepdim=True), 0.0)
    torch.testing.assert_close(gain(worlds, best), best_gain(worlds))


@pytest.mark.parametrize(
    ("loss", "a"),
    [
        ("dpo", 1.5**10 * (3 / 7) / (1 + 1.5**10 * (3 / 7))),
        ("ipo", math.e * (3 / 7) / (1 + math.e * (3 / 7))),
        ("sft", 0.6),
        ("kto", 1.0),
        ("apo-zero-unpaired", 1.0),
    ],
)
def test_optima_in_closed_form(loss: str, a: float):
    """60 % prefer a, ref (.3, .7). dpo, beta .1: odds (p / (1 - p))^10 ref_a / ref_b. ipo, tau .1: the minimum over d
    of .6 (d - 5)^2 + .4 (d + 5)^2 is d = 1. sft: the winners' shares. kto: all to the majority's answer."""
    world = Worlds(doubles([[0.3, 0.7]]).log(), doubles([[1.0, 0.0]]), doubles([[[0.0, 0.6], [0.4, 0.0]]]))
    found = optima.optimum(optima.LOSSES[loss], world)
    assert found.logps.exp()[0, 0].item() == pytest.approx(a, abs=0.01)
    assert found.moved.item() < 0.01


def test_worlds_one_by_one_are_worlds_together():
    parts = [make_worlds(condition, 3) for condition in CONDITIONS[:2]]
    every = optima.optimum(optima.LOSSES["kto"], together(parts), steps=20).logps
    for part, index in ((parts[0], slice(0, 3)), (parts[1], slice(3, 6))):
        torch.testing.assert_close(optima.optimum(optima.LOSSES["kto"], part, steps=20).logps, every[index])


def test_kto_or_dpo():
    """The paper's section 4.4: DPO with little noise and no contradiction, KTO where people contradict each other."""
    torch.set_num_threads(1)
    outcomes = compare(worlds=100, steps=200)
    better = {outcome.condition.words: outcome.better for outcome in outcomes}
    assert better["plain, 40 pairs"] == better["noise 10%"] == better["400 pairs"] == "dpo"
    assert better["contradiction 40%, 400 pairs"] == "kto"
    assert better["contradiction 40%"] != "dpo"
    words = answer(outcomes)
    assert all(name in words for name in better)
    for outcome in outcomes:
        assert outcome.interval[0] < outcome.difference < outcome.interval[1]
        assert all(share <= 1 for share in outcome.gains.values())


def test_kto_or_dpo_where_beta_is_1(monkeypatch):
    """DPO's odds are (p / (1 - p))^(1 / beta): noise is then followed vote by vote; docs/losses.md says so."""
    torch.set_num_threads(1)
    monkeypatch.setattr(optima, "BETA", 1.0)
    better = {outcome.condition.words: outcome.better for outcome in compare(worlds=60, steps=200)}
    assert better["noise 20%, 400 pairs"] == better["contradiction 40%, 400 pairs"] == "kto"
    assert better["plain, 40 pairs"] == better["400 pairs"] == "dpo"
