"""What each part of a kto step is worth: the step as shipped, and with one part at a time taken away or added.

    python benchmarks/levers.py                    # body-heavy shape of train_vs_trl.py, real hh-rlhf rows
    python benchmarks/levers.py --repeats 5 --json

Every measurement runs in a process of its own and the ways alternate; medians count. `predicted` is the cost in forward
tokens (a token forward 1, forward and backward 3), as a multiple of the shipped step's; norms, attention, head and
optimizer are not in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from typing import Any

import train_vs_trl
from versus_trl import shapes

SHIPPED = "as shipped"
LEVERS: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "mismatched pairs compute their prompts": {"micro_batch_tokens": 2048},
    "rows of a prompt in any step": {"group_prompts": False},
    "padded, not packed": {"packed": False},
    "head in chunks of whole rows": {"whole_rows": True},
    "AdamW not fused": {"fused": False},
    "gradient checkpointing": {"kto_options": {"gradient_checkpointing": "on"}},
    "bfloat16": {"kto_options": {"dtype": "bfloat16"}},
    "bfloat16-pure": {"kto_options": {"dtype": "bfloat16-pure"}},
}


def main() -> None:
    """Measures every lever several times and prints the medians."""
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="kto-levers-") as work:
        settings = {**train_vs_trl.SETTINGS, "steps": options.steps, "work": work, "data": f"{work}/rows"}
        settings |= {"threads": options.threads, "dtype": "float32"}
        shape = getattr(shapes, options.shape.upper().replace("-", "_"))
        source = train_vs_trl.source_of(options.data)
        set_up = {**settings, "run": "kto.set_up", "source": source, "shapes": [asdict(shape)]}
        train_vs_trl.run(set_up, sys.executable)
        job = {**settings, "run": "kto.step", "model": f"{work}/{shape.name}"}
        levers = dict(list(LEVERS.items())[: options.first])
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in levers}
        for _ in range(options.repeats):
            for name, lever in levers.items():
                found[name].append(train_vs_trl.run({**job, **lever}, sys.executable))
                train_vs_trl.say(f"{name}: {found[name][-1]['seconds']:.2f} s")
    results = {name: train_vs_trl.median(each) for name, each in found.items()}
    whole = results[SHIPPED]
    for result in results.values():
        result["measured"] = result["seconds"] / whole["seconds"]
        result["predicted"] = result["forward_tokens"] / whole["forward_tokens"]
    if options.json:
        print(json.dumps({"shape": asdict(shape), "repeats": options.repeats, "levers": results}))
        return
    for name, result in results.items():
        print(
            f"{name:40} {result['seconds']:7.2f} s  measured {result['measured']:.2f}x  predicted "
            f"{result['predicted']:.2f}x  peak {result['peak_bytes'] / 2**20:,.0f} MiB"
        )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="raw hh-rlhf rows, as in train_vs_trl.py")
    parser.add_argument("--shape", default="body-heavy", help="body-heavy, head-heavy or wide-vocabulary")
    parser.add_argument("--first", type=int, default=len(LEVERS), help="only so many, the shipped step among them")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each; the median counts")
    parser.add_argument("--steps", type=int, default=2, help="timed steps, after one that warms up")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
