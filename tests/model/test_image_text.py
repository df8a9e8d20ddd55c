"""Image-text checkpoints trained on text alone: the numbers of the whole model, which is written as it was loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import call, error_line
from image_text import BUILDERS, REFUSED, save_image_text
from pico import naive_logps, sequences
from safetensors.torch import load_file, save_file
from test_run_dir import train_until_killed_in
from transformers import AutoModelForImageTextToText

from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Question
from kto_cli.model.load import load_model, load_tokenizer
from kto_cli.model.scorer import CompletionScorer

SHORT = ("--batch-size", 16, "--learning-rate", "1e-2", "--no-curves")
UNPACKED = {"qwen3_5"}
"""Families whose layers keep a state, which packed batches would carry over."""
OLD_NAMES = {
    "qwen2_5_vl": {"model.language_model.": "model."},
    "llava": {
        "language_model.lm_head.": "language_model.lm_head.",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    },
}
"""Names that the weights have in checkpoints of earlier versions of transformers, by their beginnings."""
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    home = tmp_path_factory.mktemp("image-text")

    def found(family: str) -> Path:
        path = home / family
        return path if path.exists() else save_image_text(path, family)

    return found


@pytest.mark.parametrize("family", BUILDERS)
def test_log_probs_are_those_of_the_whole_model(folder: Folder, family: str):
    """Packed and padded against one row at a time through the image-text class in float64: positions in three
    dimensions (Qwen), masks by token types (Gemma), sliding windows of 16 tokens."""
    scorer, of = CompletionScorer(load_model(folder(family))), sequences(vocab=500)
    check = scorer.trust_or_fall_back(of)
    assert (check.unpacked is not None) == (family in UNPACKED)
    whole = AutoModelForImageTextToText.from_pretrained(folder(family), dtype=torch.float64).eval()
    expected = naive_logps(whole, of).detach()
    found = scorer.score(of)
    scorer.packing = None
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(scorer.score(of), expected, atol=1e-4)


def learned(before: Path, after: Path) -> set[str]:
    """Names of the weights whose bits differ; all names are the same."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert set(old) == set(new)
    return {name for name in old if not torch.equal(old[name], new[name])}


def assert_loads_as_a_whole(run: Path, model: Path) -> None:
    _, info = AutoModelForImageTextToText.from_pretrained(run, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name in ("preprocessor_config.json", "processor_config.json"):
        assert (run / name).read_bytes() == (model / name).read_bytes()


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in OLD_NAMES else pytest.mark.slow) for name in BUILDERS]
)
def test_a_run_trains_the_text_part_and_keeps_the_rest(folder: Folder, pico_data, workplace, family):
    """The finished model is the whole one: its image part has the bits it had, its processor files are there."""
    given = ("--data", pico_data, "--model", folder(family), *SHORT)
    ran = call("train", *given, "--out", "run")
    assert ran.code == 0, ran.err
    assert "Only the model's text part is trained" in ran.err
    changed = learned(folder(family), workplace / "run")
    assert any("q_proj" in name for name in changed)
    assert not any(part in name for name in changed for part in ("vis", "projector", "connector"))
    assert_loads_as_a_whole(workplace / "run", folder(family))
    ran = call("eval", "run", "--samples", 2, "--max-new-tokens", 4)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("more", [(), ("--merge",)], ids=["adapter", "merged"])
@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "qwen3_vl" else pytest.mark.slow) for name in BUILDERS]
)
def test_adapters_are_in_the_text_part(folder: Folder, pico_data, workplace, family, more):
    given = ("--data", pico_data, "--model", folder(family), *SHORT, "--lora-r", 4, *more)
    assert call("train", *given, "--out", "run").code == 0
    if more:
        assert not any("vis" in name for name in learned(folder(family), workplace / "run"))
        assert_loads_as_a_whole(workplace / "run", folder(family))
    else:
        names = load_file(workplace / "run/adapter_model.safetensors")
        assert names
        assert not any("vis" in name for name in names)
    assert call("eval", "run", "--samples", 0).code == 0


@pytest.mark.parametrize("family", OLD_NAMES)
def test_weights_keep_their_earlier_names(folder: Folder, pico_data, workplace, family):
    """A checkpoint of an earlier transformers is loaded, trained and merged, and written with the names it had."""
    model = Path(shutil.copytree(folder(family), workplace / "model"))
    weights = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        start = next((each for each in OLD_NAMES[family] if name.startswith(each)), "")
        weights[OLD_NAMES[family].get(start, "") + name.removeprefix(start)] = tensor
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    for out, more in (("full", ()), ("merged", ("--lora-r", 4, "--merge"))):
        ran = call("train", "--data", pico_data, "--model", model, *SHORT, *more, "--max-steps", 1, "--out", out)
        assert ran.code == 0, ran.err
        assert learned(model, workplace / out)
        assert_loads_as_a_whole(workplace / out, model)


@pytest.mark.slow
def test_a_run_is_resumed(folder: Folder, pico_data, workplace):
    """Killed in its second step, of a model that keeps an offset of positions between passes: the same bits."""
    given = ("--data", pico_data, "--model", folder("qwen2_5_vl"), *SHORT)
    assert call("train", *given, "--out", "whole").code == 0
    train_until_killed_in(2, *given, "--out", "run")
    assert call("train", "--resume", "--out", "run").code == 0
    assert not learned(workplace / "whole", workplace / "run")


@pytest.mark.parametrize("family", BUILDERS)
def test_memory_is_predicted_from_the_config(folder: Folder, pico_data, workplace, family):
    given = ("--data", pico_data, "--model", folder(family), "--dry-run", "--device-memory", 24)
    ran = call("train", *given)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("family", ["gemma3", "qwen2_5_vl", "qwen3_vl"])
def test_answers_are_those_of_one_prompt_at_a_time(folder: Folder, family: str):
    """Prompts of several lengths in one padded batch: positions count from each one's own start."""
    model = load_model(folder(family))
    tokenizer, _ = load_tokenizer(folder(family), chat_template=None, trust_remote_code=False)
    subject = AnsweringModel("m", folder(family), tokenizer, (2,), 256, lambda: model)
    prompts = [[*one.prompt, *one.completion] for one in sequences(vocab=500)]
    questions = [Question(str(number), ids, "x") for number, ids in enumerate(prompts)]
    found = dict(Padded(subject).answers(questions, Decoding(max_new_tokens=6, temperature=0)))
    for number, ids in enumerate(prompts):
        tokens = torch.tensor([ids])
        for _ in range(6):
            token = model(input_ids=tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, token.reshape(1, 1)], dim=1)
            if token == 2:
                break
        assert found[number] == subject.answer(tokens[0, len(ids) :].tolist())


@pytest.mark.parametrize(
    ("family", "line"), [("paligemma", "lets earlier tokens see later ones"), ("blip_2", "cannot read text without")]
)
def test_models_that_read_no_text_alone_are_refused(folder: Folder, pico_data, workplace, family, line):
    """PaliGemma would see the answer whose log-prob it is asked for; BLIP-2 needs an image."""
    assert set(REFUSED) == {"paligemma", "blip_2"}
    given = ("--data", pico_data, "--model", folder(family))
    for command in (("train", *given, *SHORT, "--out", "run"), ("precompute", *given)):
        assert line in error_line(call(*command))
    assert not (workplace / "run/config.json").exists()
