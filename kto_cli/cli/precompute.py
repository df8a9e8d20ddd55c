"""`kto precompute`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import RUN, Data, Model, ModelFlags, screen_of, takes, values
from kto_cli.common.model_config import ModelConfig
from kto_cli.common.train_config import TrainConfig
from kto_cli.training.loss_flags import loss_kind


class PrecomputeFlags(ModelFlags):
    """Flags of `kto precompute`, in the order of its --help; `loss` is no setting of a model."""

    data: Data
    model: Model
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The loss of the run to come, which decides what is needed.", rich_help_panel=RUN
        ),
    ] = TrainConfig.loss


@takes(PrecomputeFlags, ModelConfig)
def precompute(context: typer.Context) -> None:
    """Compute the reference model's log-probs once, into a cache."""
    given = values(context)
    loss = given.pop("loss")
    config, run = ModelConfig(**given), TrainConfig(loss=loss)
    loss_kind(run)  # a wrong name is reported before anything heavy is loaded
    from kto_cli.workflows import precompute as workflow

    screen = screen_of(context)
    screen.json(workflow.run(config, screen, loss=run))
