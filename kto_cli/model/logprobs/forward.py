"""One optimizer step over an effective batch that may be spread over micro-batches and processes.

The reference point needs the whole effective batch, so a step has two passes: the mismatched pairs
without gradient give z_ref, once, over everything; then the rows give the gradient in as many
micro-batches as memory wants. Per-row numbers are summed into vectors over the effective batch, so
every process sees the same batch and computes the same metrics, whatever the split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.batches import Batch, continuation, cut, outline, pack, pad
from kto_cli.core.losses import kto_losses, reference_point, signs_and_weights
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.attention import Past
from kto_cli.model.distributed.processes import backward, clip, is_sharded


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


class References(NamedTuple):
    """Reference log-probs of some rows, nats."""

    own: Tensor
    """[rows]"""
    mismatched: Tensor
    """[rows]"""


class Engine:
    """Drives one scorer; knows nothing of files, configs or the screen."""

    def __init__(
        self, accelerator: Any, scorer: Any, optimizer: Any, *, token_budget: int, max_grad_norm: float
    ) -> None:
        self.accelerator = accelerator
        self.scorer = scorer
        self.optimizer = optimizer
        self.token_budget = token_budget
        self.max_grad_norm = max_grad_norm
        self._dtype = torch.promote_types(next(scorer.parameters()).dtype, torch.float32)

    @property
    def packs(self) -> bool:
        """Whether micro-batches are packed."""
        return bool(getattr(self.scorer, "module", self.scorer).packs)

    def log_probs(
        self,
        sequences: Sequence[TokenSequence],
        *,
        batches: Sequence[list[int]] | None = None,
        done: Callable[[list[int], Tensor], None] = lambda positions, logps: None,
    ) -> Tensor:
        """Summed completion log-probs without gradient: [sequences] on the CPU, equal on all processes.

        Args:
            batches: positions that make a micro-batch; by default, what this launch shares out best.
            done: called by each process with what it has just computed.
        """
        values = self._zeros(len(sequences))
        if batches is None:
            shares = self._cut(sequences)
        else:
            world = self.accelerator.num_processes
            shares = [list(batches[rank::world]) for rank in range(world)]
        with torch.no_grad():
            for positions, counts in self._rounds(sequences, shares):
                logps = self.scorer(*self._batch([sequences[position] for position in positions]))
                if counts:
                    values[positions] = logps
                    done(positions, logps)
        return self._sum(values)

    def step(
        self,
        rows: Sequence[EncodedRow],
        references: References,
        *,
        beta: float,
        lambda_d: float,
        lambda_u: float,
        learning_rate: float,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> StepOutput:
        """KL pass, gradient pass, update. Nothing is updated if any number is not finite; the caller checks.

        Where a process's rows fit into one packed micro-batch, the gradient pass starts first and the mismatched
        completions continue the prompts it has just computed; else the KL pass computes them itself.
        """
        own, borrowed = [row.own for row in rows], [row.mismatched for row in rows]
        shares = self._cut(own)
        begun = None
        if self.packs and max(map(len, shares)) == 1:
            begun, logps = self._begin(own, borrowed, shares)
        else:
            logps = self.log_probs(borrowed)
        mismatched = logps - references.mismatched
        point = reference_point(mismatched)
        device = self.accelerator.device
        desirable = torch.tensor([row.label for row in rows], device=device)
        signs, weights = signs_and_weights(desirable, lambda_d=lambda_d, lambda_u=lambda_u, dtype=self._dtype)
        reference, z_ref = references.own.to(device, self._dtype), point.value.to(device)
        # One more number than rows: whether this process was asked to stop travels with the sum.
        values = self._zeros(len(rows) + 1)
        rounds = list(self._rounds(own, shares))
        for index, (positions, counts) in enumerate(rounds):
            last = index == len(rounds) - 1
            with self._last_syncs(last):
                logps = self.scorer(*self._batch([own[position] for position in positions])) if begun is None else begun
                log_ratios = logps - reference[positions]
                losses = kto_losses(log_ratios, signs[positions], weights[positions], z_ref, beta=beta).losses
                # Processes average their gradients; the mean is over the rows of all of them.
                share = self.accelerator.num_processes / len(rows) if counts else 0.0
                backward(self.accelerator, self.scorer, losses.sum() * share, last=last)
            if counts:
                values[positions] = log_ratios.detach()
        values[-1] = float(stop_asked())
        values = self._sum(values)
        # An infinite pair would hide in z_ref's clamp and leave the loss finite.
        norm = self._update(learning_rate, bool(values.isfinite().all() and mismatched.isfinite().all()))
        return StepOutput(values[:-1], mismatched, norm, bool(values[-1] > 0))

    def _begin(
        self, own: Sequence[TokenSequence], borrowed: Sequence[TokenSequence], shares: list[list[list[int]]]
    ) -> tuple[Tensor, Tensor]:
        """The forward half of a gradient pass that is one micro-batch a process, and what continues its prompts.

        Returns:
            (this process's log-probs with gradient, all rows' mismatched log-probs on the CPU).
        """
        device = self.accelerator.device
        ((positions, counts),) = self._rounds(own, shares)
        batch, prompts = pack([own[position] for position in positions])
        past = Past.of(prompts, device)
        logps = self.scorer(*batch.to(device), past)
        values = self._zeros(len(own))
        with torch.no_grad():
            continued = self.scorer(
                *continuation([borrowed[position] for position in positions], prompts).to(device), past
            )
        if counts:
            values[positions] = continued
        return logps, self._sum(values)

    def _update(self, learning_rate: float, finite: bool) -> float:
        """Clips, checks and applies the gradient; returns its norm before clipping."""
        norm = clip(self.accelerator, self.scorer, self.optimizer, self.max_grad_norm or float("inf"))
        if finite and norm == norm and norm != float("inf"):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _cut(self, sequences: Sequence[TokenSequence]) -> list[list[list[int]]]:
        return cut(
            outline(sequences), token_budget=self.token_budget, ranks=self.accelerator.num_processes, packed=self.packs
        )

    def _batch(self, sequences: Sequence[TokenSequence]) -> Batch:
        return (pack(sequences)[0] if self.packs else pad(sequences)).to(self.accelerator.device)

    def _rounds(
        self, sequences: Sequence[TokenSequence], shares: list[list[list[int]]]
    ) -> Iterator[tuple[list[int], bool]]:
        """This process's micro-batches: (positions, whether they count).

        All processes run equally many rounds, since each may hold a collective operation; one with less
        to do repeats the shortest sequence and does not count it.
        """
        mine, rounds = shares[self.accelerator.process_index], max(map(len, shares))
        for positions in mine:
            yield positions, True
        if len(mine) < rounds:
            of = outline(sequences)
            lengths = [sum(parts) for parts in zip(of.prompt_lengths, of.completion_lengths, strict=True)]
            for _ in range(rounds - len(mine)):
                yield [lengths.index(min(lengths))], False

    @contextlib.contextmanager
    def _last_syncs(self, last: bool) -> Iterator[None]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        # A spread model's gradients travel with each: keeping them whole until the last would undo the spreading.
        at_once = last or is_sharded(self.scorer)
        with contextlib.nullcontext() if at_once else self.accelerator.no_sync(self.scorer):
            yield

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=self._dtype, device=self.accelerator.device)

    def _sum(self, values: Tensor) -> Tensor:
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="sum")
        return values.cpu()
