"""`kto eval --report-only`: report.html anew, from the results that are there; nothing is loaded or computed."""

from __future__ import annotations

from typing import Any

from kto_cli.common.errors import BadInput
from kto_cli.common.eval_config import EvalConfig
from kto_cli.common.screen import Screen
from kto_cli.evaluation.checkpoint import locate, results_folder, run_folder
from kto_cli.evaluation.files import METRICS
from kto_cli.evaluation.report.page import write_report


def run(config: EvalConfig, screen: Screen) -> dict[str, Any]:
    """Makes the page.

    Returns:
        `checkpoint`, `eval`, `report`.

    Raises:
        BadInput: no such checkpoint, or it was not evaluated yet. DiskFull: no space left.
    """
    called, folder = locate(config)
    out = results_folder(config.checkpoint, folder)
    if not (out / METRICS).is_file():
        raise BadInput(f"There are no results in {out} to report.", f"Make them with: kto eval {called}")
    page = write_report(out, run_folder(folder))
    screen.say(f"Written to {page}")
    return {"checkpoint": called, "eval": str(out), "report": str(page)}
