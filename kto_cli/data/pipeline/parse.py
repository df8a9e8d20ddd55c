"""Raw files to parsed rows, in the order of the files: in this process, or in several that parse what it reads."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import OutOfMemory
from kto_cli.data.formats.fields import ignored_columns
from kto_cli.data.formats.source import RawFile, Source, records_of
from kto_cli.data.pipeline.to_rows import Block, ParsedRows, parse_block
from kto_cli.data.readers import any_file
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.select import Chosen

RECORDS, CHARACTERS = 512, 1 << 20
"""Size of a block: at most this many records, and it ends after this many characters of raw lines."""
WAITING = 3
"""Blocks in progress per process: enough that none is idle, few enough that memory stays flat."""


def blocks(chosen: Sequence[Chosen], config: BinarizeConfig, note: Callable[[str], None]) -> Iterator[Block]:
    """All records of all files, in blocks.

    Raises:
        BadInput: a file cannot be read, or its columns cannot be this source's.
    """
    noted: set[str] = set()
    for number, one in enumerate(chosen):
        # only what `Source.parse` needs, all of it picklable
        light = replace(
            one.source, raw_files=None, records=None, columns=None, check=None, resolve_options=None, paired=None
        )
        for named in one.files:
            notes, file, options = _resolved(one.source, replace(named, records=one.source.records), config)
            for text in [*notes, *any_file.layout_notes(file.path)]:
                if text not in noted:
                    noted.add(text)
                    note(text)
            records = records_of(file, one.source.wanted)
            file = replace(file, records=None)
            for some in _gathered(records):
                yield Block(some, light, number, file, options)


def _resolved(source: Source, file: RawFile, config: BinarizeConfig) -> tuple[list[str], RawFile, BinarizeConfig]:
    """Notes on a file, the file with `paired` set by its columns, and the options for it."""
    if source.check is None and source.resolve_options is None:
        return [], file, config
    read = source.columns or (lambda file: any_file.columns(file.path, file.name, source.wanted or ()))
    columns = read(file)
    notes = source.check(columns, file, config) if source.check else []
    if source.wanted is not None and not source.names_ignored:
        notes += ignored_columns(columns, source.wanted)
    if source.paired is not None:
        file = replace(file, paired=source.paired(columns))
    return notes, file, source.resolve_options(columns, file, config) if source.resolve_options else config


def _gathered(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    characters = 0
    for record in records:
        some.append(record)
        characters += len(record.raw)
        if len(some) >= RECORDS or characters >= CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def parsed_blocks(
    given: Iterable[Block], workers: int, work: Callable[[Block], ParsedRows] = parse_block
) -> Iterator[tuple[Block, ParsedRows]]:
    """Parsed rows of each block, in the order of the blocks, whichever process parsed them.

    Raises:
        OutOfMemory: a process was killed.
    """
    if workers == 1:
        for block in given:
            yield block, work(block)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    waiting: deque[tuple[Block, Future[ParsedRows]]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn"), _ignore_interrupts) as pool:
        try:
            for block in given:
                waiting.append((block, pool.submit(work, block)))
                if len(waiting) > WAITING * workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        except BrokenProcessPool as error:
            what = "A parsing process was killed; most likely the memory ran out."
            raise OutOfMemory(what, "Use fewer --workers.") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Leaves Ctrl-C to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
