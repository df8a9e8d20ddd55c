"""The commands of a round of `kto loop`: their settings, as the workflows take them and as a person would type them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kto_cli.common.eval_config import REFERENCE
from kto_cli.common.files import sample_data
from kto_cli.common.loop_config import LoopConfig
from kto_cli.common.model_config import AUTO_TOKENS
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import kind_of
from kto_cli.training.after import NEW_ADAPTERS

Settings = dict[str, Any]
MODEL = (
    *("max_length", "dtype", "chat_template", "template_date", "chat_template_kwargs", "trust_remote_code"),
    *("load_in_4bit", "cache"),
)
ANSWERS = (*MODEL, "max_new_tokens", "temperature", "top_p", "engine")
JUDGE = ("judge_url", "judge_model", "judge_for", "judge_calls", "judge_workers")
FLAGS = {("sample", "prompt_file"): "prompts", ("eval", "model"): "reference"}
"""Settings whose flag has another name."""


@dataclass(frozen=True)
class Round:
    """A round: its files, and where it starts."""

    config: LoopConfig
    number: int
    """From 1."""
    learning_rate: float | None
    """That of the first round, for the later ones."""

    @property
    def folder(self) -> Path:
        """The round's files."""
        return Path(self.config.out) / f"round-{self.number}"

    @property
    def answers(self) -> Path:
        """The file of `kto sample`."""
        return self.folder / "answers.jsonl"

    @property
    def labels(self) -> Path:
        """The file of `kto label`."""
        return self.folder / "labels.jsonl"

    @property
    def data(self) -> Path:
        """The dataset."""
        return self.folder / "data"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def first(self) -> Round:
        """The first round, whose validation rows all rounds are evaluated on."""
        return Round(self.config, 1, None)

    @property
    def start(self) -> str:
        """The model of the loop's start."""
        return self.config.model or str(sample_data() / "model")

    @property
    def model(self) -> str:
        """The model that answers and is trained further."""
        return self.start if self.number == 1 else str(Round(self.config, self.number - 1, None).run)

    def sampling(self) -> list[Settings]:
        """Settings of `kto sample`; of a dataset once for each split."""
        config = self.config
        same = {"checkpoint": self.model, "out": str(self.answers), "n": config.n}
        rest = _given(config, (*ANSWERS, "limit", *(() if config.people else JUDGE)))
        rest["seed"] = config.seed + self.number - 1
        if config.prompt_files:
            file = config.prompt_files[min(self.number, len(config.prompt_files)) - 1]
            return [{**same, "prompt_file": file, **rest}]
        return [{**same, "data": config.data, "split": split, **rest} for split in ("train", "validation")]

    def labelling(self) -> Settings:
        """Settings of `kto label`."""
        return {"sources": (str(self.answers),), "out": str(self.labels)}

    def binarizing(self) -> Settings:
        """Settings of `kto binarize`."""
        config = self.config
        found: Settings = {}
        if config.people:
            source, found["fix"] = str(self.labels), ("contradictions", "duplicates")
        elif config.scored:
            source, found["score_column"] = f"log:{self.answers}", "score"
            found["threshold"] = config.label_threshold
        else:
            source = str(self.answers)
        if kind_of(config.train.get("loss", TrainConfig.loss)).unit == "pair":
            found["pair_within_prompts"] = config.n
        if config.prompt_files and self.number == 1:
            found["validation"] = config.validation
        else:
            found |= {
                "validation": config.validation,
                "keep_split": str(self.first.data if config.prompt_files else config.data),
            }
        return {"sources": (source,), "out": str(self.data), "seed": config.seed, **found}

    def training(self) -> Settings:
        """Settings of `kto train`."""
        config, train = self.config, dict(self.config.training)
        found: Settings = {"data": str(self.data), "out": str(self.run)}
        if self.number > 1:
            found["model"] = self.model
            if config.reference == "fixed":
                found["reference"] = self.start
            train.setdefault("learning_rate", self.learning_rate)
            if TrainConfig(**train).adapters and not train.get("merge"):
                train = {name: value for name, value in train.items() if name not in NEW_ADAPTERS}
                train["continue_adapter"] = True
        elif config.model is not None:
            found["model"] = config.model
        return {**found, **train}

    def evaluating(self) -> Settings:
        """Settings of `kto eval`: against the model of the start, on the validation rows of the first round."""
        config = self.config
        found: Settings = {"checkpoint": str(self.run), "data": str(self.first.data), "model": self.start}
        found |= _given(config, (*ANSWERS, "samples", "seed", "micro_batch_tokens"))
        if config.judge_model is not None:
            found |= {"against": REFERENCE, **_given(config, JUDGE)}
            if not config.people:
                found["judge_pairs"] = 0  # the labels are the judge's own
        return found


def _given(config: LoopConfig, names: Iterable[str]) -> Settings:
    given = config.given
    return {name: given[name] for name in names if name in given}


def spelled(command: str, settings: Mapping[str, Any]) -> str:
    """A command as it is typed; `sources` and `checkpoint` have no flag."""
    words = ["kto", command]
    for name, value in settings.items():
        spelling = FLAGS.get((command, name), name).replace("_", "-")
        flag = f"--{'no-' if value is False else ''}{spelling}"
        if name == "sources":
            words += value
        elif name == "checkpoint":
            words.append(value)
        elif isinstance(value, bool):
            words.append(flag)
        elif name == "micro_batch_tokens" and value == AUTO_TOKENS:
            words += [flag, "auto"]
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [flag, json.dumps(each) if isinstance(each, dict) else str(each)]
    return shlex.join(words)
