"""One step of TRL's KTOTrainer on exported rows: run by test_exports.py where TRL is installed, or by hand as

python tests/support/trl_step.py FOLDER_WITH_TRAIN_JSONL MODEL_FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any


def take_step(folder: Path, model: Path) -> dict[str, Any]:
    """Loads train.jsonl and validation.jsonl (where it has rows) as TRL's own examples do, and trains for one step.

    Returns:
        `columns`, `rows` and `labels` as loaded, `loss` of the step, and what TRL made of the first row: `prompt` and
        `completion`, decoded from its own tokens.
    """
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    files = {path.stem: str(path) for path in sorted(folder.glob("*.jsonl")) if path.stat().st_size}
    with tempfile.TemporaryDirectory() as temporary:
        splits = load_dataset("json", data_files=files, cache_dir=f"{temporary}/cache")
        train = splits["train"]
        config = KTOConfig(
            output_dir=f"{temporary}/out",
            max_steps=1,
            per_device_train_batch_size=min(4, len(train)),
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        trainer = KTOTrainer(
            AutoModelForCausalLM.from_pretrained(model),
            args=config,
            train_dataset=train,
            eval_dataset=splits.get("validation"),
            processing_class=tokenizer,
        )
        loss = trainer.train().training_loss
        first = trainer.train_dataset[0]
        return {
            "columns": sorted(train.column_names),
            "rows": {name: len(split) for name, split in splits.items()},
            "labels": train["label"][:],
            "prompt": tokenizer.decode(first["prompt_ids"]),
            "completion": tokenizer.decode(first["completion_ids"]),
            "loss": float(loss),
        }


if __name__ == "__main__":
    print(take_step(Path(sys.argv[1]), Path(sys.argv[2])))
