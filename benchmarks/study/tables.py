"""Tables of the study: the cells that answer a question, the most telling first."""

from __future__ import annotations

from benchmarks.study.cells import Cell

SEEDS = (0, 1, 2)


def learning_rate() -> list[Cell]:
    """Which learning rate moves the model within one epoch without collapse, by rows, for all weights and LoRA?"""
    cells = []
    for seed in SEEDS:
        for data in ("hh1600", "hh4k", "halu"):
            for rate in (1e-5, 3e-5, 1e-4, 3e-4):
                cells.append(one("learning-rate", data, seed, {"weights": "all", "rate": rate}, rate))
            for rate in (1e-4, 3e-4, 1e-3, 3e-3):
                cells.append(
                    one("learning-rate", data, seed, {"weights": "lora", "rate": rate}, rate, "--lora-r", "16")
                )
    return cells


def class_weights() -> list[Cell]:
    """Which weights of the classes on a log with four desirable rows to one: none, v1's, v5's, or by tokens?

    Eq. 8 of v1 asks for lambda_d n_d / (lambda_u n_u) in [1, 4/3]; v5 for [1, 3/2].
    """
    ratio = 0.2266  # undesirable to desirable rows of halueval's training split
    ways = {
        "1:1": (1, 1),
        "1/1": (ratio, 1),
        "4/3": (4 / 3 * ratio, 1),
        "3/2": (1.5 * ratio, 1),
        "3/4": (0.75 * ratio, 1),
    }
    return [
        one("class-weights", "halu", seed, {"weights": way, "rate": 5e-5}, 5e-5,
            "--lambda-d", f"{d:.4f}", "--lambda-u", f"{u:.4f}")
        for seed in SEEDS
        for way, (d, u) in ways.items()
    ]  # fmt: skip


def one(table: str, data: str, seed: int, varied: dict[str, str | float], rate: float, *flags: str) -> Cell:
    """A cell whose first seed also answers prompts."""
    flags = ("--learning-rate", str(rate), *flags)
    return Cell(table, data, tuple(varied.items()), flags, seed, samples=64 if seed == 0 else 0)


TABLES = {"learning-rate": learning_rate, "class-weights": class_weights}
