"""`kto label`: a page on which people label answers, until Ctrl-C."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadFlag, BadInput
from kto_cli.common.eval_config import REFERENCE, TARGET
from kto_cli.common.label_config import LabelConfig
from kto_cli.common.owner import beside, owning
from kto_cli.common.screen import Screen
from kto_cli.common.words import plural, printable
from kto_cli.data.readers.any_file import SUFFIXES, suffix
from kto_cli.evaluation.labelling.agreement import sentence
from kto_cli.evaluation.labelling.from_eval import evaluated, items_of_answers, items_of_rows
from kto_cli.evaluation.labelling.from_file import items_of_file
from kto_cli.evaluation.labelling.items import Items
from kto_cli.evaluation.labelling.label_file import LabelFile
from kto_cli.evaluation.labelling.server import LabelServer
from kto_cli.evaluation.labelling.session import Labelling


def run(config: LabelConfig, screen: Screen) -> dict[str, Any]:
    """Serves the page until Ctrl-C or SIGTERM; every label is in the file before the next answer is shown.

    Returns:
        `file`, `items`, `labels`, `people` (name -> labels), `agreement` (see `agreements`).

    Raises:
        BadInput: a source, the file of labels or the address cannot be used; nothing is written.
    """
    found = _items(config)
    path = _out(config)
    with owning(beside(path), path, "labelling into", warn=screen.warn), asked_to_stop() as stop:
        file = LabelFile(path)
        labelling = Labelling(found, file, config.seed)
        server = LabelServer(labelling, config.host, config.port)
        for note in (*found.said(), *file.notes):
            screen.note(note)
        _say_what_there_is(found, labelling, screen)
        if not config.host.startswith("127."):
            screen.warn(
                "Who has the link may label, and the connection is not encrypted: use it in a network you trust."
            )
        screen.note(f"Open {server.url} (&name=NAME for each person; Ctrl-C ends it)")
        _serve(server, stop)
    return _conclude(labelling, screen)


def _items(config: LabelConfig) -> Items:
    """
    Raises:
        BadInput: a source cannot be used.
    """
    first, one_at_a_time = config.sources[0], config.one_at_a_time
    files = [each for each in config.sources if Path(each).is_file()]
    if not files and any(not Path(each).exists() and suffix(each) in SUFFIXES for each in config.sources):
        raise BadInput(f"{printable(first)} does not exist.", "Check the path.")
    if not files:
        saved = next((each for each in config.sources[1:] if each in (REFERENCE, TARGET)), None)
        checkpoints = [evaluated(each) for each in config.sources if each != saved]
        if config.rows:
            return items_of_rows(checkpoints[0], config.data)
        return items_of_answers(checkpoints, config.data, beside=saved, one_at_a_time=one_at_a_time)
    if len(config.sources) > 1:
        what = f"{printable(files[0])} is a file, and only two checkpoints are compared."
        raise BadInput(what, "Give one file, with the answers of a prompt in one record.")
    for flag, is_given in {"--rows": config.rows, "--data": config.data is not None}.items():
        if is_given:
            raise BadFlag(f"{flag} goes with a checkpoint, and {printable(first)} is a file.", "Leave it out.")
    return items_of_file(Path(first), one_at_a_time=one_at_a_time)


def _out(config: LabelConfig) -> Path:
    """The file of labels.

    Raises:
        BadInput: it is the file of answers.
    """
    names = [Path(each).absolute() for each in config.sources]
    stems = [name.name.split(".")[0] or name.name if name.is_file() else name.name for name in names]
    path = Path(config.out) if config.out is not None else Path(f"{'-'.join(stems)}.labels.jsonl")
    if path.exists() and any(path.samefile(name) for name in names if name.exists()):
        raise BadInput(f"{printable(path)} holds the answers.", "Give another file for the labels with --out.")
    return path


def _say_what_there_is(found: Items, labelling: Labelling, screen: Screen) -> None:
    pairs = sum(len(item.answers) == 2 for item in found.items)
    screen.note(
        f"To label: {plural(len(found.items) - pairs, 'answer')} one at a time, {plural(pairs, 'pair')} side by side."
    )
    surely_wrong = sum(item.rank[:1] == (0,) for item in found.items)
    if any(item.rank for item in found.items):
        screen.note(f"The most informative first: {surely_wrong:,} saturated on the wrong side, then the least sure.")
    others = sum(label.item not in labelling.known for label in labelling.file.labels)
    if others:
        screen.note(f"Labels of other answers in {printable(labelling.file.path)}, which stay: {others:,}.")


def _serve(server: LabelServer, stop: threading.Event) -> None:
    """Answers requests in threads until asked to stop; what is being saved then is saved, and nothing after it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        stop.wait()
    finally:
        server.shutdown()
        server.server_close()
        server.labelling.lock.acquire()


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Context manager that yields an event which Ctrl-C and SIGTERM set, however often they come."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(labelling: Labelling, screen: Screen) -> dict[str, Any]:
    counts, agreement, path = labelling.counts(), labelling.agreement(), labelling.file.path
    people = ", ".join(f"{printable(name)} {count:,}" for name, count in counts.items())
    if counts:
        said = [f"{plural(counts.total(), 'label')} ({people}) in {printable(path)}.", *map(sentence, agreement)]
        screen.say(" ".join(said))
        fix = " --fix contradictions --fix duplicates" if len(counts) > 1 else ""
        screen.note(f"Next: kto binarize {shlex.quote(str(path))}{fix}")
    else:
        screen.say("No labels were given, and nothing was written.")
    return {
        "file": str(path),
        "items": len(labelling.items),
        "labels": counts.total(),
        "people": dict(counts),
        "agreement": agreement,
    }
