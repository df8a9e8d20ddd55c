"""Whether equal steps give equal bits, where torch prefers deterministic algorithms and where it requires them."""

from __future__ import annotations

import hashlib
import warnings

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import TINY, Way, accelerator, llama, make_engine, rows_of, step_with_gradient
from benchmarks.gpu.timing import device, free_memory

REPEATS = 3 if TINY else 4


def run() -> None:
    """Both dtypes, one call a layer and one a segment, without and with the requirement that `kto train` sets."""
    accelerator()
    rows = rows_of(8 if TINY else 32, 3)
    for required in (True, False):
        for dtype in (torch.bfloat16, torch.float32):
            for walk in (False, True):
                name = f"{str(dtype).removeprefix('torch.')}, {'required' if required else 'preferred'}"
                with check(f"bits: {name}{', a call a segment' if walk else ''}") as found:
                    torch.use_deterministic_algorithms(True, warn_only=not required)
                    hashes = set()
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always")
                        made = make_engine(llama("mid"), Way(dtype, walk=walk), rows)
                        for _ in range(REPEATS):
                            gradient = step_with_gradient(made.engine, rows)[1]
                            hashes.add(hashlib.blake2b(gradient.numpy().tobytes(), digest_size=6).hexdigest())
                    found |= made.said
                    found["distinct_gradients"] = len(hashes)
                    found["warnings"] = sorted({str(each.message).split("(Triggered")[0][:110] for each in caught})
                    # Only what is required is promised.
                    found["ok"] = len(hashes) == 1 or (not required and device().type == "cuda")
                    del made
                    free_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)
