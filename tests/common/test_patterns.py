"""Regular expressions of the package: none that some Python misreads."""

from __future__ import annotations

import ast
import re
from re import _constants, _parser  # type: ignore[attr-defined]

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "kto_cli"


def is_possessive(pattern: str) -> bool:
    """Whether it has a possessive quantifier or an atomic group."""

    def within(part: object) -> bool:
        if isinstance(part, _parser.SubPattern):
            return any(within(each) for each in part.data)
        if isinstance(part, list | tuple):
            return any(within(each) for each in part)
        return part is _constants.POSSESSIVE_REPEAT or part is _constants.ATOMIC_GROUP

    try:
        return within(_parser.parse(pattern))
    except re.error:
        return False


@pytest.mark.parametrize("pattern", ["a++", "(?:ab{2,3}+)?", "(?>a)b"])
def test_possessive_ones_are_told(pattern):
    assert is_possessive(pattern)
    assert not is_possessive("a+ b{2,3} (?:ab)+")


def test_no_pattern_is_possessive():
    """Python before 3.11.5 misreads those of groups: `--scrub` left e-mail addresses at ends of sentences there."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.")
        ]
        texts = [node.value for call in calls for node in ast.walk(call) if isinstance(node, ast.Constant)]
        found += [(path.name, text) for text in texts if isinstance(text, str) and is_possessive(text)]
    assert not found
