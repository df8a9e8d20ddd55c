"""Worlds of the small tables: a small model, prompts with a better and a worse answer, and a reward that is computed.

builtin   the model and pairs of sample_data; reward: share of courteous words minus share of rude ones
stories   a model of stories; prompts are first sentences, answers are drawn from the model, and of six the one with the
          largest and the one with the smallest share of glad words are a pair

The words are in words.json. Pairs are split by prompt: training, validation (learning rates are chosen on it) and test.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.study.drawing import Answering, draw
from kto_cli.common.screen import Screen
from kto_cli.data.dataset import load_data_dir, read_batches
from kto_cli.data.texts import last_turn
from kto_cli.workflows.api import binarize

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE_DATA = REPOSITORY / "sample_data"
WORDS = Path(__file__).with_name("words.json")
CANDIDATES, ANSWER_TOKENS = 6, 48
TRAINING_PAIRS = 256
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}{% endif %}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
"""A story goes on: the answer follows the prompt as its next sentence."""


class Pair(NamedTuple):
    """A prompt, as chat turns, with a better and a worse answer."""

    prompt: list[dict[str, str]]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class World:
    """A model and pairs by split."""

    name: str
    model: Path
    splits: dict[str, list[Pair]]
    good: frozenset[str]
    bad: frozenset[str]

    def reward(self, text: str) -> float:
        """Share of the answer's words that are good, minus that of bad ones; 0 without a word."""
        words = re.findall(r"[a-z']+", text.lower())
        return (sum(word in self.good for word in words) - sum(word in self.bad for word in words)) / max(1, len(words))


def words(name: str) -> frozenset[str]:
    """A list of words.json."""
    lines: list[str] = json.loads(WORDS.read_text(encoding="utf-8"))[name]
    return frozenset(" ".join(lines).split())


def builtin(work: Path) -> World:
    """The world of sample_data: 400 pairs."""
    folder = work / "builtin-pairs"
    if not folder.exists():
        raw = f"hh-rlhf:{SAMPLE_DATA / 'hh-rlhf'}"
        binarize(raw, out=folder, validation=0.0, screen=Screen(quiet=True))
    halves: dict[str, dict[bool, Any]] = {}
    for rows in read_batches(load_data_dir(folder).folder / "train.parquet"):
        for row in rows:
            halves.setdefault(row.pair_id or "", {})[row.label] = row
    pairs = [
        Pair(list(map(dict, both[True].prompt)), *(last_turn(both[label].completion) for label in (True, False)))
        for both in halves.values()
        if len(both) == 2
    ]  # fmt: skip
    random.Random(0).shuffle(pairs)
    splits = {"validation": pairs[:64], "test": pairs[64:160], "train": pairs[160:]}
    return World("builtin", SAMPLE_DATA / "model", splits, words("courteous"), words("rude"))


def stories(work: Path, model: Path, texts: Path) -> World:
    """The world of stories, made once.

    Args:
        model: folder of a causal LM of stories, such as stories260K. texts: JSON list of stories.
    """
    own, found = work / "stories-model", work / "stories-pairs.json"
    world = World("stories", own, {}, words("glad"), frozenset())
    if not found.exists():
        shutil.copytree(model, own, dirs_exist_ok=True)
        (own / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        pairs = _ranked(world, openings(json.loads(texts.read_text(encoding="utf-8"))))
        found.write_text(json.dumps(pairs), encoding="utf-8")
    pairs = [Pair(*one) for one in json.loads(found.read_text(encoding="utf-8"))]
    world.splits.update(validation=pairs[:96], test=pairs[96:224], train=pairs[224 : 224 + TRAINING_PAIRS])
    return world


def openings(texts: list[str]) -> list[str]:
    """First sentences of 5 to 16 words, each once, in an order of their own."""
    found = [re.match(r"\s*(.+?[.!?]”?\"?)\s", text.replace("\n", " ")) for text in texts]
    kept = sorted({one[1] for one in found if one and 5 <= len(one[1].split()) <= 16})
    random.Random(0).shuffle(kept)
    return kept


def whole_sentences(text: str) -> str:
    """The text up to its last full stop; empty if it has none."""
    found = re.match(r".*[.!?]”?\"?", text.replace("\n", " "), re.DOTALL)
    return re.sub(r"\s+", " ", found[0]).strip() if found else ""


def _ranked(world: World, prompts: list[str]) -> list[Pair]:
    """Of the answers to each prompt the one with the largest reward and that with the smallest, if they differ."""
    answering = Answering.load(world.model)
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    drawn = [draw(answering, asked, tokens=ANSWER_TOKENS, seed=seed) for seed in range(CANDIDATES)]
    pairs = []
    for prompt, *answers in zip(asked, *drawn, strict=True):
        texts = sorted(
            {whole_sentences(answer.text) for answer in answers} - {""}, key=lambda text: (world.reward(text), text)
        )
        if len(texts) > 1 and world.reward(texts[0]) < world.reward(texts[-1]):
            pairs.append(Pair(prompt, texts[-1], texts[0]))
    return pairs
