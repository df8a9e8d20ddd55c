"""Tokens a second of the engines of kto eval on a 1B, in the dtype that `kto eval` chooses and in float32."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.checks import check
from benchmarks.gpu.models import CONTEXT, TINY, accelerator, llama
from benchmarks.gpu.timing import free_memory, synchronize
from kto_cli.evaluation.answers.choose import choose
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import AnsweringModel, Decoding, Engine, Question

COUNT, NEW = (6, 4) if TINY else (128, 48)
"""Prompts, and the most tokens of an answer."""
END = 2


class Words:
    """A tokenizer that shows ids."""

    eos_token_id = END

    def decode(self, ids: Sequence[int], **options: Any) -> str:
        """The ids as text."""
        return " ".join(map(str, ids))


def run() -> None:
    """What `auto` takes, then every engine."""
    accelerator()
    draw = random.Random(0)
    questions = [
        Question(str(number), [draw.randrange(3, 500) for _ in range(draw.randrange(16, 160))], "")
        for number in range(COUNT)
    ]
    decoding = Decoding(NEW, 0.7, 0.95)
    for dtype in (torch.bfloat16, torch.float32):
        name, model = str(dtype).removeprefix("torch."), llama("1B", dtype)
        subject = AnsweringModel("1B", Path(), Words(), (END,), CONTEXT, lambda model=model: model)
        with check(f"answers: what auto takes in {name}") as found:
            said: list[str] = []
            found |= {"engine": choose("auto", subject, questions, said.append, decoding=decoding).name, "said": said}
        engines: tuple[type[Engine], ...] = (Padded, Continuous)
        for engine in engines:
            with check(f"answers: {engine.name} in {name}") as found:
                began = time.perf_counter()
                made = sum(answer.tokens for _, answer in engine(subject).answers(questions, decoding))
                synchronize()
                took = time.perf_counter() - began
                found |= {"tokens": made, "tokens_per_s": round(made / took), "seconds": round(took, 2)}
        del model, subject
        free_memory()
