"""Flags of `kto train`."""

from __future__ import annotations

from typing import Annotated

import typer

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
from kto_cli.core.loss_kinds import LOSSES, POINTS, VALUES
from kto_cli.training.loss_flags import loss_kind

KTO, OTHER_LOSSES, OPTIMIZATION, LORA = "Loss", "Other losses", "Optimization", "LoRA adapters"
RECORDS = "Checkpoints and curves"


class TrainFlags(ModelFlags):
    """Flags of `kto train`, in the order of its --help; those of the launch are no settings: `resume`, `dry_run`,
    `device_memory`, `config`, `curves`."""

    data: Data
    model: Model
    out: Annotated[
        str, typer.Option(help="The run directory, in the end a Hugging Face model folder.", rich_help_panel=RUN)
    ]
    after: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on from a finished run with new rows in --data: its settings, model, reference and split.",
            rich_help_panel=RUN,
        ),
    ]
    replay: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="With --after: share of its training rows to train on again. Default: 0.3.",
            rich_help_panel=RUN,
        ),
    ]
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Settings in YAML or JSON, or a run's kto_config.json. Flags override them.",
            rich_help_panel=RUN,
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run in --out.", rich_help_panel=RUN)
    ] = False
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate steps, memory, disk and time, and stop.", rich_help_panel=RUN),
    ] = False
    device_memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            help="With --dry-run: predict from the model's config alone whether a card of so much memory is enough.",
            rich_help_panel=RUN,
        ),
    ] = None

    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME", help=f"{', '.join(LOSSES)}, or MODULE:FUNCTION: see docs/losses.md.", rich_help_panel=KTO
        ),
    ]
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The reference, if it is not --model: a folder or Hub id, with the same tokens; or none.",
            rich_help_panel=KTO,
        ),
    ]
    beta: Annotated[
        float | None,
        typer.Option(help="Rewards are beta * log-ratio. Default: 0.1; simpo 2.", rich_help_panel=KTO),
    ]
    lambda_d: Annotated[
        float | None,
        typer.Option(help="Weight of desirable rows. Default: from the class counts (Eq. 8).", rich_help_panel=KTO),
    ]
    lambda_u: Annotated[
        float | None,
        typer.Option(help="Weight of undesirable rows. Default: from the class counts (Eq. 8).", rich_help_panel=KTO),
    ]
    batch_size: Annotated[
        int,
        typer.Option(
            help="Rows of an optimizer step, over all processes; z_ref is estimated from them.", rich_help_panel=KTO
        ),
    ]
    value: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"Value function of kto: {', '.join(VALUES)}.", rich_help_panel=OTHER_LOSSES),
    ]
    reference_point: Annotated[
        str | None,
        typer.Option(metavar="NAME", help=f"z_ref of kto: {', '.join(POINTS)}.", rich_help_panel=OTHER_LOSSES),
    ]
    sft_weight: Annotated[
        float,
        typer.Option(
            help="Add this times the negative log-likelihood a token of desirable rows.", rich_help_panel=OTHER_LOSSES
        ),
    ]
    label_smoothing: Annotated[
        float | None,
        typer.Option(help="Of dpo: share of pairs taken to be swapped. Default: 0.", rich_help_panel=OTHER_LOSSES),
    ]
    ipo_tau: Annotated[float | None, typer.Option(help="Of ipo. Default: 0.1.", rich_help_panel=OTHER_LOSSES)]
    slic_delta: Annotated[
        float | None, typer.Option(help="Of slic: margin in nats. Default: 1.", rich_help_panel=OTHER_LOSSES)
    ]
    slic_lambda: Annotated[
        float | None, typer.Option(help="Of slic: weight of likelihood. Default: 0.1.", rich_help_panel=OTHER_LOSSES)
    ]
    simpo_gamma: Annotated[
        float | None, typer.Option(help="Of simpo: margin of rewards. Default: 1.", rich_help_panel=OTHER_LOSSES)
    ]
    orpo_lambda: Annotated[
        float | None,
        typer.Option(help="Of orpo: weight of the odds ratio. Default: 0.1.", rich_help_panel=OTHER_LOSSES),
    ]
    ppo_gamma: Annotated[
        float | None,
        typer.Option(help="Of ppo-offline: discount a token. Default: 0.99.", rich_help_panel=OTHER_LOSSES),
    ]
    ppo_lambda: Annotated[
        float | None,
        typer.Option(help="Of ppo-offline: decay of advantages. Default: 0.95.", rich_help_panel=OTHER_LOSSES),
    ]
    ppo_clip: Annotated[
        float | None,
        typer.Option(help="Of ppo-offline: ratios are clipped to [1/N, N]. Default: 4.", rich_help_panel=OTHER_LOSSES),
    ]
    ppo_critic: Annotated[
        float | None,
        typer.Option(help="Of ppo-offline: weight of the value head. Default: 0.01.", rich_help_panel=OTHER_LOSSES),
    ]
    ppo_penalty: Annotated[
        float | None,
        typer.Option(help="Of ppo-offline: weight of the log-ratio. Default: 0.1.", rich_help_panel=OTHER_LOSSES),
    ]
    control_good: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Of csft: ends the prompts of desirable rows, and of what is asked later. Default: <|good|>.",
            rich_help_panel=OTHER_LOSSES,
        ),
    ]
    control_bad: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Of csft: ends the prompts of undesirable rows. Default: <|bad|>.",
            rich_help_panel=OTHER_LOSSES,
        ),
    ]

    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate. Default: by model size (5e-6 from 1B parameters up, more below; x10 for LoRA), "
            "printed.",
            rich_help_panel=OPTIMIZATION,
        ),
    ]
    epochs: Annotated[int, typer.Option(help="Passes over the rows.", rich_help_panel=OPTIMIZATION)]
    max_steps: Annotated[int | None, typer.Option(help="Stop after N steps.", rich_help_panel=OPTIMIZATION)]
    warmup: Annotated[
        float,
        typer.Option(
            help="Warm-up: a share of all steps if below 1, else a number of steps.", rich_help_panel=OPTIMIZATION
        ),
    ]
    schedule: Annotated[
        Schedule,
        typer.Option(
            metavar="NAME",
            help=f"Learning rate after the warm-up: {', '.join(SCHEDULES)}.",
            rich_help_panel=OPTIMIZATION,
        ),
    ]
    max_grad_norm: Annotated[
        float, typer.Option(help="Maximum gradient norm; 0 disables clipping.", rich_help_panel=OPTIMIZATION)
    ]
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(OPTIMIZERS)} (8 bits: bitsandbytes; rmsprop: the paper's first version).",
            rich_help_panel=OPTIMIZATION,
        ),
    ]
    seed: Annotated[int, typer.Option(help="Random seed of the order of rows.", rich_help_panel=OPTIMIZATION)]

    group_prompts: Annotated[
        bool,
        typer.Option(
            help="Put rows of one prompt or chat into one step, to compute what they share once.",
            rich_help_panel=OPTIMIZATION,
        ),
    ]

    lora_r: Annotated[
        int | None,
        typer.Option(
            help="Train LoRA adapters of rank N, such as 16. Default: train all weights.", rich_help_panel=LORA
        ),
    ]
    lora_alpha: Annotated[
        int | None,
        typer.Option(
            help="LoRA alpha: adapter output is scaled by alpha / r. Default: twice the rank.", rich_help_panel=LORA
        ),
    ]
    lora_targets: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Linear layers to adapt: all-linear, or names as q_proj,v_proj.", rich_help_panel=LORA
        ),
    ]
    dora: Annotated[bool, typer.Option("--dora", help="Use DoRA (weight-decomposed LoRA).", rich_help_panel=LORA)]
    continue_adapter: Annotated[
        bool,
        typer.Option(
            "--continue-adapter",
            help="Go on training the adapter that --model is. Default: --lora-r adds another one, else it is merged.",
            rich_help_panel=LORA,
        ),
    ]
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Write the full model with merged adapters.", rich_help_panel=LORA),
    ]

    eval_every: Annotated[
        int | None,
        typer.Option(
            help="Evaluate on validation rows every N steps. Default: ten times a run.", rich_help_panel=RECORDS
        ),
    ]
    save_every: Annotated[
        int | None,
        typer.Option(
            help="Write a checkpoint every N steps. Default: five a run, at least every 200.",
            rich_help_panel=RECORDS,
        ),
    ]
    keep_best: Annotated[
        bool,
        typer.Option(
            "--keep-best/--no-keep-best",
            help="Keep the step with the lowest validation loss, unless the last one is as good within noise.",
            rich_help_panel=RECORDS,
        ),
    ]
    track: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=f"Send metrics to {', '.join(TRACKERS)} (with commas).",
            rich_help_panel=RECORDS,
        ),
    ]
    curves: Annotated[
        bool,
        typer.Option(
            "--curves/--no-curves", help="Draw curves in a terminal of 80x24 or more.", rich_help_panel=RECORDS
        ),
    ] = True

    gradient_checkpointing: Annotated[
        Switch,
        typer.Option(
            metavar="WHEN",
            help=f"{', '.join(SWITCH)}. on: recompute activations, less memory, a third more work. auto: only if "
            "memory runs out.",
            rich_help_panel=MEMORY,
        ),
    ]
    compile: Annotated[
        bool,
        typer.Option("--compile", help="torch.compile: a slow start, faster steps on a GPU.", rich_help_panel=MEMORY),
    ]


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
