"""Input tensors of a model: padded batches, and packed batches in which a shared prompt appears once.

A packed batch is one long sequence. Each prompt is followed by its first completion; further completions of the same
prompt come after that and attend to the prompt and themselves only. A `PackedLayout` describes who attends to whom, not
a mask: attention (model/attention.py) runs segment by segment, so nothing is computed for pairs of tokens that do not
see each other. The last token of a completion predicts nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.packing import assign, packed_batches, padded_batches
from kto_cli.core.rows import TokenSequence


class Segment(NamedTuple):
    """Consecutive tokens; each attends to the prefix and to the tokens before it in the segment."""

    start: int
    stop: int
    prefix: tuple[int, int] = (0, 0)
    """(start, stop) of the prompt that the segment continues; empty if the segment begins with its own prompt."""


class PackedLayout(NamedTuple):
    """Segments of a packed batch, in order and without gaps."""

    segments: tuple[Segment, ...]
    continues: bool = False
    """Prefixes refer to the previous batch (`continuation`), not to this one."""


class Batch(NamedTuple):
    """Input of one forward pass."""

    input_ids: Tensor
    """[batch, time] int64; batch is 1 in a packed one."""
    position_ids: Tensor
    """[1, time] int64: position of each token in its own sequence."""
    output_positions: Tensor
    """[predicted] int64: index into [batch * time] of the output that predicts each completion token. In a
    continuation, the prompts' last outputs in the previous batch come first, then the outputs of this batch."""
    rows: Tensor
    """[predicted] int64: index of the sequence that each completion token belongs to."""
    targets: Tensor
    """[predicted] int64: the completion tokens."""
    size: int
    """Number of sequences."""
    layout: PackedLayout | None = None
    """None: padded on the right, which causal attention ignores."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)


class SequenceLengths(NamedTuple):
    """Lengths and prompts of sequences, without their tokens: enough to form micro-batches."""

    prompts: Sequence[Hashable]
    """[sequences] values that are equal where the prompts are."""
    prompt_lengths: Sequence[int]
    """[sequences] tokens."""
    completion_lengths: Sequence[int]
    """[sequences] tokens."""


def sequence_lengths(sequences: Sequence[TokenSequence]) -> SequenceLengths:
    """Lengths of sequences in memory, or of stored sequences that know theirs."""
    stored: SequenceLengths | None = getattr(sequences, "sequence_lengths", None)
    return stored or SequenceLengths(
        [sequence.prompt for sequence in sequences],
        [len(sequence.prompt) for sequence in sequences],
        [len(sequence.completion) for sequence in sequences],
    )


class PromptGroup(NamedTuple):
    """Sequences with the same prompt."""

    members: tuple[int, ...]
    """Indices of the sequences."""
    size: int
    """Tokens to compute when packed."""


def prompt_groups(lengths: SequenceLengths, *, max_tokens: int | None = None) -> list[PromptGroup]:
    """Groups sequences by prompt, in order of appearance.

    Args:
        max_tokens: a larger group is split, and its prompt is computed once in each part.
    """
    by_prompt: dict[Hashable, list[int]] = {}
    for index, prompt in enumerate(lengths.prompts):
        by_prompt.setdefault(prompt, []).append(index)
    groups = []
    for members in by_prompt.values():
        prompt_length = lengths.prompt_lengths[members[0]]
        sizes = [lengths.completion_lengths[member] - 1 for member in members]
        parts = [list(range(len(members)))]
        if max_tokens is not None and prompt_length + sum(sizes) > max_tokens:
            parts = packed_batches(sizes, max_tokens - prompt_length)
        for part in parts:
            size = prompt_length + sum(sizes[index] for index in part)
            groups.append(PromptGroup(tuple(members[index] for index in part), size))
    return groups


def micro_batches(
    lengths: SequenceLengths, *, token_budget: int, ranks: int = 1, packed: bool
) -> list[list[list[int]]]:
    """Assigns sequences to processes and forms each process's micro-batches.

    Args:
        token_budget: most tokens of a micro-batch, padding included. packed: packed or padded batches.

    Returns:
        For each process its micro-batches, lists of indices. A process may get none.
    """
    if packed:
        pieces = [(group.members, group.size) for group in prompt_groups(lengths, max_tokens=token_budget)]
    else:
        both = zip(lengths.prompt_lengths, lengths.completion_lengths, strict=True)
        pieces = [((index,), prompt + completion - 1) for index, (prompt, completion) in enumerate(both)]
    sizes = [size for _, size in pieces]
    into_batches = packed_batches if packed else padded_batches
    shares = []
    for share in assign(sizes, ranks):
        batches = into_batches([sizes[piece] for piece in share], token_budget)
        shares.append([[index for piece in batch for index in pieces[share[piece]][0]] for batch in batches])
    return shares


class _Builder:
    """Collects the tokens and segments of a packed batch."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.output_positions: list[int] = []
        self.rows: list[int] = []
        self.targets: list[int] = []

    def add(self, tokens: Sequence[int], *, first_position: int, prefix: tuple[int, int] = (0, 0)) -> int:
        """Appends a segment and returns its start."""
        start = len(self.tokens)
        if tokens:
            self.tokens += tokens
            self.positions += range(first_position, first_position + len(tokens))
            self.segments.append(Segment(start, len(self.tokens), prefix))
        return start

    def predict(self, row: int, completion: Sequence[int], *, first: int, rest: int) -> None:
        """Records that output `first` predicts a completion's first token, and outputs from `rest` on the others."""
        self.output_positions += [first, *range(rest, rest + len(completion) - 1)]
        self.rows += [row] * len(completion)
        self.targets += completion

    def batch(self, size: int, *, continues: bool = False) -> Batch:
        """The collected lists as tensors."""
        return Batch(
            torch.tensor([self.tokens], dtype=torch.int64),
            torch.tensor([self.positions], dtype=torch.int64),
            torch.tensor(self.output_positions),
            torch.tensor(self.rows),
            torch.tensor(self.targets),
            size,
            PackedLayout(tuple(self.segments), continues),
        )


def pack(sequences: Sequence[TokenSequence]) -> tuple[Batch, dict[tuple[int, ...], tuple[int, int]]]:
    """One packed batch of all sequences, and the (start, stop) of each prompt in it."""
    builder = _Builder()
    prompts: dict[tuple[int, ...], tuple[int, int]] = {}
    for group in prompt_groups(sequence_lengths(sequences)):
        head, *others = group.members
        prompt, completion = sequences[head]
        width = len(prompt)
        start = builder.add(prompt + completion[:-1], first_position=0)
        last = start + width - 1
        prompts[prompt] = (start, start + width)
        builder.predict(head, completion, first=last, rest=start + width)
        for member in others:
            completion = sequences[member].completion
            rest = builder.add(completion[:-1], first_position=width, prefix=prompts[prompt])
            builder.predict(member, completion, first=last, rest=rest)
    return builder.batch(len(sequences)), prompts


def continuation(sequences: Sequence[TokenSequence], prompts: dict[tuple[int, ...], tuple[int, int]]) -> Batch:
    """Batch of further completions of prompts that are in a packed batch; it holds the completion tokens alone.

    Args:
        prompts: the second result of `pack` for that batch; it contains the prompt of each of `sequences`.

    Returns:
        A batch whose `output_positions` count the prompts' last outputs first (in the order of `prompts`), then its own
        tokens. It has at least one token, used or not, because a model rejects an empty batch.
    """
    builder = _Builder()
    last = {prompt: index for index, prompt in enumerate(prompts)}
    for row, (prompt, completion) in enumerate(sequences):
        rest = builder.add(completion[:-1], first_position=len(prompt), prefix=prompts[prompt])
        builder.predict(row, completion, first=last[prompt], rest=len(prompts) + rest)
    if not builder.tokens:
        prompt, completion = sequences[0]
        builder.add(completion, first_position=len(prompt), prefix=prompts[prompt])
    return builder.batch(len(sequences), continues=True)


def pad(sequences: Sequence[TokenSequence], *, pad_id: int = 0) -> Batch:
    """Right-pads sequences into one batch; `pad_id` is any valid token id, whose output is never used."""
    time = max(sequence.length for sequence in sequences) - 1
    input_ids = torch.full((len(sequences), time), pad_id, dtype=torch.int64)
    rows: list[int] = []
    output_positions: list[int] = []
    targets: list[int] = []
    for index, (prompt, completion) in enumerate(sequences):
        tokens = prompt + completion[:-1]
        input_ids[index, : len(tokens)] = torch.tensor(tokens)
        rows += [index] * len(completion)
        output_positions += range(index * time + len(prompt) - 1, index * time + len(tokens))
        targets += completion
    positions = torch.arange(time)[None]
    return Batch(
        input_ids, positions, torch.tensor(output_positions), torch.tensor(rows), torch.tensor(targets), len(sequences)
    )
