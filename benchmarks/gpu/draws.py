"""The same draws as on a CPU, what a draw costs, and the head: the precision of its log-probs, and its cost."""

from __future__ import annotations

import random

import torch
from torch.nn.functional import normalize

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import TINY
from benchmarks.gpu.timing import device, seconds
from kto_cli.core import logps
from kto_cli.evaluation.answers.noise import gumbel, perturbed, seeds_tensor

VOCABULARY = 4000 if TINY else 128256


def run() -> None:
    """All of them."""
    logits = (
        -1.3 * torch.arange(1.0, VOCABULARY + 1).log()[torch.stack([torch.randperm(VOCABULARY) for _ in range(64)])]
    )
    seeds = seeds_tensor([random.Random(index).getrandbits(63) for index in range(64)], range(64))
    with check("draws: the same tokens as on a CPU") as found:
        found["noise_difference"] = (
            (gumbel(seeds, VOCABULARY) - gumbel(seeds.to(device()), VOCABULARY).cpu()).abs().max().item()
        )
        for top_p in (0.95, 1.0):
            here, there = (
                perturbed(logits.to(where), seeds, temperature=0.7, top_p=top_p).argmax(-1).cpu()
                for where in ("cpu", device())
            )
            found[f"different of 64, top-p {top_p}"] = int((here != there).sum())
        found["ok"] = not any(value for name, value in found.items() if name.startswith("different"))
    with check("draws: under required determinism") as found:
        torch.use_deterministic_algorithms(True)
        try:
            perturbed(logits.to(device()), seeds, temperature=0.7, top_p=0.95)
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)
    with check("draws: milliseconds for 256 rows") as found:
        many = logits.repeat(1 if TINY else 4, 1).to(device())
        some = seeds_tensor([1] * len(many), range(len(many))).to(device())
        for top_p in (1.0, 0.95):
            took = seconds(lambda top_p=top_p: perturbed(many, some, temperature=0.7, top_p=top_p))
            found[f"top-p {top_p}"] = round(1e3 * took, 2)
    head()


def head() -> None:
    """Log-probs of bfloat16 hidden states and weights against float64: the spread of a token's error."""
    with check("head: precision and cost in bfloat16") as found:
        tokens, width = (20, 32) if TINY else (2080, 2048)
        torch.manual_seed(0)
        options = {"device": device()}
        weight = normalize(torch.randn(VOCABULARY, width, **options)) + normalize(torch.randn(1, width, **options))
        hidden = 1.2 * torch.randn(tokens, width, **options) + 8 * normalize(torch.randn(1, width, **options))
        targets = torch.randint(0, VOCABULARY, (tokens,), **options)
        hidden = (hidden + 8 * weight[targets]).bfloat16().requires_grad_()
        weight.requires_grad_()
        with torch.no_grad():
            exact = hidden[:256].double() @ weight.bfloat16().double().T
            truth = exact.gather(1, targets[:256, None])[:, 0] - exact.logsumexp(1)
        values = logps.token_logps(hidden, targets, logps.Head(weight))
        spread = (values[:256].double() - truth).std().item()
        found |= {"error_a_token_nats": spread, "over_140_tokens_nats": spread * 140**0.5}

        def both() -> None:
            hidden.grad = weight.grad = None
            logps.token_logps(hidden, targets, logps.Head(weight)).sum().backward()

        took = seconds(both)
        found |= {"ms": round(1e3 * took, 1), "tflops": round(2 * VOCABULARY * width * tokens * 4 / took / 1e12, 1)}
