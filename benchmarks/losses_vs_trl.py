"""One optimizer step of kto and of TRL's trainers on the same batch, loss by loss: how far the updated weights differ.

    python benchmarks/losses_vs_trl.py        # needs `pip install trl==1.16.0` beside kto; a CPU, half a minute

A pico Llama in float32, a reference that is another model, 32 rows (16 pairs) of random tokens, no clipping. Both sides
get the same token ids. The table gives the distance of the two updates, as a share of the update: sqrt(sum of squared
differences) / sqrt(sum of squared updates).
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kto_cli.core.loss_kinds import LossSettings
from kto_cli.core.rows import EncodedRow, TokenSequence
from kto_cli.model.distributed.start import start_accelerator
from kto_cli.model.load import load_tokenizer
from kto_cli.model.logprobs.forward import DistributedScorer
from kto_cli.model.logprobs.reference import ReferenceLogps
from kto_cli.model.scorer import CompletionScorer
from kto_cli.training.step import TrainingEngine

TOKENIZER = Path(__file__).resolve().parent.parent / "sample_data" / "model"
PAIRS, VOCABULARY, RATE = 16, 2048, 1e-2
Weights = dict[str, torch.Tensor]


class Stepped(NamedTuple):
    """One step's outcome."""

    weights: Weights
    z_ref: float
    """nats; of TRL the mean over its micro-batches."""


class Case(NamedTuple):
    """A loss on both sides."""

    settings: LossSettings
    theirs: dict[str, Any]
    """Settings of TRL's config."""
    micro_batch: int = 0
    """TRL's, in rows; 0: the whole batch."""
    own_partners: bool = False
    """TRL pairs prompts with the mismatched completions that its own code gives them, not with kto's."""
    difference: str = ""
    """What is not the same by design."""


KTO = LossSettings(0.1, 1.0, 1.33)
WEIGHTS = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.33}
Z_REF = "z_ref of each micro-batch"
CASES = {
    "kto": Case(KTO, {"loss_type": "kto", **WEIGHTS}),
    "apo-zero-unpaired": Case(
        KTO._replace(loss="apo-zero-unpaired", point="zero"), {"loss_type": "apo_zero_unpaired", **WEIGHTS}
    ),
    "dpo": Case(LossSettings(0.1, loss="dpo"), {"loss_type": "sigmoid", "beta": 0.1}),
    "ipo": Case(LossSettings(1.0, loss="ipo"), {"loss_type": "ipo", "beta": 0.1}),
    "apo-zero": Case(LossSettings(0.1, loss="apo-zero"), {"loss_type": "apo_zero", "beta": 0.1}),
    "apo-down": Case(LossSettings(0.1, loss="apo-down"), {"loss_type": "apo_down", "beta": 0.1}),
    "nca": Case(LossSettings(0.1, loss="nca"), {"loss_type": "nca_pair", "beta": 0.1}),
    "dpo, micro-batches": Case(LossSettings(0.1, loss="dpo"), {"loss_type": "sigmoid", "beta": 0.1}, micro_batch=8),
    "kto, micro-batches": Case(KTO, {"loss_type": "kto", **WEIGHTS}, micro_batch=8, difference=Z_REF),
    "kto, TRL's partners": Case(
        KTO,
        {"loss_type": "kto", **WEIGHTS},
        micro_batch=8,
        own_partners=True,
        difference=f"{Z_REF}; its mismatched completion is the row's before it, often of the same prompt",
    ),
}
"""What TRL trains with its default of several micro-batches comes last."""


def pico(seed: int) -> Any:
    """A Llama of 32 channels, with weights large enough that a step moves every log-prob."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.1, **sizes)).float().eval()


def near(model: Any) -> Any:
    """A model whose log-probs of a row differ by some nats."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.03 * torch.randn(weight.shape, generator=generator))
    return other


def rows() -> list[EncodedRow]:
    """A desirable and an undesirable completion of each of 16 prompts; the mismatched one is another prompt's."""
    draw = random.Random(3)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(300, VOCABULARY) for _ in range(draw.randint(low, high)))

    prompts = [tokens(4, 20) for _ in range(PAIRS)]
    completions = [[tokens(3, 30) for _ in range(2)] for _ in range(PAIRS)]
    return [
        EncodedRow(
            f"{pair}-{side}",
            side == 0,
            TokenSequence(prompts[pair], completions[pair][side]),
            TokenSequence(prompts[pair], completions[(pair + 1) % PAIRS][side]),
            str(pair),
            str(pair),
        )
        for pair in range(PAIRS)
        for side in range(2)
    ]


def optimizer_of(model: Any, name: str) -> torch.optim.Optimizer:
    """SGD, whose update is the gradient, or AdamW, whose first update is its sign."""
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=RATE)
    return torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, eps=1e-6)


def step_of_kto(case: Case, policy: Any, reference: Any, optimizer: str) -> Stepped:
    """One step of kto, in micro-batches of a few rows."""
    accelerator, model, batch = start_accelerator(), copy.deepcopy(policy), rows()
    known = DistributedScorer(accelerator, CompletionScorer(reference, torch.float32), token_budget=4096)
    own, mismatched = (known.log_probs([getattr(row, which) for row in batch]) for which in ("own", "mismatched"))
    engine = TrainingEngine(
        accelerator,
        CompletionScorer(model, torch.float32),
        optimizer_of(model, optimizer),
        token_budget=300,
        max_grad_norm=0.0,
    )
    output = engine.step(batch, ReferenceLogps(own, mismatched), case.settings, learning_rate=RATE)
    return Stepped(weights(model), output.given.point.item())


def step_of_trl(case: Case, policy: Any, reference: Any, optimizer: str) -> Stepped:
    """One step of TRL's trainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    paired = case.settings.kind.unit == "pair"
    units = PAIRS if paired else 2 * PAIRS
    size = (case.micro_batch // 2 if paired else case.micro_batch) or units
    tokenizer, _ = load_tokenizer(TOKENIZER, chat_template=None, trust_remote_code=None)
    tokenizer.pad_token = tokenizer.eos_token
    text = {"prompt": "a", "chosen": "b", "rejected": "c"} if paired else {"prompt": "a", "completion": "b"}
    placeholder = [text if paired else {**text, "label": bool(number % 2)} for number in range(units)]
    model = copy.deepcopy(policy)
    with tempfile.TemporaryDirectory() as out:
        config = (DPOConfig if paired else KTOConfig)(
            output_dir=out,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=units // size,
            max_steps=1,
            max_grad_norm=0.0,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **case.theirs,
        )
        chosen = optimizer_of(model, optimizer)
        trainer = (DPOTrainer if paired else KTOTrainer)(
            model=model,
            ref_model=copy.deepcopy(reference),
            args=config,
            train_dataset=Dataset.from_list(placeholder),
            processing_class=tokenizer,
            optimizers=(chosen, torch.optim.lr_scheduler.LambdaLR(chosen, lambda step: 1.0)),
        )
        trainer.train_dataset = Dataset.from_list(list(examples(case, size)))
        trainer.train()
    logged = {name: value for line in trainer.state.log_history for name, value in line.items()}
    return Stepped(weights(trainer.model), float(logged.get("kl", 0.0)))


def examples(case: Case, size: int) -> Iterator[dict[str, Any]]:
    """The rows as TRL's collators read them."""
    batch = rows()
    if case.settings.kind.unit == "pair":
        for up, down in zip(batch[::2], batch[1::2], strict=True):
            yield {"prompt_ids": up.own.prompt, "chosen_ids": up.own.completion, "rejected_ids": down.own.completion}
        return
    for number, row in enumerate(batch):
        first = number // size * size
        before = batch[first + (number - first - 1) % size].own
        mismatched = before.completion if case.own_partners else row.mismatched.completion
        yield {
            "prompt_ids": row.own.prompt,
            "completion_ids": row.own.completion,
            "KL_completion_ids": mismatched,
            "label": row.label,
        }


def weights(model: Any) -> Weights:
    """A copy of the weights."""
    return {name: weight.detach().double().clone() for name, weight in model.named_parameters()}


def distance(one: Weights, other: Weights, start: Weights) -> float:
    """Distance of two updates, as a share of the second."""
    apart = sum((one[name] - other[name]).square().sum().item() for name in start)
    moved = sum((other[name] - start[name]).square().sum().item() for name in start)
    return math.sqrt(apart / moved)


def compare(case: Case) -> tuple[dict[str, float], tuple[float, float]]:
    """Distance of the updates, by optimizer, and z_ref on both sides."""
    policy = pico(0)
    reference = near(policy)
    start = weights(policy)
    found = {}
    for name in ("sgd", "adamw"):
        ours, theirs = (side(case, policy, reference, name) for side in (step_of_kto, step_of_trl))
        found[name] = distance(ours.weights, theirs.weights, start)
    return found, (ours.z_ref, theirs.z_ref)


def main() -> None:
    """Prints the table."""
    import trl
    from datasets import disable_progress_bars

    disable_progress_bars()
    print(f"TRL {trl.__version__}, torch {torch.__version__}\n")
    print("| loss | TRL's | SGD | AdamW | z_ref: kto, TRL | what is not the same |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        found, points = compare(case)
        shown = "{:.3f}, {:.3f}".format(*points) if case.settings.loss == "kto" else "-"
        trainer = "DPOTrainer" if case.settings.kind.unit == "pair" else "KTOTrainer"
        print(
            f"| {name} | {trainer}, `{case.theirs['loss_type']}` | {found['sgd']:.1e} | {found['adamw']:.1e} "
            f"| {shown} | {case.difference or '-'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
