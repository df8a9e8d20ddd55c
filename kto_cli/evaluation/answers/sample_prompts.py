"""The prompts that `kto sample` answers: those of a dataset, or of any table that kto reads with

prompt             a text or a chat, with `tools` and `system` beside it, as kto binarize reads them
target             (optional) a good answer, which a judge compares with
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kto_cli.common.errors import BadData, BadInput
from kto_cli.common.files import text_hash
from kto_cli.common.sample_config import SampleConfig
from kto_cli.common.words import plural, printable
from kto_cli.data.dataset import TRAIN, VALIDATION, load_data_dir, read_batches
from kto_cli.data.dataset_folder import find_data_dir
from kto_cli.data.formats.labels import is_blank
from kto_cli.data.formats.messages import offered_tools
from kto_cli.data.formats.records import RowFault, check_text
from kto_cli.data.formats.rows import behind_system, offering, prompt_of
from kto_cli.data.readers.any_file import columns, parsed, records
from kto_cli.data.texts import Text, last_turn, spelled

WANTED = ("prompt", "target")


class SamplePrompt(NamedTuple):
    """A prompt, with a good answer where one is known."""

    text: Text
    target: str | None

    @property
    def id(self) -> str:
        """Hash of the prompt."""
        return text_hash(spelled(self.text))


def prompts_of(config: SampleConfig) -> tuple[list[SamplePrompt], list[str]]:
    """All prompts, each once, at most `limit`, and sentences on what was decided.

    Raises:
        BadInput: the dataset or the file cannot be used. BadData: it has no prompts.
    """
    notes: Counter[str] = Counter()
    found: dict[str, SamplePrompt] = {}
    if config.prompt_file is not None:
        source, given = config.prompt_file, _of_file(Path(config.prompt_file), notes)
    else:
        folder = find_data_dir(config.data)
        name = VALIDATION if config.split == "validation" else TRAIN
        source, given = str(folder / name), _of_data(folder, name)
    rows = 0
    for rows, one in enumerate(given, start=1):  # noqa: B007
        known = found.setdefault(one.id, one)
        if known.target is None:
            found[one.id] = one
    said = [f"{name}: {count:,}" for name, count in notes.items()]
    if not found:
        raise BadData(f"{printable(source)} has no prompts" + (f" ({'; '.join(said)})." if said else "."))
    said.insert(0, f"{printable(source)}: {plural(len(found), 'prompt')} in {plural(rows, 'row')}.")
    if config.limit is not None and len(found) > config.limit:
        kept = set(sorted(found)[: config.limit])
        found = {name: one for name, one in found.items() if name in kept}
        said.append(f"{len(found):,} of them are answered, as --limit asks for.")
    return list(found.values()), said


def _of_data(folder: Path, name: str) -> Iterator[SamplePrompt]:
    data = load_data_dir(folder)
    for rows in read_batches(data.folder / name):
        for row in rows:
            yield SamplePrompt(row.prompt, last_turn(row.completion) if row.label else None)


def _of_file(path: Path, notes: Counter[str]) -> Iterator[SamplePrompt]:
    """
    Raises:
        BadInput: it is missing, damaged, of no known format, or has no column `prompt`.
    """
    there = columns(path, path.name, WANTED)
    if "prompt" not in there:
        named = ", ".join(map(printable, there[:3])) + (" ..." if len(there) > 3 else "")
        raise BadInput(f"{printable(path)} has the columns {named or 'none'}.", "kto sample needs prompt.")
    for record in map(parsed, records(path, path.name, None)):
        if record.values is None:
            notes[f"records that cannot be used ({record.reason})"] += 1
            continue
        values = record.values
        try:
            prompt = behind_system(offering(offered_tools(values), prompt_of(values["prompt"], False)), values)
            target = None if is_blank(values.get("target")) else check_text(values["target"], "target")
        except (RowFault, KeyError) as fault:
            notes[f"records that cannot be used ({getattr(fault, 'reason', 'missing_field')})"] += 1
            continue
        yield SamplePrompt(prompt, target)
