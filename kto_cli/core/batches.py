"""The tensors a model reads: padded batches, and packed ones in which a shared prompt appears once.

A packed batch is one long sequence. Each prompt is followed by its first completion; further
completions of the same prompt stand behind, and look back to that prompt only. What a token may look at
is a `Layout`, not a mask: attention (attention.py) walks over its segments, so nothing is computed for
pairs of tokens that do not see each other. No token is computed whose output nobody reads: the last one
of a completion predicts nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kto_cli.core.packing import deal, packed_batches, padded_batches
from kto_cli.core.rows import TokenSequence


class Segment(NamedTuple):
    """Tokens that see the ones before them in the segment and, before those, all of a prefix."""

    start: int
    stop: int
    prefix: tuple[int, int] = (0, 0)
    """Where the prompt they continue lies: from, to; empty where the segment begins with its own prompt."""


class Layout(NamedTuple):
    """The segments of a packed batch, in order and without gaps."""

    segments: tuple[Segment, ...]
    continues: bool = False
    """The prefixes lie in the batch computed before this one (`continuation`), not in this one."""


class Batch(NamedTuple):
    """What goes through the model at once."""

    input_ids: Tensor
    """[batch, time] int64; batch is 1 in a packed one."""
    position_ids: Tensor
    """[1, time] int64: of each token in its own sequence."""
    places: Tensor
    """[predicted] int64: the output, counted through [batch * time], that predicts each completion token. In a
    continuation, outputs of the batch before come first, then those of this one."""
    rows: Tensor
    """[predicted] int64: the sequence each completion token belongs to."""
    targets: Tensor
    """[predicted] int64: the completion tokens."""
    size: int
    """Sequences."""
    layout: Layout | None = None
    """None: padded on the right, where causal attention never looks."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("input_ids", "position_ids", "places", "rows", "targets")
        }
        return self._replace(**tensors)


class Outline(NamedTuple):
    """What cutting needs to know of sequences: no tokens."""

    prompts: Sequence[Hashable]
    """[sequences] equal where the prompts are."""
    prompt_lengths: Sequence[int]
    """[sequences] tokens."""
    completion_lengths: Sequence[int]
    """[sequences] tokens."""


def outline(sequences: Sequence[TokenSequence]) -> Outline:
    """Of sequences in memory, or of those that know their own outline."""
    if hasattr(sequences, "outline"):
        return sequences.outline
    return Outline(
        [sequence.prompt for sequence in sequences],
        [len(sequence.prompt) for sequence in sequences],
        [len(sequence.completion) for sequence in sequences],
    )


class Tree(NamedTuple):
    """Sequences with the same prompt."""

    members: tuple[int, ...]
    """Their positions in the list they came from."""
    size: int
    """Tokens to compute when packed."""


def trees(of: Outline, *, most: int | None = None) -> list[Tree]:
    """Groups sequences by prompt, in order of appearance.

    Args:
        most: tokens a tree should not exceed; one that would is split, its prompt computed once in each part.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, prompt in enumerate(of.prompts):
        groups.setdefault(prompt, []).append(position)
    found = []
    for members in groups.values():
        width = of.prompt_lengths[members[0]]
        sizes = [of.completion_lengths[member] - 1 for member in members]
        whole = most is None or width + sum(sizes) <= most
        parts = [list(range(len(members)))] if whole else packed_batches(sizes, (most or 0) - width)
        for part in parts:
            found.append(Tree(tuple(members[place] for place in part), width + sum(sizes[place] for place in part)))
    return found


def cut(of: Outline, *, token_budget: int, ranks: int = 1, packed: bool) -> list[list[list[int]]]:
    """Deals sequences to processes and cuts each one's share into micro-batches.

    Args:
        token_budget: tokens of a micro-batch, padding included. packed: packed batches, else padded ones.

    Returns:
        For each process its micro-batches: positions in the list. A process may get none.
    """
    if packed:
        pieces = [(tree.members, tree.size) for tree in trees(of, most=token_budget)]
    else:
        lengths = zip(of.prompt_lengths, of.completion_lengths, strict=True)
        pieces = [((place,), prompt + completion - 1) for place, (prompt, completion) in enumerate(lengths)]
    sizes = [size for _, size in pieces]
    into_batches = packed_batches if packed else padded_batches
    shares = []
    for hand in deal(sizes, ranks):
        batches = into_batches([sizes[piece] for piece in hand], token_budget)
        shares.append([[place for piece in batch for place in pieces[hand[piece]][0]] for batch in batches])
    return shares


class _Builder:
    """Collects the lists that become a packed batch."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.places: list[int] = []
        self.rows: list[int] = []
        self.targets: list[int] = []

    def add(self, tokens: Sequence[int], *, first_position: int, prefix: tuple[int, int] = (0, 0)) -> int:
        """Appends a segment; returns where it starts."""
        start = len(self.tokens)
        if tokens:
            self.tokens += tokens
            self.positions += range(first_position, first_position + len(tokens))
            self.segments.append(Segment(start, len(self.tokens), prefix))
        return start

    def predict(self, row: int, completion: Sequence[int], *, first: int, rest: int) -> None:
        """The first token of a completion is predicted at `first`, the others from `rest` on."""
        self.places += [first, *range(rest, rest + len(completion) - 1)]
        self.rows += [row] * len(completion)
        self.targets += completion

    def batch(self, size: int, *, continues: bool = False) -> Batch:
        """The tensors."""
        return Batch(
            torch.tensor([self.tokens], dtype=torch.int64),
            torch.tensor([self.positions], dtype=torch.int64),
            torch.tensor(self.places),
            torch.tensor(self.rows),
            torch.tensor(self.targets),
            size,
            Layout(tuple(self.segments), continues),
        )


def pack(sequences: Sequence[TokenSequence]) -> tuple[Batch, dict[tuple[int, ...], tuple[int, int]]]:
    """One packed batch of all sequences, and where each prompt lies in it (from, to)."""
    builder = _Builder()
    prompts: dict[tuple[int, ...], tuple[int, int]] = {}
    for tree in trees(outline(sequences)):
        head, *others = tree.members
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
    """Completions of prompts that a packed batch already holds: their tokens alone.

    Args:
        prompts: what `pack` returned for that batch; it holds the prompt of each of `sequences`.

    Returns:
        A batch whose `places` count the prompts' last outputs first (in the order of `prompts`), then its own
        tokens. It has at least one token, read or not: a model takes no empty batch.
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
    """Right-pads sequences into one batch; `pad_id` is any valid token id, its output is never read."""
    time = max(sequence.length for sequence in sequences) - 1
    input_ids = torch.full((len(sequences), time), pad_id, dtype=torch.int64)
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for index, (prompt, completion) in enumerate(sequences):
        tokens = prompt + completion[:-1]
        input_ids[index, : len(tokens)] = torch.tensor(tokens)
        rows += [index] * len(completion)
        places += range(index * time + len(prompt) - 1, index * time + len(tokens))
        targets += completion
    positions = torch.arange(time)[None]
    return Batch(input_ids, positions, torch.tensor(places), torch.tensor(rows), torch.tensor(targets), len(sequences))
