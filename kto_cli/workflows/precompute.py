"""`kto precompute`: reference log-probs of every row and of its mismatched completion, into the cache; for a loss that
reads single tokens, those of the training rows' too."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch

from kto_cli.common.model_config import ModelConfig
from kto_cli.common.screen import Screen
from kto_cli.model.determinism import require_determinism
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.prepare import check_sequences, make_scorer, prepare, warn_if_built_in
from kto_cli.model.logprobs.reference import reference_logps


def run(config: ModelConfig, screen: Screen, *, loss: str = "kto", per_token: bool = False) -> dict[str, Any]:
    """Computes and stores what is missing from the cache.

    Args:
        loss: of the run to come. per_token: whether it reads log-probs of single tokens.

    Returns:
        `sequences` (distinct ones needed), `computed`, `cached`, `seconds`.

    Raises:
        KtoError: bad input, data or model, or a full disk. Interrupted: Ctrl-C; what was stored stays.
    """
    accelerator = start_accelerator()
    screen = screen if accelerator.is_main_process else Screen(quiet=True)
    prepared = prepare(config, accelerator, screen)
    warn_if_built_in(config, screen)
    began = time.perf_counter()
    scorer = make_scorer(prepared, accelerator, screen, sharded=True)
    rows = prepared.reference_rows
    with torch.no_grad():  # as the pass that follows
        require_determinism(scorer, check_sequences(rows)[:3], screen)
    _, use = reference_logps(prepared, rows, lambda: scorer, config, accelerator, screen, per_token=per_token)
    seconds = time.perf_counter() - began
    screen.table(
        f"Reference log-probs of {prepared.source.words}",
        ["", "sequences"],
        [
            [f"needed (rows and their mismatched completions{'; tokens of training rows' * per_token})", use.sequences],
            ["from the cache", use.cached],
            ["computed", use.computed],
        ],
    )
    if prepared.source.adapters:
        screen.note("kto train uses them with --lora-r or --continue-adapter; without, it merges the adapter first.")
    screen.say(f"{seconds:.1f} s.   Next: kto train {f'--loss {loss}' if loss != 'kto' else '--beta 0.1'}")
    return {**asdict(use), "seconds": seconds}
