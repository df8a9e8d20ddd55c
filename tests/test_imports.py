"""What is imported when: help answers in a blink, imports point down, and only one module prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "kto_cli"
COMMANDS = ("binarize", "precompute", "train", "eval", "demo")
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "peft",
    "pyarrow",
    "numpy",
    "safetensors",
    "huggingface_hub",
    "matplotlib",
)
HELP = """
import sys
from kto_cli.cli import main
sys.argv = ["kto", *sys.argv[1:]]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
finally:
    print("HEAVY", *sorted(set({heavy!r}) & set(sys.modules)))
"""
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """kto_cli/core/rows.py -> kto_cli.core.rows"""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, top: bool = False) -> set[str]:
    """Every module named in an import of the file, in function bodies too; with `top`, those run at import."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        deferred = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if top and (deferred or typing_only):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "kto_cli"}


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=REPOSITORY, timeout=120)


@pytest.mark.parametrize(
    "words", [[], *([command] for command in COMMANDS)], ids=lambda words: " ".join(words) or "kto"
)
def test_help_imports_nothing_heavy(words):
    ran = run_python("-c", HELP.format(heavy=HEAVY), *words, "--help")
    assert ran.returncode == 0, ran.stderr
    *text, last = ran.stdout.strip().splitlines()
    assert last == "HEAVY"
    assert "Usage: kto" in "\n".join(text)


def test_every_command_is_tested_for_its_help():
    from kto_cli.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert known == set(COMMANDS)


def test_a_wrong_flag_is_said_before_anything_heavy_is_loaded():
    code = HELP.format(heavy=HEAVY).replace("assert not stopped.code, stopped.code", "pass")
    for words in (["train", "--beta", "0"], ["train", "--nonsense"], ["precompute", "--dtype", "int3"]):
        ran = run_python("-c", code, *words)
        assert ran.stdout.strip() == "HEAVY", words
        assert ran.stderr.strip(), words


def test_the_module_runs_as_a_command():
    ran = run_python("-m", "kto_cli", "--version")
    assert (ran.returncode, ran.stderr) == (0, "")
    from kto_cli import __version__

    assert ran.stdout == f"kto {__version__}\n"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=name_of)
def test_core_is_torch_and_the_standard_library(path):
    names = imports(path)
    assert roots(names) <= {"torch", "kto_cli", *sys.stdlib_module_names}
    assert all(name.startswith("kto_cli.core") for name in ours(names))


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=name_of)
def test_core_touches_no_files(path):
    assert not roots(imports(path)) & {"pathlib", "os", "io", "shutil", "tempfile", "subprocess", "socket"}
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [node for node in calls if isinstance(node.func, ast.Name) and node.func.id in ("open", "input")]


@pytest.mark.parametrize("path", sorted((PACKAGE / "sources").glob("*.py")), ids=name_of)
def test_sources_know_neither_torch_nor_what_is_above_them(path):
    names = imports(path)
    assert not roots(names) & {"torch", "transformers", "accelerate"}
    allowed = ("kto_cli.sources", "kto_cli.errors", "kto_cli.files", "kto_cli.binarize_config")
    if path.name == "select.py":  # a folder that kto wrote is a source too
        allowed = (*allowed, "kto_cli.data_dir")
    assert all(name.startswith(allowed) or name == "kto_cli" for name in ours(names))
    above = ("kto_cli.cli", "kto_cli.commands", "kto_cli.workflows", "kto_cli.core")
    assert not {name for name in names if name.startswith(above)}


@pytest.mark.parametrize("path", sorted((PACKAGE / "feedback").glob("*.py")), ids=name_of)
def test_feedback_knows_no_model(path):
    assert not roots(imports(path)) & {"torch", "transformers", "accelerate", "datasets", "huggingface_hub"}


def test_importing_sources_and_feedback_imports_nothing_heavy():
    """Nor what they import in turn; NumPy is all that feedback needs."""
    names = [name_of(path) for part in ("sources", "feedback") for path in sorted((PACKAGE / part).glob("*.py"))]
    assert len(names) > 40
    names += ["kto_cli.workflows.binarize", "kto_cli.workflows.list_sources", "kto_cli.data_dir", "kto_cli.data_writer"]
    code = f"import sys, importlib\n[importlib.import_module(name) for name in {names!r}]\n"
    ran = run_python("-c", f"{code}print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "['numpy']"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    """cli -> commands -> workflows -> the rest: a layer imports itself and what is below it."""
    layers = ("kto_cli.cli", "kto_cli.commands", "kto_cli.workflows")
    name, names = name_of(path), ours(imports(path))
    if name == "kto_cli.__main__":
        return
    own = next((height for height, layer in enumerate(layers) if name.startswith(layer)), len(layers))
    assert not {other for other in names if other.startswith(layers[:own])}


NAMES = ("cli", "config", "binarize_config", "errors", "display", "files", "data_dir")
LIGHT = [*(PACKAGE / f"{name}.py" for name in NAMES), *sorted((PACKAGE / "commands").glob("*.py"))]


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_modules_import_nothing_heavy(path):
    assert not roots(imports(path, top=True)) & set(HEAVY)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_display_prints(path):
    """`--version` is the one exception: it must not wait for Rich."""
    if path.name == "display.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            printed = node.func.id == "print" and path.name == "cli.py" and "__version__" in ast.unparse(node)
            assert node.func.id not in ("print", "Console") or printed, f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            raise AssertionError(f"{path}:{node.lineno} reaches for {ast.unparse(node)}")
    assert "rich" not in roots(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_caught_blindly(path):
    """No bare `except`, no `except BaseException`, and no exception passed over in silence that is of any kind."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}"
            kind = ast.unparse(node.type)
            assert kind != "BaseException", f"{path}:{node.lineno}"
            silent = all(isinstance(part, ast.Pass) for part in node.body)
            assert not (kind == "Exception" and silent), f"{path}:{node.lineno}"
