"""Offline PPO against a loop over tokens: advantages, returns, loss, gradients, what is logged."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from naive_ppo import Given, naive_given, naive_measures, naive_ppo
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.offline_ppo import Counts, Tokens, gae, measures, part_of_loss, targets
from kto_cli.core.ragged import Ragged

PPO = LossSettings(1.0, loss="ppo-offline")
STEP = 1e-6


class Case(NamedTuple):
    """A batch, token by token."""

    settings: LossSettings
    labels: list[bool]
    logps: list[list[float]]
    references: list[list[float]]
    values: list[list[float]]


def case(
    seed: int, lengths: list[int], labels: list[bool] | None = None, *, apart: float = 1.0, **settings: float
) -> Case:
    """Random log-probs that are `apart` nats from the reference's, and random values."""
    draw = random.Random(seed)
    labels = labels or [number % 2 == 0 for number in range(len(lengths))]
    references = [[-draw.expovariate(0.5) for _ in range(length)] for length in lengths]
    logps = [[each + apart * draw.gauss(0, 1) for each in row] for row in references]
    values = [[draw.gauss(0, 0.7) for _ in range(length)] for length in lengths]
    return Case(PPO._replace(**settings), labels, logps, references, values)


CASES = {
    "plain": case(1, [3, 7, 5, 2]),
    "other numbers": case(2, [4, 4, 9, 1]),
    "many rows": case(3, [draw % 7 + 1 for draw in range(30)]),
    "one row": case(4, [6]),
    "one undesirable row": case(5, [6], [False]),
    "one token in all": case(6, [1]),
    "one token a row": case(7, [1, 1, 1, 1]),
    "one token beside many": case(8, [1, 40]),
    "a long row": case(9, [300, 5]),
    "all desirable": case(10, [3, 5, 2], [True] * 3),
    "all undesirable": case(11, [3, 5, 2], [False] * 3),
    "equal log-probs": case(12, [3, 5, 2, 4], apart=0.0),
    "all clipped": case(13, [3, 5, 2, 4], apart=7.0),
    "many clipped": case(14, [9, 9, 9, 9], apart=3.0),
    "narrow clip": case(15, [5, 5], ppo_clip=1.05),
    "wide clip": case(16, [5, 5], apart=3.0, ppo_clip=1e6),
    "no discount": case(17, [5, 8], ppo_gamma=1.0),
    "no trace": case(18, [5, 8], ppo_lambda=0.0),
    "one step": case(19, [5, 8], ppo_gamma=1.0, ppo_lambda=1.0),
    "discounted at once": case(20, [5, 8], ppo_gamma=0.0),
    "no critic": case(21, [5, 8], ppo_critic=0.0),
    "much critic": case(22, [5, 8], ppo_critic=3.0),
    "no penalty": case(23, [5, 8], ppo_penalty=0.0),
    "much penalty": case(24, [5, 8], ppo_penalty=2.0),
    "with sft": case(25, [5, 8, 2], sft_weight=0.5),
    "with sft, none desirable": case(26, [5, 8], [False, False], sft_weight=0.5),
    "nothing predicted": case(27, [4, 6])._replace(values=[[0.0] * 4, [0.0] * 6]),
    "equal rows": case(28, [4, 4])._replace(
        logps=[[-1.0] * 4] * 2, references=[[-1.5] * 4] * 2, values=[[0.1] * 4] * 2
    ),
}


def flat(rows: list[list[float]]) -> Tensor:
    return torch.tensor([number for row in rows for number in row], dtype=torch.float64)


def tokens_of(given: Case) -> tuple[Tokens, Counts]:
    """As a step makes them."""
    lengths = torch.tensor([len(row) for row in given.logps])
    signs = torch.tensor([1.0 if label else -1.0 for label in given.labels], dtype=torch.float64)
    values = flat(given.values).requires_grad_()
    advantages, returns = targets(given.settings, Ragged.of(values, lengths), signs)
    desirable = (signs > 0).double().repeat_interleave(lengths)
    tokens = Tokens(flat(given.logps).requires_grad_(), flat(given.references), values, advantages, returns, desirable)
    return tokens, Counts(len(desirable), int(desirable.sum()))


def naive(case: Case, given: Given, logps: Any = None, values: Any = None) -> Tensor:
    rows = [
        [torch.tensor(row, dtype=torch.float64) for row in part]
        for part in (logps or case.logps, values or case.values)
    ]
    return naive_ppo(case.settings, rows[0], case.references, rows[1], case.labels, given)


def close(found: Tensor, expected: Any, what: str) -> None:
    torch.testing.assert_close(
        found.detach(),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-11,
        msg=lambda text: f"{what}: {text}",
    )


def test_gae_of_the_docstring():
    """Worked by hand there."""
    values, rewards = torch.tensor([[0.5, 0.2, 0.6]]), torch.tensor([[0.0, 0.0, 1.0]])
    found = gae(values.double(), rewards.double(), gamma=0.5, trace=0.5)
    torch.testing.assert_close(found, torch.tensor([[-0.35, 0.2, 0.4]]).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_that_of_a_loop_over_tokens(name):
    case = CASES[name]
    given = naive_given(case.settings, case.values, case.labels)
    tokens, counts = tokens_of(case)
    close(tokens.advantages, flat(given.advantages), "advantages")
    close(tokens.returns, flat(given.returns), "returns")
    assert not tokens.advantages.requires_grad
    loss = part_of_loss(case.settings, tokens, counts)
    close(loss, naive(case, given), "loss")
    found = measures(case.settings, tokens, counts)
    assert found.pop("loss") == pytest.approx(loss.item())
    expected = naive_measures(case.settings, case.logps, case.references, case.values, given)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_torchs_own_of_that_loop_and_a_central_difference(name):
    """Advantages and returns are held; a token at the very edge of the clip would have no difference, and none is."""
    case = CASES[name]
    given = naive_given(case.settings, case.values, case.labels)
    tokens, counts = tokens_of(case)
    found = torch.autograd.grad(part_of_loss(case.settings, tokens, counts), (tokens.logps, tokens.values))
    parts = [
        [torch.tensor(row, dtype=torch.float64).requires_grad_() for row in part] for part in (case.logps, case.values)
    ]
    loss = naive_ppo(case.settings, parts[0], case.references, parts[1], case.labels, given)
    own = torch.autograd.grad(loss, parts[0] + parts[1], materialize_grads=True)
    close(torch.cat(found), torch.cat(own), "gradient")
    draw = random.Random(0)
    for row in draw.sample(range(len(case.logps)), min(3, len(case.logps))):
        at = draw.randrange(len(case.logps[row]))
        before = sum(map(len, case.logps[:row])) + at
        rounding = max(1e-8, 1e-9 * loss.abs().item())
        for which, name_of in enumerate(("logps", "values")):
            moved = []
            for step in (STEP, -STEP):
                changed = [list(each) for each in getattr(case, name_of)]
                changed[row][at] += step
                moved.append(naive(case, given, **{name_of: changed}).item())
            assert found[which][before].item() == pytest.approx(
                (moved[0] - moved[1]) / (2 * STEP), rel=1e-5, abs=rounding
            )


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_batch_add_up(name):
    """Micro-batches of any tokens."""
    case = CASES[name]
    tokens, counts = tokens_of(case)
    whole = part_of_loss(case.settings, tokens, counts)
    order = torch.randperm(counts.tokens, generator=torch.Generator().manual_seed(1))
    parts = [part_of_loss(case.settings, tokens.take(some), counts, scale=2.0) for some in order.split(3)]
    close(torch.stack(parts).sum() / 2, whole.item(), "loss")


def test_rows_of_unequal_length():
    """Taken in another order, padded and summed."""
    rows = Ragged.of(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), torch.tensor([1, 3, 2]))
    assert rows.take([2, 0]).values.tolist() == [5.0, 6.0, 1.0]
    assert rows.take(slice(1, None)).starts.tolist() == [0, 3, 5]
    assert rows.sums().tolist() == [1.0, 9.0, 11.0]
    assert rows.padded()[0].tolist() == [[1, 0, 0], [2, 3, 4], [5, 6, 0]]
    assert rows.take([]).padded()[0].shape == (0, 0)
