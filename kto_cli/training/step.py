"""One optimizer step over an effective batch: KL pass, gradient pass, update.

The reference point needs the whole effective batch, so a step has two passes: the mismatched completions without
gradient give z_ref, once, over all rows; then the rows give the gradient in as many micro-batches as memory allows.
Per-row numbers are summed into vectors over the effective batch, so every process has the same numbers and computes
the same metrics, however the rows are split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.batches import continuation, pack
from kto_cli.core.losses import LossSettings, kto_losses, reference_point, signs_and_weights
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.core.transfer import to_device
from kto_cli.model.distributed.processes import backward, clip, is_sharded
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.packed_pass import Past


class StepOutput(NamedTuple):
    """Per row of the effective batch, in its order, on the CPU; equal on all processes."""

    log_ratios: Tensor
    """[rows] nats, before the update."""
    mismatched_log_ratios: Tensor
    """[rows] nats."""
    gradient_norm: float
    """Before clipping."""
    interrupted: bool
    """Some process was asked to stop."""


class TrainingEngine(DistributedScorer):
    """A scorer over all processes that also takes optimizer steps; independent of files, configs and the screen."""

    def __init__(
        self, accelerator: Any, scorer: Any, optimizer: Any, *, token_budget: int, max_grad_norm: float
    ) -> None:
        super().__init__(accelerator, scorer, token_budget=token_budget)
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm

    def step(
        self,
        rows: Sequence[EncodedRow],
        references: ReferenceLogps,
        settings: LossSettings,
        *,
        learning_rate: float,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> StepOutput:
        """KL pass, gradient pass, update. Nothing is updated if any number is not finite; the caller checks.

        Where a process's rows fit into one packed micro-batch, the gradient pass starts first and the mismatched
        completions continue the prompts it has just computed; else the KL pass computes them itself.
        """
        own, mismatched_rows = [row.own for row in rows], [row.mismatched for row in rows]
        shares = self.micro_batches(own)
        begun = None
        if self.packs and max(map(len, shares)) == 1:
            begun, logps = self._begin(own, mismatched_rows, shares)
        else:
            logps = self.log_probs(mismatched_rows)
        mismatched = logps - references.mismatched
        point = reference_point(mismatched)
        device = self.accelerator.device
        desirable = to_device(torch.tensor([row.label for row in rows]), device)
        signs, weights = signs_and_weights(desirable, settings, dtype=self.dtype)
        reference, z_ref = (to_device(part, device) for part in (references.own.to(self.dtype), point.value))
        # One more number than rows: whether this process was asked to stop travels with the sum.
        values = self.zeros(len(rows) + 1)
        rounds = list(self.rounds(own, shares))
        indices = self.indices(rounds)
        for number, (positions, counts) in enumerate(rounds):
            last, index = number == len(rounds) - 1, indices[number]
            with self._gradients_synced(last):
                logps = self.scorer(*self.batch([own[position] for position in positions])) if begun is None else begun
                log_ratios = logps - reference[index]
                losses = kto_losses(log_ratios, signs[index], weights[index], z_ref, beta=settings.beta).losses
                # Processes average their gradients; the mean is over the rows of all of them.
                share = self.accelerator.num_processes / len(rows) if counts else 0.0
                backward(self.accelerator, self.scorer, losses.sum() * share, last=last)
            if counts:
                values[index] = log_ratios.detach()
        values[-1] = float(stop_asked())
        values = self.sum(values)
        # An infinite mismatched log-ratio would hide in z_ref's clamp and leave the loss finite.
        norm = self._update(learning_rate, bool(values.isfinite().all() and mismatched.isfinite().all()))
        return StepOutput(values[:-1], mismatched, norm, bool(values[-1] > 0))

    def _begin(
        self, own: Sequence[TokenSequence], mismatched: Sequence[TokenSequence], shares: list[list[list[int]]]
    ) -> tuple[Tensor, Tensor]:
        """The forward half of a gradient pass that is one micro-batch a process, and what continues its prompts.

        Returns:
            (this process's log-probs with gradient, all rows' mismatched log-probs on the CPU).
        """
        device = self.accelerator.device
        ((positions, counts),) = rounds = list(self.rounds(own, shares))
        batch, prompts = pack([own[position] for position in positions])
        past = Past.of(prompts, device)
        logps = self.scorer(*batch.to(device), past)
        values = self.zeros(len(own))
        with torch.no_grad():
            continued = self.scorer(
                *continuation([mismatched[position] for position in positions], prompts).to(device), past
            )
        if counts:
            values[self.indices(rounds)[0]] = continued
        return logps, self.sum(values)

    def _update(self, learning_rate: float, finite: bool) -> float:
        """Clips, checks and applies the gradient; returns its norm before clipping."""
        norm = clip(self.accelerator, self.scorer, self.optimizer, self.max_grad_norm or float("inf"))
        if finite and norm == norm and norm != float("inf"):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @contextlib.contextmanager
    def _gradients_synced(self, last: bool) -> Iterator[None]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        # A sharded model's gradients travel with each: keeping them full until the last would undo the sharding.
        at_once = last or is_sharded(self.scorer)
        with contextlib.nullcontext() if at_once else self.accelerator.no_sync(self.scorer):
            yield
