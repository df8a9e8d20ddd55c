"""`kto train`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import Data, Model, ModelFlags, answering, screen_of, takes, typed
from kto_cli.common.errors import BadInput
from kto_cli.common.train_config import OPTIMIZERS, TRACKERS, TrainConfig


class TrainFlags(ModelFlags):
    """In the order of `kto train --help`; the last four are of the command, not of TrainConfig."""

    data: Data
    model: Model
    out: Annotated[str, typer.Option(help="The run directory; a Hugging Face model folder in the end.")]
    beta: Annotated[float, typer.Option(help="Rewards are beta * log-ratio.")]
    lambda_d: Annotated[
        float | None, typer.Option(help="Weight of desirable rows. Default: from the class counts (Eq. 8).")
    ]
    lambda_u: Annotated[
        float | None, typer.Option(help="Weight of undesirable rows. Default: from the class counts (Eq. 8).")
    ]
    batch_size: Annotated[
        int,
        typer.Option(help="Rows of one optimizer step, over all processes. z_ref is estimated from them."),
    ]
    group_prompts: Annotated[
        bool,
        typer.Option(help="Bring rows of one prompt into one step, so that the prompt is computed once."),
    ]
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of AdamW. Default: by model size, said.")
    ]
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)} (8 bits: needs bitsandbytes).")]
    epochs: Annotated[int, typer.Option(help="Passes over the rows.")]
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")]
    warmup: Annotated[float, typer.Option(help="Warm-up: a share of the steps if below 1, else a number of them.")]
    schedule: Annotated[str, typer.Option(help="linear, cosine or constant.")]
    max_grad_norm: Annotated[float, typer.Option(help="Clip the gradient to this norm; 0: no.")]
    seed: Annotated[int, typer.Option(help="Order of the rows.")]
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. Default: a fifth of the run, at most 200.")
    ]
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between looks at validation rows. Default: a tenth of the run.")
    ]
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile the layers: a slow start, faster steps on a GPU.")
    ]
    gradient_checkpointing: Annotated[
        str, typer.Option(help="on: compute activations again instead of keeping them; auto: only if memory asks; off.")
    ]
    lora_r: Annotated[
        int | None, typer.Option(help="Train LoRA adapters of this rank, such as 16. Default: all weights learn.")
    ]
    lora_alpha: Annotated[
        int | None, typer.Option(help="Adapters' output times alpha / rank. Default: twice the rank.")
    ]
    lora_targets: Annotated[
        str, typer.Option(help="Linear layers to adapt: all-linear, or names such as q_proj,v_proj.")
    ]
    dora: Annotated[bool, typer.Option("--dora", help="DoRA: magnitude and direction apart.")]
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the whole model with the adapters in it, not the adapters.")
    ]
    track: Annotated[
        str | None,
        typer.Option(help=f"Send each step's numbers to {', '.join(TRACKERS)} (several: commas between)."),
    ]
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would need and take, and what would stop it.")
    ] = False
    config: Annotated[
        str | None,
        typer.Option(help="A YAML or JSON file of settings, or a run's kto_config.json. Flags win over it."),
    ] = None
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Draw curves while training, in a terminal of 80x24 or more.")
    ] = True


@takes(TrainFlags, TrainConfig)
@answering
def train(context: typer.Context) -> None:
    """Train with the KTO loss."""
    flags = typed(context)
    config_file, resuming = flags.pop("config", None), flags.pop("resume", False)
    looking_ahead, curves = flags.pop("dry_run", False), flags.pop("curves", True)
    if looking_ahead and resuming:
        raise BadInput("--dry-run looks at a new run, not at one that is resumed.", "Leave out --resume.")
    TrainConfig(**flags)  # a wrong flag is said before anything heavy is loaded
    if looking_ahead:
        from kto_cli.workflows import dry_run as look_ahead

        screen = screen_of(context)
        screen.json(look_ahead.run(flags, config_file=config_file, screen=screen))
        return
    from kto_cli.workflows import api

    screen = screen_of(context)
    screen.curves = curves and not screen.as_json
    screen.json(api.train(config_file=config_file, resume=resuming, screen=screen, **flags))
