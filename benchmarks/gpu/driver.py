"""Runs groups in processes of their own, phase by phase, as many as the time allows, and prints the table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks.gpu.checks import MARK

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES: tuple[tuple[tuple[str, int], ...], ...] = (
    (("facts", 90),),
    # Side by side: other load changes none of their results.
    (("equality", 150), ("losses", 90), ("memory", 90), ("determinism", 100), ("command_line", 140), ("draws", 70)),
    # One at a time: these are timed. The most useful first.
    (("speed", 150),),
    (("kernels", 45),),
    (("versus_trl", 170),),
    (("lora", 60),),
    (("generation", 45),),
)
"""(group, most seconds); tiny models have all that is left: the machine may be slow."""
GROUPS = tuple(name for phase in PHASES for name, _ in phase)
LEAST_SECONDS = 20
"""A phase with less time left is not begun."""
ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


class Running(NamedTuple):
    """A group's process and what reads its output."""

    name: str
    process: subprocess.Popen[str]
    timer: threading.Timer
    reader: threading.Thread
    found: list[dict[str, Any]]
    errors: IO[str]


def run_all(seconds: float, out: Path, groups: tuple[str, ...], *, tiny: bool) -> bool:
    """Runs the groups and prints all; whether nothing failed.

    Args:
        out: gets checks.jsonl, and the stderr of each group as GROUP.err.
    """
    out.mkdir(parents=True, exist_ok=True)
    began, found = time.perf_counter(), []
    with (out / "checks.jsonl").open("w", encoding="utf-8") as log:
        for phase in PHASES:
            wanted = [(name, limit) for name, limit in phase if name in groups]
            left = seconds - (time.perf_counter() - began)
            if wanted and left < LEAST_SECONDS:
                print(f"no time left for {', '.join(name for name, _ in wanted)}", flush=True)
                continue
            running = [start(name, left if tiny else min(limit, left), out, log, tiny=tiny) for name, limit in wanted]
            for each in running:
                found += finish(each, out, log)
    print_table(found, time.perf_counter() - began)
    return all(one["ok"] is not False for one in found)


def start(name: str, limit: float, out: Path, log: IO[str], *, tiny: bool) -> Running:
    """A group in a process, which is killed after `limit` seconds."""
    errors = (out / f"{name}.err").open("w", encoding="utf-8")
    process = subprocess.Popen(
        command_of(name, tiny=tiny),
        cwd=REPOSITORY,
        env={**ENVIRONMENT, **os.environ, "PYTHONPATH": f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    found: list[dict[str, Any]] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MARK):
                keep({"group": name, **json.loads(line.removeprefix(MARK))}, found, log)

    reader, timer = threading.Thread(target=read), threading.Timer(limit, process.kill)
    reader.start()
    timer.start()
    return Running(name, process, timer, reader, found, errors)


def command_of(name: str, *, tiny: bool) -> list[str]:
    """The command of a group's process."""
    return [sys.executable, "-m", "benchmarks.gpu", "--group", name, *(["--tiny"] if tiny else [])]


def keep(one: dict[str, Any], found: list[dict[str, Any]], log: IO[str]) -> None:
    """Prints and stores a check."""
    line = json.dumps(one)
    found.append(one)
    print(line[:1500], flush=True)
    log.write(line + "\n")
    log.flush()


def finish(running: Running, out: Path, log: IO[str]) -> list[dict[str, Any]]:
    """The group's checks, and one on how its process ended."""
    code = running.process.wait()
    running.timer.cancel()
    running.reader.join(5)
    running.errors.close()
    if code:
        tail = (out / f"{running.name}.err").read_text(encoding="utf-8", errors="replace")[-600:]
        ended = {"group": running.name, "check": "its process ended well", "ok": False, "code": code, "stderr": tail}
        keep(ended, running.found, log)
    return running.found


def print_table(found: list[dict[str, Any]], took: float) -> None:
    """A line a check: whether it is as it should be, its name, what it found."""
    words = {True: "ok", False: "FAIL", None: "-"}
    print(f"\n{len(found)} checks in {took:.0f} s")
    for one in found:
        rest = {key: value for key, value in one.items() if key not in ("group", "check", "ok", "where", "stderr")}
        print(f"{words[one['ok']]:4} {one['group']:12} {one['check']:44} {json.dumps(rest)[:260]}")
