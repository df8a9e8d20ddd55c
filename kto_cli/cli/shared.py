"""What the commands share: how they end, how flags become parameters, the flags that several have."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, get_annotations
from typing import Annotated, Any, ParamSpec, get_type_hints

import typer

from kto_cli.common.errors import Interrupted, KtoError
from kto_cli.common.screen import Screen, print_error
from kto_cli.common.train_config import AUTO_TOKENS

P = ParamSpec("P")
REQUIRED: Any = Parameter.empty
"""The default of a flag or argument that must be given though its config has a default."""


def answering(command: Callable[P, None]) -> Callable[P, None]:
    """What a user can fix becomes one line and an exit status; Ctrl-C is 130; a bug keeps its traceback."""

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


def takes(flags: type, config: type) -> Callable[[Callable[[typer.Context], None]], Callable[..., None]]:
    """A command whose parameters are the annotated names of the class `flags`, for Typer to read.

    A default is the one in `flags`, else the one in `config` (where every default lives), else the parameter is
    required. In `--help` come the names of the class itself, then those of its bases. The command finds the values
    in `context.params`: `values`, `typed`.
    """
    hints = get_type_hints(flags, include_extras=True)
    names = [name for kind in flags.__mro__ for name in get_annotations(kind)]
    context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=getattr(flags, name, getattr(config, name, REQUIRED)),
            annotation=hints[name],
        )
        for name in dict.fromkeys(names)
    ]

    def give(command: Callable[[typer.Context], None]) -> Callable[..., None]:
        @wraps(command)
        def taking(context: typer.Context, **values: Any) -> None:
            command(context)

        # Typer reads the signature, and looks up by name what it finds there
        taking.__signature__ = Signature([context, *parameters])  # type: ignore[attr-defined]
        taking.__annotations__ = {"context": typer.Context, **hints}
        return taking

    return give


def values(context: typer.Context) -> dict[str, Any]:
    """All parameters of a command by name, less --json: the fields of its config."""
    return {name: value for name, value in context.params.items() if name != "json"}


def typed(context: typer.Context) -> dict[str, Any]:
    """The parameters that were typed, not defaulted, less --json."""
    return {
        name: value
        for name, value in values(context).items()
        if getattr(context.get_parameter_source(name), "name", "") not in ("DEFAULT", "DEFAULT_MAP")
    }


def screen_of(context: typer.Context) -> Screen:
    """The screen of this process; of a launch, missing processes are started and only the first speaks."""
    from kto_cli.cli.launch import start_missing_processes

    start_missing_processes()
    return Screen(as_json=context.params["json"], quiet=os.environ.get("RANK", "0") != "0")


def _tokens(text: str) -> int:
    return AUTO_TOKENS if text == "auto" else int(text)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Data = Annotated[str | None, typer.Option(help="A folder that `kto binarize` wrote. Default: the only one in data/.")]
Model = Annotated[
    str | None, typer.Option(help="A Hugging Face model folder or Hub id. Default: the built-in tiny model.")
]


class ModelFlags:
    """What decides a log-probability besides data and model: precompute, train and eval have these."""

    max_length: Annotated[
        int | None,
        typer.Option(help="Most tokens of prompt and completion. Default: what the model takes, at most 1024."),
    ]
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or bfloat16-pure (weights too).")]
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            parser=_tokens,
            metavar="INTEGER|auto",
            help="Tokens, padding included, in the model at once: memory and speed, not results. "
            "Default: by model size and memory, 1024 to 8192 on a CPU, to 16384 on a GPU.",
        ),
    ]
    chat_template: Annotated[
        str | None, typer.Option(help="A Jinja file, for a model without (the right) chat template.")
    ]
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
    load_in_4bit: Annotated[
        bool, typer.Option("--load-in-4bit", help="Hold the model's linear layers in 4 bits (needs bitsandbytes).")
    ]
    cache: Annotated[
        str | None,
        typer.Option(
            help="Where reference log-probs and tokenized rows are kept. Default: $KTO_CACHE or ~/.cache/kto."
        ),
    ]
    json: Json = False
