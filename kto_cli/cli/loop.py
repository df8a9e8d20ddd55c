"""Flags of `kto loop`."""

from __future__ import annotations

from functools import partial
from inspect import get_annotations
from typing import Annotated

import typer

from kto_cli.cli.answer_flags import ANSWERS, AnswerFlags
from kto_cli.cli.loss_flags import LossFlags
from kto_cli.cli.shared import RUN, Model, screen_of, takes, typed
from kto_cli.cli.train import LearningFlags
from kto_cli.common.eval_config import JUDGED, SAMPLES
from kto_cli.common.loop_config import REFERENCES, LoopConfig, loop_config
from kto_cli.common.train_config import TrainConfig
from kto_cli.training.loss_flags import loss_kind

_run = partial(typer.Option, rich_help_panel=RUN)
_labels = partial(typer.Option, rich_help_panel="Prompts and labels")


class RoundFlags:
    """What a loop is made of; `config` is no setting."""

    model: Model
    out: Annotated[str, _run(metavar="DIR", help="The folder of the loop, gone on with.")]
    rounds: Annotated[int, _run(help="Rounds of sampling, labelling and training.")]
    reference: Annotated[
        str | None,
        _run(
            metavar="WHICH",
            help=f"{' or '.join(REFERENCES)}: each round's reference is --model, or the model that the round starts "
            "from.",
        ),
    ]
    seed: Annotated[int, _run(help="Random seed of answers, of the split and of the order of rows.")]
    config: Annotated[
        str | None,
        _run(
            metavar="FILE", help="Settings of training in YAML or JSON, as kto train reads them. Flags override them."
        ),
    ] = None

    prompt_files: Annotated[
        list[str] | None,
        _labels(
            "--prompts",
            metavar="FILE",
            help="Answer the column prompt of a file; target: what is better. Repeated: a file for each round.",
        ),
    ] = None
    data: Annotated[
        str | None,
        _labels(
            metavar="DIR", help="Answer the prompts of this dataset, on its split. Default: the only one in data/."
        ),
    ]
    n: Annotated[int, _labels(metavar="COUNT", help="Answers a prompt.")]
    limit: Annotated[int | None, _labels(help="Most prompts a round. Default: all.")]
    validation: Annotated[
        float, _labels(metavar="SHARE", help="With --prompts: share of the prompts for validation, in every round.")
    ]
    threshold: Annotated[
        str | None,
        _labels(
            metavar="NUMBER|WAY",
            help="With a reward model: scores as labels, as in kto binarize. Default: prompt-mean.",
        ),
    ]
    people: Annotated[
        bool, _labels("--people", help="People label the answers with kto label; a judge gives win rates alone.")
    ]

    samples: Annotated[
        int | None,
        typer.Option(
            help=f"Validation prompts that each round's model answers. Default: {SAMPLES}, with a judge {JUDGED}.",
            rich_help_panel=ANSWERS,
        ),
    ]


class LoopFlags(RoundFlags, AnswerFlags, LossFlags, LearningFlags):
    """Flags of `kto loop`, in the order of its --help."""


class _Defaults(LoopConfig, TrainConfig):
    """Where the flags find their defaults."""


TRAINING = {*get_annotations(LossFlags), *get_annotations(LearningFlags)} - {*get_annotations(RoundFlags), "curves"}


@takes(LoopFlags, _Defaults)
def loop(context: typer.Context) -> None:
    """Learn from own answers: sample, label, train, round by round, and compare the rounds."""
    flags = typed(context)
    curves, file = flags.pop("curves", True), flags.pop("config", None)
    train = {name: flags.pop(name) for name in list(flags) if name in TRAINING}
    if "prompt_files" in flags:
        flags["prompt_files"] = tuple(flags["prompt_files"])
    config, not_taken = loop_config(flags, train, file)
    loss_kind(TrainConfig(**config.training))
    from kto_cli.workflows import loop as workflow

    screen = screen_of(context)
    screen.curves = curves and not screen.as_json
    if not_taken:
        screen.note(f"Settings of {file} that the loop decides: {', '.join(not_taken)}.")
    screen.json(workflow.run(config, screen))
