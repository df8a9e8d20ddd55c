"""The paper's theorems on one or two prompts with two or three answers, computed exactly or by descent, in float64.

Theorem 4.3 has two versions. v1: a prompt on which two people disagree leaves KTO's policy alone. v5: where a majority
prefers one answer, DPO may still prefer the other, KTO does not. Theorem 4.2: rewards that differ by a function of the
prompt give the same policy and the same preferences, and different human values.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from kto_cli.core.losses import kto_losses
from kto_cli.core.value_functions import kahneman_tversky

POLICIES = 100
STEPS = 1000
"""Of gradient descent on the logits of two answers, at rate 1: KTO's mass then still moves, in the fourth digit."""
FOUR_THIRDS = 1.33
"""The upper end of Eq. 8's range in v1."""


class Contradiction(NamedTuple):
    """v1's Theorem 4.3: person A prefers answer a to b, person B prefers b to a; nobody wants c."""

    equal: float
    """KTO's largest |gradient| over random policies with equal weights, all four rows in one step."""
    unequal: tuple[float, float]
    """Smallest and largest with lambda_U = 1.33."""
    pushed: float
    """Mean change of log(pi_a + pi_b) by a small step of unit length then: below 0, both answers lose mass to c."""
    dpo: tuple[float, float]
    """DPO's loss at the reference and at a policy with all mass on c: both are its minimum, log 2."""
    worth: tuple[float, float]
    """The expected value of the answer to person A at these policies."""


def contradiction(*, beta: float = 0.1, seed: int = 0) -> Contradiction:
    """Checks v1's Theorem 4.3 on random policies of three answers."""
    source = torch.Generator().manual_seed(seed)
    logits, references = (torch.randn(POLICIES, 3, generator=source, dtype=torch.float64) for _ in range(2))
    references = references.log_softmax(1)
    even, uneven = (_contradicted(logits, references, weight, beta) for weight in (1.0, FOUR_THIRDS))
    sizes = uneven.norm(dim=1)
    step = 1e-4
    moved = (logits - step * uneven / sizes[:, None]).log_softmax(1)[:, :2].logsumexp(1)
    pushed = ((moved - logits.log_softmax(1)[:, :2].logsumexp(1)) / step).mean()
    alike = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    lost = torch.tensor([1e-6, 1e-6, 1.0], dtype=torch.float64).log()
    losses = [_disputed_dpo(policy - alike, beta) for policy in (alike, lost)]
    values = -kahneman_tversky(torch.tensor([1.0, -1.0, -3.0], dtype=torch.float64))
    worth = [(policy.softmax(0) * values).sum().item() for policy in (alike, lost)]
    return Contradiction(
        even.norm(dim=1).max().item(),
        (sizes.min().item(), sizes.max().item()),
        pushed.item(),
        (losses[0], losses[1]),
        (worth[0], worth[1]),
    )


def _contradicted(logits: Tensor, references: Tensor, lambda_u: float, beta: float) -> Tensor:
    """[policies, answers] gradient of KTO's loss on answers a and b, each with both labels; z is the exact KL."""
    logits = logits.detach().clone().requires_grad_()
    ratios = logits.log_softmax(1) - references
    z = (logits.softmax(1) * ratios).sum(1, keepdim=True).detach()
    rows = torch.cat([ratios[:, :2], ratios[:, :2]], 1)
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64).expand_as(rows)
    weights = torch.where(signs > 0, 1.0, lambda_u)
    return torch.autograd.grad(kto_losses(rows, signs, weights, z, beta=beta).losses.mean(1).sum(), logits)[0]


def _disputed_dpo(ratios: Tensor, beta: float) -> float:
    margin = beta * (ratios[0] - ratios[1])
    return (-(logsigmoid(margin) + logsigmoid(-margin)) / 2).item()


class Majority(NamedTuple):
    """v5's Theorem 4.3: a share `share` of people prefers answer a to b, the rest b to a."""

    share: float
    beta: float
    reference: tuple[float, float]
    condition: bool
    """p^(1/beta) ref_a < (1-p)^(1/beta) ref_b: DPO prefers the minority's answer."""
    dpo_closed: tuple[float, float]
    dpo: tuple[float, float]
    """By descent."""
    kto: tuple[float, float]


def majority(share: float = 0.6, beta: float = 1.0, reference: tuple[float, float] = (0.3, 0.7)) -> Majority:
    """The policies of DPO and KTO (equal weights, z the exact KL) on a two-answer prompt of which people disagree."""
    odds = (share / (1 - share)) ** (1 / beta) * reference[0] / reference[1]
    closed = (odds / (1 + odds), 1 / (1 + odds))
    condition = share ** (1 / beta) * reference[0] < (1 - share) ** (1 / beta) * reference[1]
    logps = torch.tensor(reference, dtype=torch.float64).log()
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    weights = torch.tensor([share, 1 - share, 1 - share, share], dtype=torch.float64)  # how often a row is seen

    def dpo(ratios: Tensor, z: Tensor) -> Tensor:
        margin = beta * (ratios[0] - ratios[1])
        return -share * logsigmoid(margin) - (1 - share) * logsigmoid(-margin)

    def kto(ratios: Tensor, z: Tensor) -> Tensor:
        return kto_losses(torch.cat([ratios, ratios]), signs, weights, z, beta=beta).losses.sum()

    found = []
    for loss in (dpo, kto):
        logits = logps.clone().requires_grad_()
        for _ in range(STEPS):
            ratios = logits.log_softmax(0) - logps
            z = (logits.softmax(0) * ratios).sum().detach()
            gradient = torch.autograd.grad(loss(ratios, z), logits)[0]
            logits = (logits - gradient).detach().requires_grad_()
        mass = logits.softmax(0).tolist()
        found.append((mass[0], mass[1]))
    return Majority(share, beta, reference, condition, closed, found[0], found[1])


class Equivalence(NamedTuple):
    """Theorem 4.2: r_b(x, y) = r_a(x, y) + h(x) on two prompts with three answers."""

    policy: float
    """Largest difference between the optimal policies."""
    preferences: float
    """Largest difference between the Bradley-Terry tables."""
    values: tuple[float, float]
    """Smallest and largest difference between the human values, z the mean reward over both prompts."""


def equivalence(*, beta: float = 0.1, seed: int = 0) -> Equivalence:
    """Compares what two rewards of one equivalence class imply."""
    source = torch.Generator().manual_seed(seed)
    references = torch.randn(2, 3, generator=source, dtype=torch.float64).log_softmax(1)
    rewards = torch.randn(2, 3, generator=source, dtype=torch.float64)
    tables = [_implied(one, references, beta) for one in (rewards, rewards + torch.tensor([[1.5], [-0.5]]))]
    policy, preferences, values = ((one - other).abs() for one, other in zip(*tables, strict=True))
    return Equivalence(policy.max().item(), preferences.max().item(), (values.min().item(), values.max().item()))


def _implied(rewards: Tensor, references: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """The optimal policy, the Bradley-Terry table and the Kahneman-Tversky values."""
    policy = (references + rewards / beta).softmax(1)
    preferences = torch.sigmoid(rewards[:, :, None] - rewards[:, None, :])
    point = (policy * rewards).sum(1).mean()
    return policy, preferences, -kahneman_tversky(rewards - point)


DISAGREEMENT = math.log(2)
"""DPO's loss of a margin of 0."""
