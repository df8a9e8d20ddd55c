"""Prefix tree of a packed batch: which tokens are computed once, and what each of them attends to.

Sequences are added in lexicographic order, so each shares its longest prefix with the one before it. Tokens are stored
in the order of a depth-first walk: everything that continues a token's prefix lies in one run after that prefix's own
segment. So attention needs no mask: each segment attends to itself causally, and each run of tokens attends to the
whole of a shared span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Consecutive tokens of a packed batch."""

    start: int
    stop: int
    past: bool = False
    """Of the batch that this one continues, not of this one."""


class Segment(NamedTuple):
    """Consecutive tokens that attend to all of the prefix, and to the tokens before them in the segment."""

    start: int
    stop: int
    prefix: tuple[Span, ...] = ()


class SharedSpan(NamedTuple):
    """Tokens that a run of later tokens attends to as a whole."""

    start: int
    stop: int
    keys: Span


class PackedLayout(NamedTuple):
    """Who attends to whom in a packed batch, written twice: by segment, and by shared span."""

    segments: tuple[Segment, ...]
    """In order and without gaps."""
    shared: tuple[SharedSpan, ...]
    """With each segment's own tokens, the same pairs of tokens as the segments' prefixes."""
    longest: int
    """Tokens of the longest path."""
    continues: bool = False
    """Prefixes begin in the previous batch (`continuation`)."""


@dataclass
class _Piece:
    """Part of the current path: consecutive tokens, on the way from the root to the last token added."""

    span: Span
    readers: int
    """For tokens of the previous batch, the first token of this one that may attend to them; else their segment."""


class PrefixTree:
    """Builder of a packed batch's tokens and layout. Has a current path, which `branch` shortens and `grow` extends."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self._segments: list[Segment] = []
        self._shared: list[SharedSpan] = []
        self._path: list[_Piece] = []

    def spans(self, depth: int | None = None) -> tuple[Span, ...]:
        """The path's tokens from the root, the first `depth` of them or all."""
        found, left = [], self._depth() if depth is None else depth
        for piece in self._path:
            width = min(left, piece.span.stop - piece.span.start)
            if width:
                found.append(piece.span._replace(stop=piece.span.start + width))
            left -= width
        return tuple(found)

    def branch(self, depth: int) -> None:
        """Shortens the path to its first `depth` tokens."""
        excess = self._depth() - depth
        while excess > 0:
            piece = self._path.pop()
            start, stop, past = piece.span
            cut = max(start, stop - excess)
            self._share(piece, Span(cut, stop, past))
            excess -= stop - cut
            if cut > start:
                self._path.append(_Piece(Span(start, cut, past), piece.readers))

    def follow(self, spans: Sequence[Span]) -> None:
        """Extends the path by tokens of the previous batch."""
        self._path += [_Piece(Span(span.start, span.stop, past=True), len(self.tokens)) for span in spans]

    def grow(self, tokens: Sequence[int]) -> None:
        """Appends tokens behind the path: to the last segment if the path ends with it, else in a new one."""
        if not tokens:
            return
        depth, start = self._depth(), len(self.tokens)
        self.tokens += tokens
        self.positions += range(depth, depth + len(tokens))
        last = self._path[-1] if self._path else None
        if last is not None and not last.span.past and last.span.stop == start:
            last.span = last.span._replace(stop=len(self.tokens))
            self._segments[-1] = self._segments[-1]._replace(stop=len(self.tokens))
            return
        self._segments.append(Segment(start, len(self.tokens), self.spans()))
        self._path.append(_Piece(Span(start, len(self.tokens)), len(self._segments) - 1))

    def layout(self, *, continues: bool = False) -> PackedLayout:
        """The layout of all tokens added; ends the path."""
        self.branch(0)
        longest = max(self.positions, default=-1) + 1
        return PackedLayout(tuple(self._segments), tuple(self._shared), longest, continues)

    def _depth(self) -> int:
        return sum(piece.span.stop - piece.span.start for piece in self._path)

    def _share(self, piece: _Piece, keys: Span) -> None:
        """Records which tokens attend to the end of a path that is left, `keys` of `piece`."""
        start = piece.readers if keys.past else self._segments[piece.readers].stop
        if start < len(self.tokens):
            self._shared.append(SharedSpan(start, len(self.tokens), keys))


def without_first(spans: Sequence[Span], skip: int) -> list[Span]:
    """The spans' tokens without the first `skip`."""
    found = []
    for span in spans:
        start = min(span.stop, span.start + skip)
        skip -= start - span.start
        if start < span.stop:
            found.append(span._replace(start=start))
    return found
