"""Time of a draw: 64 rows from a vocabulary of 150,000, as `kto eval` draws and by sorting the whole vocabulary.

    python benchmarks/draws.py

Logits fall with the log of the rank, as those of language: by 2 (peaked), 1.2 (usual) and 0.9 (flat: the nucleus holds
more than the candidates, and each row is sorted after all). Processor time of one core; both draw the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from kto_cli.evaluation.answers.noise import gumbel, nucleus, perturbed, seeds_tensor

ROWS, VOCABULARY, TEMPERATURE, TOP_P = 64, 150_000, 0.7, 0.95


def logits_of(slope: float) -> Tensor:
    """[rows, vocabulary], in another order in each row."""
    falling = -slope * torch.arange(1.0, VOCABULARY + 1).log()
    return torch.stack([falling[torch.randperm(VOCABULARY)] + 0.3 * torch.randn(VOCABULARY) for _ in range(ROWS)])


def timed(work: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The tokens drawn, and milliseconds of processor time of the second of two calls."""
    work()
    began = time.process_time()
    found = work().argmax(-1)
    return found, 1e3 * (time.process_time() - began)


def main() -> None:
    """Prints a line per kind of logits."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seeds = seeds_tensor(range(ROWS), range(ROWS))
    for name, slope in (("peaked", 2.0), ("usual", 1.2), ("flat", 0.9)):
        logits = logits_of(slope)

        def sorting(logits: Tensor = logits) -> Tensor:
            return nucleus(logits / TEMPERATURE, TOP_P) + gumbel(seeds, VOCABULARY)

        def drawing(logits: Tensor = logits) -> Tensor:
            return perturbed(logits, seeds, temperature=TEMPERATURE, top_p=TOP_P)

        (expected, plain), (found, fast) = timed(sorting), timed(drawing)
        same = "the same tokens" if torch.equal(expected, found) else "OTHER TOKENS"
        print(f"{name:7} sorting {plain:6.0f} ms   kto {fast:6.0f} ms   {same}")


if __name__ == "__main__":
    main()
