"""`kto loop`: sample -> label -> train, round by round, by the workflows of the single commands.

DIR/loop.json                the settings, and the results of each step of each round
DIR/round-1/answers.jsonl    of kto sample
DIR/round-1/labels.jsonl     of kto label, with --people
DIR/round-1/data/            of kto binarize
DIR/round-1/run/             of kto train, and its eval/ of kto eval

A step that is noted in loop.json is not run again; each step goes on where a kill left it, as its command does.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadData, BadInput, Diverged, Interrupted, KtoError
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.loop_config import LoopConfig
from kto_cli.common.owner import LOCK, owning
from kto_cli.common.sample_config import SampleConfig
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural, printable
from kto_cli.data.dataset import MANIFEST, load_data_dir
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.evaluation.labelling.label_file import LabelFile
from kto_cli.model.distributed.start import return_freed_memory, start_accelerator
from kto_cli.training.run.run_dir import RunDir, read_settings
from kto_cli.workflows import binarize, evaluate, sample, train
from kto_cli.workflows.loop_record import LoopRecord
from kto_cli.workflows.loop_steps import Round, spelled
from kto_cli.workflows.loop_table import show, table_row

BROKEN = ("blown up", "collapsed")
"""Verdicts on a round's training after which no other round starts."""
Found = dict[str, Any]


@dataclass(frozen=True)
class Loop:
    """A loop whose folder this process owns."""

    config: LoopConfig
    record: LoopRecord
    screen: Screen

    @property
    def inner(self) -> Screen:
        """Screen of a step: it tells what it decides and how far it is; its tables would bury the one that matters."""
        return Screen(as_json=True, quiet=self.screen.quiet, curves=self.screen.curves)

    def stopped(self, number: int, why: str) -> BadData:
        """The error for a round that cannot go on."""
        kept = f"Everything is kept in {printable(self.config.out)}; another loop needs another --out."
        return BadData(f"Round {number} stops the loop: {why}", kept)


def run(config: LoopConfig, screen: Screen) -> Found:
    """Runs the rounds that are not finished yet.

    Returns:
        `loop` (the path of loop.json), `rounds` (see `LoopRecord.rounds`), `waiting`: the command of kto label, while
        people have to label answers.

    Raises:
        KtoError: a setting, an input or a server cannot be used; a round has no labels or one class only, or its
            training went wrong. Interrupted: Ctrl-C.
    """
    if start_accelerator().num_processes > 1:
        raise BadInput("kto loop runs in one process.", "Run it without accelerate launch.")
    if not config.prompt_files:
        config = replace(config, data=str(find_data_dir(config.data)))
    folder = Path(config.out)
    with owning(folder / LOCK, folder, "running a loop in", warn=screen.warn):
        record = LoopRecord(config)
        loop = Loop(replace(config, template_date=record.date), record, screen)
        _say_decisions(loop)
        with _shown_if_stopped(loop):
            waiting = _rounds(loop)
        show(record.rounds, screen)
        if waiting:
            screen.say(f"Label the answers: {waiting}   Then run the same kto loop command again.")
        else:
            screen.say(f"Rounds: {record.path}   The last model: {Round(loop.config, len(record.rounds), None).run}")
        return {"loop": str(record.path), "rounds": record.rounds, "waiting": waiting}


def _rounds(loop: Loop) -> str:
    """Runs what is not noted; returns the command that people have to run first, if any."""
    steps: dict[str, Callable[[Loop, Round], Found | None]] = {
        "answers": _answers,
        "rows": _rows,
        "train": _train,
        "eval": _eval,
    }
    for number in range(1, loop.config.rounds + 1):
        first = loop.record.of(1).get("train", {})
        one = Round(loop.config, number, first.get("learning_rate"))
        for name, step in steps.items():
            if name in loop.record.of(number):
                continue
            loop.screen.heading(f"Round {number} of {loop.config.rounds}: {name}")
            found = step(loop, one)
            if found is None:
                return spelled("label", one.labelling())
            loop.record.note(number, name, found)
            _forget_models()
    return ""


def _forget_models() -> None:
    """Frees the models of a step, which are in cycles: the collector does not see how large they are."""
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _answers(loop: Loop, one: Round) -> Found:
    total: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    scores, ended = 0.0, 0.0
    for settings in one.sampling():
        loop.screen.note(spelled("sample", settings))
        found = sample.run(SampleConfig(**settings), loop.inner)
        count = found["answers"]
        total.update({name: found[name] for name in ("prompts", "answers", "equal", "empty")})
        labels.update(found["labels"])
        ended += found["ended"] * count
        scores += found.get("score", 0.0) * count
    answers = max(1, total["answers"])
    score = {"score": scores / answers} if loop.config.scored else {}
    return {"model": one.model, **total, "ended": ended / answers, "labels": dict(labels), **score}


def _rows(loop: Loop, one: Round) -> Found | None:
    """None: people have not labelled anything yet.

    Raises:
        BadData: there are no labels, or those of one class only; no validation rows.
    """
    settings, answers = one.binarizing(), loop.record.of(one.number)["answers"]
    if loop.config.people:
        labels = len(LabelFile(one.labels, change=False).labels)
        if not labels:
            return None
        loop.screen.note(f"{plural(labels, 'label')} of people for {plural(answers['answers'], 'answer')}.")
    elif answers["labels"] and not {*answers["labels"]} - {sample.LABELLED[None]}:
        why = "a tie, verdicts that contradict or cannot be read, or no target"
        raise loop.stopped(one.number, f"{plural(answers['answers'], 'answer')} and no label by the judge ({why}).")
    loop.screen.note(spelled("binarize", settings))
    if not (one.data / MANIFEST).is_file():
        try:
            binarize.run(BinarizeConfig(**settings), loop.inner)
        except BadData as error:
            raise loop.stopped(one.number, error.what) from error
    found = load_data_dir(one.data).manifest
    if not found["validation"]:
        raise loop.stopped(
            one.number, "no answer to a prompt for validation has a label. Give more prompts, or a larger --validation."
        )
    splits = found["splits"].values()
    desirable, undesirable = (sum(rows[name] for rows in splits) for name in ("desirable", "undesirable"))
    return {
        "desirable": found["desirable"],
        "undesirable": found["undesirable"],
        "training": found["desirable"] + found["undesirable"],
        "validation": found["validation"],
        "share_desirable": desirable / (desirable + undesirable),
        "rejected": found["rejected"],
        "dropped": found["dropped_reasons"],
    }


def _train(loop: Loop, one: Round) -> Found:
    directory, settings = RunDir(one.run), one.training()
    loop.screen.note(spelled("train", settings))
    if not directory.finished:
        try:
            train.run(settings, config_file=None, resume=directory.started, screen=loop.inner)
        except Diverged as error:
            raise loop.stopped(one.number, error.what) from error
    stored = read_settings(directory)
    return {
        "checkpoint": str(one.run),
        "reference": stored["reference"]["name"],
        "learning_rate": stored["chosen"]["learning_rate"],
        **{name: stored["finished"][name] for name in ("step", "verdict", "sentence")},
    }


def _eval(loop: Loop, one: Round) -> Found:
    """
    Raises:
        BadData: the training went wrong.
    """
    trained = loop.record.of(one.number)["train"]
    if trained["verdict"] in BROKEN:
        raise loop.stopped(one.number, trained["sentence"])
    settings = one.evaluating()
    loop.screen.note(spelled("eval", settings))
    return table_row(evaluate.run(EvalConfig(**settings), loop.inner))


@contextmanager
def _shown_if_stopped(loop: Loop) -> Iterator[None]:
    """Context manager that shows the finished rounds where another one fails or is stopped."""
    try:
        yield
    except Interrupted as stop:
        show(loop.record.rounds, loop.screen)
        raise Interrupted(f"{stop} The same kto loop command does all of it.") from stop
    except KtoError:
        show(loop.record.rounds, loop.screen)
        raise
    finally:
        loop.record.remove_if_alone()


def _say_decisions(loop: Loop) -> None:
    config, screen = loop.config, loop.screen
    if loop.record.goes_on:
        screen.note(f"{printable(loop.record.path)} is gone on with.")
    fixed = config.reference == "fixed"
    screen.note(
        "Reference of each round: " + ("the model of the start." if fixed else "the model that the round starts from.")
    )
    if config.people:
        labels = "by people, with kto label"
    elif config.scored:
        labels = f"scores of {config.judge_model}, --threshold {config.label_threshold}"
    else:
        labels = f"by {config.judge_model}, against a good answer to each prompt"
    screen.note(f"Labels: {labels}.")
    if config.judge_model is None:
        screen.note("No judge for win rates: name one with --judge-model.")
    elif not config.people:
        screen.note("Win rates are by the judge that labels: they show what it prefers, not what people do.")
    several = len(config.prompt_files) > 1
    screen.note(f"Prompts: {'a file for each round' if several else 'the same in each round'}, other draws in each.")
