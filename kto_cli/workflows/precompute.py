"""`kto precompute`: reference log-probs of rows and of what else the loss of the run to come reads, into the cache."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch

from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.model.determinism import require_determinism
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.logprobs.prepare import check_sequences, make_scorer, prepare, warn_if_built_in
from kto_cli.model.logprobs.reference import reference_logps
from kto_cli.training.loss_flags import control_texts, loss_settings
from kto_cli.training.units import trained_rows


def run(config: ModelConfig, screen: Screen, *, loss: TrainConfig | None = None) -> dict[str, Any]:
    """Computes and stores what is missing from the cache.

    Args:
        loss: settings of the run to come, of which its loss counts.

    Returns:
        `sequences` (distinct ones needed), `computed`, `cached`, `seconds`.

    Raises:
        KtoError: bad input, data or model, or a full disk. Interrupted: Ctrl-C; what was stored stays.
    """
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    train = loss or TrainConfig()
    needed = Needed.by(loss_settings(train, lambda_d=1.0, lambda_u=1.0))
    prepared = prepare(config, accelerator, screen, control=control_texts(train))
    prepared.train = trained_rows(prepared.train, train, screen)
    warn_if_built_in(config, screen)
    began = time.perf_counter()
    scorer = make_scorer(prepared, accelerator, screen, sharded=True)
    rows = prepared.reference_rows
    with torch.no_grad():  # as the pass that follows
        require_determinism(scorer, check_sequences(prepared.train + prepared.validation)[:3], screen)
    _, use = reference_logps(prepared, rows, lambda: scorer, config, accelerator, screen, needed)
    seconds = time.perf_counter() - began
    screen.table(
        f"Reference log-probs of {prepared.source.words}",
        ["", "sequences"],
        [
            [f"needed ({needed.words})", use.sequences],
            ["from the cache", use.cached],
            ["computed", use.computed],
        ],
    )
    if prepared.source.adapters:
        screen.note("kto train uses them with --lora-r or --continue-adapter; without, it merges the adapter first.")
    screen.say(f"{seconds:.1f} s.   Next: kto train {f'--loss {train.loss}' if train.loss != 'kto' else '--beta 0.1'}")
    return {**asdict(use), "seconds": seconds}
