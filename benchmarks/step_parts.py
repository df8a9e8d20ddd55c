"""Where the time of a kto step goes on a CPU: seconds by kind of operation, beside the floor's matrix products.

    python benchmarks/step_parts.py                                      # head-heavy shape of train_vs_trl.py, float32
    python benchmarks/step_parts.py --shape body-heavy --dtype bfloat16

The floor (versus_trl/floor.py) counts the head's products three times, forward and both gradients; kto computes the
logits once more in the backward pass instead of storing them. The time of attention holds its softmax.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict

import train_vs_trl
from versus_trl import floor, shapes
from versus_trl.step_profile import ATTENTION, HEAD_PRODUCTS, KINDS, LAYER_PRODUCTS


def main() -> None:
    """Profiles a step in a process of its own, measures the products' speed, prints both."""
    options = arguments()
    shape = getattr(shapes, options.shape.upper().replace("-", "_"))
    with tempfile.TemporaryDirectory(prefix="kto-step-parts-") as work:
        settings = {**train_vs_trl.SETTINGS, "steps": 1, "work": work, "data": f"{work}/rows"}
        settings |= {"threads": options.threads, "dtype": options.dtype}
        case = train_vs_trl.Case(shape, options.dtype, ())
        facts = train_vs_trl.prepare([case], train_vs_trl.source_of(options.data), settings, None)
        job = {**settings, "model": f"{work}/{shape.name}"}
        parts: dict[str, float] = train_vs_trl.run({**job, "run": "kto.parts"}, sys.executable)
        rates_of = {"run": "rates", "shape": asdict(shape), "tokens": facts["token_budget"]}
        rates: dict[str, float] = train_vs_trl.run({**job, **rates_of}, sys.executable)
        flops = floor.floor_flops(shape, floor.work_of(train_vs_trl.batches_of(work)[-1]))
    least = floor_by_kind(shape, flops, rates)
    if options.json:
        print(json.dumps({"shape": asdict(shape), "dtype": options.dtype, "seconds": parts, "floor": least}))
        return
    show(parts, least)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="raw hh-rlhf rows, as in train_vs_trl.py")
    parser.add_argument("--shape", default="head-heavy", help="body-heavy, head-heavy or wide-vocabulary")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def floor_by_kind(shape: shapes.Shape, flops: floor.Flops, rates: dict[str, float]) -> dict[str, float]:
    """The floor's seconds of attention and of the products of layers and head."""
    head = f"{shape.vocabulary}x{shape.hidden} "
    seconds = dict.fromkeys((LAYER_PRODUCTS, HEAD_PRODUCTS, ATTENTION), 0.0)
    for name, count in flops.items():
        kind = ATTENTION if name == floor.ATTENTION else HEAD_PRODUCTS if name.startswith(head) else LAYER_PRODUCTS
        seconds[kind] += count / rates[name]
    return seconds


def show(parts: dict[str, float], least: dict[str, float]) -> None:
    """A line for each kind, and their sum."""
    whole, floors = sum(parts.values()), sum(least.values())
    print(f"{'':32} {'s':>8} {'of step':>8} {'floor, s':>9}")
    for kind in KINDS:
        under = f"{least[kind]:9.3f}" if kind in least else ""
        print(f"{kind:32} {parts[kind]:8.3f} {parts[kind] / whole:8.1%} {under}")
    print(f"{'step, profiled':32} {whole:8.3f} {'':8} {floors:9.3f}  {whole / floors:.2f} times the floor")


if __name__ == "__main__":
    main()
