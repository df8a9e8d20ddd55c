"""Times `kto` against TRL 1.16 from a raw hh-rlhf file to tokenized rows with mismatched pairs.

    python benchmarks/prepare_vs_trl.py                       # ../shared/data's file, else the built-in sample
    python benchmarks/prepare_vs_trl.py --copies 8            # the file eight times over (each copy other texts)
    python benchmarks/prepare_vs_trl.py --trl-python PATH     # a Python that has trl 1.16; else one is set up by pip

Both sides have one process, start from the file and end with token ids on disk: kto with `kto binarize` (findings,
ids, split and Parquet files included) and the token store that `kto precompute` and `kto train` read; TRL with
`load_dataset` and the trainer's own `_prepare_dataset` (extract prompt, unpair, end of sequence, tokenize, KL rows).
Imports, models and the start of Python are not counted, nor what is done once in a process (a few lines go through
first). Each measurement is a process of its own, and the sides alternate. TRL keeps the texts as they are; kto reads
them as chats, and renders its chat template besides.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from train_vs_trl import FILE, ROOT, source_of, trl_python
from versus_trl import shapes

SIDES = ("kto", "TRL")
MARKER = re.compile("(\n\n(?:Human|Assistant):)")
MAX_LENGTH = 1024
TEMPLATE = (
    "{% for message in messages %}{{ '\n\nHuman: ' if message['role'] == 'user' else '\n\nAssistant: ' }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


def main() -> None:
    """Sets up, measures both sides several times, prints medians and the ratio."""
    options = arguments()
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure))))
        return
    python = trl_python(options.trl_python)
    with tempfile.TemporaryDirectory(prefix="kto-prepare-") as work:
        raw = copied(Path(source_of(options.data)), options.copies, Path(work, "raw.jsonl"))
        model = tiny_model(raw, Path(work, "model"))
        seconds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for repeat in range(options.repeats):
            for side in SIDES:
                job = {"side": side, "raw": str(raw), "model": str(model), "work": f"{work}/{side}-{repeat}"}
                seconds[side].append(
                    run({**job, "workers": options.workers}, sys.executable if side == "kto" else python)
                )
    show(seconds)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help=f"raw hh-rlhf rows; default: ../shared/data/{FILE}, else the built-in sample")
    parser.add_argument("--copies", type=int, default=1, help="the file so many times over; default 1")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side; the median counts")
    parser.add_argument("--workers", type=int, default=1, help="processes of kto that parse; default 1")
    parser.add_argument("--trl-python", metavar="PATH", help="a Python with trl 1.16; default: a venv made by pip")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def copied(source: Path, copies: int, out: Path) -> Path:
    """The source's lines, again and again; each copy's turns say which it is, so that no text comes twice."""
    data = source.read_bytes()
    lines = (gzip.decompress(data) if source.suffix == ".gz" else data).decode().splitlines()
    with out.open("w") as target:
        for copy in range(copies):
            for line in lines:
                pair = json.loads(line)
                if copy:
                    pair = {side: MARKER.sub(rf"\1 ({copy})", text) for side, text in pair.items()}
                target.write(json.dumps(pair) + "\n")
    return out


def tiny_model(raw: Path, folder: Path) -> Path:
    """A model folder with a tokenizer of the file's own texts; the model is only there for TRL to hold."""
    lines = raw.read_text().splitlines()[:3000]
    tokenizer = shapes.train_tokenizer(text for line in lines for text in json.loads(line).values())
    tokenizer.chat_template = TEMPLATE
    shapes.write_model(shapes.Shape("tiny", 8, 16, 1, 1, 1, shapes.TOKENIZER_VOCABULARY), tokenizer, folder)
    return folder


def run(job: dict[str, Any], python: str) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{job['work']}/datasets"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "benchmarks")] if job["side"] == "kto" else [str(ROOT / "benchmarks")]
    )
    Path(job["work"]).mkdir()
    done = subprocess.run(
        [python, __file__, "--measure", json.dumps(job)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds and rows of one side, the second time: the first, over a few lines, loads what is loaded once."""
    side = ours if job["side"] == "kto" else theirs
    few = Path(job["work"], "few.jsonl")
    with open(job["raw"]) as raw:
        few.write_text("".join(islice(raw, 40)))
    side({**job, "raw": str(few), "work": job["work"] + "/few"})
    return side({**job, "work": job["work"] + "/all"})


def ours(job: dict[str, Any]) -> dict[str, Any]:
    """`kto binarize`, then the token store of its rows."""
    from kto_cli.common.binarize_config import BinarizeConfig
    from kto_cli.common.screen import Screen
    from kto_cli.data.dataset import load_data_dir
    from kto_cli.model.distributed.start import start_accelerator
    from kto_cli.model.load import load_tokenizer
    from kto_cli.model.tokens.cached import tokenized_rows
    from kto_cli.model.tokens.encoder import Encoder
    from kto_cli.workflows import binarize

    work, model, screen = Path(job["work"]), Path(job["model"]), Screen(quiet=True)
    tokenizer, _ = load_tokenizer(model, chat_template=None, trust_remote_code=False)
    accelerator = start_accelerator()
    config = BinarizeConfig(
        ("hh-rlhf",), from_path=job["raw"], out=str(work / "data"), validation=0.0, workers=job["workers"]
    )
    began, cpu = time.perf_counter(), time.process_time()
    binarize.run(config, screen)
    binarized = time.perf_counter() - began
    data, encoder = load_data_dir(work / "data"), Encoder(tokenizer, max_length=MAX_LENGTH)
    rows, _ = tokenized_rows(work / "cache", data, "train.parquet", encoder, model, accelerator, screen)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    tokens = sum(row.own.length for row in rows)
    return {"seconds": seconds, "cpu": cpu, "binarize": binarized, "rows": len(rows), "tokens": tokens}


def theirs(job: dict[str, Any]) -> dict[str, Any]:
    """TRL's KTOTrainer over the same file."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    seconds = [0.0, 0.0]
    original = KTOTrainer._prepare_dataset

    def timed(self: Any, *args: Any, **options: Any) -> Any:
        began, cpu = time.perf_counter(), time.process_time()
        result = original(self, *args, **options)
        seconds[0] += time.perf_counter() - began
        seconds[1] += time.process_time() - cpu
        return result

    KTOTrainer._prepare_dataset = timed
    model = AutoModelForCausalLM.from_pretrained(job["model"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    began, cpu = time.perf_counter(), time.process_time()
    dataset = load_dataset("json", data_files=job["raw"], split="train")
    loaded, loading = time.perf_counter() - began, time.process_time() - cpu
    config = KTOConfig(
        output_dir=job["work"], max_length=MAX_LENGTH, use_cpu=True, report_to="none", disable_tqdm=True, bf16=False
    )
    trainer = KTOTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    KTOTrainer._prepare_dataset = original
    tokens = sum(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in trainer.train_dataset)
    rows = len(trainer.train_dataset)
    return {
        "seconds": loaded + seconds[0],
        "cpu": loading + seconds[1],
        "load": loaded,
        "rows": rows,
        "tokens": tokens,
    }


def show(seconds: dict[str, list[dict[str, Any]]]) -> None:
    """Medians and the ratio of rows a second."""
    rates = {}
    for side, runs in seconds.items():
        rates[side] = statistics.median(run["rows"] / run["seconds"] for run in runs)
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        parts = ", ".join(f"{name} {value:.2f} s" for name, value in middle.items() if isinstance(value, float))
        print(f"{side:4} {rates[side]:8,.0f} rows/s   {middle['rows']:,} rows, {middle['tokens']:,} tokens: {parts}")
    print(f"kto / TRL: {rates['kto'] / rates['TRL']:.1f}")


if __name__ == "__main__":
    main()
