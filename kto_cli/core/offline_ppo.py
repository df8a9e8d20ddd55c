"""Offline PPO (arXiv 2402.01306v1, section 3.3 and appendix B): a loss of single tokens, without sampling.

The reward is +1 or -1 on the last completion token and 0 before it; the reference is the old policy. A value head
predicts what is to come, from the hidden state that predicts the token. Advantages are estimated once for the whole
effective batch; the loss is then a mean over its completion tokens, which any micro-batch can take its part of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.ragged import Ragged

SMALLEST_VARIANCE = 1e-8
"""Added to the variance of the advantages, as in the authors' code."""


class Tokens(NamedTuple):
    """Completion tokens of an effective batch, or some of them; each [tokens]."""

    logps: Tensor
    """Log-probs in nats."""
    references: Tensor
    """The reference's."""
    values: Tensor
    """What the value head predicts before the token is said."""
    advantages: Tensor
    """Normalised over the effective batch; no gradient."""
    returns: Tensor
    """Discounted reward that follows, the token's own included; no gradient."""
    desirable: Tensor
    """1 for a token of a desirable row, else 0."""

    def take(self, places: Tensor) -> Tokens:
        """Some tokens."""
        return Tokens(*(part[places] for part in self))


class Counts(NamedTuple):
    """What an effective batch's means divide by."""

    tokens: int
    """Completion tokens."""
    desirable: int
    """Those of desirable rows."""


def gae(values: Tensor, rewards: Tensor, *, gamma: float, trace: float) -> Tensor:
    """Advantages by generalized advantage estimation (arXiv 1506.02438), [rows, time] as its inputs:

        A_t = delta_t + g l A_{t+1},    delta_t = r_t + g V_{t+1} - V_t,

    g `gamma` and l `trace`; V and A are 0 behind the last token. Three tokens with V = (0.5, 0.2, 0.6), reward 1 on
    the last, g = 0.5 and l = 0.5:

        delta_3 = 1 + 0 - 0.6 = 0.4                A_3 = 0.4
        delta_2 = 0 + 0.5 * 0.6 - 0.2 = 0.1        A_2 = 0.1 + 0.25 * 0.4 = 0.2
        delta_1 = 0 + 0.5 * 0.2 - 0.5 = -0.4       A_1 = -0.4 + 0.25 * 0.2 = -0.35

    Args:
        values: zeros behind a row's end. rewards: likewise.
    """
    following = torch.nn.functional.pad(values, (0, 1))[:, 1:]
    deltas = rewards + gamma * following - values
    advantages = torch.zeros_like(values)
    later = torch.zeros_like(values[:, 0]) if values.shape[1] else values.sum(1)
    for time in reversed(range(values.shape[1])):
        later = deltas[:, time] + gamma * trace * later
        advantages[:, time] = later
    return advantages


def targets(settings: LossSettings, values: Ragged, signs: Tensor) -> tuple[Tensor, Tensor]:
    """([tokens] advantages, mean 0 and variance 1 over all of them; [tokens] returns), without gradient.

    Args:
        values: of all tokens of the effective batch. signs: [rows] +1 desirable, -1 undesirable: the rewards.
    """
    table, own = Ragged(values.values.detach(), values.starts).padded()
    left = values.lengths[:, None] - 1 - torch.arange(table.shape[1])
    rewards = torch.where(left == 0, signs[:, None].to(table.dtype), 0.0)
    advantages = gae(table, rewards, gamma=settings.ppo_gamma, trace=settings.ppo_lambda)[own]
    spread = (advantages.var(correction=0) + SMALLEST_VARIANCE).sqrt()
    returns = signs[:, None].to(table.dtype) * settings.ppo_gamma ** left.to(table.dtype)
    return (advantages - advantages.mean()) / spread, returns[own]


def part_of_loss(settings: LossSettings, tokens: Tokens, counts: Counts, *, scale: float = 1.0) -> Tensor:
    """What some tokens contribute to the loss of the batch that `counts` are of, times `scale`.

    mean_t max(-A p, -A clip(p, 1/c, c)) + critic * mean_t (V - R)^2 / 2 + penalty * mean_t log p, p the ratio of
    policy to reference; sft_weight adds the mean negative log-likelihood of a token of desirable rows.
    """
    log_ratios = tokens.logps - tokens.references
    critic = 0.5 * (tokens.values - tokens.returns).square()
    losses = policy_losses(settings, tokens).amax(0) + settings.ppo_critic * critic + settings.ppo_penalty * log_ratios
    part = losses.sum() * (scale / max(1, counts.tokens))
    if settings.sft_weight:
        likelihood = (tokens.logps * tokens.desirable).sum()
        part = part - likelihood * (scale * settings.sft_weight / max(1, counts.desirable))
    return part


def policy_losses(settings: LossSettings, tokens: Tokens) -> Tensor:
    """[2, tokens] -A p and -A clip(p, 1/c, c); the larger one counts."""
    ratios = (tokens.logps - tokens.references).exp()
    clipped = ratios.clamp(1 / settings.ppo_clip, settings.ppo_clip)
    return torch.stack([-tokens.advantages * ratios, -tokens.advantages * clipped])


def measures(settings: LossSettings, tokens: Tokens, counts: Counts) -> dict[str, float]:
    """Numbers of a whole effective batch, for the log.

    Returns:
        loss; clip_fraction, the share of tokens whose clipped term counts, so that the policy term has no gradient;
        mean_ratio, of policy to reference, a token; critic_loss, mean_t (V - R)^2 / 2; explained_variance, 1 -
        var(R - V) / var(R), absent where all returns are equal.
    """
    free, clipped = policy_losses(settings, tokens)
    errors = tokens.returns - tokens.values
    found = {
        "loss": part_of_loss(settings, tokens, counts).item(),
        "clip_fraction": (clipped > free).double().mean().item(),
        "mean_ratio": (tokens.logps - tokens.references).exp().mean().item(),
        "critic_loss": 0.5 * errors.square().mean().item(),
    }
    if (spread := tokens.returns.var(correction=0)) > 0:
        found["explained_variance"] = 1 - (errors.var(correction=0) / spread).item()
    return found
