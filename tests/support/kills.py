"""SIGKILL at random instants: `python tests/support/kills.py --count 200` says how many, and what came of them.

After each kill the same command is given again (a training run with --resume). It must not be refused, nothing that was
there before may be lost, and the result must be the one of a command that nobody killed.

Commands run in forked children of one process that has imported everything, so that the instants lie within the work.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from conftest import call, pairs, save_pico_llama, write_lines  # noqa: E402

TRAIN = ("--batch-size", 8, "--epochs", 3, "--save-every", 2, "--eval-every", 3, "--learning-rate", "1e-3")
SMALL = ("--micro-batch-tokens", 200)
"""Many micro-batches, so that there are many instants."""


class Fault(Exception):
    """A kill did harm."""


@dataclass(frozen=True)
class Kind:
    """A command to kill."""

    name: str
    words: tuple[object, ...]
    again: tuple[object, ...]
    """What is typed after the kill."""
    state: Callable[[Path], Any]
    """Of the folder it was typed in: what must be as if nobody had killed it."""
    start: str
    """Name of the folder that it starts from."""
    still_there: Callable[[Path], None] = lambda home: None
    """Checks right after the kill that nothing was lost; raises `Fault`."""
    may_be_done: str = ""
    """What the second command may say if the first had finished."""


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows_of(home: Path) -> list[str]:
    return [sha(home / "data/set" / name) for name in ("train.parquet", "validation.parquet", "rejects.jsonl")]


def run_of(home: Path) -> Any:
    import json

    lines = [json.loads(line) for line in (home / "run/metrics.jsonl").read_text().splitlines()]
    left = sorted(path.name for path in (home / "run").rglob(".*"))
    return sha(home / "run/model.safetensors"), [(line["step"], line["loss"]) for line in lines], left


def results_of(home: Path) -> Any:
    import json

    left = sorted(path.name for path in (home / "run/eval").rglob(".*"))
    return json.loads((home / "run/eval/metrics.json").read_text())["metrics"], left


def cache_of(home: Path) -> list[tuple[bytes, int]]:
    """Keys of the reference cache, each once, with their tokens, and the log-probs to 3 digits."""
    import numpy

    from kto_cli.model.identity import fingerprint, numbers_identity
    from kto_cli.model.logprobs.reference_cache import _RECORD, ReferenceCache

    cache = ReferenceCache(
        home / "cache", numbers=numbers_identity(fingerprint(home.parent / "model"), "torch.float32")
    )
    found = [
        record
        for path in sorted(cache.folder.glob("*.segment"))
        for payload in cache._frames(path.read_bytes())[0]
        for record in numpy.frombuffer(payload, _RECORD)
    ]
    return sorted((record["key"].tobytes(), int(record["tokens"]), round(float(record["logp"]), 3)) for record in found)


def dataset_is_there(home: Path) -> None:
    """An earlier dataset or the new one, whole, also if no command has run since."""
    from kto_cli.common.errors import KtoError
    from kto_cli.data.dataset import load_data_dir
    from kto_cli.data.dataset_folder import find_data_dir

    before = Path.cwd()
    os.chdir(home)
    try:
        data = load_data_dir(find_data_dir(None))
        counts = len(data.train), len(data.validation)
    except KtoError as error:
        raise Fault(f"the dataset is lost: {error}") from error
    finally:
        os.chdir(before)
    if counts not in COUNTS:
        raise Fault(f"a dataset of {counts} rows, which was never there")


COUNTS: set[tuple[int, int]] = set()
"""Rows of the datasets that may be there."""


def kinds(model: Path) -> list[Kind]:
    given = ("--model", model)
    binarize = ("binarize", "pairs.jsonl", "--out", "data/set", "--validation", 0.2)
    overwrite = ("binarize", "more.jsonl", "--out", "data/set", "--validation", 0.2, "--overwrite")
    train = ("train", *given, *TRAIN, *SMALL, "--out", "run")
    evaluate = ("eval", "run", "--samples", 2, "--max-new-tokens", 8)
    precompute = ("precompute", *given, *SMALL)
    return [
        Kind("binarize", binarize, binarize, rows_of, "empty", may_be_done="already holds a dataset"),
        Kind("binarize --overwrite", overwrite, overwrite, rows_of, "data", dataset_is_there),
        Kind("precompute", precompute, precompute, cache_of, "data", dataset_is_there),
        Kind("train", train, (*train, "--resume"), run_of, "cached", may_be_done="nothing to resume"),
        Kind("eval", evaluate, evaluate, results_of, "trained"),
    ]


def forked(home: Path, words: tuple[object, ...], *, after: float | None = None) -> tuple[int, str, float]:
    """A command in `home`, killed after so many seconds: (exit status or -9, what it said, seconds)."""
    said = home.parent / "said.txt"
    began = time.perf_counter()
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.chdir(home)
            os.environ["KTO_CACHE"] = str(home / "cache")
            ran = call(*words)
            said.write_text(ran.err)
            status = ran.code
        except BaseException as error:  # noqa: BLE001  (the child must end here)
            said.write_text(f"Traceback: {error!r}")
        finally:
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    return (-9, "", seconds) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), said.read_text(), seconds)


def expect(home: Path, words: tuple[object, ...]) -> float:
    status, said, seconds = forked(home, words)
    if status:
        raise Fault(f"kto {' '.join(map(str, words))}: exit {status}: {said[-300:]}")
    return seconds


def prepare(work: Path) -> Path:
    """Folders that the commands start from."""
    model = save_pico_llama(work / "model")
    empty = work / "empty"
    empty.mkdir()
    write_lines(empty / "pairs.jsonl", pairs(40))
    write_lines(empty / "more.jsonl", pairs(60))
    steps: dict[str, tuple[str, int]] = {"data": ("empty", 0), "cached": ("data", 2), "trained": ("cached", 3)}
    for name, (start, number) in steps.items():
        shutil.copytree(work / start, work / name)
        expect(work / name, kinds(model)[number].words)
    return model


def kill_all(count: int, seed: int = 0, say: Callable[[str], None] = lambda text: None) -> dict[str, int]:
    """So many kills, shared among the kinds; returns how many caught each command at work.

    Raises:
        Fault: one did harm.
    """

    import kto_cli.workflows.binarize
    import kto_cli.workflows.evaluate
    import kto_cli.workflows.train  # noqa: F401  (imported before the forks)
    from kto_cli.data.dataset import load_data_dir

    draw, caught = random.Random(seed), {}
    with tempfile.TemporaryDirectory(prefix="kto-kills-") as folder:
        work = Path(folder)
        model = prepare(work)
        for number, kind in enumerate(kinds(model)):
            seconds = math.inf
            for _ in range(2):  # the first reads more from disk
                shutil.rmtree(work / "whole", ignore_errors=True)
                whole = Path(shutil.copytree(work / kind.start, work / "whole"))
                seconds = min(seconds, expect(whole, kind.words))
            right = kind.state(whole)
            for place in (work / kind.start, whole):
                if (place / "data/set").is_dir():
                    data = load_data_dir(place / "data/set")
                    COUNTS.add((len(data.train), len(data.validation)))
            share = count // len(kinds(model)) + (number < count % len(kinds(model)))
            caught[kind.name] = 0
            for _ in range(share):
                home = Path(shutil.copytree(work / kind.start, work / "home"))
                instant = draw.uniform(0, seconds)
                status, said, _ = forked(home, kind.words, after=instant)
                caught[kind.name] += status == -9
                where = f"{kind.name} killed after {instant:.3f} of {seconds:.3f} s"
                try:
                    kind.still_there(home)
                    status, said, _ = forked(home, kind.again)
                    if status and not (kind.may_be_done and kind.may_be_done in said):
                        raise Fault(f"refused afterwards: {said[-300:]}")
                    if (found := kind.state(home)) != right:
                        raise Fault(f"another result: {str(found)[:200]} in place of {str(right)[:200]}")
                except Fault as fault:
                    raise Fault(f"{where}: {fault}") from fault
                shutil.rmtree(home)
            shutil.rmtree(whole)
            say(f"{kind.name}: {share} kills, {caught[kind.name]} of them at work ({seconds:.1f} s); nothing lost")
    return caught


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kill_all(options.count, options.seed, lambda text: print(text, flush=True))
