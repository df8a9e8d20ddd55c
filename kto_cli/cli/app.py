"""The `kto` command: its commands in the order of use, and how errors are reported."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError
from typer.core import TyperGroup

from kto_cli import __version__
from kto_cli.cli.binarize import binarize
from kto_cli.cli.demo import demo
from kto_cli.cli.evaluate import evaluate
from kto_cli.cli.export import export
from kto_cli.cli.label import label
from kto_cli.cli.loop import loop
from kto_cli.cli.outcome import outcome
from kto_cli.cli.precompute import precompute
from kto_cli.cli.sample import sample
from kto_cli.cli.theory import theory
from kto_cli.cli.train import train
from kto_cli.common.errors import BadFlag, Interrupted, KtoError, OutOfMemory, first_line, is_out_of_memory
from kto_cli.common.phase import KEPT
from kto_cli.common.screen import print_error

OLD_FLAGS = {"holdout": "validation", "mend": "fix", "cut": "threshold"}
"""Flags that were renamed; the old names still work and are not shown."""


class Commands(TyperGroup):
    """All commands, with one report of errors: a line on stderr, with --json also an object on stdout."""

    def invoke(self, ctx: Any) -> Any:
        """A command's result.

        Raises:
            Interrupted: Ctrl-C or SIGTERM. OutOfMemory: where a command does not try again with less.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # the default one keeps freed memory
        try:
            with sigterm_as_interrupt():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted(f"Stopped. {KEPT}") from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"The model does not fit into memory: {first_line(error)}.",
                "Use a smaller model or --dtype bfloat16-pure; or train adapters: --lora-r 16, with --load-in-4bit.",
            ) from error

    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> Any:
        """Runs a command and exits: 0, 1 (bad input), 2 (bad flags), 130 (Ctrl-C); a bug keeps its traceback."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        try:
            status = super().main(given, *others, **{**extra, "standalone_mode": False})
        except NoArgsIsHelpError as error:
            error.show()
            status = error.exit_code
        except UsageError as error:
            status = print_error(bad_flag(error, self.commands, given), as_json=as_json)
        except (KtoError, Interrupted) as error:
            status = print_error(error, as_json=as_json)
        sys.exit(status if isinstance(status, int) else 0)


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Context manager in which SIGTERM stops a command as Ctrl-C does, with a line that says what is kept.

    Of a launch in its first process alone: the launcher ends the others so.
    """
    if threading.current_thread() is not threading.main_thread() or os.environ.get("RANK", "0") != "0":
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def bad_flag(error: UsageError, commands: Collection[str], given: Sequence[str]) -> BadFlag:
    """Typer's complaint about the command line in the form of kto's own."""
    what = error.format_message().replace("Value error, ", "")
    if error.ctx:
        command = error.ctx.command_path.replace("python -m kto_cli", "kto")
    else:  # the parser's own complaints
        command = " ".join(["kto", *(word for word in given[:1] if word in commands)])
    return BadFlag(what if what.endswith((".", ")", "?")) else f"{what}.", f"See {command} --help.")


app = typer.Typer(
    name="kto",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: OLD_FLAGS.get(name, name),
    },
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
    """Options of kto itself."""


app.command()(binarize)
app.command()(precompute)
app.command()(train)
app.command(name="eval")(evaluate)
app.command()(export)
app.command()(sample)
app.command()(label)
app.command()(loop)
app.command()(outcome)
app.command()(demo)
app.command()(theory)


def main() -> None:
    """The `kto` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()  # Python's last collections would walk over all that torch and transformers made: over a second
