"""transformers' manager of continuous batching: its attention, sizes and noise."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kto_cli.evaluation.answers.noise import perturbed, seeds_tensor
from kto_cli.evaluation.answers.padded import plainly
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Question

PAGE = 32
"""Tokens in a page of the key-value cache."""
DENSE, FLASH = (32, 1024), (256, 8192)
"""Concurrent answers, and tokens of one step, prompts included. Without flash attention every token of a step attends
over the keys of all answers, behind a mask, so more at once cost more."""
MASK_BYTES = 256 * 2**20
"""Limit of that mask: [tokens of a step, keys of all answers]."""
_LEAST_TOKENS = 128
"""A step of fewer tokens is slower than fewer answers at once."""
_LOGGER = "ContinuousBatchingLogger"


def flash_attention(model: Any) -> str | None:
    """Name of an installed flash attention that a model can use where it is, or None."""
    if model.device.type != "cuda" or model.dtype not in (torch.bfloat16, torch.float16):
        return None
    if not getattr(model, "_supports_flash_attn", False):
        return None
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    found = {"flash_attention_3": is_flash_attn_3_available, "flash_attention_2": is_flash_attn_2_available}
    return next((name for name, is_available in found.items() if is_available()), None)


@contextmanager
def manager_of(
    subject: AnsweringModel,
    questions: Sequence[Question],
    decoding: Decoding,
    watch: Callable[[Tensor, Tensor], None] | None,
) -> Iterator[Any]:
    """A running manager; on exit it is stopped and the model's attention restored.

    Raises:
        Exception: what transformers cannot do with this model.
    """
    model = subject.model()
    attention = model.config._attn_implementation
    with plainly(model, subject, decoding.max_new_tokens) as settings, _silent(), _little_to_collect():
        manager = None
        try:
            if flash := flash_attention(model):
                model.set_attn_implementation(flash)
            manager = model.init_continuous_batching(
                generation_config=settings, continuous_batching_config=sizes(model, questions, decoding)
            )
            if not decoding.greedy:
                manager.logit_processor = _processors(decoding, watch)
            manager.start()
            yield manager
        finally:
            if manager is not None and manager._generation_thread is not None:
                manager.stop(block=True, hard_stop=True)
                manager.destroy()
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)


def sizes(model: Any, questions: Sequence[Question], decoding: Decoding) -> Any:
    """Cache sizes for the concurrent answers: the default reserves most of the memory, which on a CPU takes longer than
    a few hundred answers. No CUDA graphs: the noise is drawn by Python, which a graph would not repeat."""
    from transformers import ContinuousBatchingConfig

    most, tokens = DENSE if flash_attention(model) is None else FLASH
    lengths = sorted((len(question.tokens) + decoding.max_new_tokens for question in questions), reverse=True)
    pages = [-(-length // PAGE) + 1 for length in lengths[:most]]
    if flash_attention(model) is None:
        pages, tokens = _within_mask(pages, tokens, model)
    known = {field.name for field in dataclasses.fields(ContinuousBatchingConfig)}
    wanted: dict[str, Any] = {
        "page_size" if "page_size" in known else "block_size": PAGE,  # renamed in 5.18
        "num_blocks": sum(pages),
        "max_batch_tokens": tokens,
        "max_requests_per_batch": len(pages),
        "use_cuda_graph": False,
        "use_async_batching": False,
        "auto_switch_to_flash": False,  # `manager_of` has chosen
    }
    return ContinuousBatchingConfig(**{name: value for name, value in wanted.items() if name in known})


def _within_mask(pages: list[int], tokens: int, model: Any) -> tuple[list[int], int]:
    """The pages of as many answers, longest first, and tokens of a step as `MASK_BYTES` hold."""
    kinds = len(set(getattr(model.config.get_text_config(), "layer_types", None) or [None]))
    size = kinds * model.dtype.itemsize
    while True:
        fitting = min(tokens, MASK_BYTES // (size * (sum(pages) * PAGE + tokens)))
        if fitting >= min(tokens, _LEAST_TOKENS) or len(pages) == 1:
            return pages, max(1, fitting, len(pages))
        pages = pages[: len(pages) // 2]


def _processors(decoding: Decoding, watch: Callable[[Tensor, Tensor], None] | None) -> Any:
    """The noise as a logits processor with one argument per request; defined here, as transformers is imported late."""
    from transformers import LogitsProcessorList
    from transformers.generation.continuous_batching.cb_logits_processors import (
        ContinuousBatchingLogitsProcessor,
        ContinuousBatchingLogitsProcessorList,
    )

    class Draw(ContinuousBatchingLogitsProcessor):
        """Adds each request's noise for the position that comes next."""

        def __init__(self) -> None:
            self.supported_kwargs = {"noise_seed": int}
            self.ignored_kwargs = ()

        def fill_defaults(self, int32_tensor: Tensor) -> None:
            int32_tensor.zero_()

        def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> Tensor:
            """[requests] int32; by now `position_offset` counts the tokens of this step too."""
            states = [request.state for request in requests_with_new_token]
            seeds = [state.logit_processor_kwargs.get("noise_seed", 0) for state in states]
            return seeds_tensor(seeds, [state.position_offset for state in states])

        def __call__(self, scores: Tensor, tensor_arg: Tensor) -> Tensor:
            seeds = tensor_arg[: scores.shape[0]]
            if watch is not None:
                watch(scores, seeds)
            return perturbed(scores, seeds, temperature=decoding.temperature, top_p=decoding.top_p)

    processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([Draw()]))
    processors.tensors_required = 1  # it counts only those it has converted itself
    return processors


@contextmanager
def _little_to_collect() -> Iterator[None]:
    """Excludes existing objects from garbage collection, which transformers runs at each start and stop and which would
    take most of a small model's time."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _silent() -> Iterator[None]:
    """Silences the log of transformers' batching: its errors are raised here."""
    logger = logging.getLogger(_LOGGER)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
