"""Settings of `kto train`. The defaults live here alone; the flags and config files read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import ModelConfig, require

Schedule: TypeAlias = Literal["linear", "cosine", "constant"]
Switch: TypeAlias = Literal["auto", "on", "off"]
Optimizer: TypeAlias = Literal["adamw", "adamw-8bit", "paged-adamw-8bit", "rmsprop"]
SCHEDULES, SWITCH, OPTIMIZERS = map(get_args, (Schedule, Switch, Optimizer))
TRACKERS = ("trackio", "tensorboard", "wandb")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class TrainConfig(ModelConfig):
    """Settings of `kto train`. `model` is where the policy starts, a model or an adapter, and the reference."""

    out: str = "checkpoint"
    """The run directory; a Hugging Face model folder when the run is finished."""
    reference: str | None = None
    """The reference, where that is another model than `model`: a folder or Hub id, with the same tokens; none: kto
    compares log-probs a token in place of log-ratios."""
    after: str | None = None
    """A finished run to go on from with new rows: its settings, model, reference and split."""
    replay: float | None = None
    """With `after`: share of its training rows that are trained on again; default 0.3."""
    loss: str = "kto"
    """What training minimizes: kto, or another loss of `core.loss_kinds.LOSSES`."""
    value: str | None = None
    """Value function of an unpaired loss (logistic, concave, linear, kahneman-tversky); default: the loss's."""
    reference_point: str | None = None
    """Reference point of an unpaired loss (mismatched, zero, mean-reward, opposite-class); default: the loss's."""
    beta: float | None = None
    """1 / nats: rewards are beta * log-ratio; default: the loss's, 0.1 for KTO. A higher beta keeps the policy closer
    to the reference."""
    lambda_d: float | None = None
    """Weight of a desirable row; default: from the class counts (Eq. 8)."""
    lambda_u: float | None = None
    """Weight of an undesirable row; default: from the class counts (Eq. 8)."""
    sft_weight: float = 0.0
    """Adds this times the mean negative log-likelihood of a token of desirable rows to the loss."""
    label_smoothing: float | None = None
    """dpo: share of pairs whose labels are taken to be swapped; default 0."""
    ipo_tau: float | None = None
    """ipo: tau, 1 / nats a token; default 0.1."""
    slic_delta: float | None = None
    """slic: margin of the hinge in nats; default 1."""
    slic_lambda: float | None = None
    """slic: weight of the likelihood; default 0.1."""
    simpo_gamma: float | None = None
    """simpo: margin of the rewards; default 1."""
    orpo_lambda: float | None = None
    """orpo: weight of the odds ratio; default 0.1."""
    ppo_gamma: float | None = None
    """ppo-offline: discount of a reward a token later; default 0.99."""
    ppo_lambda: float | None = None
    """ppo-offline: decay of the trace of generalized advantage estimation; default 0.95."""
    ppo_clip: float | None = None
    """ppo-offline: a token's ratio of policy to reference is clipped to [1 / clip, clip]; default 4."""
    ppo_critic: float | None = None
    """ppo-offline: weight of the value head's squared error; default 0.01."""
    ppo_penalty: float | None = None
    """ppo-offline: weight of the mean log-ratio of a token; default 0.1."""
    humanline: bool = False
    """Keep the log-ratio of each token within bounds before they are summed, and compare with the policy as it was an
    update ago (arXiv 2509.24207)."""
    humanline_low: float | None = None
    """With `humanline`: the lower bound in nats; default -1."""
    humanline_high: float | None = None
    """With `humanline`: the upper bound in nats; default 1.5."""
    sync_reference_every: int | None = None
    """The policy becomes the reference every so many steps; default: never, with `humanline` 1."""
    sync_mix: float = 1.0
    """Share of the policy's weights in those of the new reference; the rest are the old reference's."""
    control_good: str | None = None
    """csft: text at the end of the prompts of desirable rows, and of all that the model answers later; default
    <|good|>."""
    control_bad: str | None = None
    """csft: text at the end of the prompts of undesirable rows; default <|bad|>."""
    batch_size: int = 32
    """Rows of one optimizer step, over all processes. Affects results: z_ref is estimated from them."""
    group_prompts: bool = True
    """Put rows of one prompt or conversation into one step where the class shares allow it, so that what they share is
    computed once."""
    learning_rate: float | None = None
    """Peak learning rate; default: by model size (5e-6 from 1B parameters up, more below; x10 for LoRA), printed."""
    optimizer: str = "adamw"
    """adamw, or adamw-8bit and paged-adamw-8bit of bitsandbytes (8-bit moments; paged: moved out of a full GPU);
    or rmsprop, with which the paper's first version was run at a tenth of AdamW's rate."""
    epochs: int = 1
    """Passes over the rows."""
    max_steps: int | None = None
    """Stop after this many optimizer steps."""
    warmup: float = 0.1
    """Linear warm-up: a share of all steps if below 1, else a number of steps."""
    schedule: str = "linear"
    """Learning rate after the warm-up: linear (to 0), cosine (to 0) or constant."""
    max_grad_norm: float = 1.0
    """Maximum gradient norm; 0 disables clipping."""
    seed: int = 0
    """Random seed of the order of rows."""
    save_every: int | None = None
    """Steps between checkpoints; default: a fifth of the run, at most 200."""
    eval_every: int | None = None
    """Steps between evaluations on validation rows; default: a tenth of the run."""
    keep_best: bool = True
    """Keep the model of the step with the lowest validation loss, unless that of the last step is as good within
    noise."""
    compile: bool = False
    """Compile the model's layers with torch.compile: a minute at the start, faster steps on a GPU."""
    gradient_checkpointing: Switch = "auto"
    """on: recompute activations in the backward pass instead of storing them (a third more work, little memory). auto:
    only if not even one row fits into memory otherwise."""
    lora_r: int | None = None
    """Rank of LoRA adapters, which alone are trained and saved; default: all weights are trained."""
    lora_alpha: int | None = None
    """LoRA alpha: adapter output is scaled by alpha / rank; default: twice the rank."""
    lora_targets: str = "all-linear"
    """Linear layers to adapt: names separated by commas, or all-linear (all but the output head)."""
    dora: bool = False
    """Use DoRA (weight-decomposed LoRA)."""
    continue_adapter: bool = False
    """Go on training the adapter that `model` is, in place of adding another one or merging it."""
    merge: bool = False
    """Write the full model with merged adapters instead of the adapters."""
    track: str | None = None
    """Trackers that record each step besides metrics.jsonl: trackio, tensorboard, wandb, separated by commas."""

    def __post_init__(self) -> None:
        require(self.replay is None or 0 <= self.replay <= 1, "--replay", self.replay, "a share from 0 to 1")
        if self.replay is not None and self.after is None:
            raise BadFlag("--replay takes rows of an earlier run again.", "Name the run with --after RUN.")
        require(self.beta is None or 0 < self.beta < math.inf, "--beta", self.beta, "above 0, such as 0.1")
        self._check_loss_settings()
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

    def _check_loss_settings(self) -> None:
        require(0 <= self.sft_weight < math.inf, "--sft-weight", self.sft_weight, "0 or above, and finite")
        smoothing = self.label_smoothing
        require(smoothing is None or 0 <= smoothing < 0.5, "--label-smoothing", smoothing, "0 or above, below 0.5")
        for name in ("ipo_tau", "slic_delta", "slic_lambda", "simpo_gamma", "orpo_lambda", "ppo_critic", "ppo_penalty"):
            number, flag = getattr(self, name), "--" + name.replace("_", "-")
            positive = name in ("ipo_tau", "orpo_lambda")
            fits = number is None or (0 < number < math.inf if positive else 0 <= number < math.inf)
            require(fits, flag, number, "above 0, and finite" if positive else "0 or above, and finite")
        for flag, share in (("--ppo-gamma", self.ppo_gamma), ("--ppo-lambda", self.ppo_lambda)):
            require(share is None or 0 <= share <= 1, flag, share, "from 0 to 1")
        clip = self.ppo_clip
        require(clip is None or 1 < clip < math.inf, "--ppo-clip", clip, "above 1, and finite")
        self._check_reference_settings()

    def _check_reference_settings(self) -> None:
        low, high, every = self.humanline_low, self.humanline_high, self.sync_reference_every
        require(low is None or -math.inf < low < 0, "--humanline-low", low, "below 0, and finite")
        require(high is None or 0 < high < math.inf, "--humanline-high", high, "above 0, and finite")
        for flag, given in (("--humanline-low", low), ("--humanline-high", high)):
            if given is not None and not self.humanline:
                raise BadFlag(f"{flag} is a bound of --humanline.", "Add --humanline, or leave it out.")
        require(every is None or every >= 1, "--sync-reference-every", every, "1 or above")
        require(0 < self.sync_mix <= 1, "--sync-mix", self.sync_mix, "above 0, at most 1")
        if self.sync_mix != 1 and self.sync_every is None:
            raise BadFlag(
                "--sync-mix says how much of the policy is in a new reference.",
                "Add --sync-reference-every 512, or leave it out.",
            )
        if every == 1 and self.sync_mix == 1 and not self.humanline:
            raise BadFlag(
                "--sync-reference-every 1 makes the policy its own reference: all log-ratios would be 0.",
                "Take 2 or more, or a --sync-mix below 1.",
            )
        if self.sync_mix != 1 and (self.adapters or self.reference_model is not None):
            what = "adapters are products of two matrices" if self.adapters else "those of --reference are not kept"
            raise BadFlag(f"--sync-mix mixes weights, and {what}.", "Take --sync-mix 1: the reference is then a copy.")

    @property
    def reference_model(self) -> str | None:
        """`reference`, where it names a model."""
        return None if self.reference == "none" else self.reference

    @property
    def sync_every(self) -> int | None:
        """Steps after which the policy becomes the reference; None: never."""
        return self.sync_reference_every or (1 if self.humanline else None)

    @property
    def adapters(self) -> bool:
        """Whether adapters learn, and not all weights."""
        return self.lora_r is not None or self.continue_adapter

    @property
    def alpha(self) -> int:
        """`lora_alpha`, or twice the rank."""
        return self.lora_alpha or 2 * (self.lora_r or 0)

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names in `track`, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.track.split(","))) if self.track is not None else ()

    def _check_adapters(self) -> None:
        for flag, number in (("--lora-r", self.lora_r), ("--lora-alpha", self.lora_alpha)):
            require(number is None or number >= 1, flag, number, "1 or above")
        require(bool(self.lora_targets.strip()), "--lora-targets", "''", f"{ALL_LINEAR} or names of layers")
        if self.continue_adapter and self.lora_r is not None:
            raise BadFlag(
                "--lora-r adds new adapters, and --continue-adapter trains the one that is there.", "Leave out one."
            )
        asked = {
            "--lora-alpha": self.lora_alpha is not None,
            "--lora-targets": self.lora_targets != TrainConfig.lora_targets,
            "--dora": self.dora,
        }
        for flag in [flag for flag, given in asked.items() if given and self.lora_r is None]:
            if self.continue_adapter:
                raise BadFlag(f"{flag} is for new adapters, not for --continue-adapter.", "Leave it out.")
            raise BadFlag(f"{flag} is for training adapters.", "Add --lora-r 16, or leave it out.")
        for flag, given in (("--merge", self.merge), ("--load-in-4bit", self.load_in_4bit)):
            if given and not self.adapters:
                raise BadFlag(f"{flag} is for training adapters.", "Add --lora-r 16, or leave it out.")
        if self.merge and self.load_in_4bit:
            raise BadFlag(
                "--merge cannot be used with --load-in-4bit: the adapters learn on the rounded weights.",
                "Leave one of them out.",
            )
