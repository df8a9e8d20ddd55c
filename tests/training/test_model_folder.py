"""Model folders that a run writes load in plain transformers, hold the run's weights and lack no file of the source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import call, error_line
from test_run_dir import MODEL_FILES, SETTINGS, names, train_until_killed_in
from transformers import AutoModelForCausalLM, AutoTokenizer

SHORT = ("--batch-size", 16, "--learning-rate", "1e-3", "--no-curves")
"""Two steps over the 32 rows."""


@pytest.fixture
def model(pico, workplace) -> Path:
    """A copy of the pico model to change."""
    return Path(shutil.copytree(pico, workplace / "model"))


def template_of(folder: Path) -> str:
    return (folder / "chat_template.jinja").read_text(encoding="utf-8")


def weights(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options).state_dict()


# --- several chat templates ---------------------------------------------------------------------


def with_two_templates(model: Path) -> Path:
    """As Command R and Hermes 2 Pro have it: a template for tools beside the usual one."""
    more = model / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("{{ tools }}" + template_of(model), encoding="utf-8")
    return model


@pytest.mark.parametrize("more", [(), pytest.param(("--lora-r", 4), marks=pytest.mark.slow)], ids=["full", "lora"])
def test_several_chat_templates_are_in_every_folder(model, pico_data, workplace, more):
    """Checkpoint and finished model: both load with both templates; the checkpoint passes its own checksums."""
    given = ("--data", pico_data, "--model", with_two_templates(model), "--save-every", 1, *SHORT, *more)
    assert call("train", *given, "--dry-run").code == 0
    assert call("train", *given, "--out", "run").code == 0
    expected = AutoTokenizer.from_pretrained(model).chat_template
    assert set(expected) == {"default", "tool_use"}
    for folder in (workplace / "run", workplace / "run/steps/step-000001"):
        assert AutoTokenizer.from_pretrained(folder).chat_template == expected
    state = json.loads((workplace / "run/steps/step-000001/state.json").read_text())
    assert "additional_chat_templates/tool_use.jinja" in state["files"]
    assert call("eval", "run", "--samples", 0).code == 0


@pytest.mark.slow
def test_a_run_with_several_templates_is_resumed(model, pico_data, workplace):
    """Killed in step 4, resumed: the weights of a run without a break, and a damaged template is noticed."""
    given = ("--data", pico_data, "--model", with_two_templates(model), *SETTINGS)
    assert call("train", *given, "--out", "whole").code == 0
    train_until_killed_in(4, *given, "--out", "run")
    assert call("train", "--resume", "--out", "run").code == 0
    one, other = weights(workplace / "whole"), weights(workplace / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)
    tool_use = workplace / "run/steps/step-000004/additional_chat_templates/tool_use.jinja"
    tool_use.write_text("changed")
    assert "tool_use.jinja is damaged" in error_line(call("eval", "run/steps/step-000004"))


def test_what_cannot_be_saved_is_said_before_training(model, pico_data, workplace, monkeypatch):
    """By the dry run and by the run, before anything is computed; no folder is begun."""

    def fails(*_: object, **__: object) -> None:
        raise ValueError("GenerationConfig is invalid:\n- temperature")

    monkeypatch.setattr("transformers.GenerationConfig.save_pretrained", fails)
    for more in ((), ("--dry-run",)):
        said = error_line(call("train", "--data", pico_data, "--model", model, *SHORT, *more))
        assert "cannot be saved" in said or "not saved: GenerationConfig is invalid" in said
    assert not (workplace / "checkpoint").exists()
    assert call("train", "--data", pico_data, "--model", model, *SHORT, "--lora-r", 4).code == 0, "an adapter has none"


# --- files of the source ------------------------------------------------------------------------


def test_files_of_the_source_are_in_the_finished_folder(model, pico_data, workplace):
    """Processor configs, vocabularies for other libraries; not another chat template, nor what is not the model's."""
    belong = {
        "preprocessor_config.json": '{"image_processor_type": "ViTImageProcessor"}',
        "processor_config.json": '{"image_seq_length": 4}',
        "tokenizer.model": "sentencepiece",
        "vocab.json": "{}",
        "merges.txt": "a b",
        "qwen.tiktoken": "a 0",
        "tekken.json": "{}",
        "special_tokens_map.json": "{}",
    }
    others = {
        "chat_template.json": '{"chat_template": "old"}',
        "trainer_state.json": "{}",
        "script.py": "",
        "README.md": "-",
    }
    for name, text in (belong | others).items():
        (model / name).write_text(text)
    assert call("train", "--data", pico_data, "--model", model, "--save-every", 1, "--out", "run", *SHORT).code == 0
    for folder in (workplace / "run", workplace / "run/steps/step-000001"):
        for name, text in belong.items():
            assert (folder / name).read_text() == text, name
        assert not names(folder) & {"chat_template.json", "trainer_state.json", "script.py"}
    assert MODEL_FILES | set(belong) <= names(workplace / "run")


CODE = """from transformers import LlamaConfig, LlamaForCausalLM
from .sizes import FACTOR
class TeaConfig(LlamaConfig):
    model_type = "tea"
class TeaForCausalLM(LlamaForCausalLM):
    config_class = TeaConfig
    factor = FACTOR
"""


def with_code(model: Path) -> Path:
    """A model with Python code of its own, in two files."""
    (model / "modeling_tea.py").write_text(CODE)
    (model / "sizes.py").write_text("FACTOR = 2\n")
    config = json.loads((model / "config.json").read_text())
    classes = {"AutoConfig": "modeling_tea.TeaConfig", "AutoModelForCausalLM": "modeling_tea.TeaForCausalLM"}
    config |= {"model_type": "tea", "architectures": ["TeaForCausalLM"], "auto_map": classes}
    (model / "config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize("more", [(), pytest.param(("--lora-r", 4, "--merge"), marks=pytest.mark.slow)])
def test_a_models_own_code_is_in_the_finished_folder(model, pico_data, workplace, more):
    given = ("--data", pico_data, "--model", with_code(model), "--trust-remote-code", "--save-every", 1, *SHORT, *more)
    assert call("train", *given, "--out", "run").code == 0
    shutil.rmtree(model)
    loaded = AutoModelForCausalLM.from_pretrained(workplace / "run", trust_remote_code=True)
    assert type(loaded).__name__ == "TeaForCausalLM"
    assert loaded.factor == 2


def test_a_model_saved_in_memory_keeps_its_templates(pico, workplace):
    """kto.train(model=a loaded model) stores a copy; several templates make a folder in it."""
    from kto_cli.workflows.api import _model_folder

    tokenizer = AutoTokenizer.from_pretrained(with_two_templates(Path(shutil.copytree(pico, workplace / "two"))))
    folder = Path(_model_folder(AutoModelForCausalLM.from_pretrained(pico), tokenizer))
    assert set(AutoTokenizer.from_pretrained(folder).chat_template) == {"default", "tool_use"}


def test_generation_settings_that_contradict_each_other_are_kept(model, pico_data, workplace):
    """As Llama 2 and Vicuna have them; transformers refuses to save them where a model is saved by itself."""
    settings = {"do_sample": False, "temperature": 0.9, "top_p": 0.6, "eos_token_id": 2}
    (model / "generation_config.json").write_text(json.dumps(settings))
    assert call("train", "--data", pico_data, "--model", model, "--max-steps", 1, *SHORT, "--out", "run").code == 0
    found = json.loads((workplace / "run/generation_config.json").read_text())
    assert {name: found[name] for name in settings} == settings


# --- dtypes -------------------------------------------------------------------------------------


def in_bfloat16(model: Path, *, kept: str = "") -> Path:
    """The model's weights in bfloat16, those named `kept` in float32."""
    from safetensors.torch import load_file, save_file

    stored = load_file(model / "model.safetensors")
    stored = {name: value if name == kept else value.bfloat16() for name, value in stored.items()}
    save_file(stored, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return model


NORM = "model.norm.weight"


@pytest.mark.parametrize("more", [(), ("--lora-r", 4, "--merge")], ids=["full", "merged"])
def test_a_finished_model_has_the_dtypes_of_its_source(model, pico_data, workplace, more):
    """bfloat16 stays bfloat16, half the bytes, and float32 where the source has it; the checkpoint keeps float32. The
    validation numbers of the run are those of the model that was written: `kto eval` has them to the last digit."""
    from safetensors.torch import load_file

    in_bfloat16(model, kept=NORM)
    given = ("--data", pico_data, "--model", model, "--save-every", 1, "--out", "run", *SHORT, *more)
    ran = call("train", *given, "--json").json
    stored, finished = load_file(model / "model.safetensors"), load_file(workplace / "run/model.safetensors")
    assert {name: value.dtype for name, value in finished.items()} == {n: v.dtype for n, v in stored.items()}
    assert finished[NORM].dtype == torch.float32
    assert json.loads((workplace / "run/config.json").read_text())["dtype"] == "bfloat16"
    if not more:
        step = load_file(workplace / "run/steps/step-000001/model.safetensors")
        assert {value.dtype for value in step.values()} == {torch.float32}
        assert any(not torch.equal(value, value.bfloat16().float()) for value in step.values()), "more bits than stored"
    seen = call("eval", "run", "--samples", 0, "--json").json
    for name in ("margin", "auc", "kl", "reward_desirable"):
        assert seen[name] == pytest.approx(ran["validation"][name], abs=1e-12), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_bfloat16_run_is_the_same(model, pico_data, workplace, dtype):
    """Checkpoints keep the bits that rounding would lose."""
    given = ("--data", pico_data, "--model", in_bfloat16(model), "--dtype", dtype, *SETTINGS)
    assert call("train", *given, "--out", "whole").code == 0
    train_until_killed_in(4, *given, "--out", "run")
    assert call("train", "--resume", "--out", "run").code == 0
    whole, resumed = (workplace / name / "model.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_the_dry_run_foretells_the_size_of_a_bfloat16_model(model, pico_data, workplace):
    given = ("--data", pico_data, "--model", in_bfloat16(model), *SHORT)
    said = call("train", *given, "--dry-run", "--json").json
    assert call("train", *given).code == 0
    kept = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    written = sum((workplace / "checkpoint" / name).stat().st_size for name in (*kept, "chat_template.jinja"))
    assert said["disk"]["model"] == pytest.approx(written, rel=0.05)


def test_tied_weights_stay_tied(model, pico_data, workplace):
    """The pico model has one matrix for embedding and head: it is written once, in bfloat16."""
    from safetensors.torch import load_file

    assert call("train", "--data", pico_data, "--model", in_bfloat16(model), "--out", "run", *SHORT).code == 0
    assert set(load_file(workplace / "run/model.safetensors")) == set(load_file(model / "model.safetensors"))
    loaded = AutoModelForCausalLM.from_pretrained(workplace / "run")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.dtype == torch.bfloat16, "also without dtype="


def test_what_was_learned_survives_the_rounding(model, pico_data, workplace):
    """Two steps at 1e-6 move weights by hundredths of what lies between two bfloat16 numbers. The same run from
    the same weights in float32 has the whole change; of it the bfloat16 model keeps all on average: the projection of
    its change on the whole one is 1 (rounded to the nearest, it was 0.06 on a real model)."""
    from safetensors.torch import load_file, save_file

    twin = Path(shutil.copytree(in_bfloat16(model), workplace / "twin"))
    start = {name: value.float() for name, value in load_file(model / "model.safetensors").items()}
    save_file(start, twin / "model.safetensors", metadata={"format": "pt"})
    ends = {}
    for folder in (model, twin):
        words = ("--data", pico_data, "--model", folder, "--out", f"of-{folder.name}", *SHORT, "--learning-rate", 1e-6)
        assert call("train", *words).code == 0
        ends[folder.name] = load_file(workplace / f"of-{folder.name}/model.safetensors")
    whole = torch.cat([(ends["twin"][name] - start[name]).flatten() for name in start])
    kept = torch.cat([(ends["model"][name].float() - start[name]).flatten() for name in start])
    assert (kept != 0).float().mean() < 0.3, "most stay where they were"
    assert (kept @ whole / (whole @ whole)).item() == pytest.approx(1, abs=0.2)


def test_training_sees_the_model_that_is_written(model, pico_data, workplace, monkeypatch):
    """With products in bfloat16, linear layers have the written model's weights in the validation behind the last step,
    and not those nearest to what was learned, which are mostly the source's."""
    from safetensors.torch import load_file

    from kto_cli.training import loop

    seen: dict[str, torch.Tensor] = {}
    score_rows = loop.score_rows

    def look(engine, *given, **named):
        seen.update({name: each.detach().bfloat16() for name, each in engine.scorer.model.named_parameters()})
        return score_rows(engine, *given, **named)

    monkeypatch.setattr(loop, "score_rows", look)
    words = ("--data", pico_data, "--model", in_bfloat16(model), *SHORT, "--learning-rate", 1e-5, "--eval-every", 1)
    ran = call("train", *words, "--dtype", "bfloat16", "--out", "run")
    assert ran.code == 0
    assert "weights rounded at random" in ran.err + ran.out
    source, written = load_file(model / "model.safetensors"), load_file(workplace / "run/model.safetensors")
    layers = [name for name in written if "proj" in name]
    assert all(torch.equal(seen[name], written[name]) for name in layers)
    changed = torch.cat([(written[name] != source[name]).flatten() for name in layers]).float().mean()
    assert changed > 0.01


# --- a template of the user's -------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_keeps_its_chat_template(model, pico_data, workplace):
    """Given as a relative path and gone later: the run is resumed, finished and evaluated with its own copy."""
    (workplace / "mine.jinja").write_text("{{ 'Mine: ' }}" + template_of(model))
    given = ("--data", pico_data, "--model", model, "--chat-template", "mine.jinja", *SETTINGS)
    assert call("train", *given, "--out", "whole").code == 0
    train_until_killed_in(4, *given, "--out", "run")
    (workplace / "mine.jinja").unlink()
    assert call("train", "--resume", "--out", "run").code == 0
    one, other = weights(workplace / "whole"), weights(workplace / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert template_of(workplace / "run").startswith("{{ 'Mine: ' }}")
    for checkpoint in ("run", "run/steps/step-000006"):
        ran = call("eval", checkpoint, "--samples", 0, "--json")
        assert ran.code == 0, ran.err
    stored = json.loads((workplace / "run/kto_config.json").read_text())
    assert stored["train"]["chat_template"] == "mine.jinja"


@pytest.mark.parametrize("whose", ["the user's", "the model's"])
def test_another_template_is_no_resuming(model, pico_data, workplace, whose):
    """Of the run's copy, or of the model: the rest of the rows would be trained on other prompts."""
    (workplace / "mine.jinja").write_text(template_of(model))
    flags = ("--chat-template", "mine.jinja") if whose == "the user's" else ()
    train_until_killed_in(2, "--data", pico_data, "--model", model, *SHORT, *flags, "--out", "run")
    path = workplace / "run/chat_template.jinja" if flags else model / "chat_template.jinja"
    path.write_text("{{ 'Changed: ' }}" + path.read_text())
    said = error_line(call("train", "--resume", "--out", "run"))
    assert "The chat template is not the one this run was started with" in said
