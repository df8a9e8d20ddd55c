"""The door for reading files: every failure is one line with the file's name, and nothing is read beside it."""

from __future__ import annotations

import ast
import os

import pytest
from conftest import REPOSITORY

from kto_cli.common.errors import BadInput
from kto_cli.common.read import read_json, read_object, read_parquet, read_tensors, read_yaml
from kto_cli.common.seals import read_sealed, sealed, unsealed, write_sealed

BAD_JSON = {
    "nested deeply": ("[" * 200_000, "nested too deeply"),
    "a number of 6000 digits": ('{"a": ' + "9" * 6000 + "}", "more than 4300 digits"),
    "a key twice": ('{"a": 1, "a": 2}', "'a' is given twice"),
    "NaN": ('{"a": NaN}', "NaN is no number"),
    "cut": ('{"a": 1', "character 8"),
    "empty": ("", "character 1"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_cannot_be_read_is_one_line(tmp_path, kind):
    text, says = BAD_JSON[kind]
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_json(path, "a test")
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", [read_json, read_yaml, read_parquet, read_tensors], ids=lambda read: read.__name__)
@pytest.mark.parametrize("kind", ["missing", "folder", "loop", "pipe", "bytes"])
def test_what_is_no_such_file_is_one_line(tmp_path, read, kind):
    """A pipe would wait for ever; a link to itself has no end."""
    path = tmp_path / "file"
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe\x00\x01" * 9)
    with pytest.raises(BadInput) as error:
        read(path, "a test")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


BOMB = "a: &a0 [y, y]\n" + "".join(f"b{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("beta: 2024-99-99", "month"),
        ("seed: " + "9" * 6000, "more than 4300 digits"),
        ("beta: " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("beta: 0.1\nbeta: 0.9", "'beta' is given twice (line 1)"),
        (BOMB, "aliases"),
        ("beta: [", "expected"),
    ],
    ids=["a date that is none", "digits", "nesting", "a key twice", "aliases", "cut"],
)
def test_yaml_that_cannot_be_read_is_one_line(tmp_path, text, says):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_yaml(path, "a test")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_configs_of_models_may_hold_infinity(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"time_step_limit": [0.0, Infinity]}')
    assert read_json(path, "a test", constants=True)["time_step_limit"] == [0, float("inf")]


@pytest.mark.parametrize("text", ["[]", "7", '"text"', "null"])
def test_what_is_no_object_is_one_line(tmp_path, text):
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="in place of an object"):
        read_object(path, "a test")


# --- seals ------------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_sealed_file_is_noticed(tmp_path):
    """Also in the seal and in its key. White space may change: it holds nothing."""
    path, value = tmp_path / "state.json", {"step": 4, "rate": 1e-5, "files": {"a": "12"}, "nothing": float("nan")}
    write_sealed(path, value)
    whole = path.read_bytes()
    assert read_sealed(path, "a test") == {**value, "nothing": None}
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                found = read_sealed(path, "a test")
            except BadInput:
                continue
            assert found == {**value, "nothing": None}, (place, bit)


def test_an_object_without_a_seal_is_of_an_earlier_kto():
    assert unsealed({"step": 4}) == ({"step": 4}, None)
    assert unsealed(sealed({"step": 4, "names": ("a", 1)})) == ({"step": 4, "names": ("a", 1)}, True)
    assert unsealed({**sealed({"step": 4}), "step": 5})[1] is False


# --- nothing is read beside the door -----------------------------------------------------------

DOOR = ("common/read.py", "data/readers/")
"""The door, and the readers of feedback, which is read as a stream."""
READS = {
    "loads", "load", "safe_load", "full_load", "unsafe_load", "JSONDecoder", "ParquetFile", "read_table", "read_schema",
    "safe_open", "load_file", "fromfile", "memmap", "read_text", "read_bytes", "from_file", "load_from_disk",
}  # fmt: skip
ALLOWED = {
    ("common/seals.py", "loads"): "reads back what it has just made",
    ("common/owner.py", "read_bytes"): "what an owner says about itself, whatever it is",
    ("common/install.py", "read_text"): "what pip wrote of the installation, through importlib.metadata",
    ("evaluation/judge/question.py", "JSONDecoder"): "finds an object in a judge's reply",
}
FROM_MODULES = {"load": ("json", "yaml", "numpy", "torch", "pickle"), "loads": ("json", "pickle", "tomllib")}


def beside_the_door() -> list[str]:
    found = []
    for path in sorted((REPOSITORY / "kto_cli").rglob("*.py")):
        name = path.relative_to(REPOSITORY / "kto_cli").as_posix()
        if name.startswith(DOOR):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            ours = called in ("read_text", "read_bytes") and not owner
            named = called in READS and not ours and owner in FROM_MODULES.get(called, (owner,))
            if named and (name, called) not in ALLOWED:
                found.append(f"{name}:{node.lineno} {owner}.{called}")
    return found


def test_nothing_is_read_beside_the_door():
    assert beside_the_door() == []
