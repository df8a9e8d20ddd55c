"""What a source of feedback is: where its raw files are, how they are read, and what a record of them gives.

Reading is done in two steps, so that a run streams and several processes can share it: `records` gives the raw records
of a file one after the other (in one process), `parse` makes results of one record (in any process, in any order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.records import Result
from kto_cli.data.readers.jsonl import Record


@dataclass(frozen=True)
class RawFile:
    """One file of raw feedback and what its place says about it."""

    path: Path
    name: str
    """What its lines are called: the path below the folder that was read."""
    subset: str = ""
    split: str | None = None
    """VALIDATION where the file is the source's official test split."""
    paired: bool = False
    """All its rows are pairs, so that a line which cannot be parsed counts for two."""


Parse = Callable[[Record, RawFile, BinarizeConfig], Iterable[Result]]
"""All that one record gives. It never raises for what is in the record: a fault is a `Reject`. A function of a module
(it is pickled by name)."""


@dataclass(frozen=True)
class Source:
    """One kind of raw feedback. Each module of this package that reads one has it as `SOURCE`."""

    name: str
    """What people type: `shp`."""
    about: str
    """One line: whose feedback on what."""
    gives: str
    """pairs, ranked answers, scores or labels."""
    parse: Parse
    hub_id: str | None = None
    other_hub_ids: tuple[str, ...] = ()
    """Datasets of the same form."""
    licence: str = ""
    """Of the data, as its authors say."""
    patterns: tuple[str, ...] = ("*.jsonl*",)
    """Names of its raw files, below a folder and on the Hub (fnmatch)."""
    parts: tuple[str, ...] = ()
    """The subsets of the whole on the Hub, where they are known: a cache that lacks one is not taken for the whole."""
    subsets_are_files: bool = True
    """A subset is a folder or a file; else all is fetched, and the records tell."""
    unused: tuple[str, ...] = ()
    """Folders of the dataset that hold no feedback."""
    options: tuple[str, ...] = ()
    """Flags that mean something for it, beyond those for every source."""
    cut: str | None = None
    """The --cut for its scores where none is given; None: it has to be given."""
    max_pairs: int | None = None
    """The --max-pairs where none is given."""
    wanted: tuple[str, ...] | None = None
    """Columns it reads; None: all (known only once the options are)."""
    raw_files: Callable[[Path, Sequence[str]], list[RawFile]] | None = None
    """The raw files of a file or folder, of some subsets; default: by `patterns` (`listing.raw_files`)."""
    records: Callable[[RawFile], Iterator[Record]] | None = None
    """The records of a raw file; default: rows of its format. For what has to be put together from several lines."""
    settle: Callable[[Sequence[str], RawFile, BinarizeConfig], BinarizeConfig] | None = None
    """What the options mean for a file of these columns; default: what they say."""
    paired: Callable[[Sequence[str]], bool] | None = None
    """Whether a file of these columns is `RawFile.paired`; default: no."""
    columns: Callable[[RawFile], list[str]] | None = None
    """The column names of a raw file; default: by its format."""
    has_texts: bool = True
    """--text goes with it: not everything in it is chat by nature."""
    check: Callable[[Sequence[str], RawFile, BinarizeConfig], list[str]] | None = None
    """Called with the column names of each file before its first record; returns notes for the screen. Raises BadInput
    where the columns cannot be this kind of feedback."""
    example: tuple[str, ...] = field(default_factory=tuple)
    """Lines of a raw file that can be copied."""

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """All its datasets on the Hub."""
        return (self.hub_id, *self.other_hub_ids) if self.hub_id else ()
