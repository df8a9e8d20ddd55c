"""Settings of `kto loop`. The defaults live here alone, those of training in train_config.py; the flags read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.config_file import read_config_file, typed_settings
from kto_cli.common.errors import BadFlag
from kto_cli.common.eval_config import EvalConfig, is_url
from kto_cli.common.model_config import ModelConfig, require
from kto_cli.common.train_config import TrainConfig

REFERENCES = ("fixed", "round")
SHARED = (*(each.name for each in fields(ModelConfig) if each.name not in ("data", "model")), "seed")
"""Settings of training that answers have too."""
DECIDED = ("data", "out", "reference", "after", "replay")
"""Settings of training that the loop decides in each round."""


@dataclass(frozen=True)
class LoopConfig(EvalConfig):
    """Settings of `kto loop`: how `kto eval` answers and judges, how often, and how `kto train` trains. `model` is
    where the first round starts."""

    out: str = "loop"
    """The folder of the loop."""
    rounds: int = 3
    """Rounds of sampling, labelling and training."""
    prompt_files: tuple[str, ...] = ()
    """Files with prompts, one for all rounds or one for each; default: the prompts of a dataset (`data`)."""
    n: int = 4
    """Answers a prompt."""
    limit: int | None = None
    """Maximum prompts a round, the same ones whatever their order; default: all."""
    threshold: str | None = None
    """Scores of a reward model as labels, as in kto binarize; default: prompt-mean."""
    people: bool = False
    """People label the answers with kto label; a judge gives win rates alone."""
    validation: float = 0.1
    """Share of the prompts of a file for validation; win rates need more of them than kto binarize's 0.05 leaves."""
    reference: str = "fixed"
    """The reference of each round's training: the model of the start, or that of the round's start."""
    train: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rounds >= 1, "--rounds", self.rounds, "1 or above")
        require(self.n >= 1, "--n", self.n, "1 or above")
        require(self.limit is None or self.limit >= 1, "--limit", self.limit, "1 or above")
        require(self.reference in REFERENCES, "--reference", self.reference, f"one of {', '.join(REFERENCES)}")
        require(0 < self.validation < 1, "--validation", self.validation, "a share above 0 and below 1, such as 0.1")
        if self.temperature == 0 and self.n > 1:
            raise BadFlag("With --temperature 0 all answers to a prompt are equal.", "Add --n 1, or sample.")
        self._check_prompts()
        self._check_labels()
        train = TrainConfig(**self.training)
        if train.continue_adapter and train.merge:
            raise BadFlag("--merge leaves no adapter that the second round could continue.", "Leave out one of them.")

    def _check_prompts(self) -> None:
        if self.prompt_files and self.data is not None:
            raise BadFlag("--data is a dataset, and --prompts are files.", "Leave out one of them.")
        if len(self.prompt_files) > 1 and len(self.prompt_files) < self.rounds:
            raise BadFlag(
                f"--prompts names {len(self.prompt_files)} files for {self.rounds} rounds.",
                "Give one for each round, or one for all.",
            )

    def _check_labels(self) -> None:
        if is_url(self.engine):
            raise BadFlag("--engine URL serves one model, and each round has another one.", "Leave it out.")
        if self.judge_model is None and not self.people:
            raise BadFlag(
                "Nothing labels the answers.",
                "Add --judge-model REWARD_MODEL, --judge-url URL --judge-model NAME, or --people.",
            )
        if not self.scored:
            if self.threshold is not None:
                raise BadFlag("--threshold is for scores of a reward model.", "Add --judge-model, or leave it out.")
            return
        BinarizeConfig(sources=(), threshold=self.label_threshold)
        if self.label_threshold.startswith("prompt-") and self.n < 2:
            raise BadFlag(f"--threshold {self.label_threshold} compares answers to one prompt.", "Give --n 2 or more.")

    @property
    def scored(self) -> bool:
        """Whether a reward model labels the answers."""
        return not self.people and self.judge_url is None

    @property
    def label_threshold(self) -> str:
        """`threshold`, or its default."""
        return self.threshold or "prompt-mean"

    @property
    def given(self) -> dict[str, Any]:
        """All settings that are not the defaults, those of training among them."""
        defaults = {each.name: each.default for each in fields(self)}
        own = {name: value for name, value in asdict(self).items() if name != "train" and value != defaults[name]}
        return {**own, **self.train}

    @property
    def training(self) -> dict[str, Any]:
        """The settings of training that are the same in each round."""
        return {name: value for name, value in self.given.items() if name in SHARED or name in self.train}


def loop_config(settings: dict[str, Any], train: dict[str, Any], file: str | None) -> tuple[LoopConfig, list[str]]:
    """The config of typed settings and of a config file of kto train, and which settings of the file are not taken.

    Raises:
        BadInput: the file cannot be used. BadFlag: settings that do not go together.
    """
    if file is None:
        return LoopConfig(**settings, train=train), []
    found = typed_settings(read_config_file(Path(file)), where=f"The config file {file}")
    defaults = {each.name: each.default for each in fields(TrainConfig)}
    found = {name: value for name, value in found.items() if value != defaults[name]}
    kept = {name: value for name, value in found.items() if name not in DECIDED}
    shared = {name: kept.pop(name) for name in (*SHARED, "model") if name in kept}
    return LoopConfig(**{**shared, **settings}, train={**kept, **train}), [name for name in DECIDED if name in found]
