"""Input tensors of a model: padded batches, and packed batches in which a shared prompt appears once.

A packed batch is one long sequence that holds each prefix once: a system prompt, the earlier turns of a conversation, a
prompt with several completions. A `PackedLayout` (prefix_tree.py) describes who attends to whom, not a mask, so that
attention (model/attention.py) computes nothing for pairs of tokens that do not see each other. The last token of a
completion predicts nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.packing import assign, even_runs, even_unit_runs, padded_batches, padded_units
from kto_cli.core.prefix_order import common_prefix, lengths_of, prefix_order
from kto_cli.core.prefix_tree import PackedLayout, PrefixTree, Span, without_first
from kto_cli.core.rows import TokenSequence
from kto_cli.core.transfer import to_device


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
            name: to_device(value, device) for name, value in self._asdict().items() if isinstance(value, Tensor)
        }
        return self._replace(**moved)


def micro_batches(
    sequences: Sequence[TokenSequence],
    *,
    token_budget: int,
    ranks: int = 1,
    packed: bool,
    partners: Sequence[int] | None = None,
) -> list[list[list[int]]]:
    """Assigns sequences to processes and forms each process's micro-batches.

    Packed, sequences with long common prefixes come into one micro-batch, and all micro-batches are equally large to
    within a sequence.

    Args:
        token_budget: most tokens of a micro-batch; a prefix that is shared in it counts once, padding counts.
        packed: packed or padded batches.
        partners: [sequences] index of the other sequence of a pair, -1 without. Both come into one micro-batch, unless
            they exceed the budget together; `parted` says where they do.

    Returns:
        For each process its micro-batches, lists of indices. A process may get none.
    """
    if partners is not None and any(partner >= 0 for partner in partners):
        return _unit_batches(sequences, partners, token_budget, ranks, packed=packed)
    if packed:
        runs = even_runs(prefix_order(sequences), token_budget, ranks)
        return [runs[rank::ranks] for rank in range(ranks)]
    sizes = [length - 1 for length in lengths_of(sequences)]
    return [
        [[share[place] for place in batch] for batch in padded_batches([sizes[index] for index in share], token_budget)]
        for share in assign(sizes, ranks)
    ]


def _unit_batches(
    sequences: Sequence[TokenSequence], partners: Sequence[int], token_budget: int, ranks: int, *, packed: bool
) -> list[list[list[int]]]:
    """`micro_batches` of pairs and single sequences."""
    sizes = [length - 1 for length in lengths_of(sequences)]
    units: list[list[int]] = []
    for row, partner in enumerate(partners):
        if partner < 0:
            units.append([row])
        elif row < partner:
            tokens = _pair_tokens(sequences[row], sequences[partner], packed=packed)
            units += [[row, partner]] if tokens <= token_budget else [[row], [partner]]
    if packed:
        runs = even_unit_runs(prefix_order(sequences), units, token_budget, ranks)
        return [runs[rank::ranks] for rank in range(ranks)]
    shares = assign([sum(sizes[row] for row in unit) for unit in units], ranks)
    return [padded_units([units[number] for number in share], sizes, token_budget) for share in shares]


def _pair_tokens(one: TokenSequence, other: TokenSequence, *, packed: bool) -> int:
    """Tokens of a micro-batch of two sequences alone."""
    inputs = [prompt + completion[:-1] for prompt, completion in (one, other)]
    if packed:
        return sum(map(len, inputs)) - common_prefix(*inputs)
    return 2 * max(map(len, inputs))


def parted(shares: Sequence[Sequence[Sequence[int]]], partners: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs whose sequences are in different micro-batches, as indices of the two, the smaller first.

    Args:
        shares: as of `micro_batches`. partners: [sequences], likewise.
    """
    batches = (rows for share in shares for rows in share)
    batch_of = {row: number for number, rows in enumerate(batches) for row in rows}
    return [
        (row, partner) for row, partner in enumerate(partners) if row < partner and batch_of[row] != batch_of[partner]
    ]


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
            tree.follow(without_first(prompts[prompt].spans, common))
        tree.grow(inputs[row][max(0, common - len(prompt)) :])
        before = prompt, inputs[row]
        own = _indices(tree.spans(), skip=len(prompt))[: len(completion) - 1]
        predictions.add(row, completion, first=numbers[prompt], others=[len(prompts) + index for index in own])
    return predictions.batch(tree, len(sequences), continues=True)


def _indices(spans: Sequence[Span], *, skip: int) -> list[int]:
    """Indices of the spans' tokens without the first `skip`."""
    return [index for span in without_first(spans, skip) for index in range(span.start, span.stop)]


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
