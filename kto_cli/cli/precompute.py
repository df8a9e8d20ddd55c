"""`kto precompute`."""

from __future__ import annotations

import typer

from kto_cli.cli.shared import Data, Model, ModelFlags, screen_of, takes, values
from kto_cli.common.model_config import ModelConfig


class PrecomputeFlags(ModelFlags):
    """Flags of `kto precompute`, in the order of its --help."""

    data: Data
    model: Model


@takes(PrecomputeFlags, ModelConfig)
def precompute(context: typer.Context) -> None:
    """Compute the reference model's log-probs once, into a cache."""
    config = ModelConfig(**values(context))
    from kto_cli.workflows import precompute as workflow

    screen = screen_of(context)
    screen.json(workflow.run(config, screen))
