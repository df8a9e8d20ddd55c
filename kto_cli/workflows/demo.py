"""`kto demo`: the whole chain on the built-in sample and the built-in tiny model, with a before/after table."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from kto_cli.common import files
from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural
from kto_cli.evaluation.answers.answering import SHOWN
from kto_cli.evaluation.files import REPORT
from kto_cli.workflows import binarize, evaluate, train

PARTS = ("data", "cache", "checkpoint")
"""Folders of the demo."""


def run(keep: str | None, screen: Screen) -> dict[str, Any]:
    """Runs the chain in a temporary folder, of which only the report stays, or in `keep`, which must be new.

    Returns:
        `seconds`, `binarize`, `train`, `eval`: each command's own result; `folder` (None if removed); `report`.
    """
    if keep is not None and Path(keep).exists():
        raise BadInput(f"{keep} exists already.", "Give the name of a new folder with --keep.")
    folder = Path(keep) if keep else Path(tempfile.mkdtemp(prefix="kto-demo-"))
    try:
        return _chain(folder, keep, screen)
    finally:
        if keep is None:
            for name in PARTS:
                shutil.rmtree(folder / name, ignore_errors=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def _chain(folder: Path, keep: str | None, screen: Screen) -> dict[str, Any]:
    began = time.perf_counter()
    # The parts' own tables would bury the one that matters; they still narrate on stderr.
    inner = Screen(as_json=True, quiet=screen.quiet, curves=screen.curves)
    sample = files.sample_data() / "hh-rlhf"
    screen.heading("1  kto binarize hh-rlhf --from (the built-in sample)")
    rows = binarize.run(
        BinarizeConfig(("hh-rlhf",), from_path=str(sample), out=str(folder / "data"), validation=0.15), inner
    )
    screen.heading("2  kto train (reference log-probs first)")
    data, cache, checkpoint = (str(folder / name) for name in PARTS)
    trained = train.run(
        {"data": data, "cache": cache, "out": checkpoint},
        config_file=None,
        resume=False,
        screen=inner,
    )
    screen.heading("3  kto eval checkpoint")
    seen = evaluate.run(EvalConfig(checkpoint=checkpoint, data=data, cache=cache), inner)
    seconds = time.perf_counter() - began
    _show(rows, trained, seen, seconds, screen)
    report = folder / "checkpoint/eval" / REPORT
    if keep:
        screen.say(f"Everything is kept in {keep}.")
    else:
        report = report.replace(folder / REPORT)
    screen.say(f"Report: {report} (open it in a browser)")
    return {
        "report": str(report),
        "seconds": seconds,
        "folder": keep,
        "binarize": rows,
        "train": trained,
        "eval": seen,
    }


def _show(rows: dict[str, Any], trained: dict[str, Any], seen: dict[str, Any], seconds: float, screen: Screen) -> None:
    """Before is the reference itself: all its rewards are 0, so it tells nothing apart (AUC 0.5)."""
    low, high = seen["auc_interval"]
    paired = seen.get("paired_accuracy", float("nan"))
    screen.table(
        f"Before and after, on {plural(seen['rows'], 'answer')} to {plural(seen['prompts'], 'prompt')} it never saw",
        ["", "before", "after"],
        [
            ["chance to rank a liked answer above a disliked one (AUC; 0.5 is guessing)", 0.5, seen["auc"]],
            ["   90 % interval", "", f"{low:.2f} to {high:.2f}"],
            ["right about which of two answers people liked", "50%", f"{paired:.0%}"],
            ["reward of liked answers", 0.0, seen["reward_desirable"]],
            ["reward of disliked answers", 0.0, seen["reward_undesirable"]],
        ],
    )
    screen.texts(
        "The same unseen prompts, answered before and after",
        ["prompt", "before", "after"],
        [[sample["prompt"], sample["reference"], sample["policy"]] for sample in seen["samples"][:SHOWN]],
    )
    screen.say(
        f"{plural(trained['steps'], 'step')} on {rows['desirable'] + rows['undesirable']} thumbs-up / thumbs-down "
        f"rows; {seconds:.0f} s in all. Verdict: {trained['sentence']}"
    )
    screen.say("Your turn: kto binarize hh-rlhf (or your own file), then kto train --model YOUR_MODEL.")
