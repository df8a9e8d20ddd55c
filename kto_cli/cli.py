"""Flags and help -> config -> workflow -> result. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, ParamSpec

import typer

from kto_cli import __version__
from kto_cli.config import AUTO_TOKENS, OPTIMIZERS, BinarizeConfig, EvalConfig, ModelConfig, TrainConfig
from kto_cli.display import Screen, print_error
from kto_cli.errors import BadInput, Interrupted, KtoError

app = typer.Typer(
    name="kto",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Align language models with thumbs-up / thumbs-down feedback (KTO, arXiv 2402.01306).",
    epilog="In this order: kto binarize hh-rlhf, kto precompute, kto train, kto eval checkpoint. All in one: kto demo",
)

P = ParamSpec("P")


def answering(command: Callable[P, None]) -> Callable[P, None]:
    """What a user can mend becomes one line and an exit status; Ctrl-C is 130; a bug keeps its traceback."""

    @wraps(command)
    def answered(*args: P.args, **kwargs: P.kwargs) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # same numbers on every run on a GPU
        try:
            command(*args, **kwargs)
        except KtoError as error:
            print_error(error)
            raise typer.Exit(1) from None
        except (Interrupted, KeyboardInterrupt) as error:
            text = (
                str(error) or "Stopped. What was finished is kept; run the same command again (train: with --resume)."
            )
            Screen().warn(text)
            raise typer.Exit(130) from None

    return answered


def _version(asked: bool) -> None:
    if asked:
        print(f"kto {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the tool itself."""


def _tokens(text: str) -> int:
    return AUTO_TOKENS if text == "auto" else int(text)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Data = Annotated[str | None, typer.Option(help="A folder that `kto binarize` wrote. Default: the only one in data/.")]
Model = Annotated[
    str | None, typer.Option(help="A Hugging Face model folder or Hub id. Default: the built-in tiny model.")
]
MaxLength = Annotated[
    int | None,
    typer.Option(help="Most tokens of prompt and completion. Default: what the model takes, at most 1024."),
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or bfloat16-pure (weights too).")]
MicroBatchTokens = Annotated[
    int | None,
    typer.Option(
        parser=_tokens,
        metavar="INTEGER|auto",
        help="Tokens, padding included, in the model at once: memory and speed, not results. "
        "Default: by model size and memory, 1024 to 8192 on a CPU, to 16384 on a GPU.",
    ),
]
ChatTemplate = Annotated[str | None, typer.Option(help="A Jinja file, for a model without (the right) chat template.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
LoadIn4Bit = Annotated[
    bool, typer.Option("--load-in-4bit", help="Hold the model's linear layers in 4 bits (needs bitsandbytes).")
]
Cache = Annotated[
    str | None,
    typer.Option(help="Where reference log-probs and tokenized rows are kept. Default: $KTO_CACHE or ~/.cache/kto."),
]


@app.command()
@answering
def binarize(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="hh-rlhf, or a JSONL / Parquet / CSV file, or the Hub id of a dataset.")
    ],
    from_path: Annotated[
        str | None, typer.Option("--from", help="A local file or folder with the source's raw data.")
    ] = BinarizeConfig.from_path,
    out: Annotated[str | None, typer.Option(help="The folder to write. Default: data/SOURCE.")] = BinarizeConfig.out,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="A subset of the source; may be given several times. Default: all."),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Share of the prompts kept back for evaluation.")
    ] = BinarizeConfig.holdout,
    seed: Annotated[int, typer.Option(help="Chooses which prompts are held out.")] = BinarizeConfig.seed,
    text: Annotated[
        bool,
        typer.Option("--text", help="Keep text prompts as plain text instead of reading each as one user turn."),
    ] = BinarizeConfig.text,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier dataset in the output folder.")
    ] = BinarizeConfig.overwrite,
    json: Json = False,
) -> None:
    """Turn any feedback into desirable / undesirable rows."""
    from kto_cli.workflows import binarize as workflow

    screen = Screen(as_json=json)
    settings = _settings(context)
    config = BinarizeConfig(subsets=tuple(settings.pop("subset") or ()), **settings)
    screen.json(workflow.run(config, screen))


@app.command()
@answering
def precompute(
    context: typer.Context,
    data: Data = ModelConfig.data,
    model: Model = ModelConfig.model,
    max_length: MaxLength = ModelConfig.max_length,
    dtype: Dtype = ModelConfig.dtype,
    micro_batch_tokens: MicroBatchTokens = ModelConfig.micro_batch_tokens,
    chat_template: ChatTemplate = ModelConfig.chat_template,
    trust_remote_code: TrustRemoteCode = ModelConfig.trust_remote_code,
    load_in_4bit: LoadIn4Bit = ModelConfig.load_in_4bit,
    cache: Cache = ModelConfig.cache,
    json: Json = False,
) -> None:
    """Compute the reference model's log-probs once, into a cache."""
    config = ModelConfig(**_settings(context))
    from kto_cli.workflows import precompute as workflow

    screen = _screen(json)
    screen.json(workflow.run(config, screen))


@app.command()
@answering
def train(
    context: typer.Context,
    data: Data = TrainConfig.data,
    model: Model = TrainConfig.model,
    out: Annotated[
        str, typer.Option(help="The run directory; a Hugging Face model folder in the end.")
    ] = TrainConfig.out,
    beta: Annotated[float, typer.Option(help="Rewards are beta * log-ratio.")] = TrainConfig.beta,
    lambda_d: Annotated[
        float | None, typer.Option(help="Weight of desirable rows. Default: from the class counts (Eq. 8).")
    ] = TrainConfig.lambda_d,
    lambda_u: Annotated[
        float | None, typer.Option(help="Weight of undesirable rows. Default: from the class counts (Eq. 8).")
    ] = TrainConfig.lambda_u,
    batch_size: Annotated[
        int,
        typer.Option(help="Rows of one optimizer step, over all processes. z_ref is estimated from them."),
    ] = TrainConfig.batch_size,
    group_prompts: Annotated[
        bool,
        typer.Option(help="Bring rows of one prompt into one step, so that the prompt is computed once."),
    ] = TrainConfig.group_prompts,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate of AdamW. Default: by model size, said.")
    ] = TrainConfig.learning_rate,
    optimizer: Annotated[
        str, typer.Option(help=f"{', '.join(OPTIMIZERS)} (8 bits: needs bitsandbytes).")
    ] = TrainConfig.optimizer,
    epochs: Annotated[int, typer.Option(help="Passes over the rows.")] = TrainConfig.epochs,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = TrainConfig.max_steps,
    max_length: MaxLength = TrainConfig.max_length,
    warmup: Annotated[
        float, typer.Option(help="Warm-up: a share of the steps if below 1, else a number of them.")
    ] = TrainConfig.warmup,
    schedule: Annotated[str, typer.Option(help="linear, cosine or constant.")] = TrainConfig.schedule,
    max_grad_norm: Annotated[
        float, typer.Option(help="Clip the gradient to this norm; 0: no.")
    ] = TrainConfig.max_grad_norm,
    dtype: Dtype = TrainConfig.dtype,
    seed: Annotated[int, typer.Option(help="Order of the rows.")] = TrainConfig.seed,
    micro_batch_tokens: MicroBatchTokens = TrainConfig.micro_batch_tokens,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. Default: a fifth of the run, at most 200.")
    ] = TrainConfig.save_every,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between looks at held-out rows. Default: a tenth of the run.")
    ] = TrainConfig.eval_every,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile the layers: a slow start, faster steps on a GPU.")
    ] = TrainConfig.compile,
    gradient_checkpointing: Annotated[
        str, typer.Option(help="on: compute activations again instead of keeping them; auto: only if memory asks; off.")
    ] = TrainConfig.gradient_checkpointing,
    lora_r: Annotated[
        int | None, typer.Option(help="Train LoRA adapters of this rank, such as 16. Default: all weights learn.")
    ] = TrainConfig.lora_r,
    lora_alpha: Annotated[
        int | None, typer.Option(help="Adapters' output times alpha / rank. Default: twice the rank.")
    ] = TrainConfig.lora_alpha,
    lora_targets: Annotated[
        str, typer.Option(help="Linear layers to adapt: all-linear, or names such as q_proj,v_proj.")
    ] = TrainConfig.lora_targets,
    dora: Annotated[bool, typer.Option("--dora", help="DoRA: magnitude and direction apart.")] = TrainConfig.dora,
    merge: Annotated[
        bool, typer.Option("--merge", help="Write the whole model with the adapters in it, not the adapters.")
    ] = TrainConfig.merge,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would need and take, and what would stop it.")
    ] = False,
    config: Annotated[
        str | None,
        typer.Option(help="A YAML or JSON file of settings, or a run's kto_config.json. Flags win over it."),
    ] = None,
    chat_template: ChatTemplate = TrainConfig.chat_template,
    trust_remote_code: TrustRemoteCode = TrainConfig.trust_remote_code,
    load_in_4bit: LoadIn4Bit = TrainConfig.load_in_4bit,
    cache: Cache = TrainConfig.cache,
    json: Json = False,
) -> None:
    """Train with the KTO loss."""
    flags = _given(context)
    config_file, resuming = flags.pop("config", None), flags.pop("resume", False)
    looking_ahead = flags.pop("dry_run", False)
    flags.pop("json", None)
    if looking_ahead and resuming:
        raise BadInput("--dry-run looks at a new run, not at one that is resumed.", "Leave out --resume.")
    TrainConfig(**flags)  # a wrong flag is said before anything heavy is loaded
    if looking_ahead:
        from kto_cli.workflows import dry_run as look_ahead

        screen = _screen(json)
        screen.json(look_ahead.run(flags, config_file=config_file, screen=screen))
        return
    from kto_cli.workflows import train as workflow

    screen = _screen(json)
    screen.json(workflow.run(flags, config_file=config_file, resume=resuming, screen=screen))


@app.command(name="eval")
@answering
def evaluate(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="A run directory, a step of one, or a model folder or Hub id.")],
    data: Data = EvalConfig.data,
    reference: Annotated[
        str | None, typer.Option(help="The model it was trained from. Default: the run's own.")
    ] = EvalConfig.model,
    beta: Annotated[float | None, typer.Option(help="Default: the run's own, else 0.1.")] = EvalConfig.beta,
    samples: Annotated[int, typer.Option(help="Held-out prompts to answer side by side.")] = EvalConfig.samples,
    max_new_tokens: Annotated[int, typer.Option(help="Longest sampled answer.")] = EvalConfig.max_new_tokens,
    max_length: MaxLength = EvalConfig.max_length,
    dtype: Dtype = EvalConfig.dtype,
    micro_batch_tokens: MicroBatchTokens = EvalConfig.micro_batch_tokens,
    chat_template: ChatTemplate = EvalConfig.chat_template,
    trust_remote_code: TrustRemoteCode = EvalConfig.trust_remote_code,
    load_in_4bit: LoadIn4Bit = EvalConfig.load_in_4bit,
    cache: Cache = EvalConfig.cache,
    json: Json = False,
) -> None:
    """Show what a checkpoint learned, on held-out rows."""
    settings = _settings(context)
    config = EvalConfig(model=settings.pop("reference"), **settings)
    from kto_cli.workflows import evaluate as workflow

    screen = _screen(json)
    screen.json(workflow.run(config, screen))


@app.command()
@answering
def demo(
    keep: Annotated[
        str | None,
        typer.Option(help="Work in this new folder and keep it. Default: a temporary one, removed."),
    ] = None,
    json: Json = False,
) -> None:
    """Run all of it on built-in data with a built-in tiny model (under three minutes)."""
    from kto_cli.workflows import demo as workflow

    screen = Screen(as_json=json)
    screen.json(workflow.run(keep, screen))


def _screen(json: bool) -> Screen:
    """The screen of this process; only the first of a launch speaks."""
    from kto_cli.launch import start_missing_processes

    start_missing_processes()
    return Screen(as_json=json, quiet=os.environ.get("RANK", "0") != "0")


def _settings(context: typer.Context) -> dict[str, Any]:
    """All parameters of a command by name, less --json: the fields of its config."""
    return {name: value for name, value in context.params.items() if name != "json"}


def _given(context: typer.Context) -> dict[str, Any]:
    """The parameters that were typed, not defaulted."""
    return {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") not in ("DEFAULT", "DEFAULT_MAP")
    }


def main() -> None:
    """The `kto` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
