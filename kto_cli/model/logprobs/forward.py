"""Log-probs of many sequences, in micro-batches over all processes of a launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from kto_cli.core.batches import Batch, micro_batches, pack, pad
from kto_cli.core.packing import missing_runs, padded_batches
from kto_cli.core.prefix_order import lengths_of, prefix_order
from kto_cli.core.ragged import Ragged, spans
from kto_cli.core.rows import TokenSequence
from kto_cli.core.transfer import to_device
from kto_cli.model.distributed.processes import unwrapped
from kto_cli.model.packed_pass import Past
from kto_cli.model.tokens.store import Sequences


class DistributedScorer:
    """A `CompletionScorer` applied to any number of sequences; independent of files, configs and the screen."""

    def __init__(self, accelerator: Any, scorer: Any, *, token_budget: int) -> None:
        self.accelerator = accelerator
        self.scorer = scorer
        self.token_budget = token_budget
        self.dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64

    @property
    def packs(self) -> bool:
        """Whether micro-batches are packed."""
        return bool(unwrapped(self.scorer).packs)

    def log_probs(
        self,
        sequences: Sequence[TokenSequence],
        *,
        batches: Sequence[list[int]] | None = None,
        done: Callable[[list[int], Tensor], None] = lambda positions, logps: None,
        score: Callable[[Batch, Sequence[int]], Tensor] | None = None,
    ) -> Tensor:
        """Summed completion log-probs without gradient: [sequences] on the CPU, equal on all processes.

        Args:
            batches: positions that make a micro-batch; by default, the most even assignment to processes.
            done: called by each process with what it has just computed.
            score: gives the log-probs of a micro-batch and its positions; default: the scorer's.
        """
        score = score or self.score
        values = self.zeros(len(sequences))
        with torch.no_grad():
            rounds = list(self.rounds(sequences, self._shares(sequences, batches)))
            for (positions, counts), index in zip(rounds, self.indices(rounds), strict=True):
                logps = score(self.batch([sequences[position] for position in positions]), positions)
                if counts:
                    values[index] = logps
                    done(positions, logps)
        return self.sum(values)

    def score(self, batch: Batch, positions: Sequence[int], past: Past | None = None) -> Tensor:
        """[sequences] summed completion log-probs of a micro-batch; `past` as of the scorer."""
        logps: Tensor = self.scorer(*batch, past)
        return logps

    def token_log_probs(
        self,
        sequences: Sequence[TokenSequence],
        *,
        batches: Sequence[list[int]] | None = None,
        done: Callable[[list[int], Ragged], None] = lambda positions, logps: None,
    ) -> Ragged:
        """Log-probs of single completion tokens without gradient, on the CPU, equal on all processes.

        Args:
            batches, done: as of `log_probs`.
        """
        found = self.ragged_zeros(sequences)
        with torch.no_grad():
            for positions, counts in self.rounds(sequences, self._shares(sequences, batches)):
                some = [sequences[position] for position in positions]
                batch = self.batch(some)
                logps, _ = self.scorer(*batch, per_token=True)
                if counts:
                    here = self.ragged_zeros(some)
                    here.values[self.token_places(batch, range(len(some)), here.starts)] = logps.to(self.dtype)
                    index = spans(found.starts[positions], here.lengths)
                    found.values[to_device(index, here.values.device)] = here.values
                    done(positions, here._replace(values=here.values.cpu()))
        return found._replace(values=self.sum(found.values))

    def token_places(self, batch: Batch, positions: Sequence[int], starts: Tensor) -> Tensor:
        """[predicted] where each completion token of a micro-batch is among those of all sequences.

        Args:
            positions: of its sequences. starts: as of a `Ragged` of all sequences.
        """
        rows, counts = batch.rows.unique_consecutive(return_counts=True)
        return spans(to_device(starts[list(positions)], batch.rows.device)[rows], counts)

    def ragged_zeros(self, sequences: Sequence[TokenSequence]) -> Ragged:
        """A zero for each completion token, on the device; its `starts` on the CPU."""
        lengths = torch.tensor([len(sequence.completion) for sequence in sequences], dtype=torch.int64)
        return Ragged.of(self.zeros(int(lengths.sum())), lengths)

    def _shares(self, sequences: Sequence[TokenSequence], batches: Sequence[list[int]] | None) -> list[list[list[int]]]:
        """For each process its micro-batches; `batches` as of `log_probs`."""
        if batches is None:
            return self.micro_batches(sequences)
        world = self.accelerator.num_processes
        return [list(batches[rank::world]) for rank in range(world)]

    def repeatable_batches(self, sequences: Sequences, missing: Tensor) -> list[list[int]]:
        """Micro-batches of the sequences that are missing, [missing] indices.

        They depend on the sequences alone, so an interrupted pass is resumed with the same ones and ends with the same
        bits.
        """
        if self.packs:
            wanted = numpy.isin(numpy.arange(len(sequences)), missing.numpy()).tolist()
            return missing_runs(prefix_order(sequences), self.token_budget, wanted)
        parts = padded_batches((sequences.take(missing.numpy()).lengths - 1).tolist(), self.token_budget)
        return [missing[part].tolist() for part in parts]

    def micro_batches(
        self, sequences: Sequence[TokenSequence], partners: Sequence[int] | None = None
    ) -> list[list[list[int]]]:
        """For each process its micro-batches, lists of positions in `sequences`; `partners` as of `micro_batches`."""
        return micro_batches(
            sequences,
            token_budget=self.token_budget,
            ranks=self.accelerator.num_processes,
            packed=self.packs,
            partners=partners,
        )

    def batch(self, sequences: Sequence[TokenSequence]) -> Batch:
        """One micro-batch as tensors on the device."""
        return (pack(sequences)[0] if self.packs else pad(sequences)).to(self.accelerator.device)

    def rounds(
        self, sequences: Sequence[TokenSequence], shares: list[list[list[int]]]
    ) -> Iterator[tuple[list[int], bool]]:
        """This process's micro-batches: (positions, whether they count).

        All processes run equally many rounds, since each may contain a collective operation; one with less
        to do repeats the shortest sequence and does not count it.
        """
        mine, rounds = shares[self.accelerator.process_index], max(map(len, shares))
        for positions in mine:
            yield positions, True
        if len(mine) < rounds:
            lengths = lengths_of(sequences)
            for _ in range(rounds - len(mine)):
                yield [lengths.index(min(lengths))], False

    def indices(self, rounds: Sequence[tuple[list[int], bool]]) -> Sequence[Tensor]:
        """Positions of each round on the device, in one transfer; a list as an index would be one each, waited for."""
        flat = torch.tensor([position for positions, _ in rounds for position in positions])
        return to_device(flat, self.accelerator.device).split([len(positions) for positions, _ in rounds])

    def zeros(self, count: int) -> Tensor:
        """[count] zeros on the device, in the type of summed log-probs."""
        return torch.zeros(count, dtype=self.dtype, device=self.accelerator.device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="sum")
        return values.cpu()
