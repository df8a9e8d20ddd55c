"""The example of three weeks, as a module."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "examples" / "three_weeks.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("three_weeks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
