"""kto as typed, on the built-in sample and model: train, kill, resume, eval."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks import check
from benchmarks.gpu.driver import REPOSITORY
from benchmarks.gpu.models import TINY

STEPS, KEPT = (4, 2) if TINY else (12, 4)
"""Steps of a run, and steps between checkpoints."""
LIMIT = 120
"""Seconds of a command."""


class Terminal:
    """A folder in which commands are typed."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kto-gpu-"))
        paths = f"{REPOSITORY}:{os.environ.get('PYTHONPATH', '')}"
        self.environment = {**os.environ, "PYTHONPATH": paths, "KTO_CACHE": str(self.folder / "cache")}

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """A command, running."""
        command = [sys.executable, "-m", "kto_cli", *words]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **options)

    def type(self, found: dict[str, Any], *words: str, about: str = "") -> bool:
        """Runs a command; whether it ended well.

        Args:
            found: gets its exit status and the last lines that hold `about`, the last ones if it failed.
        """
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        print(errors, file=sys.stderr)
        lines = [line.strip() for line in (errors + output).splitlines() if line.strip()]
        told = lines if process.returncode else [line for line in lines if about in line]
        found |= {"code": process.returncode, "said": [line[:200] for line in told[-4:]]}
        warned = [line[:160] for line in lines if "Warning" in line]
        if warned:
            found["warnings"] = warned[:8]
        found["ok"] = process.returncode == 0
        return bool(found["ok"])


def run() -> None:
    """One command after the other; what needs an earlier one fails with it."""
    terminal = Terminal()
    with check("kto binarize") as found:
        terminal.type(found, "binarize", "hh-rlhf", "--out", "data/hh", about="rows")
    words = ("--data", "data/hh", "--max-steps", str(STEPS), "--save-every", str(KEPT))
    with check("kto train") as found:
        if terminal.type(found, "train", *words, "--out", "whole", about="atches"):
            lines = [json.loads(line) for line in (terminal.folder / "whole/metrics.jsonl").read_text().splitlines()]
            found |= {
                "noise_floor": lines[0].get("noise_floor"),
                "seconds": [round(one["seconds"], 3) for one in lines],
            }
    with check("killed and resumed, bit for bit") as found:
        killed_and_resumed(terminal, words, found)
    for more in (("--dtype", "bfloat16-pure"), ("--lora-r", "8", "--micro-batch-tokens", "auto")):
        with check(f"kto train {' '.join(more)}") as found:
            out = "-".join(("run", *more)).replace("--", "")
            terminal.type(found, "train", "--data", "data/hh", "--max-steps", "2", "--out", out, *more, about="atches")
    with check("kto eval") as found:
        terminal.type(
            found, "eval", "whole", "--max-new-tokens", "8" if TINY else "32", "--samples", "4", about="answer"
        )


def killed_and_resumed(terminal: Terminal, words: tuple[str, ...], found: dict[str, Any]) -> None:
    """A run that is killed behind its first checkpoint ends with the weights of one that was not."""
    process = terminal.start("train", *words, "--out", "cut", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    steps, began = terminal.folder / "cut/steps", time.monotonic()
    while process.poll() is None and time.monotonic() - began < LIMIT:
        if steps.is_dir() and any(each.name.startswith("step-") for each in steps.iterdir()):
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    found["killed_after"] = len((terminal.folder / "cut/metrics.jsonl").read_text().splitlines())
    if terminal.type(found, "train", "--resume", "--out", "cut", about="esum"):
        hashes = {
            hashlib.sha256((terminal.folder / name / "model.safetensors").read_bytes()).hexdigest()
            for name in ("whole", "cut")
        }
        found["ok"] = len(hashes) == 1
