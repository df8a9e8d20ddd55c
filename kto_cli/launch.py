"""Several processes on a machine without a GPU.

`accelerate launch --num_processes 2` starts two processes on GPUs, but a single one on a CPU (accelerate 1.15,
`simple_launcher`), without a word. The run would be right and half as fast as asked; so the rest is started here,
through the launcher that torch brings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kto_cli.display import Screen


def start_missing_processes() -> None:
    """Replaces this process by the asked-for number of processes, if accelerate started too few of them."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if not launched or "WORLD_SIZE" in os.environ:
        return
    count = processes_asked_for(_parent_command())
    if count < 2 or _has_gpu():
        return
    Screen().note(f"accelerate starts one process on a machine without a GPU; starting the {count} asked for")
    port = os.environ.pop("MASTER_PORT")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", port]
    os.execv(sys.executable, [*command, "-m", "kto_cli", *sys.argv[1:]])


def processes_asked_for(command: Sequence[str]) -> int:
    """N of `accelerate launch --num_processes N ... -m kto_cli ...`; 1 where it does not say."""
    for place, word in enumerate(command):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or (command[place + 1] if place + 1 < len(command) else "")
            return int(value) if value.isdigit() else 1
        if name == "kto_cli":
            break
    return 1


def _parent_command() -> list[str]:
    import psutil

    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []


def _has_gpu() -> bool:
    import torch

    return torch.accelerator.is_available()
