"""`kto export --to`: clean folders; the Hub by a stub of its interface, llama.cpp by stand-ins of its converters."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import REPOSITORY, call, error_line
from evaluated import place, runs
from transformers import AutoModelForCausalLM, AutoTokenizer

from kto_cli.data import hub as hub_module
from kto_cli.evaluation.export import hub as export_hub
from kto_cli.evaluation.export.origin import hub_id_of

__all__ = ["place", "runs"]
TEXT = "How do I look after a fern?"


def logits(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(TEXT, return_tensors="pt")).logits


def of(folder, name="lora", **options):
    """Logits of an adapter or model as plain transformers and peft load it."""
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (Path(folder) / "adapter_config.json").is_file():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("pico"), folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
    return logits(model.eval(), tokenizer)


def base_of(run: str) -> str:
    """Folder of the model that a run started from."""
    return str(json.loads(Path(run, "kto_config.json").read_text())["reference"]["folder"])


def files_of(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


ALWAYS = {"README.md", "chat_template.jinja", "generation_config.json", "kto_export.json"}
ALWAYS |= {"tokenizer.json", "tokenizer_config.json"}


def test_a_whole_model(place):
    """The same weights bit for bit, and nothing of the run."""
    found = call("export", "a", "--to", "out", "--json").json
    assert files_of("out") == {*ALWAYS, "config.json", "model.safetensors"}
    assert torch.equal(of("out"), of("a"))
    assert found["what"] == "model"
    assert found["serve"][0] == "vllm serve ./out --served-model-name out"


def test_a_step_of_a_run(place):
    """Neither the optimizer's state nor the counters; the card has the numbers of that step."""
    assert call("export", "a/steps/step-000002", "--to", "out").code == 0
    assert files_of("out") == {*ALWAYS, "config.json", "model.safetensors"}
    assert torch.equal(of("out"), of("a/steps/step-000002"))
    assert not torch.equal(of("out"), of("a"))


def test_a_step_beside_other_tensors(place):
    """What a checkpoint also keeps, such as a reference that moved, is no weight of the model: its names are those of
    the model, so that a server would read it in the model's place."""
    given = ("--data", "set", "--model", "pico", "--batch-size", 8, "--learning-rate", 0.02, "--max-steps", 3)
    ran = call("train", *given, "--save-every", 2, "--sync-reference-every", 1, "--sync-mix", 0.5, "--out", "moved")
    assert ran.code == 0, ran.err
    assert Path("moved/steps/step-000002/reference.safetensors").is_file()
    assert call("export", "moved/steps/step-000002", "--to", "out").code == 0
    assert files_of("out") == {*ALWAYS, "config.json", "model.safetensors"}


def test_an_adapter(place):
    found = call("export", "lora", "--to", "out", "--json").json
    assert files_of("out") == {*ALWAYS, "adapter_config.json", "adapter_model.safetensors"}
    assert torch.equal(of("out"), of("lora"))
    assert found["serve"] == [f"vllm serve {base_of('lora')} --enable-lora --lora-modules out=./out"]


@pytest.mark.parametrize("dtype", ["stored", "float32", "bfloat16"])
def test_a_merged_adapter(place, dtype):
    """The logits of base and adapter: in float32 up to its rounding, in bfloat16 up to that of weights of 8 bits."""
    words = [] if dtype == "stored" else ["--dtype", dtype]
    assert call("export", "lora", "--merge", *words, "--to", "out").code == 0
    assert files_of("out") == {*ALWAYS, "config.json", "model.safetensors"}
    own = "bfloat16" if dtype == "bfloat16" else "float32"
    assert json.loads(Path("out/config.json").read_text())["dtype"] == own
    found = of("out", dtype=torch.float32)
    torch.testing.assert_close(found, of("lora"), rtol=0, atol=0.05 if own == "bfloat16" else 1e-5)
    assert not torch.allclose(found, of("pico"), rtol=0, atol=1e-3), "training changed it"


def test_a_chain_is_merged_or_refused(place):
    words = ("--data", "set", "--model", "lora", "--lora-r", 2, "--max-steps", 1, "--batch-size", 8, "--out", "chain")
    assert call("train", *words, "--learning-rate", 0.02).code == 0
    assert "--merge" in error_line(call("export", "chain", "--to", "out"))
    assert not Path("out").exists()
    assert call("export", "chain", "--merge", "--to", "out").code == 0
    assert call("train", *words[:-1], "whole", "--merge", "--learning-rate", 0.02).code == 0
    torch.testing.assert_close(of("out"), of("whole"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["a", "lora"])
def test_nothing_of_the_machine_and_no_row_is_in_it(place, name):
    """No path of this machine and no text of the data in any file but the weights."""
    settings = json.loads(Path(name, "kto_config.json").read_text())
    for flags in ((), ("--merge",)) if name == "lora" else ((),):
        assert call("export", name, "--to", "out", *flags).code == 0
        for path in Path("out").rglob("*"):
            if path.suffix != ".safetensors":
                text = path.read_text()
                assert str(place) not in text, path
                assert settings["data"]["folder"] not in text, path
                assert "Gladly. Keep" not in text, path
                assert "look after" not in text, path


def test_the_card_has_data_loss_settings_and_results(place):
    """Numbers of `kto eval` with their intervals, if it was of these weights; the Hub's metadata are valid."""
    Path("pico/README.md").write_text("---\nlicense: apache-2.0\n---\n# Pico\n")
    Path("pico/LICENSE").write_text("the terms")
    words = ("--data", "set", "--model", "pico", "--max-steps", 3, "--batch-size", 8, "--learning-rate", 0.02)
    assert call("train", *words, "--out", "new").code == 0
    assert call("eval", "new", "--samples", 0).code == 0
    assert call("export", "new", "--to", "out", "--base", "someone/pico").code == 0
    card = huggingface_hub.ModelCard.load("out/README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "someone/pico"
    assert card.data.library_name == "transformers"
    metrics = json.loads(Path("new/eval/metrics.json").read_text())["metrics"]
    low, high = metrics["auc_interval"]
    assert f"| AUC | {metrics['auc']:.4g} | {low:.4g} to {high:.4g} |" in card.text
    for words in ("64 for training, 16 for validation", "kto (value logistic", "3 of 8 rows", "0.02 (linear)"):
        assert words in card.text, words
    assert Path("out/LICENSE").read_text() == "the terms"


def test_results_of_other_weights_are_not_in_the_card(place):
    assert call("eval", "a", "--samples", 0).code == 0
    shutil.copytree("a/eval", "b/eval")
    assert call("export", "b", "--to", "out").code == 0
    assert "AUC of length" not in Path("out/README.md").read_text()


def test_a_licence_that_is_not_known_is_said(place):
    ran = call("export", "a", "--to", "out")
    assert "--license" in ran.err
    assert call("export", "a", "--to", "out", "--license", "mit").code == 0
    assert huggingface_hub.ModelCard.load("out/README.md").data.license == "mit"


def test_only_an_earlier_export_is_replaced(place):
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    assert "not an earlier export" in error_line(call("export", "a", "--to", "full"))
    assert files_of("full") == {"notes.txt"}
    assert call("export", "a", "--to", "out").code == 0
    assert call("export", "lora", "--to", "out").code == 0
    assert "model.safetensors" not in files_of("out")
    Path("out/notes.txt").write_text("mine")
    assert "notes.txt" in error_line(call("export", "a", "--to", "out"))
    assert "adapter_config.json" in files_of("out")
    assert "not an earlier export" in error_line(call("export", "a", "--to", "lora")), "a run is no export"


def test_a_failure_leaves_nothing(place, monkeypatch):
    from kto_cli.evaluation.export import files

    def fail(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfile", fail)
    assert "No space left" in error_line(call("export", "a", "--to", "new/out"))
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "--to"),
        (["--to", "hub:pico"], "OWNER/NAME"),
        (["--to", "out", "--merge"], "nothing to merge"),
        (["--to", "out", "--dtype", "float32"], "--merge"),
        (["--to", "out", "--public"], "hub:"),
        (["--to", "out", "--rows", "3"], "--check"),
        (["--check", "nowhere"], "http://"),
        (["--check", "http://localhost:1", "--license", "mit"], "--to"),
        (["--to", "out", "--llama-cpp", "x"], "gguf"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(place, words, says):
    ran = call("export", "a", *words)
    assert says in error_line(ran)
    assert ran.code == 2
    assert not Path("out").exists()


def test_a_snapshot_of_the_hub_has_its_name():
    folder = Path("/home/x/.cache/huggingface/hub/models--HuggingFaceTB--SmolLM2-135M/snapshots/0123abcd")
    assert hub_id_of(str(folder), folder) == "HuggingFaceTB/SmolLM2-135M"
    assert hub_id_of("me/mine", Path("/nowhere")) == "me/mine"
    assert hub_id_of("/tmp/mine", Path("/tmp/mine")) is None
    assert hub_id_of("./mine", Path("mine")) is None


# --- the Hub --------------------------------------------------------------------------------------


class FakeHub:
    """What `HfApi` is asked, and repositories with their files."""

    held: dict[str, list[str]] = {}  # noqa: RUF012
    made: list[dict[str, object]] = []  # noqa: RUF012

    def list_repo_files(self, repo_id):
        if repo_id not in self.held:
            import httpx2

            raise huggingface_hub.errors.RepositoryNotFoundError(
                "404", response=httpx2.Response(404, request=httpx2.Request("GET", "https://huggingface.co"))
            )
        return self.held[repo_id]

    def create_repo(self, repo_id, *, private, exist_ok):
        self.made.append({"repo": repo_id, "private": private})
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, commit_message, delete_patterns):
        self.held[repo_id] = sorted(files_of(folder_path))
        self.made[-1]["card"] = (Path(folder_path) / "README.md").read_text()


def refusing(status: int, message: str):
    """A stand-in of a method that the Hub refuses."""
    import httpx2

    def refuse(self, *words, **options):
        response = httpx2.Response(status, request=httpx2.Request("POST", "https://huggingface.co"))
        raise huggingface_hub.errors.HfHubHTTPError(message, response=response)

    return refuse


@pytest.fixture
def fake_hub(monkeypatch):
    monkeypatch.setattr(FakeHub, "held", {})
    monkeypatch.setattr(FakeHub, "made", [])
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    monkeypatch.setattr(export_hub, "why_unreachable", lambda: None)
    return FakeHub


def test_the_hub_gets_the_same_folder(place, fake_hub):
    found = call("export", "a", "--to", "hub:me/support", "--json").json
    assert call("export", "a", "--to", "out").code == 0
    assert set(fake_hub.held["me/support"]) == files_of("out")
    assert [made["private"] for made in fake_hub.made] == [True]
    assert "vllm serve me/support --served-model-name support" in fake_hub.made[0]["card"]
    assert found["serve"][0] == "vllm serve me/support --served-model-name support"
    assert call("export", "a", "--to", "hub:me/support", "--public").code == 0, "an earlier export"
    assert fake_hub.made[-1]["private"] is False


def test_what_the_hub_holds_is_not_replaced(place, fake_hub):
    fake_hub.held["me/other"] = ["README.md", "model.safetensors"]
    assert "not an earlier export" in error_line(call("export", "a", "--to", "hub:me/other"))
    assert fake_hub.made == []


def test_a_refusal_of_the_hub_is_one_line(place, fake_hub, monkeypatch):
    monkeypatch.setattr(fake_hub, "create_repo", refusing(403, "You have no right to write there"))
    assert "You have no right" in error_line(call("export", "a", "--to", "hub:me/support"))

    def hang_up(self, *words, **options):
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(fake_hub, "create_repo", hang_up)
    assert "Connection reset by peer" in error_line(call("export", "a", "--to", "hub:me/support"))


def test_an_adapter_goes_to_the_hub_with_a_base_of_the_hub_alone(place, fake_hub):
    assert "--base" in error_line(call("export", "lora", "--to", "hub:me/lora"))
    assert fake_hub.made == []
    found = call("export", "lora", "--to", "hub:me/lora", "--base", "someone/pico", "--json").json
    assert found["serve"] == [
        "vllm serve someone/pico --enable-lora --lora-modules lora=me/lora",
        "transformers serve me/lora",
    ]
    assert "base_model: someone/pico" in fake_hub.made[0]["card"]


def test_without_network_or_token_the_hub_is_one_line(place, monkeypatch):
    assert "HF_HUB_OFFLINE" in error_line(call("export", "a", "--to", "hub:me/support"))
    monkeypatch.setattr(export_hub, "why_unreachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert hub_module.GIVE_TOKEN in error_line(call("export", "a", "--to", "hub:me/support"))


# --- GGUF and Ollama ------------------------------------------------------------------------------

CONVERTER = """#!/usr/bin/env python3
import json, sys
from pathlib import Path
words = sys.argv[1:]
files = sorted(path.name for path in Path(words[0]).iterdir())
if "tokenizer.json" not in files: sys.exit("it has no tokenizer")
Path(words[words.index("--outfile") + 1]).write_text(json.dumps({"script": Path(__file__).name, "files": files,
    "base": words[words.index("--base") + 1] if "--base" in words else None}))
"""


@pytest.fixture
def llama_cpp(tmp_path):
    """A folder with stand-ins of llama.cpp's converters, which write what they were given."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    for name in ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py"):
        (folder / name).write_text(CONVERTER)
        (folder / name).chmod(0o755)
    return folder


def test_gguf_by_llama_cpp(place, llama_cpp, monkeypatch):
    found = call("export", "a", "--to", "gguf", "--llama-cpp", llama_cpp, "--json").json
    assert found["serve"] == ["llama-server -m a-gguf/model.gguf"]
    assert files_of("a-gguf") == {"model.gguf", "kto_export.json"}
    monkeypatch.setenv("PATH", str(llama_cpp), prepend=":")
    assert call("export", "lora", "--to", "gguf").code == 0
    made = json.loads(Path("lora-gguf/adapter.gguf").read_text())
    assert made["script"] == "convert_lora_to_gguf.py"
    assert made["base"] == base_of("lora")
    assert call("export", "lora", "--merge", "--to", "gguf", "--out", "merged").code == 0
    made = json.loads(Path("merged/model.gguf").read_text())
    assert (made["script"], "model.safetensors" in made["files"]) == ("convert_hf_to_gguf.py", True)


def test_gguf_without_llama_cpp_says_how_to_get_it(place, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "git clone" in error_line(call("export", "a", "--to", "gguf"))
    assert "not llama.cpp's folder" in error_line(call("export", "a", "--to", "gguf", "--llama-cpp", "pico"))
    assert not Path("a-gguf").exists()


def test_a_converter_that_fails_is_one_line(place, llama_cpp):
    (llama_cpp / "convert_hf_to_gguf.py").write_text("import sys\nsys.exit('Model NewForCausalLM is not supported')")
    ran = call("export", "a", "--to", "gguf", "--llama-cpp", llama_cpp)
    assert "Model NewForCausalLM is not supported" in error_line(ran)
    assert not Path("a-gguf").exists()


def test_ollama(place, llama_cpp):
    found = call("export", "lora", "--to", "ollama", "--llama-cpp", llama_cpp, "--out", "support-ollama", "--json").json
    assert found["serve"] == ["ollama create support -f support-ollama/Modelfile", "ollama run support"]
    text = Path("support-ollama/Modelfile").read_text()
    assert text.startswith('FROM ./base.gguf\nADAPTER ./adapter.gguf\nTEMPLATE """')
    assert files_of("support-ollama") == {"Modelfile", "base.gguf", "adapter.gguf", "kto_export.json"}
    assert call("export", "a", "--to", "ollama", "--llama-cpp", llama_cpp).code == 0
    assert Path("a-ollama/Modelfile").read_text().startswith("FROM ./model.gguf\nTEMPLATE")


def test_ollama_without_llama_cpp_takes_safetensors_of_whole_models(place, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    ran = call("export", "a", "--to", "ollama")
    assert "MLX" in ran.err
    assert Path("a-ollama/Modelfile").read_text().startswith("FROM .\n")
    assert "model.safetensors" in files_of("a-ollama")
    assert "--merge" in error_line(call("export", "lora", "--to", "ollama"))


def test_the_readme_names_every_target():
    text = (REPOSITORY / "docs" / "serving.md").read_text()
    for target in ("--to hub:", "--to ollama", "--to gguf", "--check", "--merge", "--base", "--license", "--llama-cpp"):
        assert re.search(re.escape(target), text), target
