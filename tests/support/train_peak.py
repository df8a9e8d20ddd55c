"""Training of COUNT rows whose tokens and reference log-probs are stored: COUNT FOLDER MODEL.

The first call writes dataset, token store and reference cache (with log-probs of -1 nat) into FOLDER; a second one runs
four steps of `kto train` and prints its peak memory in bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy
from prepare_peak import some_rows

from kto_cli.cli.app import main
from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.data.dataset_writer import write_data_dir
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.prepare import prepare
from kto_cli.model.logprobs.reference import open_cache


def fill(count: int, config: TrainConfig) -> None:
    """Dataset, one row in 20 for validation; token store; reference cache."""
    rows = some_rows(count)
    validation = count // 20
    write_data_dir(Path(config.data), rows[validation:], rows[:validation], [], {}, overwrite=False)
    prepared = prepare(config, start_accelerator(), Screen(quiet=True))
    sequences = (prepared.train + prepared.validation).sequences
    keys, first = numpy.unique(sequences.keys, return_index=True)
    counts = sequences.completion_lengths[first].tolist()
    open_cache(prepared, config).append(
        [(key, -1.0, tokens) for key, tokens in zip(keys.tolist(), counts, strict=True)]
    )


def peak() -> int:
    """Bytes; not `ru_maxrss`, which counts what the parent held when this process began."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    data, cache = f"{sys.argv[2]}/data", f"{sys.argv[2]}/cache"
    if not Path(data).exists():
        fill(int(sys.argv[1]), TrainConfig(data=data, model=sys.argv[3], cache=cache))
        sys.exit()
    options = ["--data", data, "--model", sys.argv[3], "--cache", cache, "--out", f"{sys.argv[2]}/run"]
    sys.argv = ["kto", "train", *options, "--max-steps", "4"]
    try:
        main()
    finally:
        print(peak())
