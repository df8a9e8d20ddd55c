"""A feedback format (`Source`): where its raw files are, how they are read, and what each record gives.

Reading has two steps, so that a run streams and several processes can share the work: `records` yields the raw records
of a file in order (one process); `parse` turns one record into results (any process, any order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.data.formats.fields import raw_text
from kto_cli.data.formats.records import Reject, Result, RowFault
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record


@dataclass(frozen=True)
class RawFile:
    """One file of raw feedback, with what its path tells about its rows."""

    path: Path
    name: str
    """Prefix of its rows' origins: the path below the folder that was given."""
    subset: str = ""
    split: str | None = None
    """VALIDATION for the source's official test split."""
    paired: bool = False
    """All rows are pairs, so a line that cannot be parsed counts as two rows."""
    records: Callable[[RawFile], Iterator[Record]] | None = None
    """Of its source (`Source.records`); default: its rows."""


def records_of(raw_file: RawFile, wanted: Sequence[str] | None = None) -> Iterator[Record]:
    """Records of a raw file; of its rows the wanted columns (None: all).

    Raises:
        BadInput: see `any_file.records`, and the source's own function.
    """
    if raw_file.records is not None:
        return raw_file.records(raw_file)
    return any_file.records(raw_file.path, raw_file.name, wanted)


@dataclass(frozen=True)
class Source:
    """One feedback format. Each module of this package that reads one defines it as `SOURCE`.

    Functions in `read` and `rows` are module-level functions: they are pickled by name.
    """

    name: str
    """Name on the command line: `shp`."""
    about: str
    """One line: whose feedback on what."""
    gives: str
    """pairs, ranked answers, scores or labels."""
    read: Callable[[Record, RawFile, BinarizeConfig], Iterable[Result]]
    """Results of one parsed record. May raise RowFault, which rejects the record."""
    rows: int | Callable[[Record, RawFile, BinarizeConfig], int] = 1
    """Rows that a rejected record counts as: 2 for a pair."""
    hub_id: str | None = None
    other_hub_ids: tuple[str, ...] = ()
    """Datasets in the same format."""
    licence: str = ""
    """Licence of the data, as its authors state it."""
    patterns: tuple[str, ...] = ("*.jsonl*",)
    """Names of raw files, below a folder and on the Hub (fnmatch)."""
    parts: tuple[str, ...] = ()
    """All subsets on the Hub, where they are known: a cache that lacks one is incomplete."""
    subsets_are_files: bool = True
    """A subset is a folder or file; otherwise all files are downloaded and each record names its subset."""
    unused: tuple[str, ...] = ()
    """Folders of the dataset without feedback."""
    options: tuple[str, ...] = ()
    """Flags that this source takes, beyond those of every source."""
    threshold: str | None = None
    """Default of --threshold; None: the user must give one for scores."""
    max_pairs: int | None = None
    """Default of --max-pairs."""
    wanted: tuple[str, ...] | None = None
    """Columns to read; None: all (which ones are needed depends on the options). Others are named in a note."""
    names_ignored: bool = False
    """`check` names the columns that are not read, which depend on the file."""
    raw_files: Callable[[Path, Sequence[str]], list[RawFile]] | None = None
    """Raw files of a file or folder, restricted to some subsets; default: by `patterns` (`listing.raw_files`)."""
    records: Callable[[RawFile], Iterator[Record]] | None = None
    """Records of a raw file; default: its rows. For records that are assembled from several lines."""
    resolve_options: Callable[[Sequence[str], RawFile, BinarizeConfig], BinarizeConfig] | None = None
    """The options for a file with these columns; default: unchanged."""
    paired: Callable[[Sequence[str]], bool] | None = None
    """Whether a file with these columns is `RawFile.paired`; default: no."""
    columns: Callable[[RawFile], list[str]] | None = None
    """Column names of a raw file; default: by its file format."""
    has_texts: bool = True
    """--text is possible: not all of its data is chat."""
    check: Callable[[Sequence[str], RawFile, BinarizeConfig], list[str]] | None = None
    """Called with the column names of each file before its first record; returns notes for the screen. Raises BadInput
    for columns that cannot be this kind of feedback."""
    example: tuple[str, ...] = ()
    """Lines of a raw file to copy."""

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """All its datasets on the Hub."""
        return (self.hub_id, *self.other_hub_ids) if self.hub_id else ()

    def parse(self, record: Record, raw_file: RawFile, config: BinarizeConfig) -> Iterator[Result]:
        """All results of one record; a record that cannot be used gives a `Reject`, never an error."""
        try:
            if record.values is None:
                raise RowFault(record.reason, record.detail)
            yield from self.read(record, raw_file, config)
        except RowFault as fault:
            rows = self.rows if isinstance(self.rows, int) else self.rows(record, raw_file, config)
            yield Reject(record.origin, fault.reason, fault.detail, rows, raw_text(record))
