"""Peak memory of a process, or of its GPU. Needs torch and the standard library alone: TRL's side uses it too."""

from __future__ import annotations

import sys
from pathlib import Path


class Memory:
    """Peak memory since this was made, above what was in use then."""

    def __init__(self) -> None:
        import gc

        import torch

        gc.collect()
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        if Path("/proc/self/clear_refs").exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here (Linux)
        self.start = self._status("VmRSS")

    def peak_bytes(self) -> int:
        """Of the GPU where there is one, else of this process."""
        import torch

        return (torch.cuda.max_memory_allocated() if self.cuda else self._status("VmHWM")) - self.start

    def _status(self, name: str) -> int:
        status = Path("/proc/self/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith(name))
            return int(line.split()[1]) * 1024
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
