"""What is imported when: help answers in a blink, imports point down, and only one module prints."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "kto_cli"
COMMANDS = ("binarize", "precompute", "train", "eval", "export", "sample", "label", "loop", "outcome", "demo", "theory")
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
from kto_cli.cli.app import main
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


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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

    visit(tree_of(path))
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
    from kto_cli.cli.app import app

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


LAYERS = {
    "cli": 7,
    "workflows": 6,
    "evaluation": 5,
    "training": 4,
    "model": 3,
    "data": 2,
    "core": 1,
    "common": 1,
}
"""The eight rooms of kto_cli, by height: a room imports itself and rooms below it. core and common know nothing of each
other."""
FACE = ("kto_cli", "kto_cli.__main__")


def test_every_module_lies_in_one_of_eight_rooms():
    outside = [name for name in map(name_of, MODULES) if room_of(name) is None]
    assert sorted(outside) == sorted(FACE)
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"} == set(LAYERS)


def room_of(name: str) -> str | None:
    """The room a module lies in; None for the package's face."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else None


def upward(name: str, names: set[str]) -> list[str]:
    """Of the modules that `name` imports, those in rooms beside or above its own."""
    own = room_of(name)
    others = [(other, room_of(other)) for other in sorted(ours(names))]
    return [other for other, room in others if own and room and room != own and LAYERS[room] >= LAYERS[own]]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path):
    assert not upward(name_of(path), imports(path))


def test_an_upward_import_is_noticed_in_any_folder():
    """The guard works on dotted names, so a nested folder is no way around it."""
    assert upward("kto_cli.data.log.rules", {"kto_cli.model.load", "kto_cli.common.errors"}) == ["kto_cli.model.load"]
    assert upward("kto_cli.core.statistics.auc", {"kto_cli.common.files"}) == ["kto_cli.common.files"]
    assert upward("kto_cli.model.tokens.store", {"kto_cli.core.rows", "kto_cli.model.load"}) == []


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Names that import each other in a circle; none: an empty list."""
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        trail.append(name)
        for other in sorted(arrows.get(name, ())):
            if found := visit(other):
                return found
        trail.pop()
        done.add(name)
        return []

    for name in sorted(arrows):
        if found := visit(name):
            return found
    return []


def children_and_arrows(folder: Path) -> dict[str, set[str]]:
    """For each file and sub-folder of `folder`, which of the others it imports."""
    here = name_of(folder / "__init__.py")
    arrows: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        name = name_of(path)
        if name == here:
            continue
        child = name.removeprefix(f"{here}.").split(".")[0]
        within = {other for other in ours(imports(path)) if other.startswith(f"{here}.")}
        found = {other.removeprefix(f"{here}.").split(".")[0] for other in within}
        arrows.setdefault(child, set()).update(found - {child})
    return {child: found & set(arrows) for child, found in arrows.items()}


FOLDERS = sorted({path.parent for path in MODULES if (path.parent / "__init__.py") in MODULES})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: name_of(folder / "__init__.py"))
def test_no_circle_in_any_folder(folder):
    assert circle(children_and_arrows(folder)) == []


ROOM_FOLDERS = [folder for folder in FOLDERS if folder != PACKAGE]


@pytest.mark.parametrize("folder", ROOM_FOLDERS, ids=lambda folder: name_of(folder / "__init__.py"))
def test_the_docstring_of_a_folder_names_all_its_files_and_no_other(folder):
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")), clean=False) or ""
    named = re.findall(r"^(\w+(?:\.py|/))  +\S", docstring, re.MULTILINE)
    files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.name}/" for path in folder.iterdir() if (path / "__init__.py").is_file()}
    assert sorted(named) == sorted(files | folders)


def test_the_map_of_the_readme_has_every_folder_and_no_file_that_is_not_there():
    tree = re.search(r"```\n(kto_cli/\n.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert tree is not None
    lines = tree[1].splitlines()
    assert len(lines) <= 45
    trail: dict[int, Path] = {-1: REPOSITORY}
    folders, files = set(), set()
    for line in lines:
        depth = (len(line) - len(line.lstrip())) // 2
        above = trail[depth - 1]
        if found := re.match(r" *(\w+)/", line):
            trail[depth] = above / found[1]
            folders.add(above / found[1])
        files |= {above / name for name in re.findall(r"\w+\.py", line)}
    assert {folder for folder in FOLDERS if folder not in folders} == set()
    assert {path for path in files if not path.is_file()} == set()


def test_a_circle_is_noticed():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


CORE = [path for path in MODULES if room_of(name_of(path)) == "core"]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_is_torch_and_the_standard_library(path):
    assert roots(imports(path)) <= {"torch", "kto_cli", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_touches_no_files(path):
    assert not roots(imports(path)) & {"pathlib", "os", "io", "shutil", "tempfile", "subprocess", "socket"}
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert not [node for node in calls if isinstance(node.func, ast.Name) and node.func.id in ("open", "input")]


@pytest.mark.parametrize("path", [path for path in MODULES if room_of(name_of(path)) == "data"], ids=name_of)
def test_data_knows_no_model(path):
    assert not roots(imports(path)) & {"torch", "transformers", "accelerate"}


def test_importing_data_imports_nothing_heavy():
    """Nor what it imports in turn; NumPy is all that reading feedback needs."""
    names = [name_of(path) for path in MODULES if room_of(name_of(path)) == "data"]
    names += ["kto_cli.workflows.binarize", "kto_cli.workflows.list_sources"]
    code = f"import sys, importlib\n[importlib.import_module(name) for name in {names!r}]\n"
    ran = run_python("-c", f"{code}print(sorted(set({HEAVY!r}) & set(sys.modules)))")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "['numpy']"


LIGHT = [path for path in MODULES if room_of(name_of(path)) in ("cli", "common")]


@pytest.mark.parametrize("path", LIGHT, ids=name_of)
def test_light_modules_import_nothing_heavy(path):
    assert not roots(imports(path, top=True)) & set(HEAVY)


APP = PACKAGE / "cli" / "app.py"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_screen_prints(path):
    """`--version` is the one exception: it must not wait for Rich."""
    if path == PACKAGE / "common" / "screen.py":
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            printed = node.func.id == "print" and path == APP and "__version__" in ast.unparse(node)
            assert node.func.id not in ("print", "Console") or printed, f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
            raise AssertionError(f"{path}:{node.lineno} reaches for {ast.unparse(node)}")
    assert "rich" not in roots(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_caught_blindly(path):
    """No bare `except`, no `except BaseException`, and no exception passed over in silence that is of any kind."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}"
            kind = ast.unparse(node.type)
            assert kind != "BaseException", f"{path}:{node.lineno}"
            silent = all(isinstance(part, ast.Pass) for part in node.body)
            assert not (kind == "Exception" and silent), f"{path}:{node.lineno}"


def test_a_command_has_arrow_give_freed_memory_back():
    """The peak of 200,000 rows is 35 MiB smaller so. Only before pyarrow is imported does this reach all of it."""
    script = (
        "from contextlib import suppress\n"
        "from kto_cli.cli.app import app\n"
        "with suppress(SystemExit): app(['binarize', '--list'])\n"
        "import pyarrow\n"
        "print(pyarrow.default_memory_pool().backend_name)"
    )
    assert run_python("-c", script).stdout.split()[-1] == "system"


def test_importing_the_doctor_compiles_no_pattern_of_another_language():
    """They take longer to compile than all of the doctor's modules to import, and few datasets need them."""
    script = (
        "import kto_cli.workflows.binarize\n"
        "from kto_cli.data.audit import refusal_languages as languages\n"
        "print(languages._patterns.cache_info().currsize + languages._openings.cache_info().currsize)"
    )
    assert run_python("-c", script).stdout.split() == ["0"]
