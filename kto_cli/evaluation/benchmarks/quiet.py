"""Runs lm-eval quietly and without side effects: messages collected, the model and random numbers restored."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from kto_cli.common.screen import stdout_kept_free

ALLOWS_CODE = "HF_ALLOW_CODE_EVAL"
"""The variable without which Hugging Face's code_eval refuses to execute anything."""
BARS = ("lm_eval.api.task", "lm_eval.api.model", "lm_eval.models.huggingface")
"""Modules with a progress bar."""


class _Collected(logging.Handler):
    """Collects messages instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def quiet() -> Iterator[list[str]]:
    """lm-eval's warnings go into the list given, its prints to stderr, its progress bars to a terminal or nowhere."""
    from transformers.utils import logging as transformers_logging

    collected, logger, level = _Collected(), logging.getLogger("lm_eval"), transformers_logging.get_verbosity()
    before = (logger.handlers[:], logger.propagate, logger.level)
    transformers_logging.set_verbosity_error()
    logger.handlers, logger.propagate = [collected], False
    logger.setLevel(logging.WARNING)
    try:
        with stdout_kept_free(), warnings.catch_warnings(), _bars_on_terminals_only():
            warnings.simplefilter("ignore")
            yield collected.messages
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
        transformers_logging.set_verbosity(level)


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """lm-eval draws its bars into files too; `disable=None` is tqdm's way to draw them on terminals alone."""
    from datasets import disable_progress_bars, enable_progress_bars
    from datasets.utils import are_progress_bars_disabled
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **{**options, "disable": options.get("disable") or None})

    modules = []
    with suppress(ImportError):  # not needed while only the index is read
        modules = [import_module(name) for name in BARS]
    before, datasets_quiet = [module.tqdm for module in modules], are_progress_bars_disabled()
    for module in modules:
        module.tqdm = Bar  # type: ignore[attr-defined]
    disable_progress_bars()
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.tqdm = own  # type: ignore[attr-defined]
        if not datasets_quiet:
            enable_progress_bars()


@contextmanager
def code_allowed(allowed: bool) -> Iterator[None]:
    """Allows Hugging Face's code_eval to execute code, or forbids it, whatever the environment had before."""
    before = os.environ.pop(ALLOWS_CODE, None)
    if allowed:
        os.environ[ALLOWS_CODE] = "1"
    try:
        yield
    finally:
        os.environ.pop(ALLOWS_CODE, None)
        if before is not None:
            os.environ[ALLOWS_CODE] = before


@contextmanager
def as_before(model: Any, seed: int) -> Iterator[None]:
    """Random numbers start at `seed`; on exit their state and the model's training mode are restored."""
    import numpy as np
    import torch

    python, numpy, training = random.getstate(), np.random.get_state(), model.training
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            model.train(training)
            random.setstate(python)
            np.random.set_state(numpy)
