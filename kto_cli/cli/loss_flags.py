"""Flags of the loss: of train."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from kto_cli.core.loss_kinds import LOSSES, POINTS, VALUES

_loss = partial(typer.Option, rich_help_panel="Loss")
_moving = partial(typer.Option, rich_help_panel="Moving reference")
_other = partial(typer.Option, rich_help_panel="Other losses")


class LossFlags:
    """Which loss, and its settings."""

    loss: Annotated[
        str,
        _loss(metavar="NAME", help=f"{', '.join(LOSSES)}, or MODULE:FUNCTION: see docs/losses.md."),
    ]
    reference: Annotated[
        str | None,
        _loss(
            metavar="MODEL",
            help="The reference, if it is not --model: a folder or Hub id, with the same tokens; or none.",
        ),
    ]
    beta: Annotated[
        float | None,
        _loss(help="Rewards are beta * log-ratio. Default: 0.1; simpo 2."),
    ]
    lambda_d: Annotated[
        float | None,
        _loss(help="Weight of desirable rows. Default: from the class counts (Eq. 8)."),
    ]
    lambda_u: Annotated[
        float | None,
        _loss(help="Weight of undesirable rows. Default: from the class counts (Eq. 8)."),
    ]
    batch_size: Annotated[
        int,
        _loss(help="Rows of an optimizer step, over all processes; z_ref is estimated from them."),
    ]
    humanline: Annotated[
        bool,
        _moving(
            "--humanline",
            help="Keep each token's log-ratio within bounds, and compare with the policy of an update ago.",
        ),
    ]
    humanline_low: Annotated[float | None, _moving(help="Lower bound of --humanline, nats. Default: -1.")]
    humanline_high: Annotated[float | None, _moving(help="Upper bound of --humanline, nats. Default: 1.5.")]
    sync_reference_every: Annotated[
        int | None,
        _moving(metavar="N", help="The policy becomes the reference every N steps. Default: never; --humanline 1."),
    ]
    sync_mix: Annotated[
        float,
        _moving(metavar="SHARE", help="Share of the policy in the new reference's weights."),
    ]
    value: Annotated[
        str | None,
        _other(metavar="NAME", help=f"Value function of kto: {', '.join(VALUES)}."),
    ]
    reference_point: Annotated[
        str | None,
        _other(metavar="NAME", help=f"z_ref of kto: {', '.join(POINTS)}."),
    ]
    sft_weight: Annotated[
        float,
        _other(help="Add this times the negative log-likelihood a token of desirable rows."),
    ]
    label_smoothing: Annotated[
        float | None,
        _other(help="Of dpo: share of pairs taken to be swapped. Default: 0."),
    ]
    ipo_tau: Annotated[float | None, _other(help="Of ipo. Default: 0.1.")]
    slic_delta: Annotated[float | None, _other(help="Of slic: margin in nats. Default: 1.")]
    slic_lambda: Annotated[float | None, _other(help="Of slic: weight of likelihood. Default: 0.1.")]
    simpo_gamma: Annotated[float | None, _other(help="Of simpo: margin of rewards. Default: 1.")]
    orpo_lambda: Annotated[
        float | None,
        _other(help="Of orpo: weight of the odds ratio. Default: 0.1."),
    ]
    ppo_gamma: Annotated[
        float | None,
        _other(help="Of ppo-offline: discount a token. Default: 0.99."),
    ]
    ppo_lambda: Annotated[
        float | None,
        _other(help="Of ppo-offline: decay of advantages. Default: 0.95."),
    ]
    ppo_clip: Annotated[
        float | None,
        _other(help="Of ppo-offline: ratios are clipped to [1/N, N]. Default: 4."),
    ]
    ppo_critic: Annotated[
        float | None,
        _other(help="Of ppo-offline: weight of the value head. Default: 0.01."),
    ]
    ppo_penalty: Annotated[
        float | None,
        _other(help="Of ppo-offline: weight of the log-ratio. Default: 0.1."),
    ]
    control_good: Annotated[
        str | None,
        _other(
            metavar="TEXT",
            help="Of csft: ends the prompts of desirable rows, and of what is asked later. Default: <|good|>.",
        ),
    ]
    control_bad: Annotated[
        str | None,
        _other(metavar="TEXT", help="Of csft: ends the prompts of undesirable rows. Default: <|bad|>."),
    ]
