"""What decides a number is in its name: each input is edited in turn, and the name must change."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import write_lines
from pico import build
from safetensors.torch import load_file, save_file

from kto_cli.common.errors import BadModel
from kto_cli.model import identity
from kto_cli.model.identity import fingerprint, numbers_identity, tokenizer_identity
from kto_cli.model.load import load_model
from kto_cli.model.source import open_source


@pytest.fixture
def model(pico, tmp_path) -> Path:
    """A copy of the pico model, with code of its own."""
    folder = Path(shutil.copytree(pico, tmp_path / "m"))
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (folder / "modeling_mine.py").write_text("SCALE = 1\n")
    return folder


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def split(folder: Path) -> None:
    """The weights as two shards with an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, some in parts.items():
        save_file({key: weights[key] for key in some}, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: name for name, some in parts.items() for key in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def change_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, folder / "model.safetensors", metadata={"format": "pt"})


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    "edit",
    [
        change_weight,
        lambda folder: edit_config(folder, rms_norm_eps=1e-3),
        write("modeling_mine.py", "SCALE = 2\n"),
        write("other_module.py", "SCALE = 2\n"),
    ],
    ids=["weights", "config", "code", "imported code"],
)
def test_what_decides_a_log_prob_is_in_the_fingerprint(model: Path, edit):
    before = fingerprint(model)
    assert fingerprint(model) == before
    edit(model)
    assert fingerprint(model) != before


def test_the_index_of_the_weights_is_in_the_fingerprint(model: Path):
    split(model)
    before = fingerprint(model)
    index = json.loads((model / "model.safetensors.index.json").read_text())
    first = next(iter(index["weight_map"]))
    index["weight_map"][first] = "b.safetensors"
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert fingerprint(model) != before


def test_what_decides_no_number_is_not(model: Path):
    before = fingerprint(model)
    (model / "README.md").write_text("mine")
    edit_config(model, transformers_version="0.0", use_cache=False)
    (model / "optimizer.safetensors").write_bytes(b"beside the weights")
    assert fingerprint(model) == before


def test_dtype_and_the_version_of_the_code_are_in_the_name(monkeypatch):
    before = numbers_identity("f", "torch.float32")
    assert numbers_identity("f", "torch.bfloat16") != before
    assert numbers_identity("g", "torch.float32") != before
    monkeypatch.setattr(identity, "version", lambda name: "99.0")
    assert numbers_identity("f", "torch.float32") != before


TOKENIZERS = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tekken.json",
    "qwen.tiktoken",
    "source.spm",
    "bpe.codes",
    "dict.txt",
    "tokenization_x.py",
    "config.json",
]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_file_of_a_tokenizer_is_in_its_name(model: Path, name: str):
    """Known names and those of tokenizers with code of their own."""
    tokenizer = SimpleNamespace(chat_template="t")
    before = tokenizer_identity(model, tokenizer)
    path = model / name
    path.write_bytes((path.read_bytes() if path.is_file() else b"{}") + b" ")
    assert tokenizer_identity(model, tokenizer) != before


def test_template_and_libraries_are_in_a_tokenizers_name(model: Path, monkeypatch):
    before = tokenizer_identity(model, SimpleNamespace(chat_template="t"))
    assert tokenizer_identity(model, SimpleNamespace(chat_template="u")) != before
    monkeypatch.setattr(identity, "version", lambda name: "99.0" if name == "tokenizers" else version(name))
    assert tokenizer_identity(model, SimpleNamespace(chat_template="t")) != before
    monkeypatch.undo()
    for name in ("model.safetensors", "README.md", ".gitattributes"):
        (model / name).write_bytes(b"other")
    assert tokenizer_identity(model, SimpleNamespace(chat_template="t")) == before


def test_other_code_computes_cached_log_probs_again(kto, workplace, pico):
    """The model's own code runs with --trust-remote-code: other code never gets the log-probs of the earlier one."""
    folder = Path(shutil.copytree(pico, workplace / "m"))
    config = json.loads((folder / "config.json").read_text())
    kind = config["architectures"][0]
    edit_config(folder, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}, architectures=["Mine"])
    code = "from transformers import {kind}\n\n\nclass Mine({kind}):\n    note = {note}\n"
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer {n}.", "label": n % 2 == 0} for n in range(8)]
    assert kto("binarize", write_lines(workplace / "rows.jsonl", rows), "--validation", 0).code == 0
    found = []
    for note in (1, 1, 2):
        (folder / "modeling_mine.py").write_text(code.format(kind=kind, note=note))
        ran = kto("precompute", "--model", folder, "--trust-remote-code", "--json")
        assert ran.code == 0, ran.err
        found.append((ran.json["computed"], ran.json["cached"]))
    assert found == [(16, 0), (0, 16), (16, 0)]


# --- weights and config that do not belong together ---------------------------------------------


def test_weights_that_the_config_does_not_describe_are_refused(tmp_path):
    """One digit of config.json, 1 layer instead of 2: half a model was scored in silence."""
    build("llama").save_pretrained(tmp_path)
    load_model(tmp_path)
    edit_config(tmp_path, num_hidden_layers=1)
    with pytest.raises(BadModel, match=r"left over: model\.layers\.1\."):
        load_model(tmp_path)


def test_a_head_beside_the_language_model_is_not_missed(pico, tmp_path):
    """The value head that reward training leaves in the file."""
    folder = Path(shutil.copytree(pico, tmp_path / "m"))
    weights = load_file(folder / "model.safetensors")
    weights["v_head.summary.weight"] = next(iter(weights.values())).clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_model(folder)


def test_weights_outside_of_the_folder_are_refused(pico, tmp_path):
    folder = Path(shutil.copytree(pico, tmp_path / "m"))
    split(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    (tmp_path / "outside").mkdir()
    (folder / "a.safetensors").rename(tmp_path / "outside/a.safetensors")
    index["weight_map"] = {
        key: "../outside/a.safetensors" if name == "a.safetensors" else name
        for key, name in index["weight_map"].items()
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadModel, match="outside of the folder"):
        open_source(str(folder))
