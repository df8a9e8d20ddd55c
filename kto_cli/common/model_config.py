"""Settings that train, precompute and eval share: everything that determines a log-prob besides the rows."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from kto_cli.common.errors import BadFlag
from kto_cli.common.template_kwargs import check_template_kwargs

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "bfloat16-pure"]
DTYPES: tuple[str, ...] = get_args(Dtype)
AUTO_TOKENS = 0
"""Value of `--micro-batch-tokens auto`."""
CountOrAuto: TypeAlias = int
"""A whole number, or the word auto in a config file."""


def require(holds: bool, flag: str, value: object, wanted: str) -> None:
    """Checks a setting.

    Raises:
        BadFlag: the condition does not hold.
    """
    if not holds:
        raise BadFlag(f"{flag} {value} cannot be used.", f"It must be {wanted}.")


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("2026-11-26")  # later Pythons read other ISO forms too


@dataclass(frozen=True)
class ModelConfig:
    """Settings that determine a log-prob besides the rows."""

    data: str | None = None
    """A folder written by `kto binarize`; default: the only one in data/."""
    model: str | None = None
    """A Hugging Face model folder or Hub id; default: the built-in tiny model."""
    max_length: int | None = None
    """Maximum tokens of prompt and completion together; default: the model's context length, at most 1024."""
    dtype: str = "auto"
    """float32, bfloat16 (autocast over float32 weights), bfloat16-pure (bfloat16 weights too: half their memory) or
    auto: bfloat16 on a GPU that supports it, else float32."""
    micro_batch_tokens: CountOrAuto | None = None
    """Tokens per forward pass, padding included; default: on a GPU as many as a step of this run is predicted to
    have room for, from 1024 to 16384; on a CPU by an eighth of its memory, from 1024 to 8192. `auto` (stored as 0):
    found by trial when training starts. Affects speed and memory, not results."""
    chat_template: str | None = None
    """A Jinja file with the chat template, for a model folder without one or with the wrong one."""
    template_date: str | None = None
    """The date that the chat template writes, YYYY-MM-DD, where it writes one; default: the day the run starts."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template besides the messages, such as {"enable_thinking": false}."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    load_in_4bit: bool = False
    """Quantize the model's linear layers to 4 bits (NF4, bitsandbytes). The 4-bit model is then the reference."""
    cache: str | None = None
    """Folder of cached reference log-probs and tokenized rows; default: $KTO_CACHE or ~/.cache/kto."""

    def __post_init__(self) -> None:
        require(self.max_length is None or self.max_length >= 8, "--max-length", self.max_length, "8 or above")
        tokens = self.micro_batch_tokens
        require(tokens is None or tokens >= AUTO_TOKENS, "--micro-batch-tokens", tokens, "1 or above, or auto")
        require(
            self.template_date is None or _is_date(self.template_date),
            "--template-date",
            self.template_date,
            "a date as YYYY-MM-DD",
        )
        if self.chat_template_kwargs is not None:
            check_template_kwargs(self.chat_template_kwargs)
        require(self.dtype in DTYPES, "--dtype", self.dtype, f"one of {', '.join(DTYPES)}")
