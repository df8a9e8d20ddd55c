"""Variants of a world's training pairs, as files of TRL's columns: which rows are kept, whose label is wrong.

pairs                  all pairs
prompts=S              the pairs of a share S of the prompts
one-y                  one answer to each prompt, better and worse ones in turn
desirable=S            all undesirable rows, a share S of the desirable ones; undesirable=S the other way round
flipped=S              all pairs, a share S of them the wrong way round
judges=K/N             a third of the pairs, N times each: K of the N times the wrong way round
longer                 all pairs, the better answer without its last sentence where it has several
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.study.worlds import Pair
from kto_cli.common.screen import Screen
from kto_cli.workflows.api import binarize

Record = dict[str, Any]


def data_folder(pairs: Sequence[Pair], variant: str, work: Path) -> Path:
    """The data folder of a variant, made once."""
    folder = work / variant.replace("/", "-of-")
    if not folder.exists():
        source = work / f"{folder.name}.jsonl"
        work.mkdir(parents=True, exist_ok=True)
        source.write_text("".join(json.dumps(one) + "\n" for one in records(pairs, variant)), encoding="utf-8")
        binarize(source, out=folder, validation=0.0, screen=Screen(quiet=True))
    return folder


def records(pairs: Sequence[Pair], variant: str) -> list[Record]:
    """The records of a variant; what is drawn is drawn from seed 0."""
    name, _, value = variant.partition("=")
    if name == "prompts":
        pairs = pairs[: round(float(value) * len(pairs))]
    elif name == "longer":
        pairs = [pair._replace(chosen=_shorter(pair.chosen)) for pair in pairs]
    elif name == "flipped":
        wrong = set(random.Random(0).sample(range(len(pairs)), round(float(value) * len(pairs))))
        pairs = [_flipped(pair) if index in wrong else pair for index, pair in enumerate(pairs)]
    elif name == "judges":
        flips, judges = map(int, value.split("/"))
        some = pairs[: len(pairs) // 3]
        pairs = [_flipped(pair) if judge < flips else pair for judge in range(judges) for pair in some]
    elif name in ("desirable", "undesirable", "one-y"):
        return _rows(pairs, name, float(value or 1))
    elif name != "pairs":
        raise ValueError(f"no such variant: {variant}")
    return [{"prompt": pair.prompt, "chosen": turn(pair.chosen), "rejected": turn(pair.rejected)} for pair in pairs]


def _rows(pairs: Sequence[Pair], name: str, share: float) -> list[Record]:
    order = random.Random(0).sample(range(len(pairs)), len(pairs))
    kept = set(order[: max(1, round(share * len(pairs)))])
    found = []
    for index, pair in enumerate(pairs):
        for label in (True, False):
            scarce = label == (name == "desirable")
            inside = label == (index % 2 == 0) if name == "one-y" else index in kept or not scarce
            if inside:
                text = pair.chosen if label else pair.rejected
                found.append({"prompt": pair.prompt, "completion": turn(text), "label": label})
    return found


def turn(text: str) -> list[dict[str, str]]:
    """An answer as chat turns."""
    return [{"role": "assistant", "content": text}]


def _flipped(pair: Pair) -> Pair:
    return pair._replace(chosen=pair.rejected, rejected=pair.chosen)


def _shorter(text: str) -> str:
    sentences = text.replace("! ", "!\n").replace("? ", "?\n").replace(". ", ".\n").split("\n")
    return " ".join(sentences[:-1] or sentences)
