"""python -m benchmarks.study TABLE: runs cells that the file of results lacks; page: writes docs/study.md."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.study import small
from benchmarks.study.cells import Place, run_cells
from benchmarks.study.page import write_page
from benchmarks.study.tables import TABLES


def main() -> int:
    """Exit status 1 if a cell failed."""
    if sys.argv[1:] == ["page"]:
        write_page()
        return 0
    if sys.argv[1:2] and sys.argv[1] in small.TABLES:
        return small.main(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description="Cells of the study.")
    parser.add_argument("table", nargs="+", choices=TABLES)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data folders that the table names")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs and the cache; kept")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to; cells in it are not run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=5400, help="no cell begins after so many")
    parser.add_argument("--cells", type=int, help="only the first N of each table")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    place = Place(options.model, options.data, options.work, options.results, device)
    cells = [cell for table in options.table for cell in TABLES[table]()[: options.cells]]
    return 1 if run_cells(cells, place, jobs=options.jobs, seconds=options.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
