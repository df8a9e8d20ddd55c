"""Trials of the small tables: `kto train` in this process, and what the trained model answers and finds likely.

A trial is one condition at one learning rate with one seed. The rate of a condition is the one of its rates with the
largest reward on validation prompts, tried with seed 0; the trials that count have seeds 1, 2, 3 and the test prompts.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.cells import rounded
from benchmarks.study.drawing import Answering, Drawn, draw, log_probs
from benchmarks.study.variants import data_folder
from benchmarks.study.worlds import Pair, World
from kto_cli.common.screen import Screen
from kto_cli.core.statistics.auc import auc
from kto_cli.evaluation.answers.statistics import distinct, repetition
from kto_cli.workflows.api import train

AS_IT_IS, TUNING_SEED, SEEDS = -1, 0, (1, 2, 3)
"""Seeds; the first is that of a model which is not trained."""
STARTS = "starts"
"""Table of the models that conditions start from, as they are."""
TOKENS = 64
"""At most, of an answer that is measured."""
DRAWS = 2
"""Answers drawn to each prompt, besides the greedy one."""
DISTINCT_WORDS = 1500
"""Words of all greedy answers among which distinct trigrams are counted."""
QUIET = {"eval_every": 10**6, "save_every": 10**6, "keep_best": False}


@dataclass(frozen=True)
class Condition:
    """What is compared in a table: settings of `kto train`, data and the model that it starts from."""

    table: str
    name: str
    settings: tuple[tuple[str, Any], ...]
    rates: tuple[float, ...] = ()
    """Learning rates that are tried; none: `rate_of`."""
    rate_of: str = ""
    """Table and name of the condition whose rate is taken."""
    variant: str = "pairs"
    start: str = "sft"
    """base: the world's model; sft: that after SFT on the better answers."""
    against: str = ""
    """Table and name of the condition that it is compared with."""

    @property
    def full_name(self) -> str:
        """Table and name."""
        return f"{self.table} / {self.name}"


SFT = Condition(STARTS, "SFT", (("loss", "sft"), ("epochs", 4)), (1e-3, 3e-3, 1e-2), start="base")
"""The training of the model that others start from: four epochs, since one does not teach this model to end."""


@dataclass(frozen=True)
class Trial:
    """One run."""

    condition: Condition
    rate: float
    seed: int

    @property
    def split(self) -> str:
        """The prompts that it answers."""
        return "validation" if self.seed == TUNING_SEED else "test"

    def key(self, world: str) -> str:
        """Name by which a table is resumed."""
        return f"{world}: {self.condition.full_name} / {self.rate:g} / seed {self.seed}"


@dataclass(frozen=True)
class Bench:
    """A world and the folder in which its runs are made."""

    world: World
    work: Path
    cached: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def runs(self) -> Path:
        """Folder of data, starts and runs."""
        return self.work / f"{self.world.name}-runs"

    def prepare(self, conditions: Sequence[Condition], sft_rate: float) -> None:
        """Makes the data and the starts of conditions, before several processes use them."""
        for one in conditions:
            data_folder(self.world.splits["train"], one.variant, self.runs / "data")
            self.start(one.start, sft_rate)

    def start(self, name: str, sft_rate: float) -> Path:
        """The model that a condition starts from."""
        folder = self.runs / f"start-sft-{sft_rate:g}"
        if name == "base":
            return self.world.model
        if not folder.exists():
            self.train(folder, SFT, self.world.model, sft_rate, TUNING_SEED)
        return folder

    def train(self, out: Path, condition: Condition, model: Path, rate: float, seed: int) -> dict[str, Any]:
        """`kto train` of a condition."""
        settings = dict(QUIET, cache=str(self.runs / "cache")) | dict(condition.settings)
        data = data_folder(self.world.splits["train"], condition.variant, self.runs / "data")
        return train(
            data, str(model), out=str(out), learning_rate=rate, seed=seed, screen=Screen(quiet=True), **settings
        )

    def measure(self, trial: Trial, sft_rate: float) -> dict[str, Any]:
        """One run, and what came of it."""
        began, out = time.monotonic(), self.runs / f"run-{os.getpid()}"
        shutil.rmtree(out, ignore_errors=True)
        start = self.start(trial.condition.start, sft_rate)
        trained = self.train(out, trial.condition, start, trial.rate, trial.seed)
        answering, z_ref = Answering.load(out), share_above_zero(out / "metrics.jsonl")
        found = self.answers(answering, start, trial.split)
        found |= self.rows(answering, start, trial.split)
        shutil.rmtree(out)
        return {
            "seconds": round(time.monotonic() - began, 1),
            "steps": trained["steps"],
            "z_ref_above_0": z_ref,
            **found,
        }

    def measure_start(self, name: str, sft_rate: float) -> dict[str, Any]:
        """What a model that conditions start from answers."""
        began, folder = time.monotonic(), self.start(name, sft_rate)
        found = self.answers(self.loaded(folder), self.world.model, "test")
        return {"seconds": round(time.monotonic() - began, 1), **found}

    def answers(self, answering: Answering, start: Path, split: str) -> dict[str, Any]:
        """Reward and KL of drawn answers, and what greedy ones are like; of validation prompts one drawn one."""
        asked, draws = [pair.prompt for pair in self.world.splits[split]], DRAWS if split == "test" else 1
        drawn = draw(answering, asked * draws, tokens=TOKENS, seed=1)
        single = [self.world.reward(one.text) for one in drawn]
        found = {
            "reward": rounded(statistics.mean(single)),
            "kl": rounded(self.kl(answering, start, drawn)),
            "tokens": rounded(statistics.mean(len(one.ids) for one in drawn)),
            "ended": rounded(statistics.mean(one.ended for one in drawn)),
        }
        if split == "validation":
            return found
        greedy = draw(answering, asked, tokens=TOKENS)
        repeated = [value for value in (repetition(one.text) for one in greedy) if value == value]
        return found | {
            "reward_greedy": rounded(statistics.mean(self.world.reward(one.text) for one in greedy)),
            "repeated": rounded(statistics.mean(repeated) if repeated else 0.0),
            "distinct": rounded(distinct([one.text for one in greedy], 3, DISTINCT_WORDS)),
            "rewards": [round(1000 * statistics.mean(single[index :: len(asked)])) for index in range(len(asked))],
        }

    def kl(self, answering: Answering, start: Path, drawn: Sequence[Drawn]) -> float:
        """Mean log-ratio of the model's own answers to the model that it started from, in nats an answer."""
        sequences = [(one.prompt, one.ids) for one in drawn if one.ids]
        reference = self.loaded(start)
        return float((log_probs(answering.model, sequences) - log_probs(reference.model, sequences)).mean())

    def rows(self, answering: Answering, start: Path, split: str) -> dict[str, Any]:
        """AUC, margin and log-ratios a token of a split's pairs."""
        sequences = self.encoded(answering, split)
        reference = self.cached.get((start, split))
        if reference is None:
            own = self.encoded(self.loaded(start), split)
            reference = self.cached[start, split] = log_probs(self.loaded(start).model, own)
        ratios = log_probs(answering.model, sequences) - reference
        desirable = torch.arange(len(ratios)) % 2 == 0
        lengths = torch.tensor([len(completion) for _, completion in sequences])
        a_token = ratios / lengths
        return {
            "auc": rounded(auc(ratios, desirable)),
            "auc_length": rounded(auc(lengths.double(), desirable)),
            "margin": rounded(float(ratios[desirable].mean() - ratios[~desirable].mean())),
            "desirable": rounded(float(a_token[desirable].mean())),
            "undesirable": rounded(float(a_token[~desirable].mean())),
        }

    def encoded(self, answering: Answering, split: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(prompt, completion) of a split's answers, better and worse ones in turn."""
        pairs: list[Pair] = self.world.splits[split]
        prompts = answering.encoder.prompt_ids([pair.prompt for pair in pairs])
        texts = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
        turns = [[{"role": "assistant", "content": text}] for text in texts]
        found = [ids for ids, _ in answering.encoder.completion_ids(turns)]
        return [(prompts[index // 2], ids) for index, ids in enumerate(found)]

    def loaded(self, folder: Path) -> Answering:
        """A model that trials start from, kept in memory."""
        if folder not in self.cached:
            self.cached[folder] = Answering.load(folder)
        found: Answering = self.cached[folder]
        return found


def share_above_zero(metrics: Path) -> float | None:
    """Share of the steps whose reference point was above 0; None where the loss has none."""
    lines = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    points = [one["z_ref"] for one in lines if one.get("z_ref") is not None]
    return rounded(statistics.mean(point > 0 for point in points)) if points else None
