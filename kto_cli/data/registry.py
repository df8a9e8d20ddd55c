"""The sources of feedback that have a name, in the order they are shown; each is imported when it is asked for."""

from __future__ import annotations

import importlib

from kto_cli.data.formats.source import Source

MODULES = {
    "hh-rlhf": "formats.hh_rlhf",
    "shp": "formats.shp",
    "oasst": "formats.oasst",
    "ultrafeedback": "formats.ultrafeedback",
    "alpaca-eval": "formats.alpaca_eval",
    "halos": "formats.halos",
    "trl": "formats.trl",
    "llama-factory": "formats.llama_factory",
    "log": "log.format",
}


def source(name: str) -> Source:
    """The source of a name in `MODULES`."""
    found: Source = importlib.import_module(f"kto_cli.data.{MODULES[name]}").SOURCE
    return found


def all_sources() -> list[Source]:
    """Every source."""
    return [source(name) for name in MODULES]
