"""Speed of `kto train` on rows that share long prefixes: this checkout, another commit, and TRL 1.16 on the same rows.

    git worktree add /tmp/before COMMIT
    python benchmarks/prefixes.py --against /tmp/before        # six sets of rows, both sides alternating
    python benchmarks/prefixes.py --cases system --trl         # TRL's precomputed mode too
    python benchmarks/prefixes.py --json

Rows: a made product log whose chats begin with a system prompt of 800, 1,500 or 4,000 tokens; made conversations of
five rated turns; hh-rlhf's answers rated turn by turn; trees of oasst (real files, below the folder --shared). Each
side binarizes the same file, computes the reference log-probs (timed by a second pass that finds them cached), then
trains in steps of 32 rows, the first of which warms up. The model is train_vs_trl.py's body-heavy one with a context
of 8,192 tokens, in float32.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from versus_trl import shapes

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
CONTEXT, BATCH, SEED = 8192, 32, 0
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}" + shapes.END + "\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TRAIN = ("--batch-size", BATCH, "--learning-rate", 1e-5, "--dtype", "float32", "--max-length", CONTEXT)
Row = dict[str, Any]


def main() -> None:
    """Writes rows and models, measures every case on every side in turn, prints medians and ratios."""
    options = arguments()
    results = {}
    with tempfile.TemporaryDirectory(prefix="kto-prefixes-") as work:
        for name, make in CASES.items():
            if options.cases in name and (rows := make(BATCH * (options.steps + 1), options.shared)):
                results[name] = measured(name, rows, Path(work, name.replace(" ", "-")), options)
                if not options.json:
                    show(name, results[name])
    if options.json:
        print(json.dumps(results))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another commit")
    parser.add_argument("--trl", action="store_true", help="TRL too, in an environment made by pip")
    parser.add_argument("--trl-python", metavar="PATH", help="a Python with trl 1.16")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with data/hh-rlhf and data/oasst")
    parser.add_argument("--cases", default="", metavar="TEXT", help="only those whose name holds it")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; default 2; 0: the first alone")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side; the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args()


# --- rows ---------------------------------------------------------------------------------------


def product_log(count: int, system_tokens: int) -> list[Row]:
    """Chats behind one system prompt, each with one rated answer: questions of about 60 tokens, answers of 150."""
    draw = Random(SEED)
    system = {"role": "system", "content": words(draw, system_tokens)}
    return [
        row([system, user(words(draw, draw.randint(30, 90)))], words(draw, draw.randint(75, 225)), number)
        for number in range(count)
    ]


def rated_turns(count: int, turns: int) -> list[Row]:
    """Conversations of which every answer is rated: questions of about 60 tokens, answers of 150."""
    draw, rows = Random(SEED), []
    while len(rows) < count:
        chat: list[dict[str, str]] = []
        for _ in range(turns):
            chat.append(user(words(draw, draw.randint(30, 90))))
            answer = words(draw, draw.randint(75, 225))
            rows.append(row(list(chat), answer, draw.randrange(2)))
            chat.append({"role": "assistant", "content": answer})
    return rows[:count]


def hh_turns(count: int, shared: Path) -> list[Row]:
    """hh-rlhf's conversations of two answers and more, every answer a rated turn; desirable where chosen."""
    path = shared / "data" / "hh-rlhf" / "harmless-base_test.jsonl.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt") as file:
        records = [json.loads(line) for line in file]
    rows: list[Row] = []
    for number, record in enumerate(Random(SEED).sample(records, len(records))):
        chat = turns_of(record["chosen" if number % 2 else "rejected"])
        answers = [place for place, turn in enumerate(chat) if turn["role"] == "assistant" and place]
        if len(answers) >= 2 and all(turn["content"] for turn in chat):
            rows += [row(chat[:place], chat[place]["content"], number) for place in answers]
        if len(rows) >= count:
            break
    return rows[:count]


def turns_of(text: str) -> list[dict[str, str]]:
    """A conversation of hh-rlhf as messages."""
    roles = {"Human": "user", "Assistant": "assistant"}
    parts = [part.partition(": ") for part in text.split("\n\n") if part.partition(":")[0] in roles]
    return [{"role": roles[who.rstrip(":")], "content": said.strip()} for who, _, said in parts]


def oasst_trees(count: int, shared: Path) -> list[Row]:
    """Rows of oasst as `kto binarize oasst` makes them, whole trees at a time."""
    files = sorted((shared / "data" / "oasst").glob("*.jsonl*"))
    if not files:
        return []
    with tempfile.TemporaryDirectory() as folder:
        command = ["binarize", f"oasst:{files[0]}", "--holdout", "0", "--format", "trl", "--out", folder + "/out"]
        kto(ROOT, command, quiet=True)
        import pyarrow.parquet

        columns = ["prompt", "completion", "label"]
        found = pyarrow.parquet.read_table(f"{folder}/out/train.parquet", columns=columns).to_pylist()
    trees: dict[str, list[Row]] = {}
    for each in found:
        trees.setdefault(json.dumps(each["prompt"][0]), []).append(each)
    chosen: list[Row] = []
    for tree in sorted(trees.values(), key=len, reverse=True):
        chosen += tree
    return chosen[:count]


CASES: dict[str, Callable[[int, Path], list[Row]]] = {
    "system 800": lambda count, _: product_log(count, 800),
    "system 1500": lambda count, _: product_log(count, 1500),
    "system 4000": lambda count, _: product_log(count, 4000),
    "5 rated turns": lambda count, _: rated_turns(count, 5),
    "hh-rlhf turns": hh_turns,
    "oasst trees": oasst_trees,
}


def row(prompt: list[dict[str, str]], answer: str, number: int) -> Row:
    """A row in TRL's columns; desirable for odd numbers."""
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}], "label": number % 2 == 1}


def user(text: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": text}


def vocabulary() -> list[str]:
    """Made words; the tokenizer, trained on them, has one token for each."""
    draw = Random(SEED)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return sorted({"".join(draw.choices(syllables, k=draw.randint(2, 3))) for _ in range(1500)})


VOCABULARY = vocabulary()


def words(draw: Random, count: int) -> str:
    """So many words, about as many tokens."""
    return " ".join(draw.choices(VOCABULARY, k=count))


# --- measuring ----------------------------------------------------------------------------------


def measured(name: str, rows: list[Row], work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every side's measurements, side by side in turn."""
    work.mkdir()
    (work / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    write_model(work, rows)
    sides = {"kto": ROOT} | ({"before": options.against} if options.against else {})
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for side, tree in sides.items():
        kto(tree, ["binarize", f"trl:{work / 'rows.jsonl'}", "--holdout", 0, "--out", work / side / "data"], quiet=True)
    for repeat in range(options.repeats):
        for side, tree in sides.items():
            found[side].append(one_run(tree, work, side, options.steps))
            say(f"{name}, {repeat + 1}: {side} {found[side][-1]['seconds']:.2f} s a step")
    result = {side: medians(runs) for side, runs in found.items()}
    if options.trl:
        result["TRL precomputed"] = trl_run(work, options)
        say(f"{name}: TRL {result['TRL precomputed']['seconds']:.2f} s a step")
    return result


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Of each number."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def one_run(tree: Path, work: Path, side: str, steps: int) -> dict[str, Any]:
    """Seconds of the reference pass, seconds of a step, and peak memory of training, of one side."""
    place = Path(tempfile.mkdtemp(dir=work / side))
    common = ("--data", work / side / "data", "--model", work / "model", "--cache", place / "cache")
    limits = ("--dtype", "float32", "--max-length", CONTEXT)
    computed, cached = (kto(tree, ["precompute", *common, *limits])[0] for _ in range(2))
    given = ["train", *common, *TRAIN, "--max-steps", steps + 1, "--out", place / "run", "--save-every", 10**6]
    _, peak = kto(tree, given)
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    timed = [line["seconds"] for line in lines[1:] or lines]
    return {
        "seconds": statistics.mean(timed),
        "rows_per_second": BATCH / statistics.mean(timed),
        "reference_seconds": computed - cached,
        "peak_mib": peak / 1024,
        "loss": lines[0]["loss"],
    }


def kto(tree: Path, given: list[Any], *, quiet: bool = False) -> tuple[float, float]:
    """A command of that checkout: seconds, and peak memory in KiB."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "kto_cli", *map(str, given)]
        process = subprocess.Popen(command, env=environment, cwd=tree, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            output.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{output.read().decode()}")
    return time.perf_counter() - began, usage.ru_maxrss


def write_model(work: Path, rows: list[Row]) -> None:
    """The body-heavy model with a tokenizer of the rows' own texts and a plain chat template."""
    import torch

    texts = [message["content"] for each in rows for message in (*each["prompt"], *each["completion"])]
    tokenizer = shapes.train_tokenizer(["user: system: assistant:", *dict.fromkeys(texts)])
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(SEED)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    shapes.llama(shapes.BODY_HEAVY, max_position_embeddings=CONTEXT, **ends).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")


def trl_run(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """TRL's precomputed mode on the same rows and tokens: its own measurement (versus_trl/trl_side.py)."""
    import train_vs_trl

    python = train_vs_trl.trl_python(options.trl_python)
    job = {
        **train_vs_trl.SETTINGS,
        **train_vs_trl.WAYS[train_vs_trl.PRECOMPUTED],
        "max_length": CONTEXT,
        "micro_batch": 2,
        "steps": options.steps,
        "dtype": "float32",
        "threads": None,
        "model": str(work / "model"),
        "data": str(work / "kto" / "data"),
        "work": str(work),
    }
    train_vs_trl.run({**job, "run": "kto.dump_rows"}, sys.executable)
    found = train_vs_trl.run(job, python)
    return {
        "seconds": found["seconds"],
        "rows_per_second": BATCH / found["seconds"],
        "reference_seconds": found["precompute_seconds"],
    }


def show(name: str, sides: dict[str, dict[str, Any]]) -> None:
    """One case's lines."""
    ours = sides["kto"]
    for side, numbers in sides.items():
        faster = "" if side == "kto" else f"  kto {numbers['seconds'] / ours['seconds']:5.2f}x"
        peak = f"  peak {numbers['peak_mib']:6,.0f} MiB" if "peak_mib" in numbers else ""
        print(
            f"{name:<14} {side:<16} {numbers['seconds']:7.2f} s a step  {numbers['rows_per_second']:7.2f} rows/s  "
            f"reference {numbers['reference_seconds']:7.1f} s{peak}{faster}"
        )


def say(text: str) -> None:
    """Progress on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
