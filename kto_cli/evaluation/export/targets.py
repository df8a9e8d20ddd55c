"""Where a checkpoint is exported to: a folder, the Hub, GGUF files, Ollama. Each gives the lines that serve it."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from kto_cli.common.errors import BadInput
from kto_cli.common.export_config import GGUF, OLLAMA
from kto_cli.common.screen import Screen
from kto_cli.evaluation.export import gguf, hub
from kto_cli.evaluation.export.commands import llama_line, served_name
from kto_cli.evaluation.export.folder import refuse_unless_free, write_export
from kto_cli.evaluation.export.modelfile import GoTemplate, go_template, modelfile
from kto_cli.evaluation.export.subject import ADAPTER, WHOLE, Subject
from kto_cli.model.load import load_tokenizer

MODEL_FILE, ADAPTER_FILE, BASE_FILE, MODELFILE = "model.gguf", "adapter.gguf", "base.gguf", "Modelfile"


class Exported(NamedTuple):
    """An export that was written."""

    where: str
    """A folder or a Hub id."""
    lines: list[str]
    """Lines of a shell that serve it."""


def to_folder(subject: Subject, screen: Screen) -> Exported:
    """A folder of its own."""
    where = str(subject.config.to)
    with screen.progress(f"writing {where}", None):
        write_export(Path(where), subject.facts, subject.card(where), subject.write, screen.warn)
    screen.say(f"Exported to {where}: {subject.weights}.")
    shown = where if Path(where).is_absolute() or where.startswith((".", "~")) else f"./{where}"
    return Exported(where, subject.lines(shown, base=subject.origin.folder))


def to_hub(subject: Subject, api: Any, screen: Screen) -> Exported:
    """A repository of the Hub; `api` as `hub.open_hub` gives it."""
    where = subject.config.hub_id
    with tempfile.TemporaryDirectory(prefix="kto-export-") as folder:
        written = Path(folder) / where.rpartition("/")[2]
        with screen.progress(f"writing {where}", None):
            write_export(written, subject.facts, subject.card(where), subject.write, screen.warn)
        with screen.progress(f"uploading to {where}", None):
            url = hub.upload(api, where, written, public=subject.config.public)
    screen.say(f"{url} ({'public' if subject.config.public else 'private'}, unless it was there before)")
    return Exported(where, subject.lines(where))


def converted_folder(subject_name: str, to: str, out: str | None) -> Path:
    """The folder of --to gguf and --to ollama; checked to be free.

    Raises:
        BadInput: it holds anything but an earlier export.
    """
    folder = Path(out) if out is not None else Path(f"{served_name(Path(subject_name).resolve().name)}-{to}")
    refuse_unless_free(folder)
    return folder


def to_gguf(subject: Subject, folder: Path, screen: Screen) -> Exported:
    """model.gguf, or adapter.gguf."""
    name = ADAPTER_FILE if subject.what == ADAPTER else MODEL_FILE
    script = gguf.converter(gguf.LORA if subject.what == ADAPTER else gguf.MODEL, subject.config.llama_cpp)

    def write(temporary: Path) -> None:
        _convert(subject, script, temporary / name)

    with screen.progress(f"converting with {script.name}", None):
        write_export(folder, subject.facts, None, write, screen.warn)
    screen.say(f"Exported to {folder / name}: {subject.weights}.")
    return Exported(str(folder), [llama_line(folder / name, subject.origin if subject.what == ADAPTER else None)])


def _convert(subject: Subject, script: Path, out: Path) -> None:
    """One GGUF file; of a merged model by way of a temporary folder."""
    if subject.what == ADAPTER:
        gguf.convert(script, subject.source.folder, out, base=subject.source.base)
    elif subject.what == WHOLE:
        gguf.convert(script, subject.source.folder, out)
    else:
        with tempfile.TemporaryDirectory(prefix="kto-export-") as whole:
            subject.write(Path(whole))
            gguf.convert(script, Path(whole), out)


def to_ollama(subject: Subject, folder: Path, screen: Screen) -> Exported:
    """A Modelfile beside GGUF files; without llama.cpp, of a whole model, beside its safetensors."""
    template = _translated(subject, screen)
    try:
        scripts = [gguf.converter(gguf.MODEL, subject.config.llama_cpp)]
        scripts += [gguf.converter(gguf.LORA, subject.config.llama_cpp)] if subject.what == ADAPTER else []
    except BadInput as error:
        if subject.what == ADAPTER or subject.config.llama_cpp is not None:
            raise BadInput(error.what, f"{error.next_step} Or export a whole model with --merge.") from error
        screen.warn(f"{error.what} Ollama reads safetensors of some models, in its MLX engine only. {error.next_step}")
        scripts = []

    def write(temporary: Path) -> None:
        _write_ollama(subject, scripts, template, temporary)

    with screen.progress(f"writing {folder}", None):
        write_export(folder, subject.facts, None, write, screen.warn)
    screen.say(f"Exported to {folder}: {subject.weights}.")
    name = shlex.quote(served_name(folder.resolve().name.removesuffix(f"-{OLLAMA}")))
    file = shlex.quote(str(folder / MODELFILE))
    return Exported(str(folder), [f"ollama create {name} -f {file}", f"ollama run {name}"])


def _write_ollama(subject: Subject, scripts: list[Path], template: GoTemplate | None, folder: Path) -> None:
    if not scripts:
        subject.write(folder)
        base, adapter = ".", None
    elif subject.what == ADAPTER:
        gguf.convert(scripts[0], subject.source.base, folder / BASE_FILE)
        _convert(subject, scripts[1], folder / ADAPTER_FILE)
        base, adapter = f"./{BASE_FILE}", f"./{ADAPTER_FILE}"
    else:
        _convert(subject, scripts[0], folder / MODEL_FILE)
        base, adapter = f"./{MODEL_FILE}", None
    (folder / MODELFILE).write_text(modelfile(base, adapter, template), encoding="utf-8")


def _translated(subject: Subject, screen: Screen) -> GoTemplate | None:
    """The chat template in Ollama's notation, and a line on it."""
    tokenizer, _ = load_tokenizer(
        subject.source.tokenizer_folder,
        chat_template=None,
        trust_remote_code=subject.config.trust_remote_code,
    )
    found = go_template(tokenizer, subject.template_kwargs or {})
    if found is None:
        screen.warn(
            "The chat template has no translation for Ollama, which takes the most similar of its own: compare with "
            "--check http://localhost:11434"
        )
    else:
        screen.note("The chat template is translated into Ollama's notation; it writes the same chats.")
    return found


CONVERTED = {GGUF: to_gguf, OLLAMA: to_ollama}
