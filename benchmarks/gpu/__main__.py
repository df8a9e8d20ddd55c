"""python -m benchmarks.gpu: the GPU check, or one group of it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.driver import GROUPS, run_all


def main() -> int:
    """Exit status 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What only a GPU can show of kto.")
    parser.add_argument("--seconds", type=float, default=480, help="for all groups; default 480")
    parser.add_argument(
        "--out", type=Path, help="folder of checks.jsonl and each group's stderr; default: a temporary one"
    )
    parser.add_argument("--only", help=f"groups, separated by commas: {', '.join(GROUPS)}")
    parser.add_argument(
        "--tiny", action="store_true", help="smallest models, also on a CPU: tries the checks themselves"
    )
    parser.add_argument("--group", choices=GROUPS, help="one group, in this process")
    options = parser.parse_args()
    if options.tiny:
        os.environ["KTO_GPU_CHECK_TINY"] = "1"
    if options.group:
        importlib.import_module(f"benchmarks.gpu.{options.group}").run()
        return 0
    groups = tuple(options.only.split(",")) if options.only else GROUPS
    if unknown := set(groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    out = options.out or Path(tempfile.mkdtemp(prefix="kto-gpu-check-"))
    well = run_all(options.seconds, out, groups, tiny=options.tiny)
    print(f"{out / 'checks.jsonl'} has every check; what a group wrote to stderr is beside it.")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
