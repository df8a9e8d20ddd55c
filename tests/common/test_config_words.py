"""The words that docs and --help name are accepted in a config file, as YAML reads them."""

from __future__ import annotations

import pytest

from kto_cli.common.config_file import read_config_file, train_config
from kto_cli.common.errors import BadInput


def read(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return train_config(read_config_file(path), where="c.yaml")


@pytest.mark.parametrize("word", ["on", "off", "auto", '"on"', '"off"', "ON", "Off"])
def test_on_off_and_auto(tmp_path, word):
    """YAML 1.1 reads a bare on and off, in any case, as booleans."""
    config = read(tmp_path, f"gradient_checkpointing: {word}\n")
    assert config.gradient_checkpointing == word.strip('"').lower()


@pytest.mark.parametrize(
    ("word", "tokens"), [("auto", 0), ('"auto"', 0), ("4096", 4096), ("4e3", 4000), ("null", None)]
)
def test_tokens_of_a_micro_batch(tmp_path, word, tokens):
    assert read(tmp_path, f"micro_batch_tokens: {word}\n").micro_batch_tokens == tokens


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gradient_checkpointing: 1", "It must be one of auto, on, off."),
        ("micro_batch_tokens: many", "It must be a whole number, or auto."),
        ("micro_batch_tokens: on", "It must be a whole number, or auto."),
        ("epochs: auto", "It must be a whole number."),
        ("data: 2024", "It must be text (in quotation marks)."),
    ],
)
def test_other_words_are_told_the_right_ones(tmp_path, line, said):
    with pytest.raises(BadInput) as caught:
        read(tmp_path, line + "\n")
    assert said in str(caught.value)
