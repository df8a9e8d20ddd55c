"""kto against TRL at 1B, step by step, with benchmarks/train_vs_trl.py; needs TRL in this environment."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.driver import REPOSITORY
from benchmarks.gpu.models import SIZES, TINY

SETTINGS = {
    "batch_size": 8 if TINY else 32,
    "micro_batch": 4 if TINY else 8,
    "max_length": 512,
    "beta": 0.1,
    "learning_rate": 1e-5,
    "clip": 1.0,
    "steps": 2 if TINY else 3,
    "threads": None,
}
WAYS: dict[str, dict[str, Any]] = {
    "kto": {"run": "kto.step"},
    "TRL, checkpointing (its default)": {"run": "trl.step", "checkpointing": True, "precomputed": False},
    "TRL": {"run": "trl.step", "checkpointing": False, "precomputed": False},
    "kto against the naive step": {"run": "kto.check"},
}


def run() -> None:
    """Set-up, then every way in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="kto-versus-trl-") as work:
        job = {**SETTINGS, "work": work, "data": f"{work}/rows", "model": f"{work}/1B"}
        job["dtype"] = "bfloat16" if torch.cuda.is_available() else "float32"
        if not measured("versus TRL: set-up", job | set_up(), Path(work)):
            return
        for name, way in WAYS.items():
            if name.startswith("TRL") and importlib.util.find_spec("trl") is None:
                with check(f"versus TRL: {name}") as found:
                    found |= {"ok": None, "why": "TRL is not installed"}
                continue
            measured(f"versus TRL: {name}", job | way, Path(work))


def set_up() -> dict[str, Any]:
    """Writes the rows of the built-in sample and the model."""
    vocabulary, hidden, intermediate, layers, heads, key_value_heads = SIZES["tiny" if TINY else "1B"]
    shape = {
        "name": "1B",
        "hidden": hidden,
        "intermediate": intermediate,
        "layers": layers,
        "heads": heads,
        "key_value_heads": key_value_heads,
        "vocabulary": max(4096, vocabulary),
        "tied": True,
    }
    source = str(REPOSITORY / "sample_data" / "hh-rlhf")
    return {"run": "kto.set_up", "source": source, "shapes": [shape], "dtype": "float32"}


def measured(name: str, job: dict[str, Any], work: Path) -> bool:
    """Whether the job ended well; its numbers are the check's."""
    paths = [str(REPOSITORY), str(REPOSITORY / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_DATASETS_CACHE": str(work / "datasets"),
        "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",  # for TRL too, whose attention has new shapes as well
    }
    with check(name) as found:
        command = [sys.executable, str(REPOSITORY / "benchmarks/train_vs_trl.py"), "--measure", json.dumps(job)]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
        print(ran.stderr, file=sys.stderr)
        if ran.returncode:
            found |= {"ok": False, "stderr": ran.stderr[-900:]}
            return False
        numbers = json.loads(ran.stdout.splitlines()[-1])
        found |= {key: value for key, value in numbers.items() if not isinstance(value, list | dict)}
        return True
    return False
