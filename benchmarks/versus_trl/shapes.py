"""The models that are timed: Llamas with random weights, by seed, and one small tokenizer for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

END = "<|endoftext|>"
TOKENIZER_VOCABULARY = 4096
"""Tokens of the tokenizer; a model with a larger vocabulary never meets the others, but its head scores them."""
CONTEXT = 1024


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool = True
    """The head is the embedding matrix."""

    @property
    def head_width(self) -> int:
        """Of one attention head."""
        return self.hidden // self.heads

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(out, in) of the linear layers of one transformer layer."""
        key_value = self.key_value_heads * self.head_width
        attention = [(self.hidden, self.hidden)] * 2 + [(key_value, self.hidden)] * 2
        return attention + [(self.intermediate, self.hidden)] * 2 + [(self.hidden, self.intermediate)]

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        layer = sum(out * in_ for out, in_ in self.linears) + 2 * self.hidden
        return layer * self.layers + self.hidden + self.vocabulary * self.hidden * (1 if self.tied else 2)


BODY_HEAVY = Shape("body-heavy", 768, 2048, 4, 12, 12, TOKENIZER_VOCABULARY)
HEAD_HEAVY = Shape("head-heavy", 256, 704, 5, 8, 8, 32000)
WIDE_VOCABULARY = Shape("wide-vocab", 320, 864, 5, 5, 5, 128256, tied=False)
QUICK = (
    Shape("body-heavy", 384, 1024, 4, 6, 6, TOKENIZER_VOCABULARY),
    Shape("wide-vocab", 64, 176, 1, 2, 2, 128256),
)
"""Smaller ones, for a look within ten minutes."""
ON_GPU = Shape("1B", 2048, 8192, 16, 32, 8, 128256)
"""Llama 3.2 1B's sizes."""


def llama(shape: Shape, **more: Any) -> Any:
    """A Llama of this shape with random weights; `more` goes to its config."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "tie_word_embeddings": shape.tied,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes, **more))


def write_model(shape: Shape, tokenizer: Any, folder: Path) -> None:
    """A model folder that both sides load: random weights, float32."""
    import torch

    torch.manual_seed(0)
    model = llama(shape, max_position_embeddings=CONTEXT, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    assert model.num_parameters() == shape.parameters, asdict(shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE of these texts; it splits before a word's space, so prompt and completion never melt."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
