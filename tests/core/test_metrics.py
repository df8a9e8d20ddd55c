"""What a step and a validation set say, against loops written out; and whether the intervals hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.auc import auc
from kto_cli.core.statistics.metrics import step_metrics, validation_metrics
from kto_cli.core.statistics.scores import Scores, class_means

BETA, LAMBDA_D, LAMBDA_U = 0.1, 1.0, 1.5


def naive_auc(scores: list[float], desirable: list[bool], counts: Any = lambda up, down: True) -> float:
    """Every desirable row against every undesirable one for which `counts(up, down)`; ties are half a win."""
    won = total = 0.0
    for up in range(len(scores)):
        for down in range(len(scores)):
            if desirable[up] and not desirable[down] and counts(up, down):
                won += (scores[up] > scores[down]) + 0.5 * (scores[up] == scores[down])
                total += 1
    return won / total if total else math.nan


def made_up(rows: int = 60, seed: int = 0, *, effect: float = 3.0) -> Scores:
    """Rows in pairs that share a prompt (two pairs a prompt), undesirable ones longer; some rows without a pair."""
    generator = torch.Generator().manual_seed(seed)
    desirable = torch.arange(rows) % 2 == 0
    lengths = torch.randint(5, 40, (rows,), generator=generator) + 6 * (~desirable)
    log_ratios = (5 * torch.randn(rows, generator=generator) + effect * desirable).round()
    mismatched = 4 * torch.randn(rows, generator=generator) + 1
    prompts = [f"prompt {row // 4}" for row in range(rows)]
    pairs = [None if row // 2 % 5 == 4 else f"pair {row // 2}" for row in range(rows)]
    return Scores(log_ratios, mismatched, desirable, lengths, prompts, pairs)


def measured(scores: Scores, seed: int = 0) -> dict[str, Any]:
    return validation_metrics(scores, LossSettings(BETA, LAMBDA_D, LAMBDA_U), seed=seed)


# --- AUC ----------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), max_size=30))
def test_auc_equals_the_double_loop(rows: list[tuple[int, bool]]):
    scores, labels = [float(score) for score, _ in rows], [label for _, label in rows]
    found = auc(torch.tensor(scores), torch.tensor(labels, dtype=torch.bool))
    assert found == pytest.approx(naive_auc(scores, labels), nan_ok=True, abs=1e-12)


def test_auc_by_hand():
    """Desirable 3, 1; undesirable 2, 1. Pairs: 3 > 2, 3 > 1, 1 < 2, 1 = 1: 2.5 of 4."""
    assert auc(torch.tensor([3.0, 1, 2, 1]), torch.tensor([True, True, False, False])) == 0.625


# --- one step -----------------------------------------------------------------------------------


def test_step_metrics_by_hand():
    """beta 0.5, lambda_U 2. Log-ratios 2 (desirable), 30 and -3 (undesirable); mismatched 1 and 3: z_ref 2,
    its standard error 1. u = 0, -14, 2.5: losses 0.5, 2 / (1 + e^-14), 2 / (1 + e^2.5). Gradient weight 4 v (1 - v):
    1, 3.3e-6, 0.28: one of three rows under 1 %. Rewards: 1; (30 - 3) / 2 * 0.5 = 6.75."""
    found = step_metrics(
        torch.tensor([2.0, 30, -3]),
        torch.tensor([1.0, 3]),
        torch.tensor([True, False, False]),
        LossSettings(0.5, 1.0, 2.0),
        ["one", "other"],
    )
    loss = (0.5 + 2 / (1 + math.exp(-14)) + 2 / (1 + math.exp(2.5))) / 3
    assert found == {
        "loss": pytest.approx(loss, rel=1e-6),
        "z_ref": 2.0,
        "z_ref_mean": 2.0,
        "z_ref_se": pytest.approx(1.0),
        "z_ref_pairs": 2,
        "reward_desirable": 1.0,
        "reward_undesirable": 6.75,
        "margin": -5.75,
        "saturated": pytest.approx(1 / 3),
    }


def test_the_error_of_z_ref_is_clustered_by_prompt():
    """Mismatched 4, 2, -1, -1 of prompts a, a, b, c: mean 1, deviations 3 + 1, -2, -2 by prompt:
    sqrt(3 / 2 * (16 + 4 + 4)) / 4 = 1.5. As four independent pairs it were sqrt((9 + 1 + 4 + 4) / 3 / 4) = 1.22. Of
    one prompt alone nothing is known."""
    ratios, labels = torch.tensor([4.0, 2, -1, -1]), torch.tensor([True, False, True, False])
    found = step_metrics(ratios, ratios, labels, LossSettings(1, 1, 1), ["a", "a", "b", "c"])
    assert found["z_ref_se"] == pytest.approx(1.5)
    assert math.isnan(step_metrics(ratios, ratios, labels, LossSettings(1, 1, 1), ["a"] * 4)["z_ref_se"])


def test_saturated_is_under_one_percent_of_the_gradient():
    """4 v (1 - v) = 4 e^-u / (1 + e^-u)^2: 0.01086 at u = 5.9 and 0.00987 at u = 6; z_ref is 0, beta 1."""
    rows, labels = torch.tensor([5.9, 6.0, -5.9, -6.0]), torch.tensor([True, True, True, False])
    found = step_metrics(rows, torch.tensor([-1.0]), labels, LossSettings(1, 1, 1), [0])
    assert found["saturated"] == 0.5


def test_step_metrics_show_the_mean_before_the_clamp():
    rows = torch.tensor([1.0, -1.0])
    found = step_metrics(rows, torch.tensor([-5.0, 1]), torch.tensor([True, False]), LossSettings(1, 1, 1), [0, 1])
    assert (found["z_ref"], found["z_ref_mean"]) == (0.0, -2.0)


def test_a_class_without_rows_has_no_mean():
    up, down = class_means(torch.tensor([1.0, 3]), torch.tensor([True, True]))
    assert up == 2.0
    assert math.isnan(down)


# --- validation rows: the estimates ---------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_means_equal_the_loops(seed: int):
    scores = made_up(seed=seed)
    found = measured(scores)
    ratios, labels = scores.log_ratios.tolist(), scores.desirable.tolist()
    lengths = scores.lengths.tolist()
    z_ref = max(0.0, sum(scores.mismatched_log_ratios.tolist()) / len(labels))
    up = [BETA * ratio for ratio, label in zip(ratios, labels, strict=True) if label]
    down = [BETA * ratio for ratio, label in zip(ratios, labels, strict=True) if not label]
    loss = correct = 0.0
    for ratio, label in zip(ratios, labels, strict=True):
        sign, weight = (1, LAMBDA_D) if label else (-1, LAMBDA_U)
        loss += weight * (1 - 1 / (1 + math.exp(-BETA * sign * (ratio - z_ref))))
        correct += (sign * ratio > sign * z_ref) + 0.5 * (ratio == z_ref)
    assert found["z_ref"] == pytest.approx(z_ref, abs=1e-6)
    assert found["loss"] == pytest.approx(loss / len(labels))
    assert found["accuracy"] == pytest.approx(correct / len(labels))
    assert found["reward_desirable"] == pytest.approx(sum(up) / len(up))
    assert found["reward_undesirable"] == pytest.approx(sum(down) / len(down))
    assert found["margin"] == pytest.approx(sum(up) / len(up) - sum(down) / len(down))
    good = [(ratio, length) for ratio, length, label in zip(ratios, lengths, labels, strict=True) if label]
    good = sorted(good, key=lambda row: row[0] / row[1])[3:-3]  # of 30 rows a tenth at either end
    assert found["log_ratio_per_token_desirable"] == pytest.approx(
        sum(ratio for ratio, _ in good) / sum(length for _, length in good)
    )
    up, down = (sorted(ratio for ratio, label in zip(ratios, labels, strict=True) if label == one) for one in (1, 0))
    assert found["margin_nats"] == pytest.approx((sum(up[3:-3]) - sum(down[3:-3])) / 24)
    assert found["moved_nats"] == pytest.approx(sum(sorted(map(abs, ratios))[6:-6]) / 48)
    assert found["kl_trimmed"] == pytest.approx(sum(sorted(scores.mismatched_log_ratios.tolist())[6:-6]) / 48)
    assert (found["rows"], found["desirable"], found["undesirable"], found["prompts"]) == (60, 30, 30, 15)


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_the_loops(seed: int):
    scores = made_up(seed=seed)
    found = measured(scores)
    ratios, labels, lengths = (
        scores.log_ratios.tolist(),
        scores.desirable.tolist(),
        scores.lengths.tolist(),
    )
    assert found["auc"] == pytest.approx(naive_auc(ratios, labels))
    assert found["auc_length_direction"] == "shorter"
    assert found["auc_length"] == pytest.approx(naive_auc([-length for length in lengths], labels))

    def alike(up: int, down: int) -> bool:
        return max(lengths[up], lengths[down]) <= 1.2 * min(lengths[up], lengths[down])

    assert found["auc_length_matched"] == pytest.approx(naive_auc(ratios, labels, alike))
    assert found["auc_length_matched"] != found["auc"]


def test_paired_accuracy_equals_the_loop():
    scores = made_up()
    ratios, won = scores.log_ratios.tolist(), []
    for row in range(0, 60, 2):
        if scores.pair_ids[row] is not None:
            won.append((ratios[row] > ratios[row + 1]) + 0.5 * (ratios[row] == ratios[row + 1]))
    assert len(won) == 24
    assert measured(scores)["paired_accuracy"] == pytest.approx(sum(won) / len(won))


def test_no_pairs_no_paired_accuracy():
    lone = made_up()._replace(pair_ids=[f"pair {row}" for row in range(60)])
    assert "paired_accuracy" not in measured(lone)
    assert "paired_accuracy" not in measured(made_up()._replace(pair_ids=[None] * 60))


def test_direction_of_length_is_the_one_that_predicts():
    scores = made_up()
    turned = scores._replace(lengths=80 - scores.lengths)
    assert measured(turned)["auc_length_direction"] == "longer"
    assert measured(turned)["auc_length"] == pytest.approx(measured(scores)["auc_length"])
    assert measured(scores)["auc_length"] > 0.5


def test_areas_do_not_depend_on_the_block():
    """More undesirable and desirable rows than one block of 512 pairs holds."""
    generator = torch.Generator().manual_seed(0)
    count = 1300
    scores = Scores(
        torch.randn(count, generator=generator),
        torch.zeros(count),
        torch.arange(count) < 1200,
        torch.full((count,), 7),
        [str(row) for row in range(count)],
        [None] * count,
    )
    found = measured(scores)
    assert found["auc"] == pytest.approx(auc(scores.log_ratios, scores.desirable), abs=1e-6)
    assert (found["auc_length"], found["auc_length_matched"]) == (0.5, pytest.approx(found["auc"]))


# --- validation rows: the intervals ---------------------------------------------------------------


def test_seed_reproduces_and_matters():
    scores = made_up()
    assert measured(scores, 1) == measured(scores, 1)
    assert measured(scores, 1)["auc_interval"] != measured(scores, 2)["auc_interval"]
    assert measured(scores, 1)["auc"] == measured(scores, 2)["auc"]


def test_every_estimate_lies_in_its_interval():
    found = measured(made_up())
    names = [name.removesuffix("_interval") for name in found if name.endswith("_interval")]
    assert set(names) == {
        *("loss", "z_ref", "kl", "reward_desirable", "reward_undesirable", "margin", "accuracy"),
        *("auc", "auc_length", "auc_length_matched", "auc_length_adjusted", "paired_accuracy"),
        *("log_ratio_desirable", "log_ratio_undesirable", "margin_nats", "moved_nats", "kl_trimmed"),
        *("log_ratio_per_token_desirable", "log_ratio_per_token_undesirable", "margin_equal_length"),
    }
    for name in names:
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high
        assert low < high


def test_rows_of_one_prompt_are_drawn_together():
    """Ten copies of each prompt's rows hold no more information than one: the intervals stay as wide. Drawn one by one
    they would be sqrt(10) = 3.2 times narrower."""
    scores = made_up()
    copies = Scores(*(value.repeat(10) for value in scores[:4]), list(scores.prompt_ids) * 10, [None] * 600)
    widths = []
    for each in (scores, copies):
        low, high = measured(each)["auc_interval"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_margin_interval_by_the_normal_approximation():
    """Every row has its own prompt: the margin's standard error is beta * sqrt(var_D / n_D + var_U / n_U) and
    the central 90 % are +- 1.645 of them (1,000 resamples: to about 10 %)."""
    scores = made_up(400)._replace(prompt_ids=[str(row) for row in range(400)])
    low, high = measured(scores)["margin_interval"]
    up, down = scores.log_ratios[scores.desirable], scores.log_ratios[~scores.desirable]
    error = BETA * math.sqrt(up.var().item() / len(up) + down.var().item() / len(down))
    assert high - low == pytest.approx(2 * 1.645 * error, rel=0.15)


def test_auc_interval_holds_the_truth_about_nine_times_in_ten():
    """Normal scores one standard deviation apart: AUC = Phi(1 / sqrt 2) = 0.7602. Of 60 samples of 100 rows about 54
    intervals hold it; 0.78 and 0.99 are 3 standard deviations (0.039) below that and 2 above."""
    truth = 0.5 * (1 + math.erf(1 / 2))
    held = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        desirable = torch.arange(100) % 2 == 0
        scores = torch.randn(100, generator=generator) + 1.0 * desirable
        names = [str(row) for row in range(100)]
        made = Scores(scores, torch.zeros(100), desirable, torch.ones(100), names, [None] * 100)
        low, high = measured(made, seed)["auc_interval"]
        held += low <= truth <= high
    assert 0.78 <= held / 60 <= 0.99


# --- degenerate sets ----------------------------------------------------------------------------


@pytest.mark.parametrize("label", [True, False])
def test_one_class_only(label: bool):
    only: Tensor = torch.full((60,), label)
    found = measured(made_up()._replace(desirable=only))
    for name in ("auc", "auc_length", "auc_length_matched", "margin"):
        assert math.isnan(found[name])
        assert all(math.isnan(edge) for edge in found[f"{name}_interval"])
    there = "reward_desirable" if label else "reward_undesirable"
    assert found[there] == pytest.approx(BETA * made_up().log_ratios.mean().item(), abs=1e-6)
    assert math.isfinite(found["loss"])


def test_resamples_without_a_class_do_not_spoil_the_interval():
    """One desirable row among 12: about a third of the resamples lack it; the others still give an interval."""
    scores = made_up(12)._replace(desirable=torch.arange(12) == 0, prompt_ids=[str(row) for row in range(12)])
    low, high = measured(scores)["auc_interval"]
    assert 0 <= low <= high <= 1


def test_one_row():
    found = measured(Scores(*(value[:1] for value in made_up()[:6])))
    assert found["rows"] == 1
    assert math.isnan(found["z_ref_se"])
    assert math.isnan(found["auc"])
