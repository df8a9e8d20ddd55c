"""Flags of several commands, and how flags become parameters."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, get_annotations
from typing import Annotated, Any, get_type_hints

import typer

from kto_cli.common.model_config import AUTO_TOKENS, DTYPES, Dtype
from kto_cli.common.screen import Screen
from kto_cli.common.template_kwargs import EXAMPLE, read_template_kwargs

REQUIRED: Any = Parameter.empty
"""The default of a flag or argument that must be given though its config has a default."""


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


RUN, MODEL, MEMORY, OTHER = "Run", "Tokens", "Memory and speed", "Other"
"""Panels of --help that several commands have."""
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout, errors too.", rich_help_panel=OTHER),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="A folder written by kto binarize. Default: the only one in data/.", rich_help_panel=RUN
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="A Hugging Face model folder or Hub id. Default: a built-in demo model.", rich_help_panel=RUN),
]


class ModelFlags:
    """Flags that decide a log-probability besides data and model: of precompute, train and eval."""

    max_length: Annotated[
        int | None,
        typer.Option(
            help="Most tokens of prompt and completion. Default: what the model takes, at most 1024.",
            rich_help_panel=MODEL,
        ),
    ]
    chat_template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A Jinja chat template, if the model has none or the wrong one.", rich_help_panel=MODEL
        ),
    ]
    template_date: Annotated[
        str | None,
        typer.Option(
            metavar="YYYY-MM-DD",
            help="The date that the chat template writes, where it writes one. Default: the day the run starts.",
            rich_help_panel=MODEL,
        ),
    ]
    chat_template_kwargs: Annotated[
        dict[str, Any] | None,
        typer.Option(
            parser=read_template_kwargs,
            metavar="JSON",
            help=f"Arguments of the chat template, such as {EXAMPLE}; inference must pass the same.",
            rich_help_panel=MODEL,
        ),
    ]
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=MODEL),
    ]
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="NAME",
            help=f"{', '.join(DTYPES)} (bfloat16 weights too). auto: bfloat16 on GPUs that have it.",
            rich_help_panel=MEMORY,
        ),
    ]
    micro_batch_tokens: Annotated[
        int | None,
        typer.Option(
            parser=_tokens,
            metavar="N|auto",
            help="Tokens of a micro-batch, padding included; does not change results. auto: try sizes. "
            "Default: by model size and memory.",
            rich_help_panel=MEMORY,
        ),
    ]
    load_in_4bit: Annotated[
        bool,
        typer.Option(
            "--load-in-4bit",
            help="Keep the model's linear layers in 4 bits (QLoRA; needs bitsandbytes).",
            rich_help_panel=MEMORY,
        ),
    ]
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Cache of reference log-probs and tokenized rows. Default: $KTO_CACHE or ~/.cache/kto.",
            rich_help_panel=OTHER,
        ),
    ]
    json: Json = False
