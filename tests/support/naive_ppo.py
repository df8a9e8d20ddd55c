"""Offline PPO as its paper describes it, one token after the other in float64; apart from the product."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings


class Given(NamedTuple):
    """What is not differentiated; a list a row."""

    advantages: list[list[float]]
    returns: list[list[float]]


def naive_given(settings: LossSettings, values: list[list[float]], labels: list[bool]) -> Given:
    """Advantages as the sum of all later errors of the value head, less their mean, by their standard deviation."""
    g, decay = settings.ppo_gamma, settings.ppo_gamma * settings.ppo_lambda
    advantages, returns = [], []
    for value, label in zip(values, labels, strict=True):
        n, reward = len(value), 1.0 if label else -1.0
        deltas = []
        for t in range(n):
            if t == n - 1:
                deltas.append(reward - value[t])
            else:
                deltas.append(g * value[t + 1] - value[t])
        advantages.append([math.fsum(decay ** (k - t) * deltas[k] for k in range(t, n)) for t in range(n)])
        returns.append([g ** (n - 1 - t) * reward for t in range(n)])
    every = [a for row in advantages for a in row]
    mean = math.fsum(every) / len(every)
    variance = math.fsum((a - mean) ** 2 for a in every) / len(every)
    return Given([[(a - mean) / math.sqrt(variance + 1e-8) for a in row] for row in advantages], returns)


def naive_ppo(
    settings: LossSettings,
    l: list[Tensor],  # noqa: E741
    reference: list[Any],
    values: list[Tensor],
    labels: list[bool],
    given: Given,
) -> Tensor:
    """The loss of a batch from log-probs and values of its tokens, with gradient; a tensor [T] a row."""
    c = settings.ppo_clip
    policy = critic = penalty = likelihood = 0 * l[0][0]
    tokens = desirable = 0
    for row, label in enumerate(labels):
        for t in range(len(l[row])):
            p = (l[row][t] - reference[row][t]).exp()
            clipped = 1 / c if p < 1 / c else c if p > c else p
            a = given.advantages[row][t]
            policy = policy + (-a * p if -a * p > -a * clipped else -a * clipped)
            critic = critic + (values[row][t] - given.returns[row][t]) ** 2 / 2
            penalty = penalty + l[row][t] - reference[row][t]
            tokens += 1
            if label:
                likelihood = likelihood + l[row][t]
                desirable += 1
    loss = (policy + settings.ppo_critic * critic + settings.ppo_penalty * penalty) / tokens
    return loss - settings.sft_weight * likelihood / desirable if settings.sft_weight and desirable else loss


def naive_measures(
    settings: LossSettings,
    l: list[list[float]],  # noqa: E741
    reference: list[list[float]],
    values: list[list[float]],
    given: Given,
) -> dict[str, float]:
    """What is logged besides the loss: a token is clipped where it is past the clip on the side it is pushed to."""
    c, clipped, ratios, squares, errors, returns = settings.ppo_clip, 0, [], [], [], []
    for row in range(len(l)):
        for t in range(len(l[row])):
            p, a = math.exp(l[row][t] - reference[row][t]), given.advantages[row][t]
            clipped += (a > 0 and p > c) or (a < 0 and p < 1 / c)
            ratios.append(p)
            errors.append(given.returns[row][t] - values[row][t])
            squares.append(errors[-1] ** 2 / 2)
            returns.append(given.returns[row][t])

    def variance(numbers: list[float]) -> float:
        mean = math.fsum(numbers) / len(numbers)
        return math.fsum((number - mean) ** 2 for number in numbers) / len(numbers)

    found = {
        "clip_fraction": clipped / len(ratios),
        "mean_ratio": math.fsum(ratios) / len(ratios),
        "critic_loss": math.fsum(squares) / len(squares),
    }
    if len(set(returns)) > 1:
        found["explained_variance"] = 1 - variance(errors) / variance(returns)
    return found
