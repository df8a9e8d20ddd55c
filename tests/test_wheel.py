"""What is installed: the package with its sample data and tiny model, and nothing of the tests."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SAMPLE

import kto_cli

slow = pytest.mark.slow


def test_the_citation_names_the_package_and_the_paper():
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == kto_cli.__version__
    assert "2402.01306" in cited["references"][0]["url"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this working tree, built without network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed")
    out = tmp_path_factory.mktemp("wheel")
    words = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(out), str(REPOSITORY)]
    ran = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    (built,) = out.glob("*.whl")
    return built


@slow
def test_it_holds_the_sample_and_the_tiny_model(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        model = archive.read("kto_cli/sample_data/model/model.safetensors")
    assert model == (SAMPLE / "model/model.safetensors").read_bytes()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert f"kto_cli/sample_data/model/{name}" in held
    assert "kto_cli/sample_data/hh-rlhf/harmless-base/train.jsonl.gz" in held
    assert "kto_cli/sample_data/thumbs.csv" in held


@slow
def test_it_holds_every_module_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    modules = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "kto_cli").rglob("*.py")}
    modules |= {"kto_cli/evaluation/report/report.html.j2", "kto_cli/evaluation/report/report.css", "kto_cli/py.typed"}
    modules |= {f"kto_cli/evaluation/labelling/page.{kind}" for kind in ("html.j2", "css", "js")}
    assert modules <= held
    top = {name.split("/")[0] for name in held}
    assert top == {"kto_cli", next(name for name in top if name.endswith(".dist-info"))}
    assert not [
        name for name in held if "test" in name.lower() or "__pycache__" in name or name.startswith("benchmarks")
    ]
    assert any(name.endswith("licenses/LICENSE") for name in held)


@slow
def test_it_works_where_it_is_unpacked(wheel, tmp_path):
    """Outside of the checkout: the sample is found inside the package."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    work = tmp_path / "work"
    work.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.argv[0] = 'kto'\n"
        "import kto_cli; from kto_cli.cli.app import main\n"
        "assert 'site' in kto_cli.__file__\n"
        "main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "binarize", "hh-rlhf", "--json"], capture_output=True, text=True, cwd=work
    )
    assert ran.returncode == 0, ran.stderr
    assert "built-in sample" in ran.stderr
    assert (work / "data/hh-rlhf/train.parquet").is_file()
