"""Times optimizer steps and the reference pass of `kto` beside a plain loop over the same rows, and their peak memory.

    python benchmarks/steps.py                                    # built-in sample and tiny model
    python benchmarks/steps.py --model FOLDER --data data/hh-rlhf --steps 5 --repeats 5 --json

The plain loop is what one writes first: a batch is padded to its longest row, the head runs over all
positions, the log-softmax over all of them, and the reference model runs in every step. It computes the same
loss, which is checked. Every measurement runs in a process of its own, so that no peak hides behind an
earlier one, and the ways alternate, so that a busy machine troubles all of them alike.

Real tokens are counted, never padding: in a step each row's and each mismatched pair's once, in the
reference pass each sequence's once. The peak is what a process needs above the loaded policy.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from process_memory import Memory

WAYS = {
    "precompute, kto": "kto_precompute",
    "precompute, plain": "plain_precompute",
    "step, kto": "kto_step",
    "step, plain": "plain_step",
}
LAMBDAS = {"lambda_d": 1.0, "lambda_u": 1.33}
BETA = 0.1
LEARNING_RATE = 1e-5


def main() -> None:
    """Measures every way several times and prints the medians."""
    options = arguments()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory(prefix="kto-benchmark-") as folder:
        if options.data is None:
            options.data = built_in_sample(Path(folder) / "data")
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
        for _ in range(options.repeats):
            for name, way in WAYS.items():
                runs[name].append(measured_elsewhere(way, options))
    check_same(runs)
    results = {name: median(found) for name, found in runs.items()}
    ratios = {part: compare(results[f"{part}, plain"], results[f"{part}, kto"]) for part in ("precompute", "step")}
    if options.json:
        print(json.dumps({"machine": machine(options), "results": results, "kto_against_plain": ratios}))
    else:
        show(results, ratios, options)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="a model folder; default: the built-in tiny model")
    parser.add_argument("--data", help="a folder that kto binarize wrote; default: the built-in sample")
    parser.add_argument("--batch-size", type=int, default=32, help="rows of one optimizer step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that warms up")
    parser.add_argument("--rows", type=int, default=128, help="rows of the reference pass")
    parser.add_argument("--max-length", type=int, help="most tokens of a row; default: as kto train chooses")
    parser.add_argument("--micro-batch-tokens", type=int, help="default: as kto train chooses")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way; the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--measure", choices=WAYS.values(), help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the parent process -----------------------------------------------------------------------


def built_in_sample(folder: Path) -> str:
    """The built-in sample, binarized."""
    from kto_cli.common import files
    from kto_cli.common.binarize_config import BinarizeConfig
    from kto_cli.common.screen import Screen
    from kto_cli.workflows import binarize

    sample = str(files.sample_data() / "hh-rlhf")
    binarize.run(BinarizeConfig(("hh-rlhf",), from_path=sample, out=str(folder)), Screen(quiet=True))
    return str(folder)


def measured_elsewhere(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a fresh process."""
    words = ["--measure", way]
    for name, value in vars(options).items():
        if name not in ("measure", "json", "repeats") and value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    ran = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{way} failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def check_same(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Both ways must have computed the same numbers, or their times say nothing."""
    for part in ("precompute", "step"):
        values = [run["value"] for way in ("kto", "plain") for run in runs[f"{part}, {way}"]]
        if max(values) - min(values) > 1e-2 * max(1e-6, abs(values[0])):
            sys.exit(f"{part}: the two ways differ by more than 1 %: {values}")


def median(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number."""
    return {name: statistics.median(run[name] for run in found) for name in found[0]}


def compare(plain: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """How many times faster, and what share of the memory."""
    return {
        "speed": plain["seconds"] / ours["seconds"],
        "peak_memory": ours["peak_bytes"] / max(1, plain["peak_bytes"]),
    }


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    import os

    import torch
    import transformers

    return {
        "model": options.model or "built-in",
        "batch_size": options.batch_size,
        "repeats": options.repeats,
        "processors": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(results: dict[str, Any], ratios: dict[str, Any], options: argparse.Namespace) -> None:
    """The table for people."""
    from rich.console import Console
    from rich.table import Table

    facts = machine(options)
    table = Table(title=f"{facts['model']}, batch {facts['batch_size']}, median of {facts['repeats']}")
    for column in ("", "seconds", "rows/s", "tokens/s", "padding", "peak MiB", "speed", "memory"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, result in results.items():
        ratio = ratios[name.split(",")[0]]
        ours = name.endswith("kto")
        table.add_row(
            name,
            f"{result['seconds']:.3f}",
            f"{result['rows_per_second']:,.1f}",
            f"{result['tokens_per_second']:,.0f}",
            f"{result['padding']:.0%}",
            f"{result['peak_bytes'] / 2**20:,.0f}",
            f"{ratio['speed']:.2f}x" if ours else "1x",
            f"{ratio['peak_memory']:.0%}" if ours else "100%",
        )
    Console().print(table)
    versions = f"torch {facts['torch']}, transformers {facts['transformers']}"
    Console().print(f"{facts['device']}, {facts['processors']} processors, {versions}", style="dim")


# --- one measurement, in a process of its own -------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Loads, warms up, times; the numbers of one way."""
    import torch

    from kto_cli.common.screen import Screen
    from kto_cli.common.train_config import TrainConfig
    from kto_cli.model.distributed.start import start_accelerator
    from kto_cli.model.logprobs.prepare import make_scorer, prepare

    if options.threads:
        torch.set_num_threads(options.threads)
    names = ("data", "model", "max_length", "micro_batch_tokens", "dtype")
    config = TrainConfig(**{name: getattr(options, name) for name in names if getattr(options, name) is not None})
    accelerator, screen = start_accelerator(), Screen(quiet=True)
    prepared = prepare(config, accelerator, screen)
    scorer = make_scorer(prepared, accelerator, screen)
    way: Callable[..., dict[str, Any]] = globals()[options.measure]
    return way(options, config, prepared, scorer, accelerator, screen)


def kto_precompute(
    options: argparse.Namespace, config: Any, prepared: Any, scorer: Any, accelerator: Any, screen: Any
) -> dict[str, Any]:
    """What `kto precompute` does, into an empty cache."""
    from dataclasses import replace

    from kto_cli.model.logprobs.reference import reference_logps

    rows = prepared.train[: options.rows]
    memory, counter = Memory(), TokenCounter(scorer)
    with tempfile.TemporaryDirectory() as cache:
        began = time.perf_counter()
        references, _ = reference_logps(
            prepared, rows, lambda: scorer, replace(config, cache=cache), accelerator, screen
        )
        seconds = finished(accelerator) - began
    return report(rows, 1, seconds, memory, value=references.own.mean().item(), computed=counter.tokens)


def plain_precompute(
    options: argparse.Namespace, config: Any, prepared: Any, scorer: Any, accelerator: Any, screen: Any
) -> dict[str, Any]:
    """Batches in the order of the rows, padded, every position through the head."""
    import torch

    rows = prepared.train[: options.rows]
    memory = Memory()
    began = time.perf_counter()
    own, computed = [], 0
    with torch.no_grad():
        for start in range(0, len(rows), options.batch_size):
            batch = rows[start : start + options.batch_size]
            for sequences, kept in (([row.own for row in batch], own), ([row.mismatched for row in batch], [])):
                kept.append(plain_logps(scorer.model, sequences, prepared.dtype).cpu())
                computed += len(batch) * max(sequence.length for sequence in sequences)
    seconds = finished(accelerator) - began
    return report(rows, 1, seconds, memory, value=torch.cat(own).mean().item(), computed=computed)


def kto_step(
    options: argparse.Namespace, config: Any, prepared: Any, scorer: Any, accelerator: Any, screen: Any
) -> dict[str, Any]:
    """What `kto train` does in a step, reference log-probs from the cache."""
    from dataclasses import replace

    import torch

    from kto_cli.core.loss_kinds import LossSettings
    from kto_cli.core.statistics.metrics import step_metrics
    from kto_cli.model.logprobs.reference import ReferenceLogps, reference_logps
    from kto_cli.training.step import TrainingEngine

    batches = planned(prepared, options)
    with tempfile.TemporaryDirectory() as cache:
        cached = [
            reference_logps(prepared, batch, lambda: scorer, replace(config, cache=cache), accelerator, screen)[0]
            for batch in batches
        ]
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    wrapped, optimizer = accelerator.prepare(scorer, optimizer)
    engine = TrainingEngine(accelerator, wrapped, optimizer, token_budget=prepared.token_budget, max_grad_norm=1.0)
    settings = LossSettings(BETA, **LAMBDAS)
    memory, counter, loss, began = Memory(), TokenCounter(scorer), 0.0, 0.0
    for number, (batch, references) in enumerate(zip(batches, cached, strict=True)):
        if number == 1:
            began, counter.tokens = time.perf_counter(), 0
        output = engine.step(batch, ReferenceLogps(*references), settings, learning_rate=LEARNING_RATE)
        labels, prompts = torch.tensor([row.label for row in batch]), [row.prompt_id for row in batch]
        loss = step_metrics(output.log_ratios, output.mismatched_log_ratios, labels, settings, prompts)["loss"]
    seconds = finished(accelerator) - began
    rows = [row for batch in batches[1:] for row in batch]
    return report(rows, len(batches) - 1, seconds, memory, value=loss, computed=counter.tokens)


def plain_step(
    options: argparse.Namespace, config: Any, prepared: Any, scorer: Any, accelerator: Any, screen: Any
) -> dict[str, Any]:
    """One padded batch; policy and reference, rows and mismatched pairs, all computed in the step."""
    import torch

    from kto_cli.core.losses import kto_loss
    from kto_cli.model.load import load_model

    batches = planned(prepared, options)
    memory = Memory()
    policy, reference = scorer.model, load_model(prepared.source.base).to(accelerator.device)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    loss, began, computed = torch.zeros(()), 0.0, 0
    for number, batch in enumerate(batches):
        if number == 1:
            began, computed = time.perf_counter(), 0
        own, mismatched = [row.own for row in batch], [row.mismatched for row in batch]
        with torch.no_grad():
            reference_own = plain_logps(reference, own, prepared.dtype)
            reference_mismatched = plain_logps(reference, mismatched, prepared.dtype)
            policy_mismatched = plain_logps(policy, mismatched, prepared.dtype)
        labels = torch.tensor([row.label for row in batch], device=accelerator.device)
        logps = plain_logps(policy, own, prepared.dtype)
        loss, _, _ = kto_loss(
            logps, reference_own, labels, policy_mismatched, reference_mismatched, beta=BETA, **LAMBDAS
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        computed += sum(len(batch) * max(sequence.length for sequence in part) for part in (own, mismatched))
    seconds = finished(accelerator) - began
    rows = [row for batch in batches[1:] for row in batch]
    return report(rows, len(batches) - 1, seconds, memory, value=loss.item(), computed=computed)


class TokenCounter:
    """Counts the tokens a scorer's model is given, padding included."""

    def __init__(self, scorer: Any) -> None:
        self.tokens = 0
        scorer.register_forward_pre_hook(self._count)

    def _count(self, module: Any, arguments: tuple[Any, ...]) -> None:
        self.tokens += arguments[0].numel()


def plain_logps(model: Any, sequences: Sequence[Any], dtype: Any) -> Any:
    """Summed completion log-probs the first way that comes to mind: [batch, time, vocab] and a mask."""
    import contextlib

    import torch

    time_ = max(sequence.length for sequence in sequences)
    device = model.device
    ids = torch.zeros(len(sequences), time_, dtype=torch.int64)
    attention, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for index, sequence in enumerate(sequences):
        ids[index, : sequence.length] = torch.tensor(sequence.prompt + sequence.completion)
        attention[index, : sequence.length] = 1
        mask[index, len(sequence.prompt) : sequence.length] = 1
    ids, attention, mask = ids.to(device), attention.to(device), mask.to(device)
    full = dtype == torch.float32
    with contextlib.nullcontext() if full else torch.autocast(device.type, dtype=dtype):
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
    logps = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return (logps * mask[:, 1:]).sum(-1)


def planned(prepared: Any, options: argparse.Namespace) -> list[Any]:
    """The batches of the warm-up and of the timed steps: those that `kto train` would take."""
    from kto_cli.core.plan import plan_epoch

    rows = prepared.train
    labels, groups = rows.labels.tolist(), (rows.prompts.tolist(), rows.conversations.tolist())
    batches: list[Any] = []
    epoch = 0
    while len(batches) <= options.steps:
        plan = plan_epoch(labels, *groups, batch_size=options.batch_size, seed=0, epoch=epoch)
        batches += [prepared.train.take(batch) for batch in plan]
        epoch += 1
    return batches[: options.steps + 1]


def sequences_of(rows: Sequence[Any]) -> list[Any]:
    """The rows' own sequences and their mismatched ones."""
    return [row.own for row in rows] + [row.mismatched for row in rows]


def finished(accelerator: Any) -> float:
    """The time at which the device has done all it was given."""
    import torch

    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def report(
    rows: Sequence[Any], rounds: int, seconds: float, memory: Memory, *, value: float, computed: int
) -> dict[str, Any]:
    """One measurement's numbers; `seconds` are those of one round (step or pass)."""
    tokens = sum(sequence.length for sequence in sequences_of(rows))
    return {
        "seconds": seconds / rounds,
        "rows_per_second": len(rows) / seconds,
        "tokens_per_second": tokens / seconds,
        "padding": max(0.0, 1 - tokens / computed),
        "peak_bytes": memory.peak_bytes(),
        "value": value,
    }


if __name__ == "__main__":
    main()
