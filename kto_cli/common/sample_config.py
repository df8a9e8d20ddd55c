"""Settings of `kto sample`. The defaults live here alone; the flags read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kto_cli.common.errors import BadFlag
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.model_config import require

Split = Literal["train", "validation"]
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class SampleConfig(EvalConfig):
    """Settings of `kto sample`: how `kto eval` answers and judges, and what is answered how often."""

    out: str = "answers.jsonl"
    """The file of answers, gone on with."""
    prompt_file: str | None = None
    """A file with prompts; default: the prompts of a dataset."""
    split: str | None = None
    """The rows of the dataset whose prompts are answered; default: train."""
    n: int = 4
    """Answers a prompt."""
    limit: int | None = None
    """Maximum prompts, the same ones whatever their order; default: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n >= 1, "--n", self.n, "1 or above")
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "1 or above")
        require(self.split is None or self.split in SPLITS, "--split", self.split, f"one of {', '.join(SPLITS)}")
        require(self.out.endswith(".jsonl"), "--out", self.out or "''", "a file that ends in .jsonl")
        if self.temperature == 0 and self.n > 1:
            raise BadFlag("With --temperature 0 all answers to a prompt are equal.", "Add --n 1, or sample.")
        for flag, given in {"--data": self.data, "--split": self.split}.items():
            if self.prompt_file is not None and given is not None:
                raise BadFlag(f"{flag} goes with a dataset, and --prompts is a file.", "Leave out one of them.")
