"""A few real steps of a run at learning rate 0: their time, memory and noise."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.errors import Diverged
from kto_cli.common.screen import Screen
from kto_cli.core.logps import GPU_TILE, TILE
from kto_cli.model.distributed.processes import unwrapped_optimizer
from kto_cli.model.logprobs.prepare import Prepared
from kto_cli.model.tokens.store import EncodedRows
from kto_cli.model.tokens.validation_rows import ValidationRows
from kto_cli.training.checks import refuse_nonfinite
from kto_cli.training.dry_run import estimate
from kto_cli.training.dry_run.workload import row_tokens, step_tokens
from kto_cli.training.loop import Run
from kto_cli.training.planned import repeated_batches
from kto_cli.training.run.model_folder import belonging_files
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.settings import RunSettings
from kto_cli.training.setup import set_up

TYPICAL_STEPS = 2
"""Timed steps, after the one that measures memory (it also warms up)."""


@dataclass(frozen=True)
class Probe:
    """Measurements of a few real steps."""

    cost: int
    """Cost of the timed steps in forward tokens."""
    seconds: float
    noise_floor: float | None
    """Largest log-ratio of a row, nats: the weights are the reference's; None with another --reference."""
    memory: dict[str, int]
    """Bytes by part."""
    packed: bool
    """Micro-batches are packed."""


def take_probe(
    prepared: Prepared, settings: RunSettings, accelerator: Any, screen: Screen
) -> tuple[Probe | None, list[str]]:
    """The measurements, or the problems that prevent them."""
    longest, typical = _batches_to_probe(prepared, settings)
    chosen = [row for batch in (longest, *typical) for row in batch]
    few = replace(prepared, train=prepared.train.take(chosen), validated=ValidationRows.alike(EncodedRows()))
    try:
        this_run = set_up(
            few, settings, RunDir(Path(settings.config.out)), accelerator, screen, what="of the few steps timed now"
        )
        prepared.token_budget = this_run.engine.token_budget  # --micro-batch-tokens auto was tried
        needed = 3 * bytes_of(learning(this_run.model)) + (this_run.synced.bytes if this_run.synced else 0)
        if problems := estimate.problems_of_space(
            needed, free_memory(accelerator.device), "memory for gradients and AdamW's two moments"
        ):
            return None, problems
        with screen.progress("a step at learning rate 0", 1), (saved := SavedForBackward(this_run.model.parameters())):
            _step(this_run, slice(0, len(longest)))
            screen.tick()
        seconds, noise = _timed(this_run, len(longest), [len(batch) for batch in typical])
    except torch.OutOfMemoryError:
        return None, ["the memory is exceeded by its longest batch (try a smaller --micro-batch-tokens)"]
    except Diverged as error:
        return None, [error.what.removesuffix(".")]
    packed = this_run.engine.packs
    costs = [
        estimate.step_cost(*step_tokens(prepared.train.take(batch), settings, prepared.token_budget, packed=packed))
        for batch in typical
    ]
    noise_floor = noise if this_run.starts_at_reference else None
    return Probe(sum(costs), seconds, noise_floor, _memory(this_run, saved.most), packed), []


def _batches_to_probe(prepared: Prepared, settings: RunSettings) -> tuple[list[int], list[list[int]]]:
    """The rows of the step with the most tokens, and those of the steps in the middle."""
    tokens = row_tokens(prepared.train, settings)
    batches = [batch for _, batch in repeated_batches(prepared.train, settings)]
    batches.sort(key=lambda batch: int(tokens[batch].sum()))
    middle = max(0, (len(batches) - TYPICAL_STEPS) // 2)
    return batches[-1], batches[middle : middle + TYPICAL_STEPS]


def _timed(this_run: Run, start: int, sizes: list[int]) -> tuple[float, float]:
    """Steps over the rows from `start` on, so many each: seconds of all, largest log-ratio."""
    seconds = noise = 0.0
    for size in sizes:
        began = time.perf_counter()
        noise = max(noise, _step(this_run, slice(start, start + size)))
        seconds += time.perf_counter() - began
        start += size
    return seconds, noise


def _step(this_run: Run, span: slice) -> float:
    """One step that changes no weight; returns the largest log-ratio.

    Raises:
        Diverged: a number is not finite.
    """
    settings, rows = this_run.settings, list(this_run.rows[span])
    output = this_run.engine.step(
        rows,
        this_run.references.take(span),
        settings.loss,
        learning_rate=0.0,
    )
    refuse_nonfinite(output, rows, step=1, directory=this_run.directory)
    return torch.cat([output.log_ratios, output.mismatched_log_ratios]).abs().max().item()


def _memory(this_run: Run, activations: int) -> dict[str, int]:
    parameters = list(this_run.model.parameters())
    optimizer = unwrapped_optimizer(this_run.engine.optimizer)
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    reference = {} if this_run.synced is None else {"reference": this_run.synced.bytes}
    return estimate.memory_parts(
        **reference,
        weights=bytes_of(parameters),
        gradients=bytes_of(learning(this_run.model)),
        optimizer=bytes_of(states),
        activations=activations,
        logits_tile=logits_tile_bytes(this_run.model),
    )


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, memory that several share counted once."""
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def learning(model: Any) -> list[Tensor]:
    """The parameters that have gradients."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


class SavedForBackward(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps from a forward pass for its backward pass; `most` is the largest count.

    Tensors that share memory count once. The count starts anew with the first tensor kept after a backward pass began:
    that is the next micro-batch. The `weights`, which are there anyway, do not count.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__(self._keep, self._give_back)
        self.most = 0
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._seen: set[int] = set()
        self._bytes = 0
        self._backward = False

    def _keep(self, tensor: Tensor) -> Tensor:
        if self._backward:
            self._seen, self._bytes, self._backward = set(), 0, False
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self._bytes += storage.nbytes()
            self.most = max(self.most, self._bytes)
        return tensor.detach()  # the tensor itself would keep its own graph alive

    def _give_back(self, tensor: Tensor) -> Tensor:
        self._backward = True
        return tensor


def logits_tile_bytes(model: Any) -> int:
    """Logits that are held at once, float32, and their gradient."""
    return 2 * 4 * (GPU_TILE if model.device.type == "cuda" else TILE)


def tokenizer_bytes(folder: Path) -> int:
    """The files beside the weights that a checkpoint holds too."""
    kept = {*folder.glob("*.json"), *folder.glob("*.jinja"), *belonging_files(folder)}
    return sum(path.stat().st_size for path in kept if path.is_file())


def free_memory(device: torch.device) -> int:
    """Bytes a process can still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
