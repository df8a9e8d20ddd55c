"""Flags of `kto export`."""

from __future__ import annotations

from typing import Annotated

import typer

from kto_cli.cli.shared import OTHER, Json, takes, values
from kto_cli.common.export_config import ROWS, STORED_DTYPES, ExportConfig, StoredDtype
from kto_cli.common.screen import Screen

WHAT, WHERE, CHECK = "What is written", "Where to", "Compare with a server"


class ExportFlags:
    """Flags of `kto export`, in the order of its --help."""

    checkpoint: Annotated[str, typer.Argument(help="A run directory, a step of one, a model folder or a Hub id.")]
    to: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|hub:OWNER/NAME|ollama|gguf",
            help="A new folder, a repository of the Hub (private), or files for Ollama or llama.cpp.",
            rich_help_panel=WHERE,
        ),
    ]
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder for --to ollama and gguf. Default: CHECKPOINT-ollama, CHECKPOINT-gguf.",
            rich_help_panel=WHERE,
        ),
    ]
    public: Annotated[
        bool, typer.Option("--public", help="A new repository of the Hub is public.", rich_help_panel=WHERE)
    ]
    llama_cpp: Annotated[
        str | None,
        typer.Option(
            "--llama-cpp",
            metavar="DIR",
            help="llama.cpp's folder, whose converters write GGUF. Default: those on the PATH.",
            rich_help_panel=WHERE,
        ),
    ]

    merge: Annotated[
        bool, typer.Option("--merge", help="A whole model: adapters merged into the weights.", rich_help_panel=WHAT)
    ]
    dtype: Annotated[
        StoredDtype,
        typer.Option(
            metavar="NAME",
            help=f"Of merged weights: {', '.join(STORED_DTYPES)} (stored: as the base has them).",
            rich_help_panel=WHAT,
        ),
    ]
    base: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="The Hub's name of the model below the adapter. Default: as the run names it.",
            rich_help_panel=WHAT,
        ),
    ]
    license: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Licence, such as apache-2.0. Default: the base's, if known.", rich_help_panel=WHAT
        ),
    ]

    check: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Ask an OpenAI-compatible server whether it serves what was trained (its key: $KTO_ENGINE_KEY).",
            rich_help_panel=CHECK,
        ),
    ]
    served_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The model's name on that server. Default: the one that fits.", rich_help_panel=CHECK
        ),
    ]
    rows: Annotated[int, typer.Option(help=f"Validation rows to ask about. Default: {ROWS}.", rich_help_panel=CHECK)]
    data: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Their folder, by kto binarize. Default: the run's.", rich_help_panel=CHECK),
    ]

    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=OTHER)
    ]
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Cache of tokenized rows. Default: $KTO_CACHE or ~/.cache/kto.", rich_help_panel=OTHER
        ),
    ]
    json: Json = False


@takes(ExportFlags, ExportConfig)
def export(context: typer.Context) -> None:
    """Make a checkpoint ready to be served, and check that what is served is what was trained."""
    config = ExportConfig(**values(context))
    from kto_cli.workflows import export as workflow

    screen = Screen(as_json=context.params["json"])
    screen.json(workflow.run(config, screen))
