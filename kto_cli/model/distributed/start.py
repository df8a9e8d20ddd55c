"""Start of a launch: torch's switches, set before CUDA starts, and accelerate, which joins the processes.

Training, the reference pass and `kto eval` start here alike.

**cuDNN attention is off.** torch prefers it on data-centre GPUs where its build has cuDNN 9.15 or newer (2.11 and later
with CUDA 13). It prepares a plan for each new shape, and every step has new ones: 23 ms and more a plan, 0.44 s forward
and 0.55 s backward on a B200 (https://github.com/modelscope/FunASR/issues/3704). Its backward pass with a mask may give
NaN where the length modulo 128 is 64 (https://github.com/pytorch/pytorch/issues/196678,
https://github.com/huggingface/trl/issues/7181).

**Freed memory serves blocks of any size.** Every step has other sizes, and blocks cut for earlier ones would fill a
GPU's memory: expandable segments are on, unless the user has set the allocator's variable.

**Collectives wait for two hours.** NCCL's ten minutes end a launch while its first process writes a large checkpoint.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

from kto_cli.common.screen import stdout_kept_free
from kto_cli.model.determinism import prefer_determinism
from kto_cli.model.distributed.processes import joined_as_ddp, refuse_untested
from kto_cli.model.load import gc_paused

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of mallopt(3)."""
TIMEOUT = datetime.timedelta(hours=2)
"""Longest wait of one process for the others: 100 GB at 20 MB/s, a slow network disk, take 1.4 hours."""
ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that set torch's allocator; the second is deprecated."""


@gc_paused()
def start_accelerator() -> Any:
    """The processes of this launch; a single one without a launcher.

    Raises:
        BadInput: the launch asks for something that would change the numbers, or was not tested.
    """
    refuse_untested(os.environ)
    set_environment(os.environ)
    with stdout_kept_free():  # an installed DeepSpeed is imported with it, and prints
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs

    if not torch.cuda.is_available():
        keep_freed_memory()
    torch.backends.cuda.enable_cudnn_sdp(False)
    prefer_determinism()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # Without a GPU accelerate joins the other processes (gloo) only when told to use the CPU.
    cpu = several and not torch.accelerator.is_available()
    # Scorer and engine handle precision and accumulation: a launcher's settings for them would apply twice.
    # accelerate passes an argument on that torch is about to rename; each process would print that.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    with joined_as_ddp():
        return Accelerator(
            cpu=cpu,
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                InitProcessGroupKwargs(timeout=TIMEOUT),
            ],
        )


def set_environment(environment: MutableMapping[str, str]) -> None:
    """Sets what CUDA's libraries and torch's allocator read when they first run; values of the user stay."""
    environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products
    environment.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")  # also where a library turns cuDNN attention on again
    if not any(name in environment for name in ALLOCATOR_SETTINGS):
        environment[ALLOCATOR_SETTINGS[0]] = "expandable_segments:True"


def keep_freed_memory() -> None:
    """Lets this process keep the memory it frees, where its C library is glibc.

    Else large blocks go back to the system when a layer is done with them and come back page by page, zeroed, for the
    next: 7 to 9 % of a step on a CPU, measured. The price is memory, in gaps between what stays in use: a step's peak
    above the model was 2.1 GiB against 1.7 with glibc's own settings and 1.1 with every block given back (29M, full),
    5.7 against 5.6 and 2.5 (SmolLM2-135M's shape, adapters).
    """
    _glibc("mallopt", M_MMAP_THRESHOLD, 1 << 30)
    _glibc("mallopt", M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def freed_memory_returned(device: torch.device) -> Iterator[None]:
    """Context manager in which the memory that is freed goes back to the system, as does what was kept before.

    For work of blocks of many sizes, where much of what is kept lies in gaps too small for the next block: a bootstrap
    grew by 140 MiB for 2 MiB at a time. Costs no time that could be measured there.
    """
    if device.type != "cpu":
        yield
        return
    return_freed_memory()
    _glibc("mallopt", M_MMAP_THRESHOLD, 1 << 16)
    try:
        yield
    finally:
        keep_freed_memory()
        return_freed_memory()


def return_freed_memory() -> None:
    """Returns the memory that this process has freed and kept to the system, where its C library is glibc."""
    _glibc("malloc_trim", 0)


def _glibc(function: str, *values: int) -> None:
    """Calls a function of glibc; does nothing where the C library has none of that name."""
    try:
        call = getattr(ctypes.CDLL(None), function)
    except (OSError, AttributeError, TypeError):
        return
    call(*values)
