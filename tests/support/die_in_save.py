"""`kto`, but the second process is killed while it writes its part of the third checkpoint: half a file is there."""

from __future__ import annotations

import os
import signal
from typing import Any

from kto_cli.cli.app import main
from kto_cli.training.run import checkpoints

calls = []
write = checkpoints.write_slices


def write_half(path: Any, slices: Any) -> str:
    """Stands in for write_slices."""
    calls.append(path)
    if len(calls) < 3 or os.environ["RANK"] != "1":
        return write(path, slices)
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if __name__ == "__main__":
    checkpoints.write_slices = write_half
    main()
