"""What goes wrong for people, case by case: one line that names the thing and says what next, nothing half-written.

Each case is typed in a folder of its own. Its files are compared before and after, the output streams are
looked at, and the words that the line must hold are part of the case.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SAMPLE, Command, Ran, error_line, pairs, save_pico_llama, write_lines

from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.run.run_dir import RunDir
from kto_cli.training.step import TrainingEngine


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content's hash; folders too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def refused(ran: Ran, *words: str) -> str:
    """The one line of error, with these words in it."""
    error = error_line(ran)
    for word in words:
        assert word in error, f"{word!r} is not in {error!r}"
    return error


# --- binarize ---------------------------------------------------------------------------------


def unpaired(labels: list) -> list[dict]:
    return [
        {"prompt": f"Question {number}?", "completion": f"Answer {number}.", "label": label}
        for number, label in enumerate(labels)
    ]


def jsonl(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


BINARIZE = {
    "empty file": ("f.jsonl", b"", ["f.jsonl is empty", "Give a file"]),
    "blank lines alone": ("f.jsonl", b"\n\n  \n", ["f.jsonl", "Give a file"]),
    "not JSON": ("f.jsonl", b"hello\nworld\n", ["f.jsonl", "line 1", "Give a JSONL file"]),
    "JSON of the wrong kind": ("f.jsonl", b"[1]\n2\n", ["f.jsonl", "without names of columns (line 1)", "or as CSV"]),
    "half a JSON array": ("f.json", b'[{"prompt": "a"', ["f.json", "not JSON", "Give"]),
    "not Parquet": ("f.parquet", b"PAR1 no", ["f.parquet"]),
    "not gzip after all": ("f.jsonl.gz", b"\x1f\x8b\x08broken", ["f.jsonl.gz", "damaged gzip", "Fetch it again"]),
    "UTF-16": ("f.jsonl", '{"prompt": "a"}\n'.encode("utf-16"), ["f.jsonl is UTF-16", "Save it as UTF-8"]),
    "wrong columns": (
        "f.jsonl",
        jsonl([{"question": "a", "answer": "b"}]),
        ["question, answer", "kto needs", "Rename"],
    ),
    "wrong columns in CSV": ("f.csv", b"question,answer\na,b\n", ["question, answer", "kto needs", "Rename"]),
    "a header and no rows": ("f.csv", b"prompt,completion,label\n", ["f.csv", "no rows", "Give"]),
    "labels in words": ("f.jsonl", jsonl(unpaired(["yes", "no"] * 4)), ["label_not_accepted 8", "'yes'"]),
    "labels on a scale": ("f.jsonl", jsonl(unpaired([1, -1] * 4)), ["label_not_binary 8", "-1", "true or false"]),
    "labels of stars": ("f.csv", b"prompt,completion,label\na,b,5\nc,d,1\n", ["label_not_binary 2", "true or false"]),
    "labels missing": ("f.jsonl", jsonl(unpaired([None] * 4)), ["label_missing 4"]),
    "one class only": ("f.jsonl", jsonl(unpaired([True] * 9)), ["9 desirable and 0 undesirable", "needs both"]),
    "one class left": ("f.jsonl", jsonl(unpaired([1] * 9 + ["no"] * 9)), ["0 undesirable", "label_not_accepted 9"]),
    "one prompt only": (
        "f.jsonl",
        jsonl([{"prompt": "a?", "completion": f"b{n}", "label": n % 2 == 0} for n in range(8)]),
        ["have the same prompt"],
    ),
    "hh-rlhf as a table": (
        "f.jsonl",
        jsonl([{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]),
        ["kto binarize hh-rlhf --from f.jsonl"],
    ),
}


@pytest.mark.parametrize(("name", "content", "words"), BINARIZE.values(), ids=BINARIZE)
def test_binarize_refuses_a_file(kto: Command, workplace: Path, name: str, content: bytes, words: list[str]) -> None:
    (workplace / name).write_bytes(content)
    before = tree(workplace)
    refused(kto("binarize", name, "--validation", 0, "--json"), *words)
    assert tree(workplace) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["missing.jsonl"], ["missing.jsonl does not exist", "Check the path"]),
        (["nonsense"], ["nonsense is neither a known source", "hh-rlhf"]),
        (["nobody/nothing"], ["nobody/nothing", "cannot be reached", "Give a local file"]),
        (["hh-rlhf", "--from", "missing"], ["missing", "does not exist"]),
        (["hh-rlhf", "--subset", "helpful-bse"], ["helpful-bse", "It has: harmless-base"]),
        (["good.jsonl", "--from", "elsewhere"], ["--from goes with a named source", "NAME:PATH"]),
        (["good.jsonl", "--validation", "1.5"], ["--validation 1.5", "0.05"]),
        (["good.jsonl", "--out", "full"], ["full is not empty", "--out"]),
        (["good.jsonl", "--out", "good.jsonl"], ["good.jsonl cannot be the output", "--out"]),
        (["good.jsonl", "--out", "."], ["cannot be the output", "--out"]),
        (["good.jsonl", "--out", "full", "--overwrite"], ["full is not empty", "--out"]),
    ],
    ids=lambda value: " ".join(value) if value and not value[0].count(" ") else "",
)
def test_binarize_refuses_what_was_typed(kto: Command, workplace: Path, flags: list[str], words: list[str]) -> None:
    write_lines(workplace / "good.jsonl", pairs(6))
    (workplace / "full").mkdir()
    (workplace / "full/thesis.txt").write_text("years of work")
    before = tree(workplace)
    refused(kto("binarize", *flags, "--json"), *words)
    assert tree(workplace) == before


def test_binarize_does_not_replace_a_dataset_unasked(kto: Command, workplace: Path) -> None:
    write_lines(workplace / "good.jsonl", pairs(6))
    assert kto("binarize", "good.jsonl").code == 0
    before = tree(workplace)
    refused(kto("binarize", "good.jsonl"), "already holds a dataset", "--overwrite")
    assert tree(workplace) == before
    assert kto("binarize", "good.jsonl", "--overwrite").code == 0


def test_labels_are_accepted_or_rejected_row_by_row(kto: Command, workplace: Path) -> None:
    """1, 0, true and "False" are labels; "yes", null and "" are not, and say so in rejects.jsonl."""
    labels = [1, 0, True, False, "1", "False", "yes", None, "", 1.0]
    write_lines(workplace / "f.jsonl", unpaired(labels))
    result = kto("binarize", "f.jsonl", "--validation", 0, "--json").json
    assert result["rejected"] == {"label_missing": 2, "label_not_accepted": 1}
    assert (result["desirable"], result["undesirable"]) == (4, 3)
    lines = [json.loads(line) for line in (workplace / "data/f/rejects.jsonl").read_text().splitlines()]
    assert {line["origin"]: line["reason"] for line in lines} == {
        "f.jsonl:7": "label_not_accepted",
        "f.jsonl:8": "label_missing",
        "f.jsonl:9": "label_missing",
    }


def test_minus_one_makes_every_number_doubtful_and_the_rest_is_kept(kto: Command, workplace: Path) -> None:
    write_lines(workplace / "f.jsonl", unpaired([1, -1, True, False, True, False]))
    ran = kto("binarize", "f.jsonl", "--validation", 0, "--json")
    assert ran.json["rejected"] == {"label_not_binary": 2}
    assert "-1" in ran.err
    assert "true or false" in ran.err


# --- flags and config files -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--beta", "0"], ["--beta 0", "above 0"]),
        (["--beta", "-1"], ["--beta -1"]),
        (["--beta", "nan"], ["--beta nan"]),
        (["--batch-size", "0"], ["--batch-size 0", "1 or above"]),
        (["--learning-rate", "5"], ["--learning-rate 5", "between 0 and 1"]),
        (["--lambda-u", "-1"], ["--lambda-u -1"]),
        (["--lambda-u", "nan"], ["--lambda-u nan"]),
        (["--lambda-d", "0", "--lambda-u", "0"], ["--lambda-d and --lambda-u"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--max-steps", "0"], ["--max-steps 0"]),
        (["--schedule", "wavy"], ["--schedule", "'wavy'", "'linear', 'cosine', 'constant'"]),
        (["--dtype", "int3"], ["--dtype", "'int3'", "float32"]),
        (["--warmup", "-0.1"], ["--warmup -0.1"]),
        (["--save-every", "0"], ["--save-every 0"]),
        (["--max-length", "4"], ["--max-length 4"]),
        (["--max-length", "4096"], ["--max-length 4096", "256 tokens", "Use 256 or less"]),
        (["--max-length", "8"], ["None of the 32 rows fits into 8 tokens", "--max-length"]),
        (["--chat-template", "missing.jinja"], ["missing.jinja", "is missing"]),
        (["--config", "missing.yaml"], ["missing.yaml", "is missing"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_train_refuses_a_value(
    kto: Command, workplace: Path, given: list[str], flags: list[str], words: list[str]
) -> None:
    refused(kto("train", *given, *flags, "--json"), *words)
    assert tree(workplace) == {}, "no checkpoint folder, nothing"


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["train", "--nonsense", "3"], "--nonsense"),
        (["train", "--beta", "high"], "--beta"),
        (["train", "--batch-size", "1.5"], "--batch-size"),
        (["train", "--beta"], "see kto train --help"),
        (["eval"], "checkpoint"),
        (["trian"], "'train'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_parser_refuses_is_a_usage_error(kto: Command, workplace: Path, flags: list[str], word: str) -> None:
    """Exit status 2, as everywhere; the flag is named (a near command too) and the help is pointed to."""
    ran = kto(*flags)
    assert (ran.code, ran.out) == (2, "")
    assert "-h' for help" in ran.err or "--help" in ran.err
    assert word in ran.err.lower()  # typer 0.26 writes CHECKPOINT
    assert "Traceback" not in ran.err
    assert tree(workplace) == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("betta: 0.1\n", ["settings.yaml", "'betta'", "Did you mean beta?"]),
        ("batchsize: 8\n", ["'batchsize'", "Did you mean batch_size?"]),
        ("colour: red\n", ["'colour'", "Known keys", "beta"]),
        ("beta: high\n", ["settings.yaml: beta is 'high'", "a number"]),
        ("beta: [1, 2]\n", ["beta is [1, 2]", "a number"]),
        ("beta: .nan\n", ["beta"]),
        ("epochs: 1.5\n", ["epochs is 1.5", "a whole number"]),
        ("epochs: .inf\n", ["epochs"]),
        ("batch_size: true\n", ["batch_size is True", "a whole number"]),
        ("out: 3\n", ["out is 3", "text"]),
        ("trust_remote_code: yes please\n", ["trust_remote_code", "true or false"]),
        ("beta: 0\n", ["beta 0", "above 0"]),
        ("beta: [1\n", ["settings.yaml is neither YAML nor JSON"]),
        ("just words\n", ["settings.yaml holds no settings", "beta: 0.1"]),
        ("", ["settings.yaml holds no settings", "beta: 0.1"]),
        ("1: 2\n", ["settings.yaml", "1"]),
    ],
    ids=lambda value: value.strip() if isinstance(value, str) else "",
)
def test_train_refuses_a_config_file(
    kto: Command, workplace: Path, given: list[str], content: str, words: list[str]
) -> None:
    (workplace / "settings.yaml").write_text(content)
    before = tree(workplace)
    refused(kto("train", *given, "--config", "settings.yaml", "--json"), *words)
    assert tree(workplace) == before


# --- data -------------------------------------------------------------------------------------


def test_without_a_dataset_the_next_step_is_to_binarize(kto: Command, workplace: Path, pico: Path) -> None:
    for command in ("precompute", "train"):
        refused(kto(command, "--model", pico), "no dataset in data/", "kto binarize hh-rlhf", "--data")
    refused(kto("precompute", "--model", pico, "--data", "nowhere"), "nowhere is not a folder", "kto binarize")
    assert tree(workplace) == {}


def test_several_datasets_are_listed(kto: Command, workplace: Path, pico: Path, pico_data: Path) -> None:
    for name in ("thumbs", "helpful"):
        shutil.copytree(pico_data, workplace / "data" / name)
    before = tree(workplace)
    refused(kto("train", "--model", pico), "several datasets", "data/helpful, data/thumbs", "--data")
    assert tree(workplace) == before


def corrupt(folder: Path) -> None:
    data = bytearray((folder / "train.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "train.parquet").write_bytes(data)


DATA_FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "corrupted": (corrupt, ["train.parquet is damaged or changed", "kto binarize", "--overwrite"]),
    "truncated": (
        lambda folder: os.truncate(folder / "train.parquet", 99),
        ["train.parquet is damaged", "--overwrite"],
    ),
    "missing": (lambda folder: (folder / "train.parquet").unlink(), ["train.parquet is missing", "kto binarize"]),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), ["manifest.json is missing", "kto binarize"]),
    "a manifest of something else": (lambda folder: (folder / "manifest.json").write_text("{}"), ["kto binarize"]),
}


@pytest.mark.parametrize(("damage", "words"), DATA_FAULTS.values(), ids=DATA_FAULTS)
def test_a_damaged_dataset_is_noticed(
    kto: Command, workplace: Path, pico: Path, pico_data: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    folder = Path(shutil.copytree(pico_data, workplace / "set"))
    damage(folder)
    before = tree(workplace)
    for command in ("precompute", "train"):
        refused(kto(command, "--data", "set", "--model", pico, "--json"), *words)
    assert tree(workplace) == before


def test_nothing_validation_is_nothing_to_evaluate_on(kto: Command, workplace: Path, pico: Path) -> None:
    write_lines(workplace / "f.jsonl", pairs(6))
    assert kto("binarize", "f.jsonl", "--validation", 0).code == 0
    refused(kto("eval", pico, "--reference", pico, "--json"), "no validation rows", "--validation")


# --- models -----------------------------------------------------------------------------------


def truncate_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 1000)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def without_one_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 33}))


def weight_not_a_number(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


MODEL_FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], ["no config.json", "model folder?"]),
    "a file": (
        lambda folder: (shutil.rmtree(folder), folder.write_text("hi")),
        ["my/model is a file, not a model folder", "Give its folder"],
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ["no model weights", "*.safetensors"]),
    "pickle only": (only_pickle, ["pytorch_model.bin", "convert it to safetensors"]),
    "truncated weights": (truncate_weights, ["cannot be loaded", "Copy the model folder again"]),
    "one weight short": (without_one_weight, ["lacks weights", "norm.weight", "Copy"]),
    "other shape": (other_shape, ["my/model", "Copy the model folder again"]),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{oops"), ["config.json", "Copy"]),
    "config a list": (lambda folder: (folder / "config.json").write_text("[1]"), ["config.json", "Copy"]),
    "config of no model": (lambda folder: (folder / "config.json").write_text('{"a": 1}'), ["my/model"]),
    "no tokenizer": (without_tokenizer, ["has no tokenizer", "tokenizer.json"]),
    "tokenizer not JSON": (
        lambda folder: (folder / "tokenizer.json").write_text("{oops"),
        ["tokenizer in", "my/model"],
    ),
    "template not Jinja": (
        lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
        ["template", "--chat-template"],
    ),
    "weight not a number": (weight_not_a_number, ["not a finite number", "Check the model"]),
}


@pytest.mark.parametrize(("damage", "words"), MODEL_FAULTS.values(), ids=MODEL_FAULTS)
def test_a_damaged_model_is_noticed(
    kto: Command, workplace: Path, pico: Path, pico_data: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    folder = Path(shutil.copytree(pico, workplace / "my/model"))
    damage(folder)
    before = tree(workplace)
    text = refused(kto("train", "--data", pico_data, "--model", "my/model", "--json"), *words)
    assert len(text) < 400, "a line, not a page"
    assert tree(workplace) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", ["nowhere"]),
        ("./nowhere", ["./nowhere is not a model folder", "config.json"]),
        ("nobody/nothing", ["nobody/nothing", "Hub cannot be reached"]),
        ("not a name!", ["not a name!"]),
    ],
)
def test_a_model_that_is_not_there(kto: Command, workplace: Path, pico_data: Path, name: str, words: list[str]) -> None:
    refused(kto("precompute", "--data", pico_data, "--model", name, "--json"), *words)
    assert tree(workplace) == {}


# --- eval -------------------------------------------------------------------------------------


def test_eval_of_what_is_no_checkpoint(kto: Command, workplace: Path, pico: Path, pico_data: Path) -> None:
    (workplace / "photos").mkdir()
    refused(kto("eval", "photos", "--json"), "photos is not a model folder", "kto train")
    model = Path(shutil.copytree(pico, workplace / "model"))
    before = tree(workplace)
    refused(kto("eval", "model", "--data", pico_data, "--json"), "model", "trained from", "--reference")
    assert tree(model.parent) == before


def test_eval_before_anything_was_trained(kto: Command, workplace: Path) -> None:
    refused(kto("eval", "checkpoint", "--json"), "no checkpoint here yet", "kto train")


def test_eval_of_an_unfinished_run(kto: Command, workplace: Path, given: list[str], monkeypatch) -> None:
    stop_in_step(monkeypatch, 3)
    assert kto("train", *given, *FOUR_STEPS, "--out", "run").code == 130
    before = tree(workplace)
    text = refused(kto("eval", "run", "--json"), "run is not finished", "kto train --resume --out run")
    assert "kto eval run/steps/step-000003" in text
    assert tree(workplace) == before


@pytest.mark.parametrize(
    "flags",
    [["--beta", "0"], ["--beta", "-1"], ["--max-new-tokens", "0"], ["--max-new-tokens", "-3"], ["--samples", "-1"]],
    ids=" ".join,
)
def test_eval_refuses_a_value(kto: Command, workplace: Path, pico: Path, pico_data: Path, flags: list[str]) -> None:
    model = shutil.copytree(pico, workplace / "model")
    refused(kto("eval", model, "--reference", pico, "--data", pico_data, *flags, "--json"), *flags)


@pytest.mark.parametrize("flags", [["--beta", "inf"], ["--lambda-u", "inf"]], ids=" ".join)
def test_infinity_is_no_setting(kto: Command, workplace: Path, given: list[str], flags: list[str]) -> None:
    refused(kto("train", *given, *flags, "--json"), *flags)
    assert tree(workplace) == {}


# --- places that cannot be written to, settings that were tampered with -----------------------


def places(workplace: Path) -> dict[str, Path]:
    """Below a file; on a file system that takes no folders. Both hold for root too."""
    (workplace / "file").write_text("mine")
    return {"below a file": workplace / "file/sub", "on /proc": Path("/proc/kto-test")}


@pytest.mark.parametrize("place", ["below a file", "on /proc"])
@pytest.mark.parametrize("command", ["binarize", "train", "precompute"])
def test_a_place_that_cannot_be_written_to(
    kto: Command, workplace: Path, given: list[str], command: str, place: str
) -> None:
    folder = places(workplace)[place]
    write_lines(workplace / "f.jsonl", pairs(6))
    words = {
        "binarize": ["f.jsonl", "--out", folder],
        "train": [*given, "--out", folder],
        "precompute": [*given, "--cache", folder],
    }
    before = tree(workplace)
    refused(kto(command, *words[command], "--json"), str(folder))
    assert tree(workplace) == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"train": {"beta": 0.1}}', '{"train": 3}'])
def test_a_tampered_kto_config_is_noticed(
    kto: Command, workplace: Path, given: list[str], monkeypatch, content: str
) -> None:
    stop_in_step(monkeypatch, 2)
    assert kto("train", *given, *FOUR_STEPS, "--out", "run").code == 130
    (workplace / "run/kto_config.json").write_text(content)
    refused(kto("train", "--resume", "--out", "run", "--json"), "kto_config.json")
    refused(kto("eval", "run/steps/step-000002", "--json"), "kto_config.json")


def test_the_folder_of_all_datasets_is_not_a_dataset(
    kto: Command, workplace: Path, pico: Path, pico_data: Path
) -> None:
    """`--data data` is an easy slip; the folders in it are what was meant."""
    shutil.copytree(pico_data, workplace / "data/helpful")
    refused(kto("train", "--model", pico, "--data", "data", "--json"), "data/helpful")


# --- the cache --------------------------------------------------------------------------------


def test_a_cache_that_is_a_file(kto: Command, workplace: Path, given: list[str]) -> None:
    (workplace / "file").write_text("mine")
    for command in ("precompute", "train"):
        refused(kto(command, *given, "--cache", "file", "--json"), "cache folder", "file", "--cache")
    assert (workplace / "file").read_text() == "mine"
    assert not (workplace / "checkpoint").exists()


def test_another_models_cache_is_never_believed(kto: Command, workplace: Path, pico: Path, pico_data: Path) -> None:
    """Copied over this model's: no hit, said, computed again; and the values are this model's."""
    other = save_pico_llama(workplace / "other", seed=1)
    flags = ("--data", pico_data, "--model")
    needed = kto("precompute", *flags, other, "--cache", "theirs", "--json").json["sequences"]
    assert kto("precompute", *flags, pico, "--cache", "ours", "--json").json["computed"] == needed
    (theirs,), (ours,) = (list((workplace / name / "reference").iterdir()) for name in ("theirs", "ours"))
    assert theirs.name != ours.name
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    ran = kto("precompute", *flags, pico, "--cache", "ours", "--json")
    assert (ran.json["cached"], ran.json["computed"]) == (0, needed)
    assert "truncated or damaged" in ran.err
    assert kto("precompute", *flags, pico, "--cache", "ours", "--json").json["cached"] == needed


def test_a_byte_flipped_in_the_cache_is_noticed(kto: Command, workplace: Path, given: list[str]) -> None:
    """One micro-batch is computed again, the rest is kept."""
    words = ("precompute", *given, "--micro-batch-tokens", 100, "--cache", "cache", "--json")
    needed = kto(*words).json["sequences"]
    (segment,) = (workplace / "cache").rglob("*.segment")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    ran = kto(*words)
    assert 0 < ran.json["computed"] <= needed / 4  # a micro-batch of 100 tokens, what sequences share counted once
    assert ran.json["cached"] == needed - ran.json["computed"]
    assert segment.name in ran.err
    assert kto(*words).json["computed"] == 0


# --- numbers that are none --------------------------------------------------------------------

FOUR_STEPS = ("--batch-size", "8", "--save-every", "1", "--learning-rate", "1e-3")


def stop_in_step(monkeypatch, step: int) -> None:
    """SIGINT arrives while the given step is computed."""
    whole, calls = TrainingEngine.step, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(TrainingEngine, "step", interrupted)


@pytest.mark.parametrize("where", ["log-prob", "gradient"])
def test_a_loss_that_is_not_a_number_stops_the_run(
    kto: Command, workplace: Path, given: list[str], pico_data: Path, monkeypatch, where: str
) -> None:
    """In step 3: steps 1 and 2 stay, the rows are named, and the run goes on from there once it is fixed."""
    from kto_cli.data.dataset import load_data_dir

    state = {"step": 0}
    with monkeypatch.context() as patch:
        step, forward = TrainingEngine.step, CompletionScorer.forward

        def counted(self, *args, **kwargs):
            state["step"] += 1
            return step(self, *args, **kwargs)

        def poisoned(self, *args):
            logps = forward(self, *args)
            if state["step"] != 3 or not logps.requires_grad:
                return logps
            if where == "gradient":
                logps.register_hook(lambda gradient: gradient * float("inf"))
                return logps
            return logps.index_fill(0, logps.new_tensor([1], dtype=int), float("nan"))

        patch.setattr(TrainingEngine, "step", counted)
        patch.setattr(CompletionScorer, "forward", poisoned)
        text = refused(kto("train", *given, *FOUR_STEPS, "--out", "run", "--json"), "Step 3", where, "step-000002")
    known = {row.id for row in load_data_dir(pico_data).train}
    named = [word.strip(",.") for word in text.split() if word.strip(",.") in known]
    assert len(named) == (1 if where == "log-prob" else 5)
    folder, kept, faults = RunDir(workplace / "run").steps.latest()
    assert (folder.name, kept["step"], faults) == ("step-000002", 2, [])
    assert len((workplace / "run/metrics.jsonl").read_text().splitlines()) == 2
    assert kto("train", "--resume", "--out", "run", "--json").json["steps"] == 4


# --- a full disk ------------------------------------------------------------------------------


ONE_BY_ONE = ("--micro-batch-tokens", 1)


class SmallDisk:
    """A tmpfs of a few hundred kilobytes, most of it taken by a file that can be removed."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "kto-test", str(folder)]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            pytest.skip("needs root and mount to have a disk that is full")

    def leave(self, kilobytes: int) -> None:
        """Fills it until so much is free."""
        free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
        (self.folder / "filler").write_bytes(bytes(free - kilobytes * 1024))

    def free(self) -> None:
        """Makes room."""
        (self.folder / "filler").unlink()


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a small disk; unmounted with the test."""
    disks: list[SmallDisk] = []

    def mount(kilobytes: int) -> SmallDisk:
        disks.append(SmallDisk(tmp_path / f"disk{len(disks)}", kilobytes))
        return disks[-1]

    yield mount
    for disk in disks:
        subprocess.run(["umount", "-l", str(disk.folder)], check=True)


def test_a_full_disk_while_binarizing(kto: Command, workplace: Path, small_disk) -> None:
    write_lines(workplace / "f.jsonl", pairs(40))
    disk = small_disk(256)
    disk.leave(8)
    before = tree(disk.folder)
    refused(
        kto("binarize", "f.jsonl", "--out", disk.folder / "set", "--json"), "No space left", "set", "free some space"
    )
    assert tree(disk.folder) == before
    disk.free()
    assert kto("binarize", "f.jsonl", "--out", disk.folder / "set", "--json").json["rows_in"] == 80


def test_a_full_disk_while_replacing_a_dataset_keeps_the_old_one(kto: Command, workplace: Path, small_disk) -> None:
    write_lines(workplace / "f.jsonl", pairs(40))
    disk = small_disk(256)
    assert kto("binarize", "f.jsonl", "--out", disk.folder / "set").code == 0
    disk.leave(8)
    before = tree(disk.folder)
    refused(kto("binarize", "f.jsonl", "--out", disk.folder / "set", "--overwrite"), "No space left")
    assert tree(disk.folder) == before


def test_a_full_disk_while_precomputing_keeps_what_was_stored(
    kto: Command, workplace: Path, pico: Path, small_disk
) -> None:
    """240 sequences in frames of one want 12 kB; 8 are free."""
    write_lines(workplace / "f.jsonl", pairs(60))
    assert kto("binarize", "f.jsonl", "--out", "set", "--validation", 0).code == 0
    disk = small_disk(512)
    words = ("precompute", "--data", "set", "--model", pico, "--cache", disk.folder, "--json", *ONE_BY_ONE)
    assert kto(*words).code == 0
    shutil.rmtree(disk.folder / "reference")
    disk.leave(8)
    refused(kto(*words), "No space left", str(disk.folder), "free some space")
    disk.free()
    result = kto(*words).json
    assert result["cached"] >= 100
    assert result["computed"] == result["sequences"] - result["cached"] > 0
    assert kto(*words).json["computed"] == 0


def test_a_full_disk_while_tokenizing_leaves_nothing_half_written(
    kto: Command, workplace: Path, given: list[str], small_disk
) -> None:
    disk = small_disk(512)
    disk.leave(8)
    words = ("precompute", *given, "--cache", disk.folder, "--json")
    refused(kto(*words), "No space left", str(disk.folder), "free some space")
    assert [path.name for path in (disk.folder / "tokens").iterdir() if path.is_dir()] == []
    disk.free()
    assert kto(*words).json["computed"] > 0


def test_a_full_disk_while_training_keeps_the_last_checkpoint(
    kto: Command, workplace: Path, given: list[str], small_disk
) -> None:
    """Two checkpoints fit and a third does not; with room made, the run ends as one that never stopped."""
    assert kto("train", *given, *FOUR_STEPS, "--out", "unbroken").code == 0
    one = sum(path.stat().st_size + 4096 for path in (workplace / "unbroken/steps/step-000003").iterdir()) // 1024
    disk = small_disk(8 * one)
    disk.leave(2 * one + one // 2)
    run = disk.folder / "run"
    refused(
        kto("train", *given, *FOUR_STEPS, "--out", run, "--json"), "No space left", "step-000003", "free some space"
    )
    folder, state, faults = RunDir(run).steps.latest()
    assert (folder.name, state["step"], faults) == ("step-000002", 2, [])
    assert not list((run / "steps").glob(".*"))
    disk.free()
    assert kto("train", "--resume", "--out", run, "--json").json["steps"] == 4
    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, workplace / "unbroken")]
    assert weights[0] == weights[1]


def test_a_full_disk_at_the_very_end_loses_nothing(kto: Command, workplace: Path, given: list[str], small_disk) -> None:
    """The finished model does not fit: no config.json, so the run is unfinished, and goes on."""
    flags = ("--batch-size", "8", "--save-every", "3")
    assert kto("train", *given, *flags, "--out", "unbroken").code == 0
    one = sum(path.stat().st_size + 4096 for path in (workplace / "unbroken/steps/step-000003").iterdir()) // 1024
    disk = small_disk(8 * one)
    disk.leave(one + one // 4)
    run = disk.folder / "run"
    refused(kto("train", *given, *flags, "--out", run, "--json"), "No space left", "free some space")
    assert not (run / "config.json").exists()
    disk.free()
    assert kto("train", "--resume", "--out", run, "--json").json["steps"] == 4
    assert not list(run.glob(".*"))


# --- Ctrl-C -----------------------------------------------------------------------------------


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for something a running command does."""
    limit = time.monotonic() + 60
    while not holds():
        assert process.poll() is None, f"it ended by itself: {process.communicate()}"
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.mark.slow
def test_ctrl_c_while_training_is_resumable(kto: Command, kto_started, workplace: Path, given: list[str]) -> None:
    flags = ("--batch-size", "8", "--epochs", "15", "--save-every", "50")
    process = kto_started("train", *given, *flags, "--out", "run", "--json", cwd=workplace)
    metrics = workplace / "run/metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["exit"]) == (130, 130)
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert "kto train --resume --out run" in last
    done = metrics.read_text().count("\n")
    assert f"after step {done} of 60; its checkpoint is saved" in last
    assert [folder.name for folder in RunDir(workplace / "run").steps.all()][-1] == f"step-{done:06d}"
    assert kto("train", "--resume", "--out", "run", "--json").json["steps"] == 60
    assert metrics.read_text().count("\n") == 60


def test_ctrl_c_in_the_middle_of_a_step_lets_it_end(
    kto: Command, workplace: Path, given: list[str], monkeypatch
) -> None:
    """The step during which it came is finished, recorded and saved."""
    stop_in_step(monkeypatch, 2)
    ran = kto("train", *given, *FOUR_STEPS, "--out", "run", "--json")
    assert (ran.code, json.loads(ran.out)["exit"]) == (130, 130)
    assert "Stopped after step 2 of 4; its checkpoint is saved." in ran.err.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_while_precomputing_keeps_what_was_computed(
    kto: Command, kto_started, workplace: Path, pico: Path
) -> None:
    """The built-in sample in micro-batches of one; the second run computes only the rest."""
    assert kto("binarize", "hh-rlhf", "--from", SAMPLE / "hh-rlhf").code == 0
    words = ("precompute", "--model", pico, "--cache", "cache", "--json", *ONE_BY_ONE)
    process = kto_started(*words, cwd=workplace)

    def stored() -> int:
        return sum(path.stat().st_size for path in workplace.glob("cache/reference/*/*.segment")) // 52

    wait_until(lambda: stored() >= 10, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["exit"]) == (130, 130)
    assert "Traceback" not in err
    assert "stored" in err.splitlines()[-1]
    assert "again" in err.splitlines()[-1]
    kept = stored()
    result = kto("precompute", "--model", pico, "--cache", "cache", "--json").json
    assert result["cached"] == kept
    assert result["computed"] == result["sequences"] - kept > 0


def test_ctrl_c_while_still_loading(kto_started, workplace: Path, given: list[str]) -> None:
    """Before anything was done: still 130, still no traceback."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("looks into /proc to see what is being loaded")
    process = kto_started("train", *given, "--epochs", 500, "--out", "run", cwd=workplace)
    wait_until(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
