"""Flags of `kto train`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from kto_cli.cli.loss_flags import LossFlags
from kto_cli.cli.shared import MEMORY, RUN, Data, Model, ModelFlags, screen_of, takes, typed
from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import require
from kto_cli.common.train_config import (
    OPTIMIZERS,
    SCHEDULES,
    SWITCH,
    TRACKERS,
    Optimizer,
    Schedule,
    Switch,
    TrainConfig,
)
from kto_cli.training.loss_flags import loss_kind

_run = partial(typer.Option, rich_help_panel=RUN)
_opt = partial(typer.Option, rich_help_panel="Optimization")
_lora = partial(typer.Option, rich_help_panel="LoRA adapters")
_record = partial(typer.Option, rich_help_panel="Checkpoints and curves")
_memory = partial(typer.Option, rich_help_panel=MEMORY)


class RunFlags:
    """What a run is made of; those of the launch are no settings: `resume`, `dry_run`, `device_memory`, `config`."""

    data: Data
    model: Model
    out: Annotated[str, _run(help="The run directory, in the end a Hugging Face model folder.")]
    after: Annotated[
        str | None,
        _run(
            metavar="RUN",
            help="Go on from a finished run with new rows in --data: its settings, model, reference and split.",
        ),
    ]
    replay: Annotated[
        float | None,
        _run(metavar="SHARE", help="With --after: share of its training rows to train on again. Default: 0.3."),
    ]
    config: Annotated[
        str | None,
        _run(metavar="FILE", help="Settings in YAML or JSON, or a run's kto_config.json. Flags override them."),
    ] = None
    resume: Annotated[bool, _run("--resume", help="Continue the unfinished run in --out.")] = False
    dry_run: Annotated[
        bool,
        _run("--dry-run", help="Estimate steps, memory, disk and time, and stop."),
    ] = False
    device_memory: Annotated[
        float | None,
        _run(
            metavar="GB",
            help="With --dry-run: predict from the model's config alone whether a card of so much memory is enough.",
        ),
    ] = None


class LearningFlags:
    """How it learns, and what is kept of it; `curves` is no setting."""

    learning_rate: Annotated[
        float | None,
        _opt(
            help="Peak learning rate. Default: by model size (5e-6 from 1B parameters up, more below; x10 for LoRA), "
            "printed."
        ),
    ]
    epochs: Annotated[int, _opt(help="Passes over the rows.")]
    max_steps: Annotated[int | None, _opt(help="Stop after N steps.")]
    warmup: Annotated[
        float,
        _opt(help="Warm-up: a share of all steps if below 1, else a number of steps."),
    ]
    schedule: Annotated[
        Schedule,
        _opt(metavar="NAME", help=f"Learning rate after the warm-up: {', '.join(SCHEDULES)}."),
    ]
    max_grad_norm: Annotated[float, _opt(help="Maximum gradient norm; 0 disables clipping.")]
    optimizer: Annotated[
        Optimizer,
        _opt(
            metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (8 bits: bitsandbytes; rmsprop: the paper's first version)."
        ),
    ]
    seed: Annotated[int, _opt(help="Random seed of the order of rows.")]
    group_prompts: Annotated[
        bool,
        _opt(help="Put rows of one prompt or chat into one step, to compute what they share once."),
    ]

    lora_r: Annotated[
        int | None,
        _lora(help="Train LoRA adapters of rank N, such as 16. Default: train all weights."),
    ]
    lora_alpha: Annotated[
        int | None,
        _lora(help="LoRA alpha: adapter output is scaled by alpha / r. Default: twice the rank."),
    ]
    lora_targets: Annotated[
        str,
        _lora(metavar="NAMES", help="Linear layers to adapt: all-linear, or names as q_proj,v_proj."),
    ]
    dora: Annotated[bool, _lora("--dora", help="Use DoRA (weight-decomposed LoRA).")]
    continue_adapter: Annotated[
        bool,
        _lora(
            "--continue-adapter",
            help="Go on training the adapter that --model is. Default: --lora-r adds another one, else it is merged.",
        ),
    ]
    merge: Annotated[
        bool,
        _lora("--merge", help="Write the full model with merged adapters."),
    ]

    eval_every: Annotated[
        int | None,
        _record(help="Evaluate on validation rows every N steps. Default: ten times a run."),
    ]
    save_every: Annotated[
        int | None,
        _record(help="Write a checkpoint every N steps. Default: five a run, at least every 200."),
    ]
    keep_best: Annotated[
        bool,
        _record(
            "--keep-best/--no-keep-best",
            help="Keep the step with the lowest validation loss, unless the last one is as good within noise.",
        ),
    ]
    track: Annotated[
        str | None,
        _record(metavar="NAMES", help=f"Send metrics to {', '.join(TRACKERS)} (with commas)."),
    ]
    curves: Annotated[
        bool,
        _record("--curves/--no-curves", help="Draw curves in a terminal of 80x24 or more."),
    ] = True

    gradient_checkpointing: Annotated[
        Switch,
        _memory(
            metavar="WHEN",
            help=f"{', '.join(SWITCH)}. on: recompute activations, less memory, a third more work. auto: only if "
            "memory runs out.",
        ),
    ]
    compile: Annotated[
        bool,
        _memory("--compile", help="torch.compile: a slow start, faster steps on a GPU."),
    ]


class TrainFlags(RunFlags, LossFlags, LearningFlags, ModelFlags):
    """Flags of `kto train`, in the order of its --help."""


@takes(TrainFlags, TrainConfig)
def train(context: typer.Context) -> None:
    """Train with the KTO loss, or another one."""
    flags = typed(context)
    config_file, resume = flags.pop("config", None), flags.pop("resume", False)
    dry_run, curves = flags.pop("dry_run", False), flags.pop("curves", True)
    if dry_run and resume:
        raise BadFlag("--dry-run is for new runs, not for one that is resumed.", "Remove --resume.")
    gigabytes = flags.pop("device_memory", None)
    if gigabytes is not None and not dry_run:
        raise BadFlag("--device-memory predicts the memory of a run, which is not started.", "Add --dry-run.")
    require(gigabytes is None or 0 < gigabytes < float("inf"), "--device-memory", gigabytes, "above 0, such as 80")
    loss_kind(TrainConfig(**flags))  # wrong flags are reported before anything heavy is loaded
    screen = screen_of(context)
    if gigabytes is not None:
        from kto_cli.workflows import device_memory

        screen.json(device_memory.run(flags, gigabytes=gigabytes, config_file=config_file, screen=screen))
        return
    if dry_run:
        from kto_cli.workflows import dry_run as workflow

        screen.json(workflow.run(flags, config_file=config_file, screen=screen))
        return
    from kto_cli.workflows import api

    screen.curves = curves and not screen.as_json
    screen.json(api.train(config_file=config_file, resume=resume, screen=screen, **flags))
