"""Token sequences, rows, and the padded tensors a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TokenSequence(NamedTuple):
    """A prompt and a completion in token ids, joined at a token boundary."""

    prompt: tuple[int, ...]
    """At least one token: the first completion token is predicted from it."""
    completion: tuple[int, ...]
    """At least one token; ends with end-of-sequence unless it was cut."""

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.completion)


class EncodedRow(NamedTuple):
    """A row in tokens, with the mismatched pair that belongs to it."""

    id: str
    label: bool
    """True is desirable."""
    own: TokenSequence
    mismatched: TokenSequence
    """The row's prompt with the completion of a row that has another prompt."""
    prompt_id: str
    pair_id: str | None = None


class PaddedBatch(NamedTuple):
    """Right-padded sequences. Causal attention never looks right, so no mask is needed for what is real."""

    input_ids: Tensor
    """[batch, time] int64."""
    position_ids: Tensor
    """[1, time] int64: 0, 1, 2 ... for every sequence."""
    rows: Tensor
    """[predicted] int64: the sequence each completion token belongs to."""
    times: Tensor
    """[predicted] int64: the position whose output predicts it (one before the token)."""
    targets: Tensor
    """[predicted] int64: the completion tokens, sequence by sequence."""

    def to(self, device: torch.device) -> PaddedBatch:
        """The same batch on another device."""
        return PaddedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def pad(sequences: Sequence[TokenSequence], *, pad_id: int = 0) -> PaddedBatch:
    """Right-pads sequences into one batch; `pad_id` is any valid token id, its output is never read."""
    time = max(sequence.length for sequence in sequences)
    input_ids = torch.full((len(sequences), time), pad_id, dtype=torch.int64)
    rows: list[int] = []
    times: list[int] = []
    targets: list[int] = []
    for index, (prompt, completion) in enumerate(sequences):
        input_ids[index, : len(prompt) + len(completion)] = torch.tensor(prompt + completion)
        rows += [index] * len(completion)
        times += range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        targets += completion
    return PaddedBatch(
        input_ids, torch.arange(time)[None], torch.tensor(rows), torch.tensor(times), torch.tensor(targets)
    )
