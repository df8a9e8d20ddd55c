"""The run directory is an interface: its exact files, what it refuses, and how a broken run goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import call, error_line

from kto_cli.common.owner import owning
from kto_cli.training import loop
from kto_cli.training.run.run_dir import KEPT_STEPS, RunDir
from kto_cli.training.step import TrainingEngine

MODEL_FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
}
FINISHED = MODEL_FILES | {"kto_config.json", "metrics.jsonl", "README.md", "steps"}
STEP = MODEL_FILES | {"optimizer.safetensors", "state.json"}
PROMISED = {
    "loss",
    "z_ref",
    "z_ref_se",
    "z_ref_pairs",
    "reward_desirable",
    "reward_undesirable",
    "margin",
    "saturated",
    "gradient_norm",
    "learning_rate",
    "rows_per_second",
    "tokens_per_second",
    "eta_seconds",
}
SETTINGS = ("--batch-size", 8, "--epochs", 2, "--save-every", 2, "--learning-rate", "1e-3")
STEPS = 8
"""32 rows, batches of 8, 2 epochs."""


class Killed(BaseException):
    """Nothing catches this: the process is gone."""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_byte(path: Path) -> None:
    """In the middle of the file, where no parser looks."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def train_until_killed_in(step: int, *words: object) -> None:
    """`kto train`, gone in the middle of the given step."""
    with pytest.MonkeyPatch.context() as patch:
        whole, calls = TrainingEngine.step, []

        def dying(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == step:
                raise Killed
            return whole(self, *args, **kwargs)

        patch.setattr(TrainingEngine, "step", dying)
        with pytest.raises(Killed):
            call("train", *words)


@pytest.fixture(scope="module")
def runs(pico, pico_data, tmp_path_factory) -> Path:
    """finished/: an unbroken run; broken/: the same, killed in step 8; neither is to be changed."""
    home = tmp_path_factory.mktemp("runs")
    words = ("--data", pico_data, "--model", pico, "--cache", home / "cache", *SETTINGS)
    assert call("train", *words, "--out", home / "finished").code == 0
    train_until_killed_in(STEPS, *words, "--out", home / "broken")
    return home


@pytest.fixture
def finished(runs) -> Path:
    return runs / "finished"


@pytest.fixture
def broken(runs, workplace) -> Path:
    """A copy of the killed run in the current folder."""
    return Path(shutil.copytree(runs / "broken", workplace / "run"))


# --- what lies where --------------------------------------------------------------------------


def test_a_finished_run_has_exactly_these_files(finished):
    assert names(finished) == FINISHED
    steps = sorted(names(finished / "steps"))
    assert steps == ["step-000004", "step-000006"], f"the last {KEPT_STEPS}; the model itself is the last step's"
    for step in steps:
        assert names(finished / "steps" / step) == STEP
    hidden = [path for path in finished.rglob("*") if path.name.startswith(".") or path.suffix in (".tmp", ".old")]
    assert not hidden


def test_an_unfinished_run_does_not_look_like_a_model(broken):
    """config.json comes last, so nothing loads half a run."""
    assert names(broken) == {"best", "kto_config.json", "metrics.jsonl", "steps"}
    assert not RunDir(broken).finished


def test_eval_adds_one_folder(kto, workplace, finished, pico_data):
    run = Path(shutil.copytree(finished, workplace / "run"))
    before = {path.name: sha(path) for path in run.iterdir() if path.is_file()}
    assert kto("eval", "run", "--data", pico_data, "--samples", 1, "--json").code == 0
    assert names(run) == FINISHED | {"eval"}
    assert {"metrics.json", "rows.parquet", "samples.jsonl", "report.html"} <= names(run / "eval")
    assert {path.name: sha(path) for path in run.iterdir() if path.is_file()} == before


def test_the_config_holds_every_setting(finished, pico_data):
    from dataclasses import fields

    from kto_cli.common.train_config import TrainConfig

    config = json.loads((finished / "kto_config.json").read_text())
    assert {"train", "chosen", "data", "reference", "versions"} <= set(config)
    assert set(config["train"]) == {field.name for field in fields(TrainConfig)}
    assert config["chosen"]["total_steps"] == STEPS
    assert config["data"]["train_rows"] == 32
    assert {"kto", "python", "torch", "transformers"} <= set(config["versions"])
    assert config["reference"]["fingerprint"]


def test_metrics_have_one_line_a_step_with_every_promised_number(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line in lines:
        assert set(line) >= PROMISED
        assert all(math.isfinite(line[name]) for name in PROMISED)
        assert line["z_ref_pairs"] == 8
        assert line["z_ref"] >= 0
        assert line["margin"] == pytest.approx(line["reward_desirable"] - line["reward_undesirable"], abs=1e-6)
    assert [line["rows"] for line in lines] == [8 * step for step in range(1, STEPS + 1)]
    assert lines[0]["noise_floor"] < 1e-3
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-4), "weights 1 and 1, every log-ratio 0: 1 - sigmoid(0)"
    assert lines[-1]["eta_seconds"] == 0
    assert {"rows", "loss", "margin", "auc"} <= set(lines[-1]["validation"])


def test_the_time_left_counts_validation_and_checkpoints():
    """Steps of 1 s, each fifth with a validation of 10 s: 3 s a step, which steps alone would put at 1 s."""
    begins = deque([0.0])
    for step in range(1, 21):
        begins.append(begins[-1] + 1 + 10 * (step % 5 == 0))
    run = SimpleNamespace(begins=begins, settings=SimpleNamespace(eval_every=5))
    assert loop._seconds_a_step(run, last=1.0) == 3
    assert loop._seconds_a_step(SimpleNamespace(begins=deque([0.0]), settings=run.settings), last=1.0) == 1


def test_a_step_says_how_every_file_of_it_must_be(finished):
    folder = finished / "steps/step-000006"
    state = json.loads((folder / "state.json").read_text())
    assert state["files"] == {name: sha(folder / name) for name in STEP - {"state.json"}}
    assert (state["step"], state["rows"]) == (6, 48)


# --- what is refused --------------------------------------------------------------------------


def one_error(ran) -> str:
    """The one line of error of a command that was refused."""
    return error_line(ran)


def test_a_finished_run_is_neither_overwritten_nor_resumed(kto, workplace, finished, given):
    run = Path(shutil.copytree(finished, workplace / "run"))
    before = sha(run / "model.safetensors")
    text = one_error(kto("train", *given, "--out", run))
    assert "finished run" in text
    assert "--out" in text
    text = one_error(kto("train", "--resume", "--out", run))
    assert "nothing to resume" in text
    assert "kto eval" in text
    assert sha(run / "model.safetensors") == before


def test_an_unfinished_run_is_not_overwritten(kto, broken, given):
    before = sorted((path, sha(path)) for path in broken.rglob("*") if path.is_file())
    text = one_error(kto("train", *given, "--out", broken))
    assert f"kto train --resume --out {broken}" in text
    assert sorted((path, sha(path)) for path in broken.rglob("*") if path.is_file()) == before


def test_a_folder_of_something_else_is_left_alone(kto, workplace, given):
    (workplace / "mine").mkdir()
    (workplace / "mine/thesis.txt").write_text("years of work")
    for more in ([], ["--resume"]):
        text = one_error(kto("train", *given, "--out", "mine", *more))
        assert "mine is not empty" in text
        assert "--out" in text
    assert names(workplace / "mine") == {"thesis.txt"}


def test_an_output_that_is_a_file_is_left_alone(kto, workplace, given):
    (workplace / "file").write_text("mine")
    assert "is a file" in one_error(kto("train", *given, "--out", "file"))
    assert (workplace / "file").read_text() == "mine"


def test_resuming_under_other_settings_names_the_fields(kto, broken, given):
    text = one_error(kto("train", *given, "--resume", "--out", broken, "--beta", 0.5, "--seed", 9, "--batch-size", 8))
    assert "beta (0.1, now 0.5)" in text
    assert "seed (0, now 9)" in text
    assert "batch_size" not in text, "given, but the same"


def test_resuming_with_other_rows_or_another_model_is_refused(kto, broken, given, workplace):
    from conftest import pairs, save_pico_llama, write_lines

    source = write_lines(workplace / "other.jsonl", pairs(21))
    assert kto("binarize", source, "--out", "other", "--validation", 0.2).code == 0
    text = one_error(kto("train", "--resume", "--out", broken, "--data", "other"))
    assert "rows" in text
    assert "other" in text
    model = save_pico_llama(workplace / "model", seed=1)
    text = one_error(kto("train", "--resume", "--out", broken, "--model", model))
    assert "reference model" in text
    assert str(model) in text


def test_a_run_of_another_plan_is_not_resumed(kto, broken, monkeypatch):
    """Steps that take the rows in another order would train some twice and others never."""
    monkeypatch.setattr("kto_cli.training.record.PLAN_VERSION", 0)
    assert "in another order" in one_error(kto("train", "--resume", "--out", broken))


def test_a_folder_that_another_process_trains_in_is_refused(kto, broken, given):
    """A new run and a resumed one; what is there stays."""
    before = {path: sha(path) for path in broken.rglob("*") if path.is_file()}
    with owning(broken / ".lock", broken, "training in"):
        for more in ([], ["--resume"]):
            text = one_error(kto("train", *given, "--out", broken, *more))
            assert f"Another process is training in {broken}: process {os.getpid()} on" in text
    assert {path: sha(path) for path in broken.rglob("*") if path.is_file()} == before


def test_a_run_killed_before_its_settings_got_their_name_starts_over(kto, workplace, given, finished):
    (workplace / "run").mkdir()
    (workplace / "run/.kto_config.json.123.tmp").write_text("{")
    (workplace / "run/.lock").write_text("process 123 on a machine\n")
    assert kto("train", *given, *SETTINGS, "--out", "run").code == 0
    same_as_unbroken(workplace / "run", finished)


def test_a_damaged_line_of_metrics_is_named_and_the_others_are_kept(kto, broken, finished):
    path = broken / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("{", "[", 1)
    lines[2] = lines[2].replace('"rows": 24', '"rows": 25')
    path.write_text("".join(line + "\n" for line in lines))
    assert f"{path}: lines 2, 3 are damaged and left out" in resumed(kto, broken)
    assert [line["step"] for line in RunDir(broken).read_metrics()] == [1, 4, 5, 6, 7, 8]
    assert sha(broken / "model.safetensors") == sha(finished / "model.safetensors")


@pytest.mark.parametrize(
    ("before", "after"), [('"step": 6', '"step": 5'), ('"files"', '"fileq"'), ('"seal"', '"seam"')]
)
def test_a_changed_state_is_noticed(kto, broken, finished, before, after):
    path = broken / "steps/step-000006/state.json"
    path.write_text(path.read_text().replace(before, after))
    assert "state.json is damaged" in resumed(kto, broken)
    same_as_unbroken(broken, finished)


def test_a_run_of_an_earlier_kto_is_read(broken, finished):
    """It has no seals."""
    for path in (broken / "kto_config.json", broken / "steps/step-000006/state.json"):
        value = json.loads(path.read_text())
        del value["seal"]
        path.write_text(json.dumps(value))
    lines = [json.loads(line) for line in (broken / "metrics.jsonl").read_text().splitlines()]
    (broken / "metrics.jsonl").write_text("".join(json.dumps({**line, "seal": None}) + "\n" for line in lines))
    assert RunDir(broken).read_metrics() == []
    (broken / "metrics.jsonl").write_text(
        "".join(json.dumps({key: line[key] for key in line if key != "seal"}) + "\n" for line in lines)
    )
    assert len(RunDir(broken).read_metrics()) == 7
    assert RunDir(broken).steps.latest()[0] == broken / "steps/step-000006"


def test_files_of_a_model_can_be_read_by_others(finished):
    """safetensors alone would write for the owner only."""
    modes = {path.stat().st_mode & 0o777 for path in finished.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_a_run_resumed_with_another_library_says_so(kto, broken, monkeypatch):
    """Another torch gives other bits."""
    monkeypatch.setattr("torch.__version__", "2.99.0")
    ran = kto("train", "--resume", "--out", broken)
    assert ran.code == 0, ran.err
    assert "now 2.99.0" in " ".join(ran.err.split())
    assert "up to rounding, not bit for bit" in " ".join(ran.err.split())


# --- how a broken run goes on -----------------------------------------------------------------


def resumed(kto, run: Path) -> str:
    """Resumes to the end; gives what was said."""
    ran = kto("train", "--resume", "--out", run)
    assert ran.code == 0, ran.err
    return ran.err


def same_as_unbroken(run: Path, finished: Path) -> None:
    """The same files, the same weights to the bit, the same numbers for every step."""
    assert names(run) == FINISHED
    assert names(run / "steps") == names(finished / "steps")
    assert sha(run / "model.safetensors") == sha(finished / "model.safetensors")
    clocks = {
        "seconds",
        "rows_per_second",
        "tokens_per_second",
        "eta_seconds",
        "seal",
    }
    lines, expected = (
        [
            {name: value for name, value in json.loads(line).items() if name not in clocks}
            for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for folder in (run, finished)
    )
    assert lines == expected


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(kto, broken, finished):
    assert "step 6 of 8" in resumed(kto, broken)
    same_as_unbroken(broken, finished)


def test_a_torn_last_line_of_metrics_is_written_again(kto, broken, finished):
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 0.4')
    assert [line["step"] for line in RunDir(broken).read_metrics()] == list(range(1, 8))
    resumed(kto, broken)
    same_as_unbroken(broken, finished)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json"])
def test_a_flipped_byte_in_the_newest_step_falls_back_to_the_one_before(kto, broken, finished, name):
    flip_a_byte(broken / "steps/step-000006" / name)
    folder, state, faults = RunDir(broken).steps.latest()
    assert (folder.name, state["step"], len(faults)) == ("step-000004", 4, 1)
    said = resumed(kto, broken)
    assert f"step-000006/{name} is damaged" in said
    assert "step 4 of 8" in said
    same_as_unbroken(broken, finished)


@pytest.mark.parametrize("damage", ["missing file", "no state", "state not JSON"])
def test_a_step_that_is_not_whole_is_passed_over(kto, broken, finished, damage):
    step = broken / "steps/step-000006"
    if damage == "missing file":
        (step / "optimizer.safetensors").unlink()
    elif damage == "no state":
        (step / "state.json").unlink()
    else:
        (step / "state.json").write_text('{"step": 6, "files": ')
    assert "Falling back" in resumed(kto, broken)
    same_as_unbroken(broken, finished)


def test_with_no_sound_step_the_run_starts_over(kto, broken, finished):
    for step in (broken / "steps").iterdir():
        flip_a_byte(step / "model.safetensors")
    said = resumed(kto, broken)
    assert said.count("is damaged") == 2
    assert "starting from the first step" in said
    same_as_unbroken(broken, finished)


def test_what_a_kill_left_half_written_is_swept_away(kto, broken, finished):
    (broken / "steps/.step-000008.tmp").mkdir()
    (broken / "steps/.step-000008.tmp/model.safetensors").write_text("half")
    (broken / "steps/.step-000002.old").mkdir()
    (broken / ".finished.tmp").mkdir()
    (broken / ".metrics.jsonl.123.tmp").write_text("half")
    resumed(kto, broken)
    same_as_unbroken(broken, finished)


def test_a_kill_while_the_finished_model_is_put_in_place(kto, broken, finished, monkeypatch):
    """Files of the model are there, config.json is not: the run is unfinished and finishes."""
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(finished / name, broken / name)
    assert not RunDir(broken).finished
    resumed(kto, broken)
    same_as_unbroken(broken, finished)


def test_resume_with_nothing_there_starts_a_run(kto, workplace, given, finished):
    """So that one command line can be put in a job that is started again and again."""
    ran = kto("train", *given, *SETTINGS, "--resume", "--out", "run")
    assert ran.code == 0, ran.err
    assert "starting a new one" in ran.err
    assert sha(workplace / "run/model.safetensors") == sha(finished / "model.safetensors")


def test_a_run_killed_before_its_first_step_goes_on(kto, workplace, given, finished):
    train_until_killed_in(1, *given, *SETTINGS, "--out", "run")
    assert "No complete checkpoint yet" in resumed(kto, workplace / "run")
    same_as_unbroken(workplace / "run", finished)


def test_only_the_newest_steps_are_kept(workplace, tmp_path):
    """Folders of a step and what is no step: only `step-NNNNNN` count."""
    directory = RunDir(tmp_path / "run")
    for step in (1, 2, 10):
        directory.steps.of(step).mkdir(parents=True)
    (directory.steps.folder / ".step-000011.tmp").mkdir()
    assert [folder.name for folder in directory.steps.all()] == ["step-000001", "step-000002", "step-000010"]


@pytest.mark.parametrize("where", ["run/model.safetensors", "run/steps/step-000002/model.safetensors"])
def test_eval_notices_damaged_weights(kto, workplace, given, where):
    """One flipped bit, in the finished model or in a step's: named, and not evaluated."""
    assert kto("train", *given, "--batch-size", 8, "--save-every", 2, "--out", "run").code == 0
    weights = workplace / where
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    ran = kto("eval", weights.parent.relative_to(workplace), "--json")
    assert f"{where} is damaged" in error_line(ran)
    assert not (workplace / "run/eval").exists()
