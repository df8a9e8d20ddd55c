"""One optimizer step of offline PPO: values without gradient, advantages of the whole batch, gradient pass, update.

The loss is a mean over completion tokens (core/offline_ppo.py), so that numbers of single tokens, one row after the
other, take the place of the rows' in step.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.losses import label_signs
from kto_cli.core.objectives import Context, RunningMean
from kto_cli.core.offline_ppo import Counts, Tokens, measures, part_of_loss, targets
from kto_cli.core.ragged import Ragged
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.core.transfer import to_device
from kto_cli.model.distributed.processes import backward, unwrapped
from kto_cli.model.scorer import CompletionScorer
from kto_cli.model.value_head import MAX_GRAD_NORM, ValueHead
from kto_cli.training.step import StepInput, StepOutput, TrainingEngine


class _Pass(NamedTuple):
    """A micro-batch's completion tokens, with gradient; each [predicted]."""

    logps: Tensor
    values: Tensor
    places: Tensor
    """Where each is among the tokens of all rows."""


class OfflinePPOEngine(TrainingEngine):
    """An engine whose scorer has a value head."""

    def passes(self, asked: StepInput) -> tuple[StepOutput, bool]:
        """Values, advantages, gradient pass; as `TrainingEngine.passes`.

        Where a process's rows fit into one micro-batch, its gradient pass gives the values.
        """
        rows, references, settings = asked.rows, asked.references, asked.settings
        assert references.tokens is not None
        own, device, starts = asked.own, self.accelerator.device, references.tokens.starts
        rounds = list(self.rounds(own, shares := self.micro_batches(own)))
        begun = self._pass(own, rounds[0][0], starts) if max(map(len, shares)) == 1 else None
        values = self._values(own, rounds, starts, begun)
        batch = _tokens(rows, references.tokens, values, settings)
        counts = Counts(len(batch.logps), int(batch.desirable.sum()))
        here = Tokens(*(to_device(part, device) for part in batch))
        # One more number than tokens: whether this process was asked to stop travels with the sum.
        logps = self.zeros(counts.tokens + 1)
        for number, (positions, counted) in enumerate(rounds):
            last = number == len(rounds) - 1
            with self._gradients_synced(last):
                found = self._pass(own, positions, starts) if begun is None else begun
                part = here.take(found.places)._replace(
                    logps=found.logps.to(self.dtype), values=found.values.to(self.dtype)
                )
                # Processes average their gradients; the loss is a mean over the tokens of all of them.
                scale = float(self.accelerator.num_processes if counted else 0)
                loss = part_of_loss(settings, part, counts, scale=scale)
                backward(self.accelerator, self.scorer, loss, last=last)
            if counted:
                logps[found.places] = found.logps.detach().to(self.dtype)
        logps[-1] = float(asked.stop_asked())
        logps = self.sum(logps)
        batch = batch._replace(logps=logps[:-1])
        ratios = Ragged(batch.logps - batch.references, starts).sums().to(self.dtype)
        finite = bool(logps.isfinite().all() and values.isfinite().all())
        given = Context(torch.zeros((), dtype=self.dtype), 0.0, len(rows), float(counts.desirable), RunningMean())
        measured = measures(settings, batch, counts)
        return StepOutput(ratios, self.zeros(0).cpu(), 0.0, bool(logps[-1] > 0), given, measured), finite

    def _pass(self, own: Sequence[TokenSequence], positions: Sequence[int], starts: Tensor) -> _Pass:
        """A forward pass over a micro-batch."""
        batch = self.batch([own[position] for position in positions])
        logps, values = self.scorer(*batch, per_token=True)
        return _Pass(logps, values, self.token_places(batch, positions, starts))

    def _values(
        self,
        own: Sequence[TokenSequence],
        rounds: Sequence[tuple[list[int], bool]],
        starts: Tensor,
        begun: _Pass | None,
    ) -> Tensor:
        """[tokens] the value head's values of all rows, on the CPU; of the gradient pass, if that has begun."""
        values = self.zeros(int(starts[-1]))
        with torch.no_grad():
            for positions, counted in rounds:
                found = self._pass(own, positions, starts) if begun is None else begun
                if counted:
                    values[found.places] = found.values.detach().to(self.dtype)
        return self.sum(values)

    def _clip(self) -> float:
        """The model's gradient as ever, the value head's by itself; returns the model's norm, or one not finite."""
        head = unwrapped(self.scorer).value_head
        of_head = torch.nn.utils.clip_grad_norm_(head.parameters(), MAX_GRAD_NORM)
        apart = {id(parameter) for parameter in head.parameters()}
        others = [each for each in self.scorer.parameters() if each.requires_grad and id(each) not in apart]
        norm = float(torch.nn.utils.clip_grad_norm_(others, self.max_grad_norm or float("inf")))
        return norm if of_head.isfinite() else float(of_head)


def add_value_head(scorer: CompletionScorer, optimizer: torch.optim.Optimizer, *, seed: int) -> None:
    """Gives a scorer a value head, on the model's device, and the optimizer a group of its parameters."""
    width = scorer.model.get_output_embeddings().weight.shape[1]
    scorer.value_head = ValueHead(width, seed=seed).to(next(scorer.model.parameters()).device)
    optimizer.add_param_group({"params": list(scorer.value_head.parameters())})


def _tokens(rows: Sequence[EncodedRow], references: Ragged, values: Tensor, settings: LossSettings) -> Tokens:
    """All completion tokens of the batch without their log-probs (zeros), on the CPU."""
    signs = label_signs(torch.tensor([row.label for row in rows]), dtype=values.dtype)
    advantages, returns = targets(settings, Ragged(values, references.starts), signs)
    desirable = (signs > 0).to(values.dtype).repeat_interleave(references.lengths)
    return Tokens(torch.zeros_like(values), references.values.to(values.dtype), values, advantages, returns, desirable)
