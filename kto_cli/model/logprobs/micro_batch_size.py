"""Tokens that go through a model at once, chosen from the model's and the machine's size alone."""

from __future__ import annotations

from typing import Any

import psutil
import torch

SMALLEST = 1024
"""Tokens that the search starts from, and the least that is chosen unasked."""


DEFAULT_MOST = {"cpu": 8192, "cuda": 16384}
"""Tokens that are chosen unasked at most: a step of 32 rows of chat then mostly fits into one micro-batch."""


HIDDEN_KEPT, INNER_KEPT = 16, 5
"""Numbers a layer keeps of a token for its backward pass, in its hidden and inner widths: 75 KB measured for widths of
768 and 2,048, where these make 90."""


def default_token_budget(config: Any, device: torch.device) -> int:
    """Tokens of a micro-batch whose activations are estimated to take no more than a share of all memory.

    A function of model and machine alone, not of what happens to be free: a resumed run finds the same.

    Args:
        config: the model's, for its sizes.
    """
    text = config.get_text_config()
    inner = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None) or 4 * text.hidden_size
    a_token = 4 * text.num_hidden_layers * (HIDDEN_KEPT * text.hidden_size + INNER_KEPT * inner)
    if device.type == "cuda":
        room, most = torch.cuda.get_device_properties(device).total_memory / 3, DEFAULT_MOST["cuda"]
    else:
        room, most = psutil.virtual_memory().total / 8, DEFAULT_MOST["cpu"]
    tokens = most
    while tokens > SMALLEST and tokens * a_token > room:
        tokens //= 2
    return tokens
