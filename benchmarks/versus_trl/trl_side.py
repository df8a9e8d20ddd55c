"""TRL's side, run by the Python of TRL's environment: nothing of kto is imported here."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from process_memory import Memory
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """Whole optimizer steps: from the end of the first, which warms up, to the end of the last."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.ends, self.peak = memory, [], 0
        self.later: Memory | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Takes the time once the device is done."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        if self.later is None:
            self.peak, self.later = self.memory.peak_bytes(), Memory()
            self.ends = [time.perf_counter()]
            return
        self.peak = max(self.peak, self.later.peak_bytes() + self.later.start - self.memory.start)


def step(job: dict[str, Any]) -> dict[str, Any]:
    """Trains a few steps; times them, and the reference pass where it is precomputed.

    Raises:
        SystemExit: TRL reads other token ids from the texts than kto has.
    """
    from datasets import Dataset
    from trl import KTOTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    if torch.cuda.is_available():
        model = model.to("cuda")
    rows = [row for batch in json.loads(Path(job["work"], "batches.json").read_text()) for row in batch]
    texts = [{"prompt": r["prompt_text"], "completion": r["completion_text"], "label": r["label"]} for r in rows]
    memory = Memory()
    clock = Clock(memory)
    passes = timed_precompute(KTOTrainer)
    with tempfile.TemporaryDirectory() as out:
        trainer = KTOTrainer(
            model=model,
            args=settings(job, out),
            train_dataset=Dataset.from_list(texts),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        refuse_other_tokens(trainer.train_dataset, rows)
        output = trainer.train()
    return {
        "seconds": (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1),
        "peak_bytes": clock.peak,
        "mean_loss": output.training_loss,
        **({"precompute_seconds": sum(passes), "rows": len(rows)} if passes else {}),
    }


def settings(job: dict[str, Any], out: str) -> Any:
    """KTOConfig: what must equal kto's side, what keeps set-up and disk out of the times, defaults for the rest."""
    from trl import KTOConfig

    chosen = {
        "per_device_train_batch_size": job["micro_batch"],
        "gradient_accumulation_steps": job["batch_size"] // job["micro_batch"],
        "max_steps": job["steps"] + 1,
        "max_length": job["max_length"],
        "beta": job["beta"],
        "learning_rate": job["learning_rate"],
        "max_grad_norm": job["clip"],
        "bf16": job["dtype"] == "bfloat16",
        "gradient_checkpointing": job["checkpointing"],
        "precompute_ref_log_probs": job["precomputed"],
        "use_cpu": not torch.cuda.is_available(),
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return KTOConfig(output_dir=out, **chosen)


def timed_precompute(trainer: Any) -> list[float]:
    """Has a trainer class note the seconds it spends on reference log-probs."""
    seconds: list[float] = []
    original = trainer._precompute_ref_logps

    def timed(self: Any, *args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        result = original(self, *args, **options)
        seconds.append(time.perf_counter() - began)
        return result

    trainer._precompute_ref_logps = timed
    return seconds


def refuse_other_tokens(dataset: Any, rows: list[dict[str, Any]]) -> None:
    """Both sides must work on the same tokens, or their times say nothing."""
    if len(dataset) != len(rows):
        raise SystemExit(f"TRL keeps {len(dataset)} of {len(rows)} rows.")
    for number, (theirs, ours) in enumerate(zip(dataset, rows, strict=True)):
        if (theirs["prompt_ids"], theirs["completion_ids"]) != (ours["prompt"], ours["completion"]):
            raise SystemExit(f"TRL reads other token ids from the text of row {number} than kto.")


def versions(job: dict[str, Any]) -> dict[str, str]:
    """What TRL runs on."""
    import transformers
    import trl

    return {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
