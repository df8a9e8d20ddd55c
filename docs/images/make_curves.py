"""Makes curves.svg: the live curves of `kto train` after a run of the built-in model on the built-in data.

python docs/images/make_curves.py
"""

from __future__ import annotations

import json
import re
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

import kto_cli
from kto_cli.common.files import sample_data
from kto_cli.common.screen import ROLES, Screen
from kto_cli.training.live import History, frame

COLUMNS, LINES = 100, 30


def main() -> None:
    """Trains in a temporary folder and draws the last frame."""
    screen = Screen(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        data, out, cache = (f"{folder}/{name}" for name in ("data", "out", "cache"))
        kto_cli.binarize(f"hh-rlhf:{sample_data() / 'hh-rlhf'}", out=data, validation=0.15, screen=screen)
        result = kto_cli.train(data, out=out, cache=cache, screen=screen)
        lines = Path(out, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    history = History()
    for record in map(json.loads, lines):
        history.add(record)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    for row in frame(history, result["steps"], COLUMNS, LINES, True, validation=True):
        console.print(Text.assemble(*((text, ROLES.get(role, "")) for text, role in row)))
    drawing = console.export_svg(title="kto train")
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)  # fonts would come from the network
    path = Path(__file__).with_name("curves.svg")
    path.write_text("\n".join(line.rstrip() for line in drawing.splitlines()) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size:,} bytes, {result['steps']} steps, verdict {result['verdict']}")


if __name__ == "__main__":
    main()
