"""Simulation study of the verdict: how often noise is called learned, and how often each constructed case its word.

python -m tests.support.verdict_study [runs]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.statistics.metrics import validation_metrics
from kto_cli.core.statistics.scores import Scores
from kto_cli.core.statistics.verdict import Verdict, run_verdict

Steps = list[dict[str, Any]]
NOISE_ROWS = (4, 6, 10, 20, 50, 200)
BETAS = (0.01, 0.1, 1.0)
"""Runs take them in turn: a verdict must not depend on beta."""


class Draw:
    """Random numbers of one run, and rows made of them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, rows: int) -> Tensor:
        return torch.randn(rows, generator=self.generator)

    def lengths(self, low: int, high: int, rows: int) -> Tensor:
        return torch.randint(low, high, (rows,), generator=self.generator)


def rows_of(
    ratios: Tensor,
    desirable: Tensor,
    lengths: Tensor,
    mismatched: Tensor | None = None,
    prompts: Tensor | None = None,
) -> Scores:
    """Scores; without `prompts` each row has its own."""
    count = len(ratios)
    names = [str(name) for name in (range(count) if prompts is None else prompts.tolist())]
    others = torch.zeros(count) if mismatched is None else mismatched
    return Scores(ratios.float(), others.float(), desirable, lengths, names, [None] * count)


def judged(scores: Scores, steps: Steps | None = None, *, beta: float = 0.1) -> Verdict:
    """The verdict on such rows, through the metrics."""
    return run_verdict(validation_metrics(scores, LossSettings(beta, 1, 1)), steps or [], beta=beta)


def half(count: int) -> Tensor:
    """Every other row is desirable."""
    return torch.arange(count) % 2 == 0


# --- noise --------------------------------------------------------------------------------------


def lone(draw: Draw, count: int) -> Scores:
    """Each row with a prompt of its own, one length."""
    return rows_of(0.8 * draw.normal(count), half(count), torch.full((count,), 4))


def pairs(draw: Draw, count: int) -> Scores:
    """A desirable and an undesirable row a prompt, which makes them alike."""
    prompts = torch.arange(count) // 2
    ratios = draw.normal(count)[prompts] + draw.normal(count)
    return rows_of(ratios, half(count), draw.lengths(20, 200, count), prompts=prompts)


def alike(draw: Draw, count: int) -> Scores:
    """Up to four rows a prompt, all of one label and nearly copies."""
    prompts = torch.arange(count) // 4
    ratios = 2 * draw.normal(count)[prompts] + 0.2 * draw.normal(count)
    return rows_of(ratios, prompts % 2 == 0, draw.lengths(20, 200, count), prompts=prompts)


def mixed(draw: Draw, count: int) -> Scores:
    """Prompts of any number of rows, labels at random, few of them desirable, noise that grows with length."""
    prompts = draw.lengths(0, 1 + count // 3, count)
    desirable = torch.rand(count, generator=draw.generator) < 0.3
    lengths = torch.where(desirable, draw.lengths(10, 50, count), draw.lengths(30, 300, count))
    ratios = draw.normal(count)[prompts] + 0.05 * lengths * draw.normal(count)
    return rows_of(ratios, desirable, lengths, prompts=prompts)


NOISE: dict[str, Callable[[Draw, int], Scores]] = {"lone": lone, "pairs": pairs, "alike": alike, "mixed": mixed}


# --- cases --------------------------------------------------------------------------------------


def learned(draw: Draw) -> Scores:
    return rows_of(1.0 * half(400) + draw.normal(400), half(400), draw.lengths(60, 91, 400))


def learned_from_few(draw: Draw) -> Scores:
    """20 rows, three standard deviations apart: an AUC of 0.98."""
    return rows_of(3.0 * half(20) + draw.normal(20), half(20), draw.lengths(20, 200, 20))


def learned_in_pairs(draw: Draw) -> Scores:
    """Prompts matter more than labels."""
    prompts = torch.arange(100) // 2
    ratios = 2 * half(100) + draw.normal(100)[prompts] + draw.normal(100)
    return rows_of(ratios, half(100), draw.lengths(20, 200, 100), prompts=prompts)


def learned_with_outliers(draw: Draw) -> Scores:
    """One row in 50 lost 170 nats on 5 tokens."""
    ratios = 0.6 * half(400) + 0.5 * draw.normal(400)
    ratios[torch.rand(400, generator=draw.generator) < 0.02] = -170.0
    return rows_of(ratios, half(400), torch.full((400,), 5))


def learned_beside_length(draw: Draw) -> Scores:
    """Labels go with length, rewards do not: like-length AUC 0.82, AUC of length alone above the AUC."""
    desirable = half(400)
    lengths = torch.where(desirable, draw.lengths(40, 120, 400), draw.lengths(60, 220, 400))
    return rows_of(1.3 * desirable + draw.normal(400), desirable, lengths)


def learned_per_token(draw: Draw) -> Scores:
    """Undesirable answers, the longer ones, lose 0.1 nats a token; desirable ones nothing."""
    desirable = half(400)
    lengths = torch.where(desirable, draw.lengths(40, 120, 400), draw.lengths(60, 220, 400))
    return rows_of(-0.1 * lengths * ~desirable + 2 * draw.normal(400), desirable, lengths)


def moved_a_little(draw: Draw) -> Scores:
    return rows_of(0.3 * half(400) + 0.05 * draw.normal(400), half(400), draw.lengths(40, 60, 400))


def hardly_apart(draw: Draw) -> Scores:
    """0.25 nats apart, which 1,000 rows show for certain."""
    return rows_of(0.25 * half(1000) + 0.8 * draw.normal(1000), half(1000), draw.lengths(40, 60, 1000))


def noise(draw: Draw) -> Scores:
    """The chance of `learned` is 2.5 % at most."""
    return rows_of(2 * draw.normal(400), half(400), draw.lengths(40, 160, 400))


def favourite_length(draw: Draw) -> Scores:
    """Lengths near 80 are liked; rewards are a function of length, and noise."""
    lengths = draw.lengths(40, 160, 400)
    distance = (lengths.float().log() - 4.4).abs()
    return rows_of(-6 * distance + 0.3 * draw.normal(400), distance < distance.median(), lengths)


def short_is_liked(draw: Draw) -> Scores:
    """Rewards fall with length, by 0.05 nats a token; the label does too, mostly."""
    lengths = draw.lengths(40, 160, 400)
    desirable = lengths + 15 * draw.normal(400) < 100
    return rows_of(-0.05 * lengths + 0.5 * draw.normal(400), desirable, lengths)


def short_by_definition(draw: Draw) -> Scores:
    """Length tells the label exactly."""
    lengths = draw.lengths(40, 160, 400)
    return rows_of(-0.05 * lengths + 0.5 * draw.normal(400), lengths < 100, lengths)


def collapsed(draw: Draw) -> Scores:
    """6 nats a token, and an AUC of 0.6."""
    return rows_of(-450 + 9.0 * half(400) + 25 * draw.normal(400), half(400), torch.full((400,), 75))


def collapsed_behind_short_answers(draw: Draw) -> Scores:
    """A quarter are answers of two tokens that gained; the others lost 1 nat on each of 200 tokens; an AUC of 0.7."""
    short = torch.arange(400) % 8 < 2
    ratios = torch.where(
        short, 2.2 + 0.5 * half(400) + 0.1 * draw.normal(400), -200 + 25 * half(400) + 20 * draw.normal(400)
    )
    return rows_of(ratios, half(400), torch.where(short, 2, 200))


def collapsed_in_ten_rows(draw: Draw) -> Scores:
    return rows_of(-60 + 10 * draw.normal(10), half(10), draw.lengths(18, 22, 10))


def drifted(draw: Draw) -> Scores:
    """0.42 nats a token, on both classes; an AUC of 0.76."""
    return rows_of(-95 + 12 * half(400) + 12 * draw.normal(400), half(400), draw.lengths(180, 220, 400))


def blown_up(draw: Draw) -> Scores:
    """z_ref 183."""
    ratios = 180 + 5 * half(400) + 40 * draw.normal(400)
    return rows_of(ratios, half(400), draw.lengths(80, 220, 400), 183 + 40 * draw.normal(400))


def four_rows(draw: Draw) -> Scores:
    """Even in perfect order."""
    ratios = 5.0 * half(4) + draw.normal(4)
    return rows_of(ratios, half(4), torch.full((4,), 20))


def learned_by_heart(draw: Draw) -> Scores:
    """Validation rows lie half a nat apart at a spread of 3; `CURVES` has training rows 12 nats apart."""
    return rows_of(0.5 * half(200) + 3 * draw.normal(200), half(200), draw.lengths(20, 200, 200))


def trained_too_long(draw: Draw) -> Scores:
    """An AUC of 0.71, that was 0.8."""
    return rows_of(0.8 * half(200) + draw.normal(200), half(200), draw.lengths(20, 200, 200))


def trained_well(draw: Draw) -> Scores:
    """Training rows lie as far apart as validation rows."""
    return rows_of(2.0 * half(100) + draw.normal(100), half(100), draw.lengths(20, 200, 100))


def curves(draw: Draw, beta: float, *, apart: float, area: Callable[[float], float], rise: float) -> Steps:
    """40 steps: training rows come to lie so many nats apart, validation AUC and loss go their way, all with noise."""
    found: Steps = []
    for step in range(1, 41):
        time, (first, second, third) = step / 40, draw.normal(3).tolist()
        line = {"step": step, "loss": 0.5 - 0.1 * time, "z_ref": 0.5, "margin": beta * (apart * time + first)}
        if step % 4 == 0:
            value = area(time) + 0.01 * second
            loss = 0.45 + max(0.0, rise * (time - 0.5)) + 0.002 * third
            line["validation"] = {"auc": value, "auc_interval": [value - 0.05, value + 0.05], "loss": loss}
        found.append(line)
    return found


CURVES: dict[Callable[[Draw], Scores], dict[str, Any]] = {
    learned_by_heart: {"apart": 12.0, "area": lambda time: 0.54, "rise": 0.2},
    trained_too_long: {"apart": 8.0, "area": lambda time: 0.8 - 0.15 * max(0.0, time - 0.4), "rise": 0.0},
    trained_well: {"apart": 2.0, "area": lambda time: 0.5 + 0.42 * time, "rise": 0.0},
}
"""What led to these rows."""
CASES: dict[Callable[[Draw], Scores], str] = {
    learned: "learned",
    learned_from_few: "learned",
    learned_in_pairs: "learned",
    learned_with_outliers: "learned",
    learned_beside_length: "learned",
    learned_per_token: "learned",
    moved_a_little: "barely moved",
    hardly_apart: "barely moved",
    noise: "unclear",
    favourite_length: "length",
    short_is_liked: "length",
    short_by_definition: "length",
    collapsed: "collapsed",
    collapsed_behind_short_answers: "collapsed",
    collapsed_in_ten_rows: "collapsed",
    drifted: "drifted",
    blown_up: "blown up",
    four_rows: "too few rows",
    learned_by_heart: "overfit",
    trained_too_long: "overfit",
    trained_well: "learned",
}


def words_of_noise(kind: str, count: int, runs: int) -> Counter[str]:
    """The words given to so many runs of noise."""
    return Counter(judged(NOISE[kind](Draw(seed), count), beta=BETAS[seed % 3]).word for seed in range(runs))


def words_of_case(case: Callable[[Draw], Scores], runs: int) -> Counter[str]:
    """The words given to so many runs of a constructed case."""

    def word(seed: int) -> str:
        draw, beta = Draw(seed), BETAS[seed % 3]
        steps = curves(draw, beta, **CURVES[case]) if case in CURVES else []
        return judged(case(draw), steps, beta=beta).word

    return Counter(word(seed) for seed in range(runs))


def main(runs: int) -> None:
    """Prints both tables."""
    for kind in NOISE:
        for count in NOISE_ROWS:
            words = words_of_noise(kind, count, runs)
            print(f"noise, {kind:6} {count:4} rows: learned {words['learned'] / runs:6.1%}   {dict(words)}", flush=True)
    for case, word in CASES.items():
        words = words_of_case(case, runs)
        print(f"{case.__name__:32} {word:13} {words[word] / runs:6.1%}   {dict(words)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
