"""The `kto` command: its options, and its commands in the order in which they are used."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from kto_cli import __version__
from kto_cli.cli.binarize import binarize
from kto_cli.cli.demo import demo
from kto_cli.cli.evaluate import evaluate
from kto_cli.cli.precompute import precompute
from kto_cli.cli.train import train

app = typer.Typer(
    name="kto",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Align language models with thumbs-up / thumbs-down feedback (KTO, arXiv 2402.01306).",
    epilog="In this order: kto binarize hh-rlhf, kto precompute, kto train, kto eval checkpoint. All in one: kto demo",
)


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


app.command()(binarize)
app.command()(precompute)
app.command()(train)
app.command(name="eval")(evaluate)
app.command()(demo)


def main() -> None:
    """The `kto` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # Python's last collections would walk over all that torch and transformers made: over a second
