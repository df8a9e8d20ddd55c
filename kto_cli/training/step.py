"""One optimizer step over an effective batch: context passes, gradient pass, update.

What a loss takes as given, such as KTO's reference point, needs the whole effective batch, so a step has two passes:
mismatched completions (or the rows themselves) without gradient give it, once, over all rows; then the rows give the
gradient in as many micro-batches as memory allows. What the loss is, the step does not know (core/objectives.py).
Per-row numbers are summed into vectors over the effective batch, so every process has the same numbers and computes
the same metrics, however the rows are split.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.batches import Batch, continuation, pack, parted
from kto_cli.core.loss_kinds import LossSettings, is_custom
from kto_cli.core.losses import signs_and_weights
from kto_cli.core.objectives import (
    Context,
    RunningMean,
    Values,
    coefficients,
    context,
    needs_mismatched,
    needs_own_first,
    part_of_loss,
)
from kto_cli.core.pairs import pairing_of
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.core.transfer import to_device
from kto_cli.model.distributed.processes import backward, clip, is_sharded
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.packed_pass import Past
from kto_cli.model.rounded_weights import RoundedWeights


class StepInput(NamedTuple):
    """What a step is taken over; equal on all processes but for `stop_asked`."""

    rows: Sequence[EncodedRow]
    references: ReferenceLogps
    settings: LossSettings
    running: RunningMean | None
    """Of the steps before, for the reference point `mean-reward`."""
    stop_asked: Callable[[], bool]
    """Whether this process was asked to stop."""

    @property
    def own(self) -> list[TokenSequence]:
        """[rows] prompts with their own completions."""
        return [row.own for row in self.rows]


class StepOutput(NamedTuple):
    """Per row of the effective batch, in its order, on the CPU; equal on all processes."""

    log_ratios: Tensor
    """[rows] nats, before the update."""
    mismatched_log_ratios: Tensor
    """[rows] nats; [0] where the loss does not read them."""
    gradient_norm: float
    """Before clipping."""
    interrupted: bool
    """Some process was asked to stop."""
    given: Context
    """What the loss took as given."""
    measured: dict[str, float] | None = None
    """Numbers of single tokens, among them maybe the loss; None: all follow from the fields above."""


class TrainingEngine(DistributedScorer):
    """A scorer over all processes that also takes optimizer steps; independent of files, configs and the screen."""

    def __init__(
        self,
        accelerator: Any,
        scorer: Any,
        optimizer: Any,
        *,
        token_budget: int,
        max_grad_norm: float,
        rounded: RoundedWeights | None = None,
    ) -> None:
        super().__init__(accelerator, scorer, token_budget=token_budget)
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.rounded = rounded or RoundedWeights()

    def step(
        self,
        rows: Sequence[EncodedRow],
        references: ReferenceLogps,
        settings: LossSettings,
        *,
        learning_rate: float,
        running: RunningMean | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> StepOutput:
        """Context passes, gradient pass, update. Nothing is updated if any number is not finite; the caller checks.

        Args:
            running: of the steps before, for the reference point `mean-reward`.
        """
        with self.rounded:
            output, finite = self.passes(StepInput(rows, references, settings, running, stop_asked))
        return output._replace(gradient_norm=self._update(learning_rate, finite))

    def passes(self, asked: StepInput) -> tuple[StepOutput, bool]:
        """Context passes and gradient pass.

        Where a process's rows fit into one packed micro-batch, the gradient pass starts first: it gives the rows' own
        log-probs, and the mismatched completions continue the prompts it has just computed. Else each pass computes
        them itself.

        Returns:
            (the step's output, its gradient norm left 0; whether all its numbers are finite).
        """
        rows, references, settings, running, stop_asked = asked
        own, device = asked.own, self.accelerator.device
        batch = values_of(rows, references, settings, dtype=self.dtype)
        partners = _partners(batch)
        shares = self.micro_batches(own, partners)
        rounds = list(self.rounds(own, shares))
        # A loss that is no sum over the micro-batches needs all log-probs for each row's gradient.
        coupled = is_custom(settings.loss) or (partners is not None and bool(parted(shares, partners)))
        mismatched_rows = [row.mismatched for row in rows] if needs_mismatched(settings) else []
        one_pass = self.packs and max(map(len, shares)) == 1
        begun, mismatched, logps = self._context_passes(
            own, mismatched_rows, rounds, one_pass=one_pass, own_first=coupled or needs_own_first(settings)
        )
        batch = batch if logps is None else batch._replace(logps=logps)
        mismatched_ratios = mismatched - references.mismatched if mismatched_rows else mismatched
        compared = mismatched_ratios if settings.reference else mismatched / _lengths(mismatched_rows, self.dtype)
        given = context(settings, batch, compared, running)
        slopes = to_device(coefficients(settings, batch, given), device) if coupled else None
        here = Values(*(to_device(part, device) for part in batch))
        held = given._replace(point=to_device(given.point, device))
        # One more number than rows: whether this process was asked to stop travels with the sum.
        values = self.zeros(len(rows) + 1)
        indices = self.indices(rounds)
        for number, (positions, counts) in enumerate(rounds):
            last, index = number == len(rounds) - 1, indices[number]
            with self._gradients_synced(last):
                logps = self._scored(own, positions) if begun is None else begun
                # Processes average their gradients; the loss is a mean over the rows of all of them.
                scale = float(self.accelerator.num_processes if counts else 0)
                if slopes is not None:
                    loss = (slopes[index] * logps).sum() * scale
                else:
                    pairs = _pairs_among(positions, batch, device)
                    part = here.take(index, pairs)._replace(logps=logps)
                    loss = part_of_loss(settings, part, held.of(index), scale=scale)
                backward(self.accelerator, self.scorer, loss, last=last)
            if counts:
                values[index] = (logps - here.references[index]).detach()
                self.note_micro_batch(index)
        values[-1] = float(stop_asked())
        values = self.sum(values)
        # An infinite mismatched log-ratio would hide in z_ref's clamp and leave the loss finite.
        finite = bool(values.isfinite().all() and mismatched_ratios.isfinite().all())
        return StepOutput(values[:-1], mismatched_ratios, 0.0, bool(values[-1] > 0), given), finite

    def _context_passes(
        self,
        own: Sequence[TokenSequence],
        mismatched: Sequence[TokenSequence],
        rounds: Sequence[tuple[list[int], bool]],
        *,
        one_pass: bool,
        own_first: bool,
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """What the loss takes as given, from all rows.

        Returns:
            (this process's log-probs with gradient, if the gradient pass has begun; mismatched log-probs on the CPU,
            [0] without any; the rows' own on the CPU, if they are needed first).
        """
        if one_pass:
            begun, others = self._begin(own, mismatched, rounds)
            return begun, others, self._gathered(begun, rounds, len(own)) if own_first else None
        others = self.log_probs(mismatched, score=self.score_mismatched) if mismatched else self.zeros(0).cpu()
        return None, others, self.log_probs(own, score=self.score_own) if own_first else None

    def _begin(
        self,
        own: Sequence[TokenSequence],
        mismatched: Sequence[TokenSequence],
        rounds: Sequence[tuple[list[int], bool]],
    ) -> tuple[Tensor, Tensor]:
        """The forward half of a gradient pass that is one micro-batch a process, and what continues its prompts.

        Returns:
            (this process's log-probs with gradient, all rows' mismatched log-probs on the CPU; [0] without any).
        """
        device = self.accelerator.device
        (positions, _) = rounds[0]
        batch, prompts = pack([own[position] for position in positions])
        if not mismatched:
            return self.score_own(batch.to(device), positions), self.zeros(0).cpu()
        past = Past.of(prompts, device)
        logps = self.score_own(batch.to(device), positions, past)
        with torch.no_grad():
            others = continuation([mismatched[position] for position in positions], prompts).to(device)
            continued = self.score_mismatched(others, positions, past)
        return logps, self._gathered(continued, rounds, len(own))

    def score_own(self, batch: Batch, positions: Sequence[int], past: Past | None = None) -> Tensor:
        """[rows] log-probs of a micro-batch of some of the step's rows, at these positions."""
        return self.score(batch, positions, past)

    def score_mismatched(self, batch: Batch, positions: Sequence[int], past: Past | None = None) -> Tensor:
        """The same of mismatched completions."""
        return self.score(batch, positions, past)

    def note_micro_batch(self, index: Tensor) -> None:
        """Called behind a micro-batch of the gradient pass that counts; `index`: its rows."""

    def _scored(self, own: Sequence[TokenSequence], positions: Sequence[int]) -> Tensor:
        """[positions] log-probs of these rows."""
        return self.score_own(self.batch([own[position] for position in positions]), positions)

    def _gathered(self, logps: Tensor, rounds: Sequence[tuple[list[int], bool]], count: int) -> Tensor:
        """[count] on the CPU from each process's only micro-batch."""
        values = self.zeros(count)
        if rounds[0][1]:
            values[self.indices(rounds)[0]] = logps.detach()
        return self.sum(values)

    def _update(self, learning_rate: float, finite: bool) -> float:
        """Clips, checks and applies the gradient; returns its norm before clipping."""
        norm = self._clip()
        if finite and norm == norm and norm != float("inf"):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _clip(self) -> float:
        """Clips the gradient; returns its norm before that."""
        return clip(self.accelerator, self.scorer, self.optimizer, self.max_grad_norm or float("inf"))

    @contextlib.contextmanager
    def _gradients_synced(self, last: bool) -> Iterator[None]:
        """Gradients travel between processes once a step, with the last micro-batch."""
        # A sharded model's gradients travel with each: keeping them full until the last would undo the sharding.
        at_once = last or is_sharded(self.scorer)
        with contextlib.nullcontext() if at_once else self.accelerator.no_sync(self.scorer):
            yield


def values_of(
    rows: Sequence[EncodedRow], references: ReferenceLogps, settings: LossSettings, *, dtype: torch.dtype
) -> Values:
    """A batch without its log-probs (zeros), on the CPU; pairs of pair losses alone."""
    labels = [row.label for row in rows]
    signs, weights = signs_and_weights(torch.tensor(labels), settings, dtype=dtype)
    lengths = _lengths([row.own for row in rows], dtype)
    paired = settings.kind.unit == "pair" or is_custom(settings.loss)
    pairs = pairing_of([row.pair_id if paired else None for row in rows], labels).indices(labels)
    return Values(torch.zeros_like(signs), references.own.to(dtype), signs, weights, lengths, *pairs)


def _lengths(sequences: Sequence[TokenSequence], dtype: torch.dtype) -> Tensor:
    return torch.tensor([len(sequence.completion) for sequence in sequences], dtype=dtype)


def _partners(batch: Values) -> list[int] | None:
    """[rows] the other row of each one's pair, -1 without; None where there are no pairs."""
    if not len(batch.winners):
        return None
    partners = torch.full((len(batch.signs),), -1, dtype=torch.int64)
    partners[batch.winners], partners[batch.losers] = batch.losers, batch.winners
    return partners.tolist()


def _pairs_among(positions: list[int], batch: Values, device: torch.device) -> tuple[Tensor, Tensor]:
    """[pairs] indices among `positions` of the pairs of the batch that are in it."""
    if not len(batch.winners):
        return batch.winners, batch.losers
    place = {row: number for number, row in enumerate(positions)}
    both = [(place[up], place[down]) for up, down in zip(*map(Tensor.tolist, batch[5:]), strict=True) if up in place]
    found = torch.tensor(both, dtype=torch.int64).view(-1, 2).T.contiguous()
    return to_device(found[0], device), to_device(found[1], device)
