"""python -m benchmarks.study TABLE, of the small worlds: runs what has no result yet, and prints the tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.study.cells import read_results
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.schedule import Setup, run
from benchmarks.study.small_tables import small_tables

ALL = "all"
TABLES = (*QUESTIONS, ALL)


def main(arguments: list[str]) -> int:
    """Exit status 1 if a trial failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description="Trials in small worlds.")
    parser.add_argument("table", nargs="+", choices=TABLES)
    parser.add_argument("--work", type=Path, required=True, help="folder for data, runs and the cache; kept")
    parser.add_argument("--results", type=Path, help="JSON lines, appended to; default: results.jsonl in --work")
    parser.add_argument("--model", type=Path, help="folder of a model of stories; default: the built-in world")
    parser.add_argument("--texts", type=Path, help="JSON list of stories, whose first sentences are the prompts")
    parser.add_argument("--quick", action="store_true", help="fewer rows, rates and seeds: all tables in 20 minutes")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=5400, help="no trial of a table begins after so many")
    parser.add_argument("--cells", type=int, help="only the first N conditions of each table")
    options = parser.parse_args(arguments)
    if (options.model is None) != (options.texts is None) or (options.quick and options.model):
        parser.error("give both --model and --texts, or neither; --quick is of the built-in world")
    tables = list(QUESTIONS) if ALL in options.table else list(dict.fromkeys(options.table))
    path = options.results or options.work / "results.jsonl"
    setup = Setup(options.work, options.model, options.texts, options.quick)
    failed = [
        run(table, setup, path, jobs=options.jobs, seconds=options.seconds, most=options.cells) for table in tables
    ]
    found = [one for one in read_results(path) if one["world"] == setup.name]
    for name, table in small_tables(found).items():
        print(f"\n{name}\n\n{table}")
    return 1 if any(failed) else 0
