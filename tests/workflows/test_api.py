"""The public functions: what docs/python.md promises, and objects in memory beside files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SAMPLE

import kto_cli
from kto_cli.common.errors import BadInput
from kto_cli.common.screen import Screen

QUIET = Screen(quiet=True)
PAGE = REPOSITORY / "docs" / "python.md"
PAIRS = [
    {"prompt": f"Question {n}?", "chosen": f"A good answer, {n}.", "rejected": f"A bad one, {n}."} for n in range(60)
]


def test_the_public_names_are_these_and_importing_them_is_light():
    assert sorted(kto_cli.__all__) == [
        "Interrupted",
        "KtoError",
        "__version__",
        "binarize",
        "evaluate",
        "kto_loss",
        "train",
    ]
    page = PAGE.read_text(encoding="utf-8")
    for name in kto_cli.__all__:
        assert getattr(kto_cli, name) is not None
        assert name == "__version__" or f"`{name}" in page
    code = "import sys, kto_cli; dir(kto_cli); print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert ran.stdout.strip() == "[]", ran.stderr
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = kto_cli.nonsense


def test_the_example_of_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["rows"]["desirable"] == names["rows"]["undesirable"]
    assert len(names["losses"]) == names["result"]["steps"] == 4
    assert (tmp_path / "aligned" / "eval" / "report.html").is_file()
    assert names["again"]["steps"] == 2
    # by hand: z_ref = max(0, (0.5 + 0) / 2) = 0.25; rows at +1 and -1 nats
    sigmoid = names["torch"].sigmoid
    expected = (
        (1 - sigmoid(names["torch"].tensor(0.1 * 0.75))) + 1.33 * (1 - sigmoid(names["torch"].tensor(0.125)))
    ) / 2
    assert names["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert names["policy"].grad[0] < 0 < names["policy"].grad[1]
    assert "nowhere" in capsys.readouterr().out


def test_a_dataset_in_memory_gives_the_rows_of_its_file(tmp_path):
    from datasets import Dataset

    from kto_cli.data.dataset import load_data_dir

    dataset = Dataset.from_list(PAIRS)
    dataset.to_parquet(str(tmp_path / "pairs.parquet"))
    of_memory = kto_cli.binarize(dataset, out=tmp_path / "memory", screen=QUIET)
    of_file = kto_cli.binarize(tmp_path / "pairs.parquet", out=tmp_path / "file", screen=QUIET)
    assert of_memory["desirable"] == of_file["desirable"] > 0
    texts = [
        [(row.prompt, row.completion, row.label) for row in load_data_dir(tmp_path / name).train]
        for name in ("memory", "file")
    ]
    assert texts[0] == texts[1]


def test_a_dataset_needs_a_name_and_one_split():
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(PAIRS)
    with pytest.raises(BadInput, match="out="):
        kto_cli.binarize(dataset, screen=QUIET)
    with pytest.raises(BadInput, match="train"):
        kto_cli.binarize(DatasetDict(train=dataset), out="x", screen=QUIET)


@pytest.mark.slow
def test_a_loaded_model_trains_as_its_folder_does_and_is_copied_once(tmp_path, monkeypatch):
    """The same weights and the same fingerprint: the reference cache serves both."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.chdir(tmp_path)
    folder = SAMPLE / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dataset = Dataset.from_list(PAIRS)
    given = {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3, "screen": QUIET}
    kto_cli.train(dataset, folder, out="of_folder", **given)
    records: list[Any] = []
    kto_cli.train(dataset, model, tokenizer=tokenizer, out="of_memory", on_record=records.append, **given)
    kto_cli.train(dataset, model, tokenizer=tokenizer, out="once_more", **given)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("of_folder", "of_memory", "once_more")]
    assert weights[0] == weights[1] == weights[2]
    assert [record["step"] for record in records] == [1, 2]
    assert all((before[name] == value).all() for name, value in model.state_dict().items()), "the model stays as it was"
    cache = Path(os.environ["KTO_CACHE"])
    assert len(list((cache / "models").iterdir())) == 1
    assert len(list((cache / "datasets").iterdir())) == 1
    found = kto_cli.evaluate(["of_folder", "of_memory"], samples=1, max_new_tokens=2, screen=QUIET)
    assert found["comparisons"][0]["differences"]["auc"]["difference"] == 0
    with pytest.raises(BadInput, match="tokenizer"):
        kto_cli.train(dataset, model, out="none", **given)
