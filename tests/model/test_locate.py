"""Models found: the Hub's refusals in its words with what helps, code fetched but not run, folders checked first."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from conftest import call, error_line
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects, hf_raise_for_status
from test_model_folder import SHORT, with_code

from kto_cli.common.errors import BadModel
from kto_cli.model import locate
from kto_cli.model.folder import check_folder
from kto_cli.model.load import load_tokenizer


@pytest.fixture
def model(pico, workplace) -> Path:
    """A copy of the pico model to change."""
    return Path(shutil.copytree(pico, workplace / "model"))


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


# --- the Hub ------------------------------------------------------------------------------------


def hub_error(status: int, code: str, words: str) -> Exception:
    """What huggingface_hub makes of the Hub's answer."""
    httpx = importlib.import_module(HfHubHTTPError.__mro__[1].__module__.split(".")[0])  # of its own choice
    request = httpx.Request("GET", "https://huggingface.co/api/models/me/tea")
    answer = httpx.Response(status, headers={"X-Error-Code": code, "X-Error-Message": words}, request=request)
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(answer)
    return caught.value


REFUSALS = {
    "gated": (403, "GatedRepo", "Access to model me/tea is restricted.", ["accepted its terms", "is restricted. A"]),
    "gated, no token": (401, "GatedRepo", "You must be authenticated.", ["accepted its terms", "co/me/tea"]),
    "private or misspelt": (
        401,
        "RepoNotFound",
        "Invalid username or password.",
        ["no model me/tea, or it is private"],
    ),
    "no right": (403, "", "Your token cannot read it.", ["refused me/tea: Your token cannot read it.", "token"]),
}


@pytest.mark.parametrize(("status", "code", "words", "said"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("wrapped", [False, True], ids=["at once", "while it downloads"])
def test_a_refusal_has_the_hubs_reason_and_names_the_token(monkeypatch, status, code, words, said, wrapped):
    """huggingface_hub wraps the refusal of a single file into "not in the cache": the cause counts."""
    error = hub_error(status, code, words)

    def refuses(*_: object, **__: object) -> str:
        if wrapped:
            raise LocalEntryNotFoundError("cannot be found in the cache") from error
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuses)
    with pytest.raises(BadModel) as caught:
        locate.locate_model("me/tea")
    for part in (*said, words.rstrip("."), "hf auth login", "HF_TOKEN"):
        assert part in str(caught.value)


def test_a_hub_with_a_fault_is_not_a_refusal(monkeypatch):
    def fails(*_: object, **__: object) -> str:
        raise hub_error(503, "", "Busy.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(BadModel, match=r"did not give me/tea \(status 503\): Busy\. Try again"):
        locate.locate_model("me/tea")


def test_all_files_of_a_model_are_fetched():
    """Its code and every vocabulary; no pickles, no other formats of the weights, no images."""
    wanted = ["config.json", "model.safetensors", "modeling_tea.py", "qwen.tiktoken", "tokenizer.model", "merges.txt"]
    others = ["pytorch_model.bin", "model.gguf", "logo.png", "model.onnx"]
    assert list(filter_repo_objects(wanted + others, allow_patterns=list(locate.HUB_FILES))) == wanted


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("https://huggingface.co/me/tea/tree/main", "Give the model's id: me/tea"),
        ("model/config.json", "Give its folder: model"),
        ("modls/pico", "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_is_no_model_name_is_told_the_right_one(model, name, said):
    with pytest.raises(BadModel) as caught:
        locate.locate_model(name)
    assert said in str(caught.value)


def serve_model(folder: Path, commit: str) -> ThreadingHTTPServer:
    """The few answers of the Hub that a download needs."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files = [path for path in sorted(folder.iterdir()) if path.is_file()]
            if "/resolve/" in self.path:
                body = (folder / self.path.split("/resolve/")[1].split("/", 1)[1]).read_bytes()
            elif "/tree/" in self.path:
                entries = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40} for p in files]
                body = json.dumps(entries).encode()
            else:
                body = json.dumps({"id": "me/tea", "sha": commit, "siblings": []}).encode()
            self.send_response(200)
            self.send_header("ETag", f'"{abs(hash(body)):x}"')
            self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.slow
def test_a_model_of_the_hub_runs_its_own_code(kto_process, model, pico_data, workplace):
    """Downloaded with its code, trained with the flag; the finished folder has the code."""
    server = serve_model(with_code(model), commit="01" * 20)
    hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(workplace)}
    words = ("train", "--data", pico_data, "--model", "me/tea", "--trust-remote-code", *SHORT)
    ran = kto_process(*words, cwd=workplace, **hub)
    server.shutdown()
    assert ran.code == 0, ran.err
    assert {path.name for path in (workplace / "checkpoint").glob("*.py")} == {"modeling_tea.py", "sizes.py"}


# --- folders ------------------------------------------------------------------------------------


def split(folder: Path) -> None:
    """Weights in several files, one of them gone."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="60KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    min(folder.glob("model-00002*")).unlink()


def pointer(name: str) -> object:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 4096\n"
    return lambda folder: (folder / name).write_text(text)


def stored(**settings: object) -> object:
    return lambda folder: change_config(folder, quantization_config=settings)


UNUSABLE = {
    "a shard is missing": (split, ["lacks 1 of its", "model-00002-of-0000"]),
    "weights not fetched": (pointer("model.safetensors"), ["model.safetensors is a Git LFS pointer", "git lfs pull"]),
    "tokenizer not fetched": (pointer("tokenizer.json"), ["tokenizer.json is a Git LFS pointer"]),
    "4 bits": (
        stored(quant_method="bitsandbytes", load_in_4bit=True),
        ["stored in 4 bits (bitsandbytes)", "--lora-r 16 --load-in-4bit", "in 16 bits"],
    ),
    "8 bits": (stored(quant_method="bitsandbytes", load_in_8bit=True), ["cannot be trained", "in 16 bits"]),
    "GPTQ": (stored(quant_method="gptq", bits=4), ["stored in 4 bits (gptq)", "Give the model it was made from"]),
    "FP8": (stored(quant_method="fp8"), ["stored in quantized form (fp8)", "in 16 bits"]),
    "encoder-decoder": (
        lambda folder: change_config(folder, model_type="t5", is_encoder_decoder=True),
        ["encoder-decoder model (t5)"],
    ),
    "a reward model": (
        lambda folder: change_config(folder, architectures=["LlamaForSequenceClassification"]),
        ["reward model (LlamaForSequenceClassification)", "--judge-model"],
    ),
    "an adapter too": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        ["both a whole model and an adapter"],
    ),
}


@pytest.mark.parametrize(("damage", "words"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_folder_is_refused_before_anything_is_loaded(model, damage, words):
    damage(model)
    with pytest.raises(BadModel) as caught:
        check_folder(model)
    for word in words:
        assert word in str(caught.value)


def test_adapters_are_trained_over_stored_4_bits(model):
    stored(quant_method="bitsandbytes", load_in_4bit=True)(model)
    check_folder(model, in_4bit=True)
    stored(quant_method="bitsandbytes", load_in_4bit=False, load_in_8bit=False)(model)
    check_folder(model)
    stored(quant_method="gptq", bits=4)(model)
    with pytest.raises(BadModel, match="gptq"):
        check_folder(model, in_4bit=True)


def test_the_dry_run_refuses_stored_4_bits(model, pico_data):
    stored(quant_method="bitsandbytes", load_in_4bit=True)(model)
    for more in ((), ("--lora-r", 4), ("--lora-r", 4, "--merge")):
        ran = call("train", "--data", pico_data, "--model", model, *SHORT, *more, "--dry-run")
        assert "stored in 4 bits" in error_line(ran)


# --- code of the model's own --------------------------------------------------------------------


def test_the_flag_for_a_models_own_code_is_named(model, pico_data):
    with_code(model)
    said = error_line(call("train", "--data", pico_data, "--model", model, *SHORT))
    assert "Python code of its own (modeling_tea.py, sizes.py)" in said
    assert "--trust-remote-code" in said
    said = error_line(call("binarize", "hh-rlhf", "--limit", 20, "--model", model, "--out", "d"))
    assert "This command never runs it; kto train --dry-run --trust-remote-code does." in said


# --- tokenizers ---------------------------------------------------------------------------------


def test_a_tokenizer_without_vocabulary_is_said(model):
    """transformers makes an empty one of tokenizer_config.json alone, and each row would have no tokens."""
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"}')
    with pytest.raises(BadModel, match="has no tokenizer, or one without a vocabulary"):
        load_tokenizer(model, chat_template=None, trust_remote_code=False)


def test_the_template_of_a_processor_is_the_models(model):
    """Older image-text models have it in chat_template.json, which a tokenizer alone does not read."""
    text = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    tokenizer, fallback = load_tokenizer(model, chat_template=None, trust_remote_code=False)
    assert (tokenizer.chat_template, fallback) == (text, False)


def test_several_templates_without_a_default_are_refused(model):
    more = model / "additional_chat_templates"
    more.mkdir()
    (model / "chat_template.jinja").rename(more / "rag.jinja")
    with pytest.raises(BadModel, match=r"several chat templates \(rag\), and none named default.*--chat-template"):
        load_tokenizer(model, chat_template=None, trust_remote_code=False)


# --- adapters -----------------------------------------------------------------------------------


def adapter_for(model: Path, folder: Path, *, tokens: int = 0) -> Path:
    """A fresh adapter; with `tokens` its base had as many more."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model)
    if tokens:
        base.resize_token_embeddings(base.config.vocab_size + tokens, mean_resizing=False)
    saved = ["embed_tokens"] if tokens else None
    options = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=saved, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, options)
    options.base_model_name_or_path = str(model)
    adapted.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(model / name, folder / name)
    return folder


def test_an_adapter_beside_a_config_is_an_adapter(pico, pico_data, workplace):
    """axolotl and others leave the base's config.json there."""
    folder = adapter_for(pico, workplace / "adapter")
    shutil.copy(pico / "config.json", folder / "config.json")
    ran = call("train", "--data", pico_data, "--model", folder, "--out", "run", *SHORT)
    assert "The adapter of" in ran.err
    metrics = call("eval", folder, "--data", pico_data, "--samples", 0, "--json").json
    assert metrics["margin"] == 0, "a fresh adapter changes nothing"


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_with_more_tokens_than_its_base_is_said(pico, pico_data, workplace):
    folder = adapter_for(pico, workplace / "adapter", tokens=3)
    said = error_line(call("eval", folder, "--data", pico_data, "--samples", 0))
    for words in ("The adapter in", "2,051 tokens", "its base model has 2,048", "merge the adapter"):
        assert words in said


# --- image-text models --------------------------------------------------------------------------


@pytest.fixture
def image_text(pico, workplace) -> Path:
    """A pico Gemma 3 with a vision tower whose layers are named as those of the text."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    heads = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24}
    text = {**heads, "vocab_size": 2048, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256}
    config = Gemma3Config(
        text_config=text, vision_config={**heads, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    folder = workplace / "gemma"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(pico / name, folder / name)
    return folder


@pytest.mark.parametrize(
    "more", [(), ("--lora-r", 4), pytest.param(("--lora-r", 4, "--merge"), marks=pytest.mark.slow)], ids=str
)
def test_the_text_part_alone_learns(image_text, pico_data, workplace, more):
    """Every tensor of the vision tower and the projector has the bits it had; the text part has others."""
    from safetensors.torch import load_file

    given = ("--data", pico_data, "--model", image_text, "--out", "run", *SHORT, "--learning-rate", 1e-2, *more)
    ran = call("train", *given)
    assert ran.code == 0, ran.err
    assert "Only the model's text part is trained" in ran.err
    if more == ("--lora-r", 4):
        names = set(load_file(workplace / "run/adapter_model.safetensors"))
        assert names, "there are adapters"
        assert all(".language_model.layers." in name for name in names)
        return
    before, after = load_file(image_text / "model.safetensors"), load_file(workplace / "run/model.safetensors")
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any("vision" in name or "projector" in name for name in changed)
    assert any("self_attn.q_proj" in name for name in changed)


def test_a_second_adapter_goes_onto_the_text_part_alone(image_text, pico_data, workplace):
    """As the first one does; and the first one merged leaves the vision tower as it was."""
    from safetensors.torch import load_file

    words = ("train", "--data", pico_data, *SHORT, "--learning-rate", 1e-2)
    assert call(*words, "--model", image_text, "--lora-r", 2, "--out", "first").code == 0
    assert call(*words, "--model", "first", "--lora-r", 2, "--out", "second").code == 0
    one, two = (load_file(workplace / name / "adapter_model.safetensors") for name in ("first", "second"))
    assert one.keys() == two.keys()
    assert call(*words, "--model", "first", "--out", "whole").code == 0
    before, after = load_file(image_text / "model.safetensors"), load_file(workplace / "whole/model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name or "lm_head" in name for name in changed)


def test_an_image_part_that_is_not_loaded_is_said(model, pico_data):
    """Llama 4, Llama 3.2 Vision, Qwen 3.5: transformers has a causal class of their text alone."""
    change_config(model, architectures=["TeaForConditionalGeneration"])
    ran = call("train", "--data", pico_data, "--model", model, *SHORT)
    assert ran.code == 0
    assert "image-text model (TeaForConditionalGeneration)" in ran.err
    assert "text model alone (LlamaForCausalLM): the finished model will read no images" in ran.err


# --- tokens that the model does not have --------------------------------------------------------


def test_tokens_beyond_the_embedding_are_said(model, pico_data):
    """Added to the tokenizer, not to the model: both sizes and the tokens, by the run and the dry run."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["kettle", "unused"])
    tokenizer.save_pretrained(model)
    for more in ((), ("--dry-run",)):
        said = error_line(call("train", "--data", pico_data, "--model", model, *SHORT, *more))
        assert "2,050 tokens and the model embeddings of 2,048" in said
        assert "(kettle)" in said


def test_tokens_that_no_row_uses_do_not_matter(model, pico_data):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["unused"])
    tokenizer.save_pretrained(model)
    assert call("train", "--data", pico_data, "--model", model, *SHORT).code == 0
