"""Index plan of variable-length attention: which keys and values each segment of a packed batch reads, gathered once.

A segment's keys are its whole path, prefix first, so causal attention aligned at the lower right is the tree's rule.
Where many segments share a long prefix their copies would outgrow the batch. Then the longest shared spans are not
copied: a second call lets all tokens below a span attend to the whole of it, and the two are merged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kto_cli.core.prefix_tree import PackedLayout, SharedSpan, Span, without_first
from kto_cli.core.transfer import to_device

MOST_COPIES = 4
"""Gathered keys, as a multiple of the batch's tokens, beyond which shared spans are read in place. A copy lives within
one layer's pass only; at 4 it takes less than the inner activations of the layer's MLP."""


class Call(NamedTuple):
    """One call of a variable-length kernel: sequence i has queries [query_starts[i], query_starts[i + 1]), and keys
    likewise."""

    query_starts: Tensor
    """[sequences + 1] int32."""
    key_starts: Tensor
    """[sequences + 1] int32."""
    longest_query: int
    longest_key: int
    causal: bool
    """The last query of a sequence attends to all its keys, each earlier one to one less; else each to all."""
    window: int | None = None
    """Keys that a token attends to at most, itself included; None: all."""

    def to(self, device: torch.device) -> Call:
        """The same call on a device."""
        return self._replace(query_starts=self.query_starts.to(device), key_starts=self.key_starts.to(device))


def make_call(queries: Sequence[int], keys: Sequence[int], *, causal: bool, window: int | None = None) -> Call:
    """Call over sequences of so many queries and keys, on the CPU."""
    starts, ends = (torch.tensor([0, *accumulate(lengths)], dtype=torch.int32) for lengths in (queries, keys))
    return Call(starts, ends, max(queries), max(keys), causal, window)


class Gather(NamedTuple):
    """Copies of tokens, and the way back: the copies of token t are at order[starts[t]:starts[t + 1]]."""

    tokens: Tensor
    """[copies] int32: the token of each copy."""
    order: Tensor
    """[copies] int32."""
    starts: Tensor
    """[tokens + 1] int32."""


class Plan(NamedTuple):
    """What the layers of one forward pass share."""

    own: Call
    """Each segment to the keys gathered for it."""
    keys: Gather | None
    """Keys of `own`, then those of `shared`; None: a segment's keys are its own tokens, where they are."""
    shared: Call | None = None
    """The tokens below each shared span to the whole of it."""
    shared_keys: int = 0
    """Keys of `shared`."""
    queries: Gather | None = None
    """All tokens, then the queries of `shared`."""

    def to(self, device: torch.device) -> Plan:
        """The same plan on a device: one transfer, which does not wait for the device's queue."""
        flat = [value for part in self if isinstance(part, tuple) for value in part if isinstance(value, Tensor)]
        moved = iter(to_device(torch.cat(flat), device).split([len(values) for values in flat]))

        def on_device(part: Any) -> Any:
            if not isinstance(part, tuple):
                return part
            return type(part)(*(next(moved) if isinstance(value, Tensor) else value for value in part))

        return Plan(*map(on_device, self))


def make_plan(
    layout: PackedLayout, *, window: int | None = None, merges: bool = False, past: int = 0, gradient: bool = True
) -> Plan:
    """Plan of a layout, on the CPU.

    Args:
        window: of a sliding-window layer.
        merges: the kernel's log-sum-exps allow two calls, so shared spans may be read in place.
        past: tokens of the batch that this one continues; their keys come before those of this one.
        gradient: whether a backward pass may follow; without, `order` and `starts` are empty.
    """
    segments, tokens = layout.segments, layout.segments[-1].stop
    cut = window if window is not None and layout.longest > window else None
    shared = _read_in_place(layout) if merges and cut is None else []
    prefixes = _prefixes(layout, shared)
    if cut is not None:
        prefixes = [without_first(prefix, max(0, _tokens(prefix) - cut + 1)) for prefix in prefixes]
    paths = [[*prefix, Span(start, stop)] for prefix, (start, stop, _) in zip(prefixes, segments, strict=True)]
    lengths = [stop - start for start, stop, _ in segments]
    own = make_call(lengths, [_tokens(path) for path in paths], causal=True, window=cut)
    if not any(prefixes) and not shared and not past:
        return Plan(own, None)
    spans = [span for path in paths for span in path] + [span.keys for span in shared]
    index = _ranges((span.start + (0 if span.past else past), span.stop - span.start) for span in spans)
    keys = _gather(index, past + tokens, gradient)
    if not shared:
        return Plan(own, keys)
    widths = [span.stop - span.start for span in shared]
    below = make_call(widths, [_tokens([span.keys]) for span in shared], causal=False)
    rows = _ranges([(0, tokens), *((span.start, width) for span, width in zip(shared, widths, strict=True))])
    return Plan(own, keys, below, _tokens(span.keys for span in shared), _gather(rows, tokens, gradient=True))


def _read_in_place(layout: PackedLayout) -> list[SharedSpan]:
    """The shared spans with the most copies, as many as keep the gathered keys within `MOST_COPIES`."""
    tokens = layout.segments[-1].stop
    starts = [segment.start for segment in layout.segments]
    copies = [
        (bisect_left(starts, span.stop) - bisect_left(starts, span.start)) * (span.keys.stop - span.keys.start)
        for span in layout.shared
    ]
    excess, chosen = tokens + sum(copies) - MOST_COPIES * tokens, []
    for number in sorted(range(len(copies)), key=lambda number: (-copies[number], number)):
        if excess <= 0:
            break
        chosen.append(number)
        excess -= copies[number]
    return [layout.shared[number] for number in sorted(chosen)]


def _prefixes(layout: PackedLayout, without: Sequence[SharedSpan]) -> list[list[Span]]:
    """Each segment's prefix in the order of positions, less the spans that are read in place."""
    if not without:
        return [list(segment.prefix) for segment in layout.segments]
    starts = [segment.start for segment in layout.segments]
    found: list[list[Span]] = [[] for _ in starts]
    for span in set(layout.shared) - set(without):
        for number in range(bisect_left(starts, span.start), bisect_left(starts, span.stop)):
            found[number].append(span.keys)
    # On a path, tokens of the batch before come first, and each later token has the higher index.
    return [sorted(spans, key=lambda span: (not span.past, span.start)) for spans in found]


def _tokens(spans: Iterable[Span]) -> int:
    return sum(span.stop - span.start for span in spans)


def _ranges(ranges: Iterable[tuple[int, int]]) -> Tensor:
    """Consecutive numbers from each start, as many as its count, one range after the other."""
    starts, counts = torch.tensor(list(ranges), dtype=torch.int32).unbind(1)
    ends = counts.cumsum(0, dtype=torch.int32)
    shift = (starts - ends + counts).repeat_interleave(counts)
    return shift.add_(torch.arange(len(shift), dtype=torch.int32))


def _gather(index: Tensor, tokens: int, gradient: bool) -> Gather:
    if not gradient:
        return Gather(index, index[:0], index[:0])
    starts = torch.zeros(tokens + 1, dtype=torch.int32)
    torch.cumsum(index.bincount(minlength=tokens), 0, dtype=torch.int32, out=starts[1:])
    return Gather(index, index.argsort(stable=True).int(), starts)
