"""`kto train --dry-run --device-memory`: whether a run fits a card, from a config alone; the table of the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Command

LLAMAS = {
    "1B": (2048, 8192, 16, 32, True),
    "8B": (4096, 14336, 32, 32, False),
    "70B": (8192, 28672, 80, 64, False),
}
"""Of Llama 3: hidden and inner width, layers, heads, whether the head is tied; 8 key heads and 128,256 tokens."""
CARDS = (24, 80, 141)
WAYS = {
    "all weights": (),
    "all weights, checkpointing": ("--gradient-checkpointing", "on"),
    "LoRA": ("--lora-r", 16),
    "LoRA, checkpointing": ("--lora-r", 16, "--gradient-checkpointing", "on"),
}


def write_config(folder: Path, name: str) -> Path:
    """A model folder that holds a config.json and nothing else."""
    hidden, inner, layers, heads, tied = LLAMAS[name]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": tied,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def predicted(kto: Command, folder: Path, *words: Any) -> dict[str, Any]:
    return json.loads(kto("train", "--model", folder, "--dry-run", "--json", *words).out)


def cell(said: dict[str, Any]) -> str:
    """As the table has it: the tokens of a micro-batch, or the cards it takes."""
    if said["fits"]:
        return f"{said['micro_batch_tokens']:,}"
    way = next(way for way in said["ways"] if way["bytes"] == said["memory"]["total"] - said["memory"]["margin"])
    return f"{way['cards']} cards" if way["cards"] else "no"


def test_the_table_in_the_docs_is_what_is_predicted(kto: Command, workplace: Path):
    page = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    for model in LLAMAS:
        folder = write_config(workplace / model, model)
        for way, words in WAYS.items():
            cells = [cell(predicted(kto, folder, *words, "--device-memory", card)) for card in CARDS]
            assert f"| {model}, {way} | {' | '.join(cells)} |" in page


def test_a_run_that_fits(kto: Command, workplace: Path):
    """Parts sum to the total, which is within the card; no row and no weight is there to be read."""
    folder = write_config(workplace / "1B", "1B")
    ran = kto("train", "--model", folder, "--dry-run", "--device-memory", 80)
    assert ran.code == 0, ran.err
    assert "predicted to fit, with micro-batches of 16,384 tokens" in " ".join(ran.out.split())
    said = predicted(kto, folder, "--device-memory", 80)
    memory = dict(said["memory"])
    assert memory.pop("total") == sum(memory.values()) <= said["device_memory"] == 80e9
    assert memory["margin"] == 8e9
    assert (said["parameters"], said["dtype"]) == (1_235_814_400, "bfloat16")
    assert {path.name for path in workplace.iterdir()} == {"1B"}


def test_a_run_that_does_not_fit_says_what_does(kto: Command, workplace: Path):
    folder = write_config(workplace / "8B", "8B")
    ran = kto("train", "--model", folder, "--dry-run", "--device-memory", 80)
    assert ran.code == 1
    assert ran.err.count("error:") == 1
    assert "and the card has 80 GB. Use --lora-r 16, or 4 such cards with FSDP2." in " ".join(ran.err.split())
    ran = kto("train", "--model", folder, "--dry-run", "--device-memory", 24, "--lora-r", 16)
    assert "Use --lora-r 16 --gradient-checkpointing on, or 4 such cards with FSDP2." in " ".join(ran.err.split())
    ran = kto("train", "--model", folder, "--dry-run", "--device-memory", 141)
    assert "Use --dtype bfloat16-pure" in " ".join(ran.err.split())


def test_given_micro_batches_and_longer_rows_count(kto: Command, workplace: Path):
    """8B with adapters on 80 GB: 4,096 tokens, and not 8,192; a row of 8,192 goes through in one piece."""
    folder = write_config(workplace / "8B", "8B")
    words = ("train", "--model", folder, "--dry-run", "--device-memory", 80, "--lora-r", 16)
    ran = kto(*words, "--micro-batch-tokens", 8192)
    assert (ran.code, "Use a smaller --micro-batch-tokens." in " ".join(ran.err.split())) == (1, True)
    assert kto(*words, "--micro-batch-tokens", 2048).code == 0
    assert kto(*words, "--max-length", 8192).code == 1
    assert kto(*words, "--max-length", 8192, "--gradient-checkpointing", "on").code == 0


@pytest.mark.parametrize("content", [None, "{}", '{"model_type": "nothing"}'])
def test_a_folder_without_a_usable_config(kto: Command, workplace: Path, content: str | None):
    folder = workplace / "empty"
    folder.mkdir()
    if content:
        (folder / "config.json").write_text(content)
    ran = kto("train", "--model", folder, "--dry-run", "--device-memory", 80)
    assert ran.code == 1
    assert ran.err.count("error:") == 1
    assert "config" in ran.err
