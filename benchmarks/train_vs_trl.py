"""Times `kto` against TRL 1.16's KTOTrainer on the same work: models, rows, tokens, batch, length, dtype.

    python benchmarks/train_vs_trl.py                          # three model shapes on a CPU, one of 1B on a GPU
    python benchmarks/train_vs_trl.py --quick --json           # smaller shapes, one repeat: within ten minutes
    python benchmarks/train_vs_trl.py --trl-python PATH        # a Python that has trl 1.16; else one is set up by pip
    python benchmarks/train_vs_trl.py --without-trl            # kto and the floor alone

Every measurement runs in a process of its own, and the ways alternate. Before a shape is timed, one step of kto, its
policy away from the reference, must give the loss, z_ref, log-ratios and gradient norm of a naive step
(one row at a time, full softmax). README.md beside this file says what is equal, what is not, and what is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from versus_trl import floor, shapes, tables

TRL_VERSION = "1.16.0"
ROOT = Path(__file__).resolve().parents[1]
FILE = Path("hh-rlhf", "harmless-base_test.jsonl.gz")
SETTINGS = {
    "batch_size": 32,
    "micro_batch": 8,
    "max_length": 512,
    "beta": 0.1,
    "learning_rate": 1e-5,
    "clip": 1.0,
}
"""Equal on both sides; `micro_batch` is TRL's per_device_train_batch_size, kto cuts by tokens."""
TOLERANCES = {
    "float32": {"loss": 1e-5, "z_ref": 1e-3, "log_ratios": 5e-3, "gradient_norm": 1e-3},
    "bfloat16": {"loss": 5e-3, "z_ref": 0.2, "log_ratios": 2.0, "gradient_norm": 5e-2},
}
"""kto against the naive step, which is in float32: nats, for the gradient norm a share of it."""

KTO_STEP, KTO_PRECOMPUTE, KTO_COMPILED = "kto step", "kto precompute", "kto step, compiled"
ONLINE, PRECOMPUTED, DEFAULT = "TRL online", "TRL precomputed", "TRL online, checkpointing"
RATES = "GEMM"
LEARNING_BYTES = 12
"""A parameter's gradient and AdamW's two moments, float32: what training holds on either side, whatever it computes."""
WAYS: dict[str, dict[str, Any]] = {
    RATES: {"run": "rates"},
    KTO_STEP: {"run": "kto.step"},
    KTO_COMPILED: {"run": "kto.step", "kto_options": {"compile": True}},
    KTO_PRECOMPUTE: {"run": "kto.precompute"},
    ONLINE: {"run": "trl.step", "checkpointing": False, "precomputed": False},
    PRECOMPUTED: {"run": "trl.step", "checkpointing": False, "precomputed": True},
    DEFAULT: {"run": "trl.step", "checkpointing": True, "precomputed": False},
}


@dataclass(frozen=True)
class Case:
    """A model in a dtype, and the ways that are timed on it."""

    shape: shapes.Shape
    dtype: str
    ways: tuple[str, ...]

    @property
    def name(self) -> str:
        """What tables and results call it."""
        return f"{self.shape.name}, {self.dtype}"


def main() -> None:
    """Sets up, checks, measures every way several times, prints medians and ratios."""
    options = arguments()
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure))))
        return
    cuda = has_cuda()
    steps = options.steps or (1 if options.quick else 2)
    python = None if options.without_trl else trl_python(options.trl_python)
    with tempfile.TemporaryDirectory(prefix="kto-versus-trl-") as work:
        settings = {**SETTINGS, "steps": steps, "work": work, "data": f"{work}/rows", "threads": options.threads}
        cases = [case for case in cases_to_run(cuda=cuda, quick=options.quick) if options.cases in case.name]
        facts = prepare(cases, source_of(options.data), settings, python)
        cases = [without(case, trl=python is None, compiles=facts["compiles"]) for case in cases]
        results = {}
        for case in cases:
            found = measured(case, settings, facts, python, repeats=options.repeats or (1 if options.quick else 3))
            results[case.name] = summary(case, found, settings)
            if not options.json:
                tables.show(case.name, results[case.name])
    outcome = {
        **ratios(results),
        "cases": results,
        "settings": settings_said(settings),
        "machine": machine(facts, cuda),
    }
    if options.json:
        print(json.dumps(outcome))
    else:
        tables.show_ratios(outcome)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help=f"raw hh-rlhf rows; default: ../shared/data/{FILE}, else the built-in sample")
    parser.add_argument("--trl-python", metavar="PATH", help="a Python with trl 1.16; default: a venv made by pip")
    parser.add_argument("--without-trl", action="store_true", help="leave TRL out")
    parser.add_argument("--quick", action="store_true", help="smaller shapes, one repeat, one timed step")
    parser.add_argument(
        "--cases", metavar="TEXT", default="", help="only those whose name holds it: wide-vocab, bfloat16"
    )
    parser.add_argument("--repeats", type=int, help="measurements of each way; the median counts; default 3")
    parser.add_argument("--steps", type=int, help="timed steps, after one that warms up; default 2")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--json", action="store_true", help="one JSON object last instead of tables")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- set-up -------------------------------------------------------------------------------------


def cases_to_run(*, cuda: bool, quick: bool) -> list[Case]:
    """The shapes of this device, the headline first."""
    everything = (RATES, KTO_STEP, KTO_PRECOMPUTE, ONLINE, PRECOMPUTED, DEFAULT)
    if cuda:
        return [Case(shapes.ON_GPU, "bfloat16", (*everything, KTO_COMPILED))]
    if quick:
        body, wide = shapes.QUICK
        return [Case(body, "float32", everything[:-1]), Case(wide, "float32", (KTO_STEP, ONLINE))]
    return [
        Case(shapes.BODY_HEAVY, "float32", everything),
        Case(shapes.BODY_HEAVY, "bfloat16", (RATES, KTO_STEP, ONLINE)),
        Case(shapes.HEAD_HEAVY, "float32", (RATES, KTO_STEP, ONLINE, PRECOMPUTED)),
        Case(shapes.WIDE_VOCABULARY, "float32", (KTO_STEP, ONLINE)),
    ]


def without(case: Case, *, trl: bool, compiles: bool) -> Case:
    """The case less the ways that cannot be run here."""
    kept = [way for way in case.ways if not (trl and way.startswith("TRL")) and (compiles or way != KTO_COMPILED)]
    return Case(case.shape, case.dtype, tuple(kept))


def source_of(given: str | None) -> str:
    """The raw rows: those named, else the real file where it lies, else the built-in sample (said)."""
    if given:
        return given
    for shared in (os.environ.get("KTO_SHARED"), ROOT.parent / "shared", ROOT / "shared"):
        if shared and Path(shared, "data", FILE).is_file():
            return str(Path(shared, "data", FILE))
    say(f"No {FILE} here (name it with --data): the rows are those of the built-in sample.")
    return str(ROOT / "sample_data" / "hh-rlhf")


def prepare(cases: list[Case], source: str, settings: dict[str, Any], python: str | None) -> dict[str, Any]:
    """Writes models and rows; what is known of them and of the two environments."""
    distinct = {case.shape: asdict(case.shape) for case in cases}
    job = {**settings, "run": "kto.set_up", "source": source, "shapes": list(distinct.values()), "dtype": "float32"}
    facts = run(job, sys.executable) | {"source": Path(source).name, "trl": None}
    if python is not None:
        facts["trl"] = run({**settings, "run": "trl.versions"}, python)
        if facts["trl"]["trl"] != TRL_VERSION:
            sys.exit(f"{python} has trl {facts['trl']['trl']}, not {TRL_VERSION}. Leave --trl-python out to set it up.")
    return facts


def trl_python(given: str | None) -> str:
    """The Python of an environment with TRL, set up below the cache folder where none is given."""
    if given:
        return given
    import torch
    import transformers

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "kto" / f"trl-{TRL_VERSION}-torch-{torch.__version__}-transformers-{transformers.__version__}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        say(f"Setting up TRL {TRL_VERSION} in {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        same = [f"torch=={torch.__version__.split('+')[0]}", f"transformers=={transformers.__version__}"]
        install = [python, "-m", "pip", "install", "-q", f"trl=={TRL_VERSION}", *same]
        subprocess.run(install, check=True, stdout=sys.stderr)
        (folder / "ready").touch()
    return str(python)


# --- measuring ----------------------------------------------------------------------------------


def measured(
    case: Case, settings: dict[str, Any], facts: dict[str, Any], python: str | None, *, repeats: int
) -> dict[str, Any]:
    """Every way's measurements, way by way in turn, after the check against the naive step."""
    job = {**settings, "model": f"{settings['work']}/{case.shape.name}", "dtype": case.dtype}
    found: dict[str, Any] = {"check": refuse_unless_equal(run({**job, "run": "kto.check"}, sys.executable), case)}
    found |= {way: [] for way in case.ways}
    for _ in range(repeats):
        for way in case.ways:
            began = time.perf_counter()
            extra = {"shape": asdict(case.shape), "tokens": facts["token_budget"]} if way == RATES else {}
            mine = python if way.startswith("TRL") else sys.executable
            found[way].append(run({**job, **WAYS[way], **extra}, mine or sys.executable))
            took = found[way][-1].get("seconds")
            each = f": {took:.2f} s" if took else ""
            say(f"{case.name}: {way}{each} (in {time.perf_counter() - began:.0f} s)")
    return found


def refuse_unless_equal(found: dict[str, Any], case: Case) -> dict[str, Any]:
    """How far kto's step lies from the naive one; a step that computes something else is not timed."""
    ours, naive, allowed = found["kto"], found["naive"], TOLERANCES[case.dtype]
    apart = {name: abs(ours[name] - naive[name]) for name in ("loss", "z_ref")}
    apart["log_ratios"] = max(
        abs(mine - theirs)
        for name in ("log_ratios", "mismatched_log_ratios")
        for mine, theirs in zip(ours[name], naive[name], strict=True)
    )
    apart["gradient_norm"] = abs(ours["gradient_norm"] / naive["gradient_norm"] - 1)
    for name, distance in apart.items():
        if not distance <= allowed[name]:
            sys.exit(f"{case.name}: {name} differs from the naive step's by {distance:.2e}. Nothing is timed.")
    say(f"{case.name}: loss {naive['loss']:.6f}, z_ref {naive['z_ref']:.4f} as in the naive step")
    return {"naive_loss": naive["loss"], "naive_z_ref": naive["z_ref"], "apart": apart}


def run(job: dict[str, Any], python: str) -> dict[str, Any]:
    """A job in a fresh process of the given Python."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{job['work']}/datasets"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    command = [python, __file__, "--measure", json.dumps(job)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ran.returncode:
        sys.exit(f"{job['run']} failed:\n{ran.stderr}")
    return json.loads(ran.stdout.splitlines()[-1])


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """What the fresh process does."""
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    side, _, name = job["run"].partition(".")
    if side == "rates":
        rows = [row for batch in batches_of(job["work"]) for row in batch]
        length = sum(len(row["prompt"]) + len(row["completion"]) for row in rows) // len(rows)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shape, dtype = shapes.Shape(**job["shape"]), getattr(torch, job["dtype"])
        work = floor.work_of(batches_of(job["work"])[-1])
        tokens = min(job["tokens"], work.prompts + work.completions)  # as many as a step has at once
        return floor.gemm_rates(shape, tokens=tokens, length=length, dtype=dtype, device=device)
    if side == "trl":
        from versus_trl import trl_side as found
    else:
        from versus_trl import kto_side as found
    return getattr(found, name)(job)


def batches_of(work: str) -> list[list[dict[str, Any]]]:
    """The effective batches, as `kto_side.dump` wrote them."""
    return json.loads(Path(work, "batches.json").read_text())


# --- what it comes to ---------------------------------------------------------------------------


def summary(case: Case, found: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Medians of a case in rows/s, tokens/s, bytes, FLOPs, and the floor."""
    batches = batches_of(settings["work"])
    timed = batches[1:]
    flops = [floor.floor_flops(case.shape, floor.work_of(batch)) for batch in timed]
    least = sum(count.total() for count in flops) / len(timed)
    share = sum(floor.head_share(case.shape, count) for count in flops) / len(timed)
    result: dict[str, Any] = {
        "parameters": case.shape.parameters,
        "shape": asdict(case.shape),
        "dtype": case.dtype,
        "head_share_of_flops": share,
        "check": found["check"],
        "floor": {"flops_per_row": least / settings["batch_size"]},
        "ways": {},
    }
    for way in case.ways:
        if way == RATES:
            rates = median(found[way])
            seconds = statistics.mean(floor.floor_seconds(count, rates) for count in flops)
            result["floor"] |= {"seconds": seconds, "flops_per_second": least / seconds, "rates": rates}
            continue
        result["ways"] |= way_results(case, way, median(found[way]), batches, settings, least)
    return result


def way_results(
    case: Case, way: str, numbers: dict[str, Any], batches: Any, settings: dict[str, Any], least: float
) -> dict[str, Any]:
    """One way's numbers; TRL's reference pass, where it has one, as a way of its own."""
    ours = way.startswith("kto")
    everything = [row for batch in batches for row in batch]
    found: dict[str, Any] = {}
    if way != KTO_PRECOMPUTE:
        timed = [row for batch in batches[1:] for row in batch]
        spent = least if ours else trl_flops(case.shape, timed, WAYS[way], settings) / (len(batches) - 1)
        tokens = tokens_of(timed, ours) / (len(batches) - 1)
        found[way] = speed(numbers, numbers["seconds"], settings["batch_size"], tokens, spent)
        found[way]["working_bytes"] = numbers["peak_bytes"] - LEARNING_BYTES * case.shape.parameters
    reference = numbers["seconds"] if way == KTO_PRECOMPUTE else numbers.get("precompute_seconds")
    if reference is not None:
        name = way if ours else "TRL precompute"
        peak = {"peak_bytes": numbers["peak_bytes"]} if ours else {}
        found[name] = speed(peak, reference, len(everything), tokens_of(everything, ours), None)
    return found


def speed(numbers: dict[str, Any], seconds: float, rows: int, tokens: float, flops: float | None) -> dict[str, Any]:
    """Rates from times; FLOPs where they are known."""
    found = {"seconds": seconds, "rows_per_second": rows / seconds, "tokens_per_second": tokens / seconds}
    found |= {name: numbers[name] for name in ("peak_bytes", "losses", "mean_loss") if name in numbers}
    return found | ({"flops_per_row": flops / rows} if flops else {})


def tokens_of(rows: list[dict[str, Any]], ours: bool) -> int:
    """Real tokens: each row's own and its mismatched pair's, once. TRL's pairs borrow completions in a circle."""
    borrowed = "mismatched" if ours else "completion"
    return sum(2 * len(row["prompt"]) + len(row["completion"]) + len(row[borrowed]) for row in rows)


def trl_flops(shape: shapes.Shape, rows: list[dict[str, Any]], way: dict[str, Any], settings: dict[str, Any]) -> int:
    """What TRL computes over these rows."""
    online = not way["precomputed"]
    passes = {"own": 1 + online + way["checkpointing"], "mismatched": 1 + online, "backward": 1}
    # On a CPU its head scores every position, on a GPU those of the completions.
    everywhere = not has_cuda()
    return floor.padded_flops(
        shape, rows, micro_batch=settings["micro_batch"], passes=passes, head_everywhere=everywhere
    )


def median(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number; of losses, which do not vary, the first."""
    return {
        name: value if isinstance(value, list) else statistics.median(run_[name] for run_ in found)
        for name, value in found[0].items()
    }


def ratios(results: dict[str, Any]) -> dict[str, float | None]:
    """The headline's ratios, and those of memory from the wide vocabulary where it was run; None: not measured."""
    cases = list(results.values())
    head = cases[0]
    half = next((c for c in cases if c["dtype"] == "bfloat16" and c is not head), None)
    wide = next((c for c in cases if c["shape"]["name"] == "wide-vocab"), head)
    kto, prepared = head["ways"][KTO_STEP], head["ways"].get(KTO_PRECOMPUTE)
    theirs, online = head["ways"].get("TRL precompute"), head["ways"].get(ONLINE)
    least = head["floor"].get("seconds")
    epoch = prepared and kto["seconds"] + SETTINGS["batch_size"] / prepared["rows_per_second"]
    return {
        "online_ratio": ratio(head, ONLINE, "seconds"),
        "precomputed_ratio": ratio(head, PRECOMPUTED, "seconds"),
        "floor_ratio": least and kto["seconds"] / least,
        "memory_ratio": ratio(wide, ONLINE, "peak_bytes"),
        "precompute_ratio": prepared and theirs and prepared["rows_per_second"] / theirs["rows_per_second"],
        "one_epoch_ratio": online and epoch and online["seconds"] / epoch,
        "default_ratio": ratio(head, DEFAULT, "seconds"),
        "working_memory_ratio": ratio(wide, ONLINE, "working_bytes"),
        "bfloat16_ratio": half and kto["seconds"] / half["ways"][KTO_STEP]["seconds"],
    }


def ratio(case: dict[str, Any], way: str, number: str) -> float | None:
    """How many times more of a number TRL needs than kto's step."""
    theirs = case["ways"].get(way)
    return theirs and theirs[number] / max(1e-9, case["ways"][KTO_STEP][number])


def settings_said(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that are no place."""
    return {name: value for name, value in settings.items() if name not in ("work", "data")}


def machine(facts: dict[str, Any], cuda: bool) -> dict[str, Any]:
    """What the numbers depend on."""
    import platform

    import torch
    import transformers

    device = torch.cuda.get_device_name() if cuda else platform.machine()
    return {
        "device": device,
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": facts["trl"],
        "rows": facts["source"],
        "pairs_to_choose_from": facts["pairs"],
        "micro_batch_tokens": facts["token_budget"],
    }


def has_cuda() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def say(sentence: str) -> None:
    """Progress."""
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
