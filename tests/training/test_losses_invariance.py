"""Every loss: a step depends on its effective batch alone, and is the naive one, however memory or processes cut it."""

from __future__ import annotations

import functools
import json
from typing import Any

import one_step
import pytest
import torch
from conftest import REPOSITORY, call
from naive_losses import naive_loss
from naive_ppo import naive_given, naive_measures, naive_ppo
from test_invariance import TORCHRUN, launch, naive_logp

from kto_cli.core.loss_kinds import LOSSES, POINTS, VALUES, LossSettings
from kto_cli.core.objectives import needs_mismatched
from kto_cli.core.ragged import Ragged
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.value_head import ValueHead
from kto_cli.training.step import values_of

ROWS = 24
GRID = [("kto", value, point) for value in VALUES for point in POINTS]
OTHERS = [(name, kind.value, kind.point) for name, kind in LOSSES.items() if name not in ("kto", "bco")]
SETTINGS = {
    "-".join(part for part in (name, value, point) if part): LossSettings(
        beta=LOSSES[name].beta or 1.0,
        lambda_d=1.1,
        lambda_u=0.9,
        loss=name,
        value=value,
        point=point,
        label_smoothing=0.1 if name == "dpo" else 0.0,
        sft_weight=0.3 if name in ("apo-zero", "kto") and value in ("", "concave") else 0.0,
    )
    for name, value, point in GRID + OTHERS
}
CLAMPED = ("kto-logistic-mismatched", "kto-logistic-opposite-class", "kto-concave-mean-reward", "dpo", "ipo", "nca")
SETTINGS |= {
    f"humanline-{name}": SETTINGS[name]._replace(humanline=True, humanline_low=-1.0, humanline_high=1.5, sft_weight=0.0)
    for name in CLAMPED
}
"""Log-ratios of single tokens within bounds, of losses of every shape; four tokens in ten are outside."""


@functools.cache
def naive(name: str) -> dict[str, torch.Tensor]:
    """Log-probs one row at a time, the loss as its paper writes it, torch's own gradient."""
    model, settings = one_step.pico_model(), SETTINGS[name]
    if settings.kind.per_token:
        return naive_of_tokens(model, settings)
    rows, references = one_step.paired_rows(ROWS), references_near(model)
    outside = 0.0
    if settings.humanline:
        references = references.summed_from_tokens()
        (own, outside), (others, _) = (
            naive_bounded(model, [getattr(row, which) for row in rows], tokens, settings)
            for which, tokens in (("own", references.tokens), ("mismatched", references.mismatched_tokens))
        )
        logps, others = references.own + own, others.detach()
    else:
        with torch.no_grad():
            others = torch.stack([naive_logp(model, row.mismatched) for row in rows]) - references.mismatched
        logps = torch.stack([naive_logp(model, row.own) for row in rows])
    labels, lengths = [row.label for row in rows], [len(row.own.completion) for row in rows]
    pairs = [(first, second) for first, one in enumerate(rows) for second, other in enumerate(rows)
             if one.label and not other.label and one.pair_id == other.pair_id]  # fmt: skip
    loss = naive_loss(settings, logps, references.own, others, labels, lengths, pairs)
    loss.backward()
    found = {f"gradient.{name}": value.grad.clone() for name, value in one_step.learning(model).items()}
    found |= {"log_ratios": (logps - references.own).detach()}
    found |= {"measured.clamp_fraction": torch.tensor(outside, dtype=torch.float64)} if settings.humanline else {}
    return {**found, "loss": loss.detach()}


def naive_bounded(
    model: Any, sequences: list[Any], references: Ragged, settings: LossSettings
) -> tuple[torch.Tensor, float]:
    """([rows] sums of the log-ratios of tokens, each one kept within the bounds; share of tokens outside)."""
    sums, outside = [], []
    for row, sequence in enumerate(sequences):
        logps, _ = naive_tokens(model, lambda hidden: hidden, sequence)
        total = torch.zeros((), dtype=torch.float64)
        for logp, reference in zip(logps, references.take([row]).values.tolist(), strict=True):
            ratio = logp - reference
            inside = settings.humanline_low <= ratio.item() <= settings.humanline_high
            edge = settings.humanline_low if ratio.item() < 0 else settings.humanline_high
            total = total + (ratio if inside else edge)
            outside.append(not inside)
        sums.append(total)
    return torch.stack(sums), sum(outside) / len(outside)


def naive_of_tokens(model: Any, settings: LossSettings) -> dict[str, torch.Tensor]:
    """The same of offline PPO: one row at a time, then one token at a time."""
    rows, references, head = one_step.paired_rows(ROWS), references_near(), ValueHead(16, seed=0).double()
    logps, values = zip(*(naive_tokens(model, head, row.own) for row in rows), strict=True)
    labels, each = [row.label for row in rows], [references.tokens.take([row]).values.tolist() for row in range(ROWS)]
    numbers, valued = ([row.tolist() for row in part] for part in (logps, values))
    given = naive_given(settings, valued, labels)
    loss = naive_ppo(settings, logps, each, values, labels, given)
    loss.backward()
    norm = torch.cat([value.grad.flatten() for value in head.parameters()]).norm()
    named = {at: value.grad.clone() for at, value in one_step.learning(model).items()}
    named |= {f"value_head.{at}": value.grad * min(1.0, 0.1 / (norm + 1e-6)) for at, value in head.named_parameters()}
    found = naive_measures(settings, numbers, each, valued, given)
    measured = {f"measured.{at}": torch.tensor(number, dtype=torch.float64) for at, number in found.items()}
    ratios = torch.stack([row.detach().sum() - sum(other) for row, other in zip(logps, each, strict=True)])
    return (
        {f"gradient.{at}": value for at, value in named.items()}
        | measured
        | {"measured.loss": loss.detach(), "log_ratios": ratios}
    )


def naive_tokens(model: Any, head: Any, sequence: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """([T] log-probs, [T] values) of one sequence's completion; no gradient reaches the model through the values."""
    ids, first = torch.tensor([sequence.prompt + sequence.completion]), len(sequence.prompt)
    logps = model(input_ids=ids).logits[0].log_softmax(-1)[first - 1 : -1]
    hidden = model.base_model(input_ids=ids).last_hidden_state[0, first - 1 : -1]
    return logps.gather(-1, torch.tensor(sequence.completion)[:, None])[:, 0], head(hidden.detach())


@functools.cache
def references_near(model: Any = None) -> ReferenceLogps:
    """Reference log-probs within some nats of the policy's, so that no loss is saturated; z is above 0."""
    model, rows = one_step.pico_model(), one_step.paired_rows(ROWS)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        found = [
            torch.stack([naive_logp(model, getattr(row, which)) for row in rows]) for which in ("own", "mismatched")
        ]
        tokens = [
            [naive_tokens(model, lambda hidden: hidden, getattr(row, which))[0] for row in rows]
            for which in ("own", "mismatched")
        ]
    noise = torch.Generator().manual_seed(8)
    near = []
    for each in tokens:
        lengths = torch.tensor([len(row) for row in each])
        numbers = torch.cat(each) + 1.5 * torch.randn(int(lengths.sum()), generator=noise).double()
        near.append(Ragged.of(numbers, lengths))
    sums = (each + 4 * torch.randn(ROWS, generator=generator).double() - 1.0 for each in found)
    return ReferenceLogps(*sums, *near)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("budget", [1, 120, 10_000], ids=["one row", "a few rows", "all rows"])
@pytest.mark.parametrize("packed", [pytest.param(False, marks=pytest.mark.slow), True], ids=["padded", "packed"])
def test_the_step_is_the_naive_one(name, budget, packed):
    """Micro-batches of one row tear every pair apart, those of a few rows some pairs; a point of all rows needs all."""
    references = references_near()
    result = one_step.take_step(
        one_step.paired_rows(ROWS), references, token_budget=budget, packed=packed, loss=SETTINGS[name]
    )
    agree(result, naive(name))
    assert len(result["mismatched"]) == (ROWS if needs_mismatched(SETTINGS[name]) else 0)


@pytest.mark.parametrize("name", ["kto-logistic-mismatched", "dpo", "bco"])
@pytest.mark.parametrize("budget", [1, 10_000])
def test_bounds_that_no_token_meets_change_nothing(name, budget):
    """Gradients are those without bounds, from sums that are those of the tokens."""
    plain = SETTINGS.get(name) or LossSettings(0.1, loss="bco", value="concave", point="mean-reward")
    references = references_near().summed_from_tokens()
    wide = plain._replace(humanline=True, humanline_low=-99.0, humanline_high=99.0)
    results = [
        one_step.take_step(one_step.paired_rows(ROWS), references, token_budget=budget, packed=True, loss=loss)
        for loss in (plain, wide)
    ]
    assert results[1].pop("measured.clamp_fraction") == 0
    agree(results[1], {at: value for at, value in results[0].items() if at != "sharded"})


def test_tokens_outside_the_bounds_teach_nothing():
    """With bounds that all tokens are outside, nothing has a gradient."""
    references = references_near()
    moved = (part._replace(values=part.values - 9) for part in references[2:])
    references = ReferenceLogps(*references[:2], *moved)
    tight = SETTINGS["humanline-kto-logistic-mismatched"]
    result = one_step.take_step(one_step.paired_rows(ROWS), references, token_budget=120, packed=True, loss=tight)
    assert result["measured.clamp_fraction"] == 1
    assert result["norm"] == 0
    lengths = references.tokens.lengths
    torch.testing.assert_close(result["log_ratios"], 1.5 * lengths.double())


def agree(result: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for at, value in expected.items():
        if at != "loss":
            torch.testing.assert_close(
                result[at], value, rtol=1e-9, atol=1e-10, msg=lambda text, at=at: f"{at}: {text}"
            )


def swapped_dpo(values: Any, settings: LossSettings) -> torch.Tensor:
    """A loss of the user's that couples all rows: DPO of each pair, weighted by the batch's mean log-ratio."""
    margins = settings.beta * (values.log_ratios[values.winners] - values.log_ratios[values.losers])
    return -torch.nn.functional.logsigmoid(margins) * (1 + values.log_ratios.mean().square())


@pytest.mark.parametrize("budget", [1, 120, 10_000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_loss_of_the_users_that_couples_all_rows_is_exact(budget, packed):
    """Its gradient on all rows at once is torch's own, however the step is cut."""
    settings = LossSettings(0.1, loss=f"{__name__}:swapped_dpo")
    rows, references, model = one_step.paired_rows(ROWS), references_near(), one_step.pico_model()
    logps = torch.stack([naive_logp(model, row.own) for row in rows])
    values = values_of(rows, references, settings, dtype=torch.float64)._replace(logps=logps)
    swapped_dpo(values, settings).mean().backward()
    expected = {f"gradient.{name}": value.grad.clone() for name, value in one_step.learning(model).items()}
    agree(one_step.take_step(rows, references, token_budget=budget, packed=packed, loss=settings), expected)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("budget", [1, 10_000])
def test_without_a_reference_log_probs_a_token_are_compared(budget, packed):
    """z is their mean over mismatched completions, not clamped."""
    settings = LossSettings(1.0, value="logistic", point="mismatched", reference=False)
    rows, model = one_step.paired_rows(ROWS), one_step.pico_model()
    logps = torch.stack([naive_logp(model, row.own) / len(row.own.completion) for row in rows])
    with torch.no_grad():
        z = torch.stack([naive_logp(model, row.mismatched) / len(row.mismatched.completion) for row in rows]).mean()
    signs = torch.tensor([1.0 if row.label else -1.0 for row in rows]).double()
    torch.sigmoid(-signs * (logps - z)).mean().backward()
    expected = {f"gradient.{name}": value.grad.clone() for name, value in one_step.learning(model).items()}
    agree(one_step.take_step(rows, references_near(), token_budget=budget, packed=packed, loss=settings), expected)


@pytest.mark.parametrize(
    "name", ["dpo", "bco-concave-mean-reward", "kto-concave-opposite-class", "ppo-offline", "humanline-nca"]
)
def test_row_order_changes_nothing(name):
    settings = SETTINGS.get(name, LossSettings(0.1, loss="bco", value="concave", point="mean-reward"))
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(3)).tolist()
    rows, references = one_step.paired_rows(ROWS), references_near()
    shuffled = references.take(order)
    results = [
        one_step.take_step(rows, references, token_budget=120, packed=True, loss=settings),
        one_step.take_step([rows[at] for at in order], shuffled, token_budget=120, packed=True, loss=settings),
    ]
    gradients = {at: value for at, value in results[0].items() if at.startswith("gradient.")}
    agree(results[1], gradients)


@pytest.mark.parametrize("budget", [1, 10_000])
def test_the_value_heads_gradient_is_clipped_apart_from_the_models(budget):
    """To 0.1 whatever the model's limit is, and without a part in the model's norm."""
    settings = SETTINGS["ppo-offline"]._replace(ppo_critic=30.0)
    expected = naive_of_tokens(one_step.pico_model(), settings)
    gradients = {at: value for at, value in expected.items() if at.startswith("gradient.")}
    of_model = torch.cat([value.flatten() for at, value in gradients.items() if ".value_head." not in at]).norm()
    of_head = torch.cat([value.flatten() for at, value in gradients.items() if ".value_head." in at]).norm()
    assert of_model > 0.05
    assert of_head == pytest.approx(0.1, rel=1e-4)
    result = one_step.take_step(
        one_step.paired_rows(ROWS), references_near(), token_budget=budget, loss=settings, max_grad_norm=0.05
    )
    for at in gradients:
        if ".value_head." not in at:
            gradients[at] = gradients[at] * 0.05 / (of_model + 1e-6)
    agree(result, gradients)
    assert result["norm"] == pytest.approx(of_model.item())


@pytest.mark.slow
@pytest.mark.parametrize("budget", [pytest.param(1, marks=pytest.mark.long), 120])
def test_two_processes_change_nothing(tmp_path, budget):
    """A pair's rows may lie on two processes; each process's own rows are part of a mean over all."""
    chosen = [
        "dpo",
        "sft",
        "csft",
        "orpo",
        "ppo-offline",
        "kto-concave-mean-reward",
        "kto-logistic-opposite-class",
        "kto-linear-zero",
        "humanline-kto-logistic-mismatched",
        "humanline-dpo",
    ]
    asked = {name: SETTINGS[name]._asdict() for name in chosen}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    torch.save(references_near(), tmp_path / "references.pt")
    launch(TORCHRUN, REPOSITORY / "tests" / "support" / "one_step.py", tmp_path / "step", budget, ROWS, "losses")
    for rank in range(2):
        results = torch.load(f"{tmp_path / 'step'}.{rank}")
        for name in chosen:
            agree(results[name], naive(name))


@pytest.mark.parametrize("loss", ["bco", "dpo", "csft", "ppo-offline"])
def test_a_resumed_run_has_the_same_bits(loss, pico, pico_data, tmp_path):
    """Stopped behind its second checkpoint; the running mean of bco and the value head of PPO travel with it."""
    words = ["train", "--data", pico_data, "--model", pico, "--loss", loss, "--batch-size", 6, "--save-every", 1]
    words += ["--max-steps", 4, "--cache", tmp_path / "cache", "--learning-rate", 1e-3]
    assert call(*words, "--out", tmp_path / "whole").code == 0
    cut_after(words, tmp_path / "cut", steps=2)
    assert call("train", "--resume", "--out", tmp_path / "cut").code == 0
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    refused = call("train", "--resume", "--out", tmp_path / "whole", "--loss", "kto")
    assert refused.code == 2 or refused.code == 1


def cut_after(words: list[object], out: Any, *, steps: int, **more: Any) -> None:
    """The run, interrupted after some steps."""
    from kto_cli.common.errors import Interrupted
    from kto_cli.workflows import api

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == steps:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    flags = {str(words[at])[2:].replace("-", "_"): words[at + 1] for at in range(1, len(words), 2)}
    flags |= {name: str(flags[name]) for name in ("data", "model", "cache")} | more
    with pytest.raises(Interrupted):
        api.train(on_record=stop, out=str(out), **flags)
