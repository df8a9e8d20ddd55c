"""Several processes on a machine without a GPU.

`accelerate launch --num_processes 2` starts two processes on GPUs, but a single one on a CPU (accelerate 1.15,
`simple_launcher`), without a word. The run would be right and half as fast as asked; so the rest is started here,
through the launcher that torch brings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_yaml
from kto_cli.common.screen import Screen


def start_missing_processes() -> None:
    """Replaces this process by the asked-for number of processes, if accelerate started too few of them.

    Raises:
        BadInput: it was to join several machines, which it does not do without GPUs.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if not launched or "WORLD_SIZE" in os.environ:
        return
    command = _parent_command()
    count = number_asked_for(command, "num_processes")
    machines = number_asked_for(command, "num_machines")
    if max(count, machines) < 2 or _has_gpu():
        return
    if machines > 1:
        raise BadInput(
            "accelerate does not join several machines without GPUs: each would train on its own.",
            "On each machine: torchrun --nnodes N --node_rank I --master_addr ADDRESS --master_port PORT "
            "--nproc_per_node P -m kto_cli train ...",
        )
    Screen().note(f"accelerate starts one process on a machine without a GPU; starting the {count} asked for")
    port = os.environ.pop("MASTER_PORT")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", port]
    os.execv(sys.executable, [*torchrun, "-m", "kto_cli", *sys.argv[1:]])


def number_asked_for(command: Sequence[str], name: str) -> int:
    """N of `accelerate launch --NAME N ... -m kto_cli ...`, else of its config file; 1 where neither says."""
    options = {}
    for place, word in enumerate(command):
        if word == "kto_cli":
            break
        option, given, value = word.partition("=")
        following = command[place + 1] if place + 1 < len(command) else ""
        options[option.lstrip("-").replace("-", "_")] = value if given else following
    if name in options:
        return int(options[name]) if options[name].isdigit() else 1
    return _number_in_file(options["config_file"], name) if "config_file" in options else 1


def _number_in_file(path: str, name: str) -> int:
    try:
        settings = read_yaml(Path(path), "accelerate's config")
    except BadInput:  # accelerate itself reads it and says what is wrong
        return 1
    value = settings.get(name) if isinstance(settings, dict) else None
    return value if isinstance(value, int) else 1


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
