"""How well do ways to estimate z_ref serve a step? One policy and its reference are held, and many batches are drawn.

    python -m benchmarks.study.z_ref --model MODEL --data DATA --run RUN [--run ...] --work FOLDER --results z_ref.jsonl

Exact is max(0, mean log-ratio over mismatched pairs of the whole dataset, each prompt with several partners). For each
batch the gradient of every row is computed once; an estimate of z only weights the rows, so that the gradient of KTO's
loss with any estimate, and its angle to the one with the exact z, follow from the products of the rows' gradients.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.study.cells import read_results, rounded
from benchmarks.study.markdown import markdown
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.batches import pad
from kto_cli.core.losses import label_signs
from kto_cli.core.plan import plan_epoch
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.load import load_model
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.prepare import Prepared, make_scorer, prepare
from kto_cli.model.scorer import CompletionScorer

BETA, BATCH, BATCHES, PARTNERS, SAMPLED, NEW_TOKENS, MAX_LENGTH = 0.1, 32, 12, 1, 160, 48, 96
RESULTS = Path(__file__).with_name("z_ref.jsonl")
HEADER = ("z from", "mean", "bias", "SD", "cosine", "lowest", "length")


class Batch(NamedTuple):
    """Log-ratios of the rows of a batch in nats, [rows] each, and what their gradients have in common."""

    own: Tensor
    mismatched: Tensor
    """Behind the row's prompt, a completion of another one."""
    half_own: Tensor
    """The same, but of every second row of a pair the completion is the pair's other answer, as where TRL shifts the
    completions of pairs by one."""
    sampled: Tensor
    """Of completions that the policy said, whose mean is the KL without bias."""
    signs: Tensor
    products: Tensor
    """[rows, rows] of the rows' gradients."""


def chunks(size: int, which: str = "mismatched") -> Callable[[Batch], Tensor]:
    """[rows] z of each row: the mean over its chunk of so many rows, not below 0."""

    def estimate(batch: Batch) -> Tensor:
        parts: Sequence[Tensor] = getattr(batch, which).split(size)
        return torch.cat([part.mean().clamp(min=0).expand(len(part)) for part in parts])

    return estimate


ESTIMATORS: dict[str, Callable[[Batch], Tensor]] = {
    "the whole batch": chunks(BATCH),
    "chunks of 8": chunks(8),
    "chunks of 4": chunks(4),
    "chunks of 2": chunks(2),
    "chunks of 1": chunks(1),
    "half the partners from the same prompt": chunks(BATCH, "half_own"),
    "the same, chunks of 8": chunks(8, "half_own"),
    "samples of the policy": chunks(BATCH, "sampled"),
    "0": lambda batch: torch.zeros_like(batch.own),
}


def coefficients(batch: Batch, z: Tensor) -> Tensor:
    """[rows] weight of each row's gradient in that of KTO's loss."""
    margins = BETA * batch.signs * (batch.own - z)
    return -batch.signs * BETA * torch.sigmoid(margins) * torch.sigmoid(-margins) / len(z)


def compared(batches: Sequence[Batch], exact: float) -> Iterator[dict[str, Any]]:
    """For each way to estimate z: its mean, bias and spread, and the gradient beside the one with the exact z."""
    for name, estimate in ESTIMATORS.items():
        found = [estimate(batch) for batch in batches]
        cosines, lengths = [], []
        for batch, z in zip(batches, found, strict=True):
            ours, right = coefficients(batch, z), coefficients(batch, torch.full_like(z, exact))
            norms = [(each @ batch.products @ each).sqrt() for each in (ours, right)]
            cosines.append((ours @ batch.products @ right / (norms[0] * norms[1])).item())
            lengths.append((norms[0] / norms[1]).item())
        each = torch.cat(found)
        yield {
            "estimator": name,
            "mean": each.mean().item(),
            "bias": each.mean().item() - exact,
            "sd": each.std(correction=0).item(),
            "cosine": sum(cosines) / len(cosines),
            "lowest": min(cosines),
            "length": sum(lengths) / len(lengths),
        }


class World:
    """A policy, its reference, and the training rows."""

    def __init__(self, run: Path, options: argparse.Namespace) -> None:
        config = TrainConfig(
            data=str(options.data), model=options.model, cache=str(options.work / "cache"), max_length=MAX_LENGTH
        )
        accelerator, screen = start_accelerator(), Screen(quiet=True)
        self.prepared: Prepared = prepare(config, accelerator, screen)
        self.rows = list(self.prepared.train)
        self.scorers = [
            DistributedScorer(
                accelerator, make_scorer(self.prepared, accelerator, screen, model=model), token_budget=4096
            )
            for model in (load_model(run), self.prepared.model)
        ]

    def log_ratios(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """[sequences] of the policy to the reference, nats."""
        policy, reference = (scorer.log_probs(sequences).double() for scorer in self.scorers)
        return policy - reference

    def partners(self) -> list[TokenSequence]:
        """Each row's prompt with completions of other prompts, `PARTNERS` times."""
        draw, found = random.Random(0), []
        for row in self.rows:
            others = draw.sample([other for other in self.rows if other.prompt_id != row.prompt_id], PARTNERS)
            found += [TokenSequence(row.own.prompt, other.own.completion) for other in others]
        return found

    def sampled(self) -> list[TokenSequence]:
        """Prompts with what the policy says to them."""
        model, found = self.scorers[0].scorer.model, []
        end = self.prepared.tokenizer.eos_token_id
        torch.manual_seed(0)
        for row in random.Random(1).sample(self.rows, SAMPLED):
            ids = torch.tensor([row.own.prompt])
            said = model.generate(ids, do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS, pad_token_id=end)
            found.append(TokenSequence(row.own.prompt, tuple(said[0, ids.shape[1] :].tolist())))
        return found

    def products(self, rows: Sequence[EncodedRow]) -> Tensor:
        """[rows, rows] products of the gradients of the rows' log-probs."""
        scorer: CompletionScorer = self.scorers[0].scorer
        weights, gradients = list(scorer.parameters()), []
        for row in rows:
            each = torch.autograd.grad(scorer(*pad([row.own])).sum(), weights)
            gradients.append(torch.cat([part.flatten() for part in each]))
        table = torch.stack(gradients)
        return (table @ table.T).double()

    def batches(self, own: Tensor, mismatched: Tensor, sampled: Tensor) -> Iterator[Batch]:
        """Steps of an epoch as `kto train` plans them."""
        labels, draw = [row.label for row in self.rows], random.Random(2)
        columns = (torch.from_numpy(each) for each in (self.prepared.train.prompts, self.prepared.train.conversations))
        for places in plan_epoch(labels, *columns, batch_size=BATCH, seed=0, epoch=0)[:BATCHES]:
            places = sorted(places, key=lambda at: (self.rows[at].prompt_id, at))
            rows = [self.rows[at] for at in places]
            half = mismatched[places].clone()
            for second in range(1, len(rows)):
                if rows[second].prompt_id == rows[second - 1].prompt_id:
                    half[second] = own[places[second - 1]]
            chosen = draw.sample(range(len(sampled)), len(rows))
            signs = label_signs(torch.tensor([row.label for row in rows]), dtype=torch.float64)
            yield Batch(own[places], mismatched[places], half, sampled[chosen], signs, self.products(rows))


def measure(run: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line on the policy, then one for each way to estimate z."""
    world = World(run, options)
    mismatched = world.log_ratios([row.mismatched for row in world.rows])
    others = torch.cat([mismatched, world.log_ratios(world.partners())])
    sampled = world.log_ratios(world.sampled())
    exact = max(0.0, others.mean().item())
    yield {
        "policy": run.name,
        "rows": len(world.rows),
        "exact": exact,
        "mean": others.mean().item(),
        "se": (others.std() / len(others) ** 0.5).item(),
        "sd": others.std().item(),
        "kl": sampled.mean().item(),
        "kl_se": (sampled.std() / len(sampled) ** 0.5).item(),
    }
    batches = list(world.batches(world.log_ratios([row.own for row in world.rows]), mismatched, sampled))
    for line in compared(batches, exact):
        yield {"policy": run.name, "batches": len(batches), **line}


def z_ref_tables(results: Path = RESULTS) -> dict[str, str]:
    """A table for each policy, by `z-ref-NAME`; and what is known of the policies, `z-ref`."""
    lines = read_results(results)
    tables = {"z-ref": markdown(("policy", "mean log-ratio, mismatched", "exact z", "SD of a pair", "KL by samples"), [
        (one["policy"], f"{one['mean']:+.1f} ± {one['se']:.1f}", f"{one['exact']:.1f}", f"{one['sd']:.0f}",
         f"{one['kl']:.1f} ± {one['kl_se']:.1f}")
        for one in lines if "exact" in one
    ])}  # fmt: skip
    for policy in dict.fromkeys(one["policy"] for one in lines):
        tables[f"z-ref-{policy}"] = markdown(HEADER, [
            (one["estimator"], f"{one['mean']:.1f}", f"{one['bias']:+.1f}", f"{one['sd']:.1f}",
             f"{one['cosine']:.3f}", f"{one['lowest']:.3f}", f"{one['length']:.2f}")
            for one in lines if one["policy"] == policy and "estimator" in one
        ])  # fmt: skip
    return tables


def main() -> None:
    """Measures the policies that the file of results lacks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study.z_ref", description=__doc__)
    parser.add_argument("--model", required=True, help="the reference")
    parser.add_argument("--data", type=Path, required=True, help="the data folder of the runs, of pairs")
    parser.add_argument("--run", type=Path, action="append", required=True, help="a finished run of all weights")
    parser.add_argument("--work", type=Path, required=True, help="folder of the cache")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = {one["policy"] for one in read_results(options.results)}
    for run in options.run:
        if run.name in known:
            continue
        lines = [{name: rounded(value) for name, value in line.items()} for line in measure(run, options)]
        with options.results.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
