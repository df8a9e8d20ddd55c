"""Where the wall time of `kto eval` goes: how much of it is the model's, and what the rest is spent on.

    python benchmarks/evaluation.py                        # 500 rows, a 31M Llama and the built-in tiny model
    python benchmarks/evaluation.py --models tiny --json
    python benchmarks/evaluation.py --rows 100 --repeats 3

The command runs as a person runs it, in a process of its own, on a checkpoint that `kto train` wrote with it; wall time
is taken from outside, from before the process starts to after it has ended. Two cases: "after train", the usual one, in
which training has left the reference's log-probs and the tokens of the validation rows in the cache; and "empty cache",
the first look at a model. In the process functions of kto are wrapped in a clock (`PARTS`); time within a part that is
within another counts for the inner one alone, so the parts add up to the whole. An import counts wherever it happens.
A run without the clock, beside it, shows that the clock costs nothing.

The model's: forward passes over rows, generation of answers, and the check of the fast ways against the model's own
logits, which are forward passes too (shown apart, and `outside_with_checks` counts them as not the model's).
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base_test.jsonl.gz"
MODELS = ("body-heavy", "tiny")
CASES = ("after train", "empty cache")
IMPORTS, START, STOP, REST = "imports", "start of Python", "end of Python", "rest"
ROWS, ANSWERS, CHECKS = "model: rows", "model: answers", "model: checks"
FILES = "files"
PARTS = {
    ROWS: ("model.scorer:CompletionScorer.forward",),
    ANSWERS: ("evaluation.answers.store:answer_all",),
    CHECKS: ("model.scorer:CompletionScorer.trust_or_fall_back",),
    "micro-batches": ("model.logprobs.forward:DistributedScorer.log_probs",),
    "load model and tokenizer": (
        "model.load:load_model",
        "model.load:load_tokenizer",
        "model.distributed.start:start_accelerator",
    ),
    "check and fingerprint": (
        "evaluation.checkpoint:Checkpoint.find",
        "model.source:open_source",
        "data.dataset:load_data_dir",
    ),
    "tokenize": ("model.tokens.cached:tokenized_rows",),
    "reference cache": ("model.logprobs.reference:reference_logps",),
    "statistics": ("evaluation.validation:find_out",),
    FILES: (
        *(f"evaluation.validation:{name}" for name in ("write", "rows_table", "texts_of", "places_of")),
        *(f"evaluation.answers.store:AnswerStore.{name}" for name in ("append", "read")),
        *(f"evaluation.files:{name}" for name in ("write_part", "write_lines")),
    ),
    "report": ("evaluation.report.page:write_report",),
    "screen": (
        "common.tables:metrics_table",
        "evaluation.tables:show_details",
        "evaluation.answers.answering:Answering.show",
    ),
}
"""Part -> MODULE:FUNCTION or MODULE:CLASS.METHOD of kto_cli. A name that is gone stops the benchmark."""


def main() -> None:
    """Prepares data and checkpoints, runs `kto eval` on them, prints medians."""
    if sys.argv[1:2] == ["--clocked"]:
        clocked(Path(sys.argv[2]), sys.argv[3:])
        return
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="kto-evaluation-") as folder:
        work = Path(folder)
        rows = validation_data(options, work)
        found = []
        for model in options.models:
            prepare_checkpoint(model, work)
            for case in options.cases:
                for number in range(options.repeats):
                    print(f"{model}, {case}, {number + 1} of {options.repeats}", file=sys.stderr, flush=True)
                    found.append({"model": model, "case": case, **measured(model, case, work)})
    results = [summary(found, model, case) for model in options.models for case in options.cases]
    if options.json:
        print(json.dumps({"rows": rows, "cores": os.cpu_count(), "results": results}))
    else:
        show(rows, results)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=500, help="validation rows, nearly; default 500")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=1, help="of each measurement; medians count")
    parser.add_argument("--data", default=str(FILE), help="a raw hh-rlhf file; default: ../shared/data's, else made up")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args()


# --- what is evaluated --------------------------------------------------------------------------


def validation_data(options: argparse.Namespace, work: Path) -> int:
    """A data folder with few training rows and nearly as many validation rows as asked; their number."""
    if Path(options.data).is_file():
        import gzip

        with gzip.open(options.data) as lines:
            pairs = sum(1 for _ in lines)
        source = ["hh-rlhf", "--from", options.data]
    else:
        from scaling import synthetic

        pairs = options.rows
        (work / "rows.jsonl").write_text("\n".join(synthetic(2 * pairs, 60)))
        source = [str(work / "rows.jsonl")]
    share = min(0.9, options.rows / (2 * pairs))
    kto("binarize", *source, "--validation", f"{share:.6f}", "--limit", "64", "--out", str(work / "data"))
    counts = json.loads((work / "data" / "manifest.json").read_text())["splits"]["validation"]
    return int(counts["desirable"] + counts["undesirable"])


def prepare_checkpoint(model: str, work: Path) -> None:
    """The reference's folder, and two steps of training from it that leave log-probs and tokens in a cache."""
    home = work / model
    if model == "tiny":
        home.mkdir()
        (home / "model").symlink_to(ROOT / "sample_data" / "model")
    else:
        run([sys.executable, "-c", WRITE_MODEL, str(home / "model")])
    kto("train", *common(model, work), "--out", str(home / "checkpoint"), "--max-steps", "2")


WRITE_MODEL = """
import sys
from pathlib import Path
from transformers import AutoTokenizer
from versus_trl.shapes import BODY_HEAVY, write_model
from evaluation import ROOT
tokenizer = AutoTokenizer.from_pretrained(ROOT / "sample_data" / "model")
assert len(tokenizer) <= BODY_HEAVY.vocabulary
write_model(BODY_HEAVY, tokenizer, Path(sys.argv[1]))
"""
"""Run elsewhere: this process stays small and imports nothing that a child might find warm in memory."""


def common(model: str, work: Path) -> list[str]:
    """What train and eval are both told."""
    home = work / model
    return ["--data", str(work / "data"), "--model", str(home / "model"), "--cache", str(home / "cache")]


def measured(model: str, case: str, work: Path) -> dict[str, Any]:
    """Seconds of one `kto eval` by part, and of another without the clock."""
    home = work / model

    def words() -> list[str]:
        cache = Path(tempfile.mkdtemp(dir=work))
        if case == CASES[0]:  # a copy: the first evaluation keeps its answers
            shutil.copytree(home / "cache", cache, dirs_exist_ok=True)
        return ["eval", str(home / "checkpoint"), "--cache", str(cache)]

    times = work / "times.json"
    plain = run([sys.executable, "-m", "kto_cli", *words()])[0]
    seconds, began, ended = run([sys.executable, __file__, "--clocked", str(times), *words()])
    child = json.loads(times.read_text())
    parts = {START: child["began"] - began, **child["parts"], STOP: ended - child["ended"]}
    parts[REST] = parts.get(REST, 0.0) + seconds - sum(parts.values())
    return {"seconds": seconds, "plain_seconds": plain, "parts": parts}


def kto(*words: str) -> None:
    """A command of kto."""
    run([sys.executable, "-m", "kto_cli", *words])


def run(command: list[str]) -> tuple[float, float, float]:
    """(seconds, when it began, when it had ended) of a process, on the clock that all processes of a machine share."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]))
    began = time.time()
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    ended = time.time()
    if ran.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")
    return ended - began, began, ended


# --- in the process that is measured ------------------------------------------------------------


class Clock:
    """Seconds by part; of parts within parts the inner one counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stack = [REST]
        self.since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens meanwhile is of this part. The model's stays the model's, whatever it calls but imports and
        files."""
        self._book()
        self.stack.append(
            self.stack[-1] if self.stack[-1].startswith("model: ") and name not in (IMPORTS, FILES) else name
        )
        try:
            yield
        finally:
            self._book()
            self.stack.pop()

    def _book(self) -> None:
        now = time.perf_counter()
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.since
        self.since = now

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @functools.wraps(function)
        def timed(*values: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*values, **named)

        return timed


def clocked(times: Path, words: list[str]) -> None:
    """Runs `kto` with these words and writes seconds by part."""
    began, clock = time.time(), Clock()
    loader = sys.modules["_frozen_importlib"]
    vars(loader)["_find_and_load"] = clock.around(IMPORTS, vars(loader)["_find_and_load"])
    cli = importlib.import_module("kto_cli.cli.app")
    importlib.import_module("kto_cli.workflows.evaluate")
    for part, places in PARTS.items():
        for place in places:
            replace(clock, part, place)
    sys.argv = ["kto", *words]
    try:
        cli.main()
    except SystemExit as stopped:
        if stopped.code:
            raise
    with clock.part(REST):
        pass
    times.write_text(json.dumps({"began": began, "parts": clock.seconds, "ended": time.time()}))


def replace(clock: Clock, part: str, place: str) -> None:
    """Puts a timed function wherever kto has the plain one by name."""
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(f"kto_cli.{module}")
    *outer, name = name.split(".")
    for each in outer:
        owner = getattr(owner, each)
    plain = getattr(owner, name)
    timed = clock.around(part, plain)
    setattr(owner, name, timed)
    for known in [known for key, known in sys.modules.items() if key.startswith("kto_cli.")]:
        for key in [key for key, value in vars(known).items() if value is plain]:
            setattr(known, key, timed)


# --- what it comes to ---------------------------------------------------------------------------


def summary(found: list[dict[str, Any]], model: str, case: str) -> dict[str, Any]:
    """Medians of the runs of one model and case, and the shares outside the model."""
    runs = [run for run in found if (run["model"], run["case"]) == (model, case)]
    names = list(dict.fromkeys(name for run in runs for name in run["parts"]))
    parts = {name: statistics.median(run["parts"].get(name, 0.0) for run in runs) for name in names}
    whole = sum(parts.values())
    inside = sum(parts.get(name, 0.0) for name in (ROWS, ANSWERS, CHECKS))
    return {
        "model": model,
        "case": case,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "plain_seconds": statistics.median(run["plain_seconds"] for run in runs),
        "outside": 1 - inside / whole,
        "outside_with_checks": 1 - (inside - parts.get(CHECKS, 0.0)) / whole,
        "parts": parts,
    }


def show(rows: int, results: list[dict[str, Any]]) -> None:
    """A table: parts down, models and cases across."""
    names = list(dict.fromkeys(name for one in results for name in one["parts"]))
    order = [START, IMPORTS, *PARTS, REST, STOP]
    print(f"kto eval on {rows} validation rows, seconds of wall time\n")
    print(f"| | {' | '.join(one['model'] + ', ' + one['case'] for one in results)} |")
    print(f"| --- | {' | '.join('---:' for _ in results)} |")
    for name in sorted(names, key=order.index):
        print(f"| {name} | {' | '.join(format(one['parts'].get(name, 0.0), '.2f') for one in results)} |")
    for name, key, form in (
        ("**whole**", "seconds", ".2f"),
        ("without the clock", "plain_seconds", ".2f"),
        ("**outside the model**", "outside", ".1%"),
        ("outside, checks counted in", "outside_with_checks", ".1%"),
    ):
        print(f"| {name} | {' | '.join(format(one[key], form) for one in results)} |")


if __name__ == "__main__":
    main()
