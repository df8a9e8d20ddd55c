"""One frozen dataclass per command (binarize_config.py and eval_config.py have theirs). Every default lives here once;
the flags in commands/ read them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from kto_cli.common.errors import BadFlag, BadInput

Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "bfloat16-pure"]
Schedule: TypeAlias = Literal["linear", "cosine", "constant"]
Switch: TypeAlias = Literal["auto", "on", "off"]
Optimizer: TypeAlias = Literal["adamw", "adamw-8bit", "paged-adamw-8bit"]
DTYPES, SCHEDULES, SWITCH, OPTIMIZERS = map(get_args, (Dtype, Schedule, Switch, Optimizer))


@dataclass(frozen=True)
class ModelConfig:
    """What decides a log-probability besides the rows: shared by precompute, train and eval."""

    data: str | None = None
    """A folder that `kto binarize` wrote; default: the only one in data/."""
    model: str | None = None
    """A Hugging Face model folder or Hub id; default: the built-in tiny model."""
    max_length: int | None = None
    """Most tokens of prompt and completion together; default: what the model takes, at most 1024."""
    dtype: str = "auto"
    """float32, bfloat16 (autocast over float32 weights), bfloat16-pure (the weights too: half their memory) or
    auto: bfloat16 on a GPU that has it."""
    micro_batch_tokens: int | None = None
    """How many tokens, padding included, go through the model at once; default: as many as an eighth
    of a machine's or a third of a GPU's memory holds, from 1024 to 8192 on a CPU and 16384 on a GPU.
    0 (`auto` on the command line): found by trying when training starts.
    Memory and speed only: results do not depend on it."""
    chat_template: str | None = None
    """A Jinja file with the chat template, for a model folder that has none or the wrong one."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    load_in_4bit: bool = False
    """Hold the model's linear layers in 4 bits (NF4, through bitsandbytes). The reference is then this 4-bit model."""
    cache: str | None = None
    """The folder of cached reference log-probs and tokenized rows; default $KTO_CACHE or ~/.cache/kto."""

    def __post_init__(self) -> None:
        require(self.max_length is None or self.max_length >= 8, "--max-length", self.max_length, "8 or above")
        require(
            self.micro_batch_tokens is None or self.micro_batch_tokens >= AUTO_TOKENS,
            "--micro-batch-tokens",
            self.micro_batch_tokens,
            "1 or above, or auto",
        )
        require(self.dtype in DTYPES, "--dtype", self.dtype, f"one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class TrainConfig(ModelConfig):
    """`kto train`. `model` is both the reference and where the policy starts."""

    out: str = "checkpoint"
    """The run directory: a Hugging Face model folder once the run is finished."""
    beta: float = 0.1
    """How far the policy may go from the reference: rewards are beta * log-ratio in nats."""
    lambda_d: float | None = None
    """Weight of a desirable row; left out, chosen from the class counts (Eq. 8)."""
    lambda_u: float | None = None
    """Weight of an undesirable row; left out, chosen from the class counts (Eq. 8)."""
    batch_size: int = 32
    """Rows of one optimizer step, over all processes and micro-batches. A statistical choice: z_ref is
    estimated from exactly these rows."""
    group_prompts: bool = True
    """Bring rows of one prompt into one step, where the class shares allow it: the prompt is computed once."""
    learning_rate: float | None = None
    """The optimizer's peak learning rate; left out, chosen by model size and said."""
    optimizer: str = "adamw"
    """adamw, or adamw-8bit and paged-adamw-8bit of bitsandbytes: moments in 8 bits, paged out of a full GPU."""
    epochs: int = 1
    """Passes over the rows."""
    max_steps: int | None = None
    """Stop after this many optimizer steps."""
    warmup: float = 0.1
    """Steps of linear warm-up: a share of all steps if below 1, else a number of steps."""
    schedule: str = "linear"
    """After the warm-up: linear (to 0), cosine (to 0) or constant."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm; 0 leaves it as it is."""
    seed: int = 0
    """Order of the rows."""
    save_every: int | None = None
    """Steps between checkpoints; left out, a fifth of the run, at most 200."""
    eval_every: int | None = None
    """Steps between looks at validation rows; left out, a tenth of the run."""
    compile: bool = False
    """Compile the model's layers with torch.compile: a minute at the start, faster steps on a GPU."""
    gradient_checkpointing: str = "auto"
    """on: layers keep no activations and compute them again in the backward pass (a third more work, little memory).
    auto: only where not even one row fits into memory otherwise."""
    lora_r: int | None = None
    """Rank of LoRA adapters: only they learn, and the run directory holds them alone; left out, all weights learn."""
    lora_alpha: int | None = None
    """The adapters' output is multiplied by alpha / rank; left out, alpha is twice the rank."""
    lora_targets: str = "all-linear"
    """Names of the linear layers to adapt, with commas between, or all-linear: all but the output head."""
    dora: bool = False
    """Learn magnitude and direction of the weights apart (DoRA)."""
    merge: bool = False
    """Write the whole model with the adapters added to its weights, instead of the adapters."""
    track: str | None = None
    """Where each step's numbers go besides metrics.jsonl: trackio, tensorboard, wandb; several with commas between."""

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "--beta", self.beta, "above 0, such as 0.1")
        for flag, weight in (("--lambda-d", self.lambda_d), ("--lambda-u", self.lambda_u)):
            require(weight is None or 0 <= weight < math.inf, flag, weight, "0 or above, and finite")
        require(
            (self.lambda_d, self.lambda_u) != (0, 0),
            "--lambda-d and --lambda-u",
            0,
            "not both 0: nothing would be learned",
        )
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or above")
        require(
            self.learning_rate is None or 0 < self.learning_rate < 1,
            "--learning-rate",
            self.learning_rate,
            "between 0 and 1",
        )
        require(self.epochs >= 1, "--epochs", self.epochs, "1 or above")
        require(self.max_steps is None or self.max_steps >= 1, "--max-steps", self.max_steps, "1 or above")
        require(0 <= self.warmup < math.inf, "--warmup", self.warmup, "0 or above")
        require(self.optimizer in OPTIMIZERS, "--optimizer", self.optimizer, f"one of {', '.join(OPTIMIZERS)}")
        require(
            self.optimizer == "adamw" or self.dtype != "bfloat16-pure",
            "--dtype bfloat16-pure with --optimizer",
            self.optimizer,
            "adamw: the others lose updates too small for bfloat16 weights",
        )
        require(self.schedule in SCHEDULES, "--schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        require(self.max_grad_norm >= 0, "--max-grad-norm", self.max_grad_norm, "0 or above")
        require(
            self.gradient_checkpointing in SWITCH,
            "--gradient-checkpointing",
            self.gradient_checkpointing,
            f"one of {', '.join(SWITCH)}",
        )
        for flag, every in (("--save-every", self.save_every), ("--eval-every", self.eval_every)):
            require(every is None or every >= 1, flag, every, "1 or above")
        for name in self.trackers:
            require(name in TRACKERS, "--track", name or "''", f"one or more of {', '.join(TRACKERS)}, commas between")
        self._check_adapters()
        super().__post_init__()

    @property
    def alpha(self) -> int:
        """`lora_alpha`, or twice the rank."""
        return self.lora_alpha or 2 * (self.lora_r or 0)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `track`, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.track.split(","))) if self.track is not None else ()

    def _check_adapters(self) -> None:
        for flag, number in (("--lora-r", self.lora_r), ("--lora-alpha", self.lora_alpha)):
            require(number is None or number >= 1, flag, number, "1 or above")
        require(bool(self.lora_targets.strip()), "--lora-targets", "''", f"{ALL_LINEAR} or names of layers")
        asked = {
            "--lora-alpha": self.lora_alpha is not None,
            "--lora-targets": self.lora_targets != TrainConfig.lora_targets,
            "--dora": self.dora,
            "--merge": self.merge,
            "--load-in-4bit": self.load_in_4bit,
        }
        for flag in [flag for flag, given in asked.items() if given and self.lora_r is None]:
            raise BadFlag(f"{flag} is for training adapters.", "Add --lora-r 16, or leave it out.")
        if self.merge and self.load_in_4bit:
            raise BadFlag(
                "--merge cannot be used with --load-in-4bit: the adapters learn on the rounded weights.",
                "Leave one of them out.",
            )


ALL_LINEAR = "all-linear"
TRACKERS = ("trackio", "tensorboard", "wandb")
AUTO_TOKENS = 0
"""`--micro-batch-tokens auto`."""


def require(holds: bool, flag: str, value: object, wanted: str) -> None:
    """What a setting must be.

    Raises:
        BadFlag: it does not hold.
    """
    if not holds:
        raise BadFlag(f"{flag} {value} cannot be used.", f"It must be {wanted}.")


def train_config(settings: Mapping[str, Any], *, where: str) -> TrainConfig:
    """A `TrainConfig` from the keys and values of a file, types checked; numbers may be written as text (1e-5).

    Raises:
        BadInput: an unknown key (with the nearest known one), or a value of the wrong kind.
    """
    kinds = {item.name: item.type for item in fields(TrainConfig)}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(kinds)}."
            raise BadInput(f"{where} has the unknown key {key!r}.", hint)
        values[key] = _typed(str(kinds[key]), value, f"{where}: {key}")
    return TrainConfig(**values)


def _typed(kind: str, value: Any, where: str) -> Any:
    """`value` as the annotated `kind` (such as "int | None"); a float that is whole is an int where one is asked."""
    optional, kind = kind.endswith("| None"), kind.split(" | ")[0]
    if value is None and optional:
        return None
    try:
        if kind == "bool" and isinstance(value, bool):
            return value
        if kind == "str" and isinstance(value, str):
            return value
        if kind in ("int", "float") and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and kind == "float":
                return number
            if math.isfinite(number) and number == int(number):
                return int(number)
    except ValueError:
        pass
    wanted = {"str": "text", "bool": "true or false", "float": "a number", "int": "a whole number"}[kind]
    raise BadInput(f"{where} is {value!r}.", f"It must be {wanted}.")


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file; of a run's kto_config.json, its `train` part.

    Raises:
        BadInput: it is missing, is neither YAML nor JSON, or holds no settings.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"The config file {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"The config file {path} is neither YAML nor JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(value, dict):
        raise BadInput(f"The config file {path} holds no settings.", "Write lines such as `beta: 0.1`.")
    train = value.get("train", value)
    return train if isinstance(train, dict) else value
