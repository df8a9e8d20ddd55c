"""`kto export --check` through a real server: `transformers serve` with the built-in model on this machine."""

from __future__ import annotations

import pytest
from conftest import call, error_line
from test_export_check import BASE, place
from test_judge_served import url

pytestmark = pytest.mark.slow
__all__ = ["place", "url"]


def test_transformers_serve(place, url):
    """It loads the folders that are asked for: the export is recognized, the base in its place is caught."""
    for name, flags in {"whole": (), "lora": ("--merge",)}.items():
        words = ("export", name, "--to", f"out-{name}", *flags, "--check", url, "--rows", 6, "--json")
        found = call(*words).json["check"]
        assert found["verdict"] == "trained", found
        assert found["answers"]["same"] == found["answers"]["answers"]
        assert found["answers"]["prompts_differ"] == 0
        assert found["model"].endswith(f"out-{name}")
        wrong = call("export", name, "--check", url, "--served-as", BASE, "--rows", 6)
        assert "The base is served" in error_line(wrong)
