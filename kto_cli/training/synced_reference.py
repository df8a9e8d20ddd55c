"""A reference that moves: every N steps it becomes the policy, or a mix of the policy and itself.

    weights of the reference <- a * the policy's + (1 - a) * the reference's

Until the first time, a step reads the log-probs of the start model in the cache; from then on those of its rows are
computed each step, with a copy of the weights that are trained in the place of the policy's. Which weights a step
compares with follows from its number: after step N the next step reads the new reference. With --humanline it is the
step after that, as in the authors' code: every log-ratio would else be 0 with N = 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kto_cli.common.screen import Screen
from kto_cli.common.words import plural, readable
from kto_cli.core.rows import EncodedRow
from kto_cli.model.logprobs.needed import Needed
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.training.settings import RunSettings

SWAPPED_AT_ONCE = 1 << 25
"""Bytes that are held beside the weights while two copies change places."""


class SyncedReference:
    """The reference's weights, and its log-probs of the rows of a step."""

    def __init__(self, model: Any, settings: RunSettings) -> None:
        self.settings, self.needed = settings, Needed.by(settings.loss)
        self.every, self.mix = settings.config.sync_every or settings.total_steps, settings.config.sync_mix
        self._trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.weights: dict[str, Tensor] = {}
        """Of the reference, by name, of what is trained; empty until the first time that they are needed."""
        if self.mix < 1:
            self._copy()
        self._synced_at = 0
        self._given: tuple[int, ReferenceLogps] | None = None

    def of_step(self, done: int, rows: Sequence[EncodedRow], stored: ReferenceLogps, engine: Any) -> ReferenceLogps:
        """The reference's log-probs of the rows of the step behind `done` others; all processes must call.

        Called again for the same step, as where memory ran out, it gives the same.

        Args:
            stored: of these rows, by the start model.
        """
        if self._given is not None and self._given[0] == done:
            return self._given[1]
        late = self.settings.config.humanline
        if not late:
            self._sync(done)
        found = self._computed(rows, engine) if self.settings.reference_step(done) else stored
        self._given = done, found
        if late:
            self._sync(done)
        return found

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights that a checkpoint holds."""
        self.weights = {name: value.to(self._trained[name], copy=True) for name, value in weights.items()}

    @property
    def bytes(self) -> int:
        """Of the copy."""
        return sum(weight.numel() * weight.element_size() for weight in self._trained.values())

    def _copy(self) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def _sync(self, done: int) -> None:
        """The policy becomes the reference, if it is time; once."""
        if done % self.every or done == self._synced_at:
            return
        self._synced_at = done
        if not self.weights:
            self._copy()
            return
        for name, weight in self._trained.items():
            old = self.weights[name]
            old.copy_(weight if self.mix == 1 else torch.lerp(old.float(), weight.float(), self.mix))

    def _computed(self, rows: Sequence[EncodedRow], engine: Any) -> ReferenceLogps:
        """Log-probs by the reference's weights, rounded as the policy's are."""
        count, own = len(rows), [row.own for row in rows]
        sequences = own + ([row.mismatched for row in rows] if self.needed.mismatched else [])
        with self._in_place(), engine.rounded:
            if self.needed.tokens:
                tokens = engine.token_log_probs(sequences)
                logps, parts = tokens.sums(), [tokens.take(slice(count))]
                parts += [tokens.take(slice(count, None))] if self.needed.mismatched else []
            else:
                logps, parts = engine.log_probs(sequences), []
        missing = torch.full((2 * count - len(logps),), torch.nan, dtype=logps.dtype)
        return ReferenceLogps(*torch.cat([logps, missing]).split(count), *parts)

    @contextlib.contextmanager
    def _in_place(self) -> Iterator[None]:
        """A context in which the model has the reference's weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """The policy's weights and the reference's change places, in their own memory: whatever holds on to a weight
        (the optimizer, wrappers, compiled layers) sees one tensor throughout."""
        device = next(iter(self._trained.values())).device
        held = torch.empty(SWAPPED_AT_ONCE, dtype=torch.uint8, device=device)
        for name, weight in self._trained.items():
            both = (tensor.detach().view(-1).view(torch.uint8) for tensor in (weight, self.weights[name]))
            parts = (part.split(SWAPPED_AT_ONCE) for part in both)
            for one, other in zip(*parts, strict=True):
                kept = held[: len(one)].copy_(one)
                one.copy_(other)
                other.copy_(kept)


def synced_reference(model: Any, settings: RunSettings, screen: Screen) -> SyncedReference | None:
    """The moving reference of a run, with a note on what it costs; None where it stays what it is."""
    config = settings.config
    if config.sync_every is None:
        return None
    when = "step" if config.sync_every == 1 else plural(config.sync_every, "step")
    if not settings.steps_moved:
        screen.note(f"The reference stays: it would move every {when}, and the run has {settings.total_steps}.")
        return None
    found = SyncedReference(model, settings)
    how = "becomes the policy" if found.mix == 1 else f"becomes {found.mix:g} of the policy and the rest of itself"
    late = ", which the step after the next reads" if config.humanline else ""
    what = "rows and mismatched completions" if found.needed.mismatched else "rows"
    screen.note(
        f"The reference {how} every {when}{late}: a second copy of what is trained ({readable(found.bytes)}), and a "
        f"forward pass over the {what} of each step after that. Validation compares with the model given at first."
    )
    return found
