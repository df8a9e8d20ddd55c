"""Buffer of rows until all are read: texts in a temporary Arrow file, numbers in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from kto_cli.data.columns import U8, Columns
from kto_cli.data.pipeline.to_rows import ParsedRows

if TYPE_CHECKING:
    import pyarrow as pa


class Spool:
    """Rows of one block after the other, returned in the same order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: list[dict[str, NDArray[Any]]] = []
        self._writer: Any = None
        self._pairs = 0
        self.rows = 0
        self.has_more = False
        """Some rows have tools or reasoning."""

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        self._path.unlink(missing_ok=True)

    def add(self, block: ParsedRows) -> None:
        """Adds a block's rows."""
        import pyarrow as pa

        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(str(self._path), block.texts.schema, options=options)
        self._writer.write_batch(block.texts)
        self.has_more = self.has_more or block.has_more
        pairs = block.numbers["pairs"]
        block.numbers["pairs"] = numpy.where(pairs >= 0, pairs + self._pairs, -1)
        self._pairs += block.pairs
        self._parts.append(block.numbers)
        self.rows += len(pairs)

    def columns(self) -> Columns:
        """Numbers of all rows; the spool no longer holds them."""
        joined: dict[str, NDArray[Any]] = {}
        for name in list(self._parts[0]) if self._parts else ():
            joined[name] = numpy.concatenate([part.pop(name) for part in self._parts])
        for name in ("prompt", "completion", "group", "root"):
            joined[f"{name}s"] = codes(joined[f"{name}_keys"])
        return Columns(**joined)

    def batches(self) -> Iterator[tuple[slice, pa.RecordBatch]]:
        """Texts, each batch with its slice of all rows."""
        import pyarrow as pa

        self._writer.close()
        done = 0
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                yield slice(done, done + batch.num_rows), batch
                done += batch.num_rows


def codes(keys: U8) -> NDArray[numpy.int64]:
    """Numbers from 0 for distinct keys, in the order of the keys ([rows, 2] -> [rows])."""
    order = numpy.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = numpy.ones(len(keys), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    found = numpy.empty(len(keys), "i8")
    found[order] = numpy.cumsum(new) - 1
    return found
