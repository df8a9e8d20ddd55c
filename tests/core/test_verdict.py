"""The verdict on a run and the warnings of its curves: each said when it should be, and only then."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch
from support.verdict_study import Draw, curves, drifted, half, judged, rows_of

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.curves import curve_warnings, row_warnings
from kto_cli.core.statistics.metrics import step_metrics, validation_metrics
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.verdict import RULES, Overfit, run_verdict


def validation(**changes: Any) -> dict[str, Any]:
    """Metrics of a run that learned, with some of them changed."""
    return {
        "rows": 400,
        "desirable": 200,
        "undesirable": 200,
        "prompts": 400,
        "not_finite": 0,
        "lost_rows": 0,
        "completion_tokens": 75.0,
        "margin": 0.4,
        "margin_nats": 4.0,
        "margin_nats_interval": [3.0, 5.0],
        "margin_equal_length": 3.5,
        "margin_equal_length_interval": [2.5, 4.5],
        "moved_nats": 3.0,
        "auc": 0.70,
        "auc_interval": [0.65, 0.75],
        "auc_p": 0.0005,
        "auc_least_p": 1e-9,
        "z_ref": 1.0,
        "z_ref_se": 0.2,
        "kl_trimmed": 1.0,
        "log_ratio_desirable": 1.0,
        "log_ratio_desirable_interval": [0.5, 1.5],
        "log_ratio_undesirable": -3.0,
        "log_ratio_per_token_desirable": 0.02,
        "log_ratio_per_token_desirable_interval": [0.01, 0.03],
        **changes,
    }


def fell(per_token: float, nats: float = -40.0, high: float | None = None) -> dict[str, Any]:
    high = per_token / 2 if high is None else high
    return {
        "log_ratio_per_token_desirable": per_token,
        "log_ratio_per_token_desirable_interval": [2 * per_token - high, high],
        "log_ratio_desirable": nats,
        "log_ratio_desirable_interval": [2 * nats, -0.01],
    }


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "learned"),
        ({"not_finite": 1}, "blown up"),
        ({"kl_trimmed": 51.0}, "blown up"),
        ({"kl_trimmed": 49.0}, "learned"),
        ({"log_ratio_desirable": 60.0, "log_ratio_undesirable": 55.0}, "blown up"),
        ({"log_ratio_desirable": 60.0, "log_ratio_undesirable": 45.0}, "learned"),
        ({"log_ratio_desirable": 60.0, "log_ratio_undesirable": 55.0, "completion_tokens": 600.0}, "learned"),
        ({"kl_trimmed": 51.0, "completion_tokens": 600.0}, "learned"),
        (fell(-0.51), "collapsed"),
        (fell(-0.49), "drifted"),
        (fell(-0.51, nats=-0.9), "learned"),
        (fell(-0.51, high=-0.16), "learned"),  # -0.51 + 1.5 x 0.35 = 0.015
        (fell(-0.51, high=-0.18), "collapsed"),  # -0.51 + 1.5 x 0.33 = -0.015
        (fell(-6.0) | {"auc": 0.60, "auc_interval": [0.55, 0.65]}, "collapsed"),
        (fell(-0.11), "drifted"),
        (fell(-0.09), "learned"),
        ({"auc_least_p": 0.026}, "too few rows"),
        ({"auc_least_p": 0.024}, "learned"),
        ({"desirable": 0, "auc": math.nan, "auc_interval": [math.nan, math.nan]}, "too few rows"),
        ({"moved_nats": 0.39}, "barely moved"),
        ({"moved_nats": 0.41}, "learned"),
        ({"margin_nats": 0.39}, "barely moved"),
        ({"margin_nats": 0.39, "auc_p": 0.3}, "unclear"),
        ({"auc_p": 0.026}, "unclear"),
        ({"auc": 0.40, "auc_p": 0.99, "auc_interval": [0.35, 0.45]}, "unclear"),
        ({"margin_equal_length": 0.9}, "length"),
        ({"margin_equal_length": 1.1}, "learned"),
        ({"margin_equal_length_interval": [-0.1, 7.0]}, "length"),
        ({"margin_equal_length": math.nan, "margin_equal_length_interval": [math.nan, math.nan]}, "length"),
    ],
)
def test_word(changes: dict[str, Any], word: str):
    verdict = run_verdict(validation(**changes), [])
    assert verdict.word == word
    assert verdict.sentence.startswith(f"{word.capitalize()}: ")
    assert "nan" not in verdict.sentence


def test_no_validation_rows():
    assert run_verdict(None, []).word == "unknown"
    assert run_verdict({}, []).word == "unknown"


def test_the_sentence_names_the_numbers():
    sentence = run_verdict(validation(), []).sentence
    for number in ("+4.00 nats", "+3.50 nats", "0.700", "0.650", "0.750", "p 0.0005", "1.00 +- 0.20"):
        assert number in sentence


def test_an_unclear_verdict_on_few_rows_names_their_number():
    unclear = {"auc_interval": [0.45, 0.75], "auc_p": 0.2}
    assert "Only 30 validation rows" in run_verdict(validation(rows=30, **unclear), []).sentence
    assert "Only" not in run_verdict(validation(rows=200, **unclear), []).sentence


def test_an_auc_below_chance_asks_whether_the_labels_are_turned():
    assert "wrong way round" in run_verdict(validation(auc_interval=[0.3, 0.4], auc_p=1.0), []).sentence


# --- verdicts on scores, through the metrics (more cases: test_verdict_study.py) -------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_a_perfect_ranking_of_few_rows_shows_nothing(count: int):
    """Of 3 + 3 rows chance ranks one in 20 so, and the interval says how little is known."""
    verdict = judged(rows_of(5.0 * half(count), half(count), torch.full((count,), 9)))
    assert verdict.word == "too few rows"
    assert "[1.000, 1.000]" not in verdict.sentence
    assert "nan" not in verdict.sentence


def test_four_and_four_rows_in_perfect_order_are_the_fewest_that_learned():
    draw = Draw(0)
    made = rows_of(9.0 * half(8) + draw.normal(8), half(8), torch.tensor([20, 21, 22, 20, 21, 22, 20, 21]))
    assert judged(made).word == "learned"


def test_one_beta_or_another_gives_the_same_word_and_sentence():
    draw = Draw(1)
    made = rows_of(1.9 * half(200) + draw.normal(200), half(200), draw.lengths(40, 60, 200))
    assert len({judged(made, beta=beta)[:2] for beta in (0.003, 0.1, 3.0)}) == 1


def test_order_of_the_rows_changes_no_word():
    made = drifted(Draw(3)).take(range(60))
    turned = made.take(range(59, -1, -1))
    assert judged(made).word == judged(turned).word == "drifted"


def test_one_row_in_fifty_warns_and_changes_no_word():
    """200 desirable rows gained half a nat, 4 of them lost 170 nats on 5 tokens: pooled -0.58 nats a token."""
    draw = Draw(0)
    ratios = 0.5 * half(400) + 0.5 * draw.normal(400)
    ratios[:8:2] = -170.0
    verdict = judged(rows_of(ratios, half(400), torch.full((400,), 5)))
    assert verdict.word == "learned"
    assert any("4 desirable rows of 200 lost more than half a nat a token" in text for text in verdict.warnings)


def test_a_run_that_says_one_word_is_blown_up():
    """z_ref 183 nats, both rewards +14 (140 nats at beta 0.1), training loss 0.20, validation loss 0.79, AUC of chance:
    seen with a learning rate 30 times too high."""
    torch.manual_seed(0)
    desirable = torch.arange(120) % 2 == 0
    scores = Scores(
        log_ratios=140 + 20 * torch.randn(120),
        mismatched_log_ratios=183 + 20 * torch.randn(120),
        desirable=desirable,
        lengths=torch.full((120,), 64),
        prompt_ids=[str(row) for row in range(120)],
        pair_ids=[None] * 120,
    )
    found = validation_metrics(scores, LossSettings(beta=0.1, lambda_d=1.0, lambda_u=1.0))
    assert found["z_ref"] == pytest.approx(183, abs=6)
    steps = [{"step": n, "loss": 0.5 - n / 100, "margin": 0.5, "z_ref": 6.0 * n} for n in range(1, 31)]
    verdict = run_verdict(found, steps)
    assert verdict.word == "blown up"
    assert verdict.sentence.startswith("Blown up: answers to other prompts became more likely by 18")


def kept_of(step: int) -> Overfit:
    return Overfit(step, 120, 0.4123, 0.6)


def test_a_run_whose_best_step_was_kept_says_so_and_is_judged_by_that_step():
    verdict = run_verdict(validation(), [], kept=kept_of(40))
    assert verdict.word == "learned"
    assert verdict.sentence.endswith(
        "Training overfit after step 40 of 120: the validation loss rose from 0.4123 to 0.6, so the model of step 40 "
        "was kept. Fewer epochs, or --max-steps 40, save the rest."
    )


def test_few_validation_rows_are_warned_of():
    assert any(text.startswith("Only 99 validation rows:") for text in run_verdict(validation(rows=99), []).warnings)
    assert not any("validation rows:" in text for text in run_verdict(validation(rows=100), []).warnings)


def test_a_log_prob_that_is_no_number_is_blown_up():
    ratios = torch.randn(40)
    ratios[3] = math.inf
    verdict = judged(rows_of(ratios, half(40), torch.full((40,), 9)))
    assert verdict.word == "blown up"
    assert "(rows: 1)" in verdict.sentence


# --- overfitting ----------------------------------------------------------------------------------


def areas(*values: float) -> list[dict[str, Any]]:
    """A run whose validation AUC took these values, each with an interval of +-0.04."""
    return [
        {"step": step, "validation": {"auc": value, "auc_interval": [value - 0.04, value + 0.04], "loss": 0.4}}
        for step, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.6, 0.7, 0.8, 0.73), "overfit"),
        ((0.6, 0.7, 0.8, 0.745), "learned"),  # by less than 1.5 x 0.04
        ((0.6, 0.8, 0.7, 0.8), "learned"),  # back again
        ((0.8,), "learned"),
        ((0.8, math.nan), "learned"),
    ],
)
def test_a_validation_auc_that_fell(values: tuple[float, ...], word: str):
    verdict = run_verdict(validation(), areas(*values))
    assert verdict.word == word
    if word == "overfit":
        assert verdict.sentence.startswith("Overfit after step 3: the validation AUC fell from 0.800 to 0.730 while")
        assert "--max-steps 3" in verdict.sentence


def test_a_fall_within_a_wide_interval_is_no_fall():
    steps = areas(0.6, 0.8, 0.7)
    steps[1]["validation"]["auc_interval"] = [0.65, 0.95]
    assert run_verdict(validation(), steps).word == "learned"


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_training_rows_learned_by_heart(beta: float):
    """12 nats apart, validation rows 0.5 (surely under 1): overfit if their AUC is chance or their loss rises."""
    weak = validation(margin_nats=0.5, margin_nats_interval=[0.0, 1.0])
    noise = weak | {"auc_p": 0.3}
    level, rising = (curves(Draw(0), beta, apart=12.0, area=lambda time: 0.6, rise=rise) for rise in (0.0, 0.2))
    words = [run_verdict(found, steps, beta=beta).word for found in (noise, weak) for steps in (level, rising)]
    assert words == ["overfit", "overfit", "learned", "overfit"]
    alike = curves(Draw(0), beta, apart=0.5, area=lambda time: 0.6, rise=0.2)
    assert run_verdict(noise, alike, beta=beta).word == "unclear"


def test_lines_that_lack_numbers_say_nothing():
    steps = [{"step": 1}, {"step": 2, "validation": None}, {"step": 3, "validation": {}}, *areas(0.9), {"step": 5}]
    assert run_verdict(validation(), steps).word == "learned"


# --- rows: warnings without curves, in `kto eval` too -----------------------------------------------


@pytest.mark.parametrize(
    ("desirable", "undesirable", "high", "warned"),
    [
        (-1.1, -1.1, -0.1, True),
        (-0.9, -5.0, -0.1, False),
        (-5.0, -0.9, -0.1, False),
        (-1.1, -1.1, 0.1, False),
        (-5.0, math.nan, -0.1, False),  # no undesirable rows
    ],
)
def test_both_classes_fell(desirable: float, undesirable: float, high: float, warned: bool):
    """By a nat each, whatever beta is, and surely: with the interval of the desirable rows below 0."""
    changes = {"log_ratio_desirable": desirable, "log_ratio_undesirable": undesirable}
    found = validation(**changes, log_ratio_desirable_interval=[-9, high])
    assert [text for text in row_warnings(found) if "both classes fell" in text] == run_verdict(found, []).warnings
    assert bool(row_warnings(found)) == warned


def test_metrics_have_all_that_the_verdict_reads():
    found = validation_metrics(rows_of(torch.randn(40), half(40), torch.full((40,), 9)), LossSettings(0.1, 1, 1))
    assert set(validation()) <= set(found)
    for rule in RULES.values():
        rule(found, [], 0.1)


# --- curves -------------------------------------------------------------------------------------


def curve(steps: int = 20, **changes: Any) -> list[dict[str, Any]]:
    """A healthy run (the loss falls, the margin grows), with changes: a number or a function of time, 0 to 1."""
    healthy: dict[str, Any] = {
        "loss": lambda time: 0.5 - 0.1 * time,
        "z_ref": 0.5,
        "reward_desirable": lambda time: 0.3 * time,
        "reward_undesirable": lambda time: -0.3 * time,
        "margin": lambda time: 0.6 * time,
        "saturated": 0.05,
    }
    times = [step / (steps - 1) for step in range(steps)]
    series = healthy | changes
    return [{name: value(time) if callable(value) else value for name, value in series.items()} for time in times]


def test_a_healthy_curve_warns_of_nothing():
    assert curve_warnings(curve()) == []


WARNINGS = {
    "both classes fell": (
        {"reward_desirable": -0.11, "reward_undesirable": -0.2},
        {"reward_desirable": -0.09, "reward_undesirable": -2.0},
    ),
    "was clamped to 0": (
        {"z_ref": 0.0, "reward_desirable": -0.11, "reward_undesirable": 0.0},
        {
            "z_ref": lambda time: 0.0 if time < 0.85 else 0.1,
            "reward_desirable": -0.11,
            "reward_undesirable": 0.0,
        },
    ),
    "are saturated": ({"saturated": 0.51}, {"saturated": 0.49}),
    "hardly moved": ({"loss": 0.5, "margin": 0.009}, {"loss": 0.5, "margin": 0.02}),
    "loss rose": ({"loss": lambda time: 0.4 + 0.1 * time}, {"loss": lambda time: 0.4 + 0.03 * time}),
}
"""What each warning says -> changes that are just enough for it, and changes that are just not."""


@pytest.mark.parametrize("words", WARNINGS)
def test_warning_alone_when_due(words: str):
    due, not_due = WARNINGS[words]
    found = curve_warnings(curve(**due))
    assert len(found) == 1
    assert words in found[0]
    assert curve_warnings(curve(**not_due)) == []


def test_a_clamped_z_ref_is_harmless_while_desirable_rows_hold():
    assert "lost 2.0 nats" in curve_warnings(curve(z_ref=0.0, reward_desirable=-0.2))[1]
    assert curve_warnings(curve(z_ref=0.0, reward_desirable=-0.09)) == []
    assert curve_warnings(curve(z_ref=0.0, reward_desirable=math.nan)) == []


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_curves_are_read_in_nats(beta: float):
    """The same log-ratios, logged as rewards of another beta, give the same warnings."""
    moved = {"reward_desirable": -11 * beta, "reward_undesirable": -12 * beta, "margin": beta}
    assert ["both classes fell" in text for text in curve_warnings(curve(**moved), beta=beta)] == [True]
    still = {"loss": 0.5, "margin": 0.09 * beta}
    assert ["hardly moved" in text for text in curve_warnings(curve(**still), beta=beta)] == [True]


def test_a_loss_that_fell_a_little_has_moved():
    assert curve_warnings(curve(loss=lambda time: 0.5 - 0.003 * time, margin=0.0)) == []


@pytest.mark.parametrize("steps", [4, 6, 8, 12, 20])
def test_a_loss_that_varies_by_its_batches_has_not_risen(steps: int):
    """As that of sft does, by 0.3 of 2 from step to step; two means of three steps differ by a tenth in a fifth of the
    runs. A true rise of a half is told all the same."""
    draw = random.Random(4)

    def said(rise: float, spread: float) -> float:
        losses = [[2 + rise * at / (steps - 1) + draw.gauss(0, spread) for at in range(steps)] for _ in range(400)]
        found = [curve_warnings([{"loss": loss} for loss in one], {"log_ratio_desirable": 0.0}) for one in losses]
        return sum(any("loss rose" in text for text in warnings) for warnings in found) / 400

    assert said(0.0, 0.3) <= 0.02
    assert steps < 6 or said(1.0, 0.05) > 0.95


def test_a_loss_below_zero_that_falls_has_not_risen():
    """Linear values, and margins of slic's likelihood, go below 0: a tenth of it is a tenth of its size."""
    assert curve_warnings(curve(loss=lambda time: -1 - 0.05 * time)) == []
    assert "loss rose" in curve_warnings(curve(loss=lambda time: -1 + 0.5 * time))[0]


def test_rewards_are_judged_at_the_end_of_the_run():
    """Both classes down at first and up at the end is no warning; the other way round is one."""
    recovering = curve(reward_desirable=lambda time: 4 * time - 3, reward_undesirable=lambda time: 4 * time - 3.5)
    falling = curve(reward_desirable=lambda time: 1 - 4 * time, reward_undesirable=lambda time: 1 - 4 * time)
    assert curve_warnings(recovering) == []
    assert "both classes fell" in curve_warnings(falling)[0]


def test_a_step_with_one_class_does_not_silence_the_rest():
    """A batch without desirable rows (--batch-size 1, or few of a class) has no such mean; the other steps count."""
    desirable = torch.tensor([False, False])
    lone = step_metrics(torch.ones(2), torch.ones(2), desirable, LossSettings(0.1, 1, 1), range(2))
    steps = curve(reward_desirable=-1.0, reward_undesirable=-1.0)
    steps[-1] = json.loads(json.dumps(lone))
    assert "both classes fell" in curve_warnings(steps)[0]


def test_three_steps_say_nothing():
    assert curve_warnings(curve(3, saturated=1.0, z_ref=0.0)) == []


def test_the_verdict_carries_the_warnings():
    assert run_verdict(None, curve(saturated=0.9)).warnings == curve_warnings(curve(saturated=0.9))


def test_validation_rewards_decide_whether_both_fell():
    """A noisy last step is no fall where validation rewards hold; validation rewards that fell are one."""
    steps = curve(reward_desirable=-0.5, reward_undesirable=-0.9)
    assert "both classes fell" in curve_warnings(steps)[0]
    assert run_verdict(validation(), steps).warnings == []
    fallen = validation(log_ratio_desirable=-3.0, log_ratio_undesirable=-4.0, log_ratio_desirable_interval=[-4, -2])
    assert ["both classes fell" in text for text in run_verdict(fallen, curve()).warnings] == [True]
