"""`kto export`: a checkpoint in a form that is served, lines that serve it, and a check of what is served."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from kto_cli.common.errors import BadInput, KtoError
from kto_cli.common.export_config import ExportConfig
from kto_cli.common.screen import Screen
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.export import hub
from kto_cli.evaluation.export.check import Checked, check_served
from kto_cli.evaluation.export.folder import refuse_unless_free
from kto_cli.evaluation.export.subject import ADAPTER, Subject, open_subject
from kto_cli.evaluation.export.targets import CONVERTED, Exported, converted_folder, to_folder, to_hub

SERVES = ("trained", "unsure")
"""Verdicts that do not fail the command."""


class NotServed(KtoError):
    """A server serves something else than what was trained."""


def run(config: ExportConfig, screen: Screen) -> dict[str, Any]:
    """Exports a checkpoint, compares a server with it, or both.

    Returns:
        `checkpoint`; of an export `to`, `what`, `base`, `license`, `serve`; of a check `check`.

    Raises:
        KtoError: there is no such checkpoint, the target cannot be written, the Hub or the server refuses.
        NotServed: the server serves something else.
    """
    checkpoint = Checkpoint.find(config.checkpoint)
    for text in checkpoint.said():
        screen.warn(text)
    found: dict[str, Any] = {"checkpoint": checkpoint.name}
    where = None
    if config.to is not None:
        subject, exported = _export(config, checkpoint, screen)
        where, lines = exported
        facts = {"what": subject.what, "base": subject.origin.name, "license": subject.origin.license}
        found |= {"to": where, **facts, "serve": lines}
    if config.check is not None:
        found["check"] = _check(config, checkpoint, where, found, screen)
    return found


def _export(config: ExportConfig, checkpoint: Checkpoint, screen: Screen) -> tuple[Subject, Exported]:
    """The export; what would stop it is known before a model is read."""
    assert config.to is not None
    api = hub.open_hub(config.hub_id) if config.hub_id else None
    folder = Path(config.to)
    if config.to in CONVERTED:
        folder = converted_folder(checkpoint.name, config.to, config.out)
    elif api is None:
        refuse_unless_free(folder)
    with screen.progress("reading the model's files", None):
        subject = open_subject(config, checkpoint)
    _say_of_origin(subject, screen)
    if config.to in CONVERTED:
        exported = CONVERTED[config.to](subject, folder, screen)
    else:
        exported = to_folder(subject, screen) if api is None else to_hub(subject, api, screen)
    screen.say("Serve it:" if len(exported.lines) == 1 or config.to in CONVERTED else "Serve it with one of:")
    for line in exported.lines:
        screen.say(f"  {line}")
    if config.check is None:
        name = shlex.quote(checkpoint.name)
        screen.say(f"Then compare: kto export {name} --check http://localhost:{_port(exported.lines[0])}")
    return subject, exported


def _port(line: str) -> int:
    """The port that a server takes unless it is told another."""
    return 11434 if line.startswith("ollama") else 8080 if line.startswith("llama-server") else 8000


def _say_of_origin(subject: Subject, screen: Screen) -> None:
    """The base, its licence and its bits.

    Raises:
        BadInput: an adapter for the Hub whose base only this machine has.
    """
    config, origin = subject.config, subject.origin
    if subject.what == ADAPTER and not origin.on_hub and config.to not in CONVERTED:
        unknown = f"The adapter's base is a folder of this machine; the export names it {origin.name}, without a path."
        if config.hub_id:
            raise BadInput(unknown, "Name it with --base OWNER/NAME, or export a whole model with --merge.")
        screen.warn(f"{unknown} If the Hub has it: --base OWNER/NAME. A whole model: --merge.")
    if origin.license is None:
        screen.warn(f"The licence of {origin.name} is not known here: the card names none. Name it with --license ID.")
    else:
        screen.note(f"Licence: {origin.license}{'' if config.license else f', of {origin.name}'}")
    if config.merge and subject.train.get("load_in_4bit"):
        screen.warn("The adapter was trained over weights of 4 bits and is merged into wider ones: not the same model.")


def _check(
    config: ExportConfig, checkpoint: Checkpoint, where: str | None, found: dict[str, Any], screen: Screen
) -> dict[str, Any]:
    """Compares and reports.

    Raises:
        NotServed: the server serves something else.
    """
    checked = check_served(config, checkpoint, where, screen)
    verdict, facts = checked.verdict, _facts(checked, config)
    if verdict.word not in SERVES:
        raise NotServed(verdict.sentence, verdict.next_step, details={**found, "check": facts})
    say = screen.say if verdict.word == "trained" else screen.warn
    say(f"{verdict.sentence} {verdict.next_step}".strip())
    return facts


def _facts(checked: Checked, config: ExportConfig) -> dict[str, Any]:
    return {
        "url": config.check,
        "model": checked.served,
        "verdict": checked.verdict.word,
        "sentence": checked.verdict.sentence,
        "logps": checked.logps and checked.logps._asdict(),
        "answers": checked.answers._asdict(),
        "answered": checked.answered and checked.answered._asdict(),
    }
