"""Prints the peak memory, in bytes above the imports, of preparing COUNT rows: COUNT FOLDER MODEL CACHE."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pyarrow.parquet  # noqa: F401  (what any preparation imports counts for none)
import transformers.models.llama.modeling_llama  # noqa: F401

from kto_cli.common.screen import Screen
from kto_cli.common.train_config import TrainConfig
from kto_cli.data.dataset import Row
from kto_cli.data.dataset_writer import write_data_dir
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.logprobs.prepare import prepare


def some_rows(count: int) -> list[Row]:
    """Texts of a few dozen words, two answers to a prompt."""
    rows = []
    for number in range(count):
        prompt, answer = f"Question {number // 2} " + "word " * 20, f"Answer {number} " + "word " * 10
        name = f"{number // 2:016x}"
        rows.append(Row(f"{number:016x}", name, None, "test", f"test:{number}", prompt, answer, number % 2 == 0))
    return rows


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if not folder.exists():
        write_data_dir(folder, some_rows(int(sys.argv[1])), [], [], {}, overwrite=False)
        sys.exit()
    accelerator = start_accelerator()
    config = TrainConfig(data=str(folder), model=sys.argv[3], cache=sys.argv[4])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared = prepare(config, accelerator, Screen(quiet=True))
    assert len(prepared.train.labels) == int(sys.argv[1])
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
