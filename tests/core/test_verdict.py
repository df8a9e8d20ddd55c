"""The verdict on a run and the warnings of its curves: each said when it should be, and only then."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from kto_cli.core.losses import LossSettings
from kto_cli.core.statistics.metrics import step_metrics, validation_metrics
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.verdict import Verdict, curve_warnings, run_verdict


def validation(**changes: Any) -> dict[str, Any]:
    """Metrics of a run that learned, with some of them changed."""
    return {
        "margin": 0.4,
        "auc": 0.70,
        "auc_interval": [0.65, 0.75],
        "auc_length": 0.55,
        "auc_length_matched": 0.68,
        "auc_length_matched_interval": [0.60, 0.76],
        "z_ref": 1.0,
        "z_ref_se": 0.2,
        "log_ratio_per_token_desirable": 0.05,
        "log_ratio_per_token_undesirable": -0.1,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "learned"),
        ({"log_ratio_per_token_desirable": -0.49}, "learned"),
        ({"log_ratio_per_token_desirable": -0.51}, "collapsed"),
        ({"log_ratio_per_token_desirable": -6.0, "auc": 0.60, "auc_interval": [0.55, 0.65]}, "collapsed"),
        ({"auc": 0.55, "auc_interval": [0.49, 0.61]}, "unclear"),
        ({"auc": 0.40, "auc_interval": [0.35, 0.45]}, "unclear"),
        ({"auc_interval": [math.nan, math.nan], "auc": math.nan}, "unclear"),
        ({"auc_length": 0.70}, "length"),
        ({"auc_length": 0.69}, "learned"),
        ({"auc_length_matched_interval": [0.5, 0.6]}, "length"),
        ({"auc_length_matched": 0.45, "auc_length_matched_interval": [0.4, 0.49]}, "length"),
    ],
)
def test_word(changes: dict[str, Any], word: str):
    assert run_verdict(validation(**changes), []).word == word


def test_no_validation_rows():
    assert run_verdict(None, []).word == "unknown"
    assert run_verdict({}, []).word == "unknown"


def test_no_pair_of_like_length_shows_nothing_beyond_length():
    nothing = {"auc_length_matched": math.nan, "auc_length_matched_interval": [math.nan, math.nan]}
    assert run_verdict(validation(**nothing), []).word != "learned"


def test_the_sentence_names_the_numbers():
    sentence = run_verdict(validation(), []).sentence
    for number in ("+0.400", "0.700", "0.650", "0.750", "1.00", "0.20", "0.550", "0.680"):
        assert number in sentence


def test_an_unclear_verdict_on_few_rows_names_their_number():
    unclear = {"auc_interval": [0.45, 0.75]}
    assert "Only 30 validation rows" in run_verdict(validation(rows=30, **unclear), []).sentence
    assert "Only" not in run_verdict(validation(rows=200, **unclear), []).sentence


# --- verdicts on scores, through the metrics ----------------------------------------------------


def judged(log_ratios: torch.Tensor, desirable: torch.Tensor, lengths: torch.Tensor) -> Verdict:
    names = [str(number) for number in range(len(desirable))]
    mismatched = torch.zeros(len(desirable))
    scores = Scores(log_ratios, mismatched, desirable, lengths, names, [None] * len(names))
    return run_verdict(validation_metrics(scores, LossSettings(0.1, 1, 1)), [])


def sample(seed: int = 0) -> tuple[torch.Generator, torch.Tensor, torch.Tensor]:
    """400 rows, half desirable; lengths 60 to 90 whatever the label."""
    generator = torch.Generator().manual_seed(seed)
    return generator, torch.arange(400) % 2 == 0, torch.randint(60, 91, (400,), generator=generator)


def test_collapsed_policy_is_called_so_whatever_its_auc():
    """Both classes' log-ratios at -450 nats over 75 tokens: -6 nats a token. The desirable ones' are 9 nats
    higher (-441 / 75 = -5.88) with a standard deviation of 25 nats (of their mean: 25 / 75 / sqrt 200 = 0.02), so
    AUC = Phi(9 / (25 * sqrt 2)) = 0.60: better than chance, on a ruined model."""
    generator, desirable, _ = sample()
    log_ratios = -450 + 9.0 * desirable + 25 * torch.randn(400, generator=generator)
    verdict = judged(log_ratios, desirable, torch.full((400,), 75))
    assert verdict.word == "collapsed"
    assert "5.86 nats per token" in verdict.sentence


def test_length_alone_is_called_length():
    """Undesirable completions are longer, and the policy takes 0.01 nats a token off everything (far from collapse):
    the rewards order the classes as well as length does and no better."""
    generator, desirable, lengths = sample()
    lengths = lengths + 40 * (~desirable).long()
    verdict = judged(-0.01 * lengths + 1e-4 * torch.randn(400, generator=generator), desirable, lengths)
    assert verdict.word == "length"


def test_noise_is_called_unclear():
    generator, desirable, lengths = sample()
    assert judged(torch.randn(400, generator=generator), desirable, lengths).word == "unclear"


def test_reward_of_the_label_is_called_learned():
    generator, desirable, lengths = sample()
    log_ratios = 1.0 * desirable + torch.randn(400, generator=generator)
    assert judged(log_ratios, desirable, lengths).word == "learned"


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
    "was clamped to 0": ({"z_ref": 0.0}, {"z_ref": lambda time: 0.0 if time < 0.85 else 0.1}),
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


def test_a_clamped_z_ref_names_the_desirable_reward():
    assert "(now +0.25)" in curve_warnings(curve(z_ref=0.0, reward_desirable=0.25))[0]
    assert "(now" not in curve_warnings(curve(z_ref=0.0, reward_desirable=math.nan))[0]


def test_a_loss_that_fell_a_little_has_moved():
    assert curve_warnings(curve(loss=lambda time: 0.5 - 0.003 * time, margin=0.0)) == []


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
    holding = validation(reward_desirable=0.1, reward_undesirable=-0.4)
    assert not [text for text in curve_warnings(steps, holding) if "both classes fell" in text]
    falling = validation(reward_desirable=-0.3, reward_undesirable=-0.4)
    assert "both classes fell" in curve_warnings(curve(), falling)[0]


def test_a_sure_sign_with_next_to_no_margin_is_not_learned():
    """Three steps can rank validation rows a little without having taught anything one would see."""
    assert run_verdict(validation(margin=0.004), []).word == "unclear"
