"""Input tensors of a model: padded batches, and packed batches in which a shared prompt appears once.

A packed batch is one long sequence that holds each prefix once: a system prompt, the earlier turns of a conversation, a
prompt with several completions. A `PackedLayout` (prefix_tree.py) describes who attends to whom, not a mask, so that
attention (model/attention.py) computes nothing for pairs of tokens that do not see each other. The last token of a
completion predicts nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.packing import assign, packed_batches, padded_batches
from kto_cli.core.prefix_tree import PackedLayout, PrefixTree, Span, common_prefix
from kto_cli.core.rows import TokenSequence


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
    """Groups sequences by prompt, in order of their first members; members in order of appearance.

    The order depends on nothing but the members: whichever groups are done, the remaining ones are the same again.

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
            parts = [sorted(part) for part in packed_batches(sizes, max_tokens - prompt_length)]
        for part in parts:
            size = prompt_length + sum(sizes[index] for index in part)
            groups.append(PromptGroup(tuple(members[index] for index in part), size))
    return sorted(groups, key=lambda group: group.members[0])


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


class Prompt(NamedTuple):
    """Where a packed batch holds a prompt."""

    spans: tuple[Span, ...]
    last: int
    """Index of its last token."""


class _Predictions:
    """Which output predicts which completion token."""

    def __init__(self) -> None:
        self.outputs: list[int] = []
        self.rows: list[int] = []
        self.targets: list[int] = []

    def add(self, row: int, completion: Sequence[int], *, first: int, others: Iterable[int]) -> None:
        """Output `first` predicts the first token of a completion, `others` the others."""
        self.outputs += [first, *others]
        self.rows += [row] * len(completion)
        self.targets += completion

    def batch(self, tree: PrefixTree, size: int, *, continues: bool = False) -> Batch:
        """The collected lists as tensors."""
        return Batch(
            torch.tensor([tree.tokens], dtype=torch.int64),
            torch.tensor([tree.positions], dtype=torch.int64),
            torch.tensor(self.outputs),
            torch.tensor(self.rows),
            torch.tensor(self.targets),
            size,
            tree.layout(continues=continues),
        )


def pack(sequences: Sequence[TokenSequence]) -> tuple[Batch, dict[tuple[int, ...], Prompt]]:
    """One packed batch of all sequences, every prefix computed once, and where each prompt is in it."""
    tree, predictions = PrefixTree(), _Predictions()
    prompts: dict[tuple[int, ...], Prompt] = {}
    inputs = [prompt + completion[:-1] for prompt, completion in sequences]
    before: tuple[int, ...] = ()
    for row in sorted(range(len(inputs)), key=inputs.__getitem__):
        prompt, completion = sequences[row]
        common = common_prefix(before, inputs[row])
        tree.branch(common)
        tree.grow(inputs[row][common:])
        before = inputs[row]
        spans = tree.spans(len(prompt))
        prompts[prompt] = Prompt(spans, spans[-1].stop - 1)
        others = _indices(tree.spans(), skip=len(prompt))
        predictions.add(row, completion, first=prompts[prompt].last, others=others)
    return predictions.batch(tree, len(sequences)), prompts


def continuation(sequences: Sequence[TokenSequence], prompts: dict[tuple[int, ...], Prompt]) -> Batch:
    """Batch of further completions of prompts that are in a packed batch; it holds completion tokens alone.

    Args:
        prompts: the second result of `pack` for that batch; it contains the prompt of each of `sequences`.

    Returns:
        A batch whose `output_positions` count the prompts' last outputs first (in the order of `prompts`), then its own
        tokens. It has at least one token, used or not, because a model rejects an empty batch.
    """
    tree, predictions = PrefixTree(), _Predictions()
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    inputs = [completion[:-1] for _, completion in sequences]
    if not any(inputs):
        inputs[0] = sequences[0].completion
    before: tuple[tuple[int, ...], tuple[int, ...]] = (), ()
    for row in sorted(range(len(inputs)), key=lambda row: (sequences[row].prompt, inputs[row])):
        prompt, completion = sequences[row]
        common = common_prefix(before[0], prompt)
        if before[0] == prompt:
            common += common_prefix(before[1], inputs[row])
        tree.branch(common)
        if common < len(prompt):
            tree.follow(_without(prompts[prompt].spans, common))
        tree.grow(inputs[row][max(0, common - len(prompt)) :])
        before = prompt, inputs[row]
        own = _indices(tree.spans(), skip=len(prompt))[: len(completion) - 1]
        predictions.add(row, completion, first=numbers[prompt], others=[len(prompts) + index for index in own])
    return predictions.batch(tree, len(sequences), continues=True)


def _without(spans: Sequence[Span], skip: int) -> list[Span]:
    """The spans' tokens without the first `skip`."""
    found = []
    for span in spans:
        start = min(span.stop, span.start + skip)
        skip -= start - span.start
        if start < span.stop:
            found.append(span._replace(start=start))
    return found


def _indices(spans: Sequence[Span], *, skip: int) -> list[int]:
    """Indices of the spans' tokens without the first `skip`."""
    return [index for span in _without(spans, skip) for index in range(span.start, span.stop)]


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
