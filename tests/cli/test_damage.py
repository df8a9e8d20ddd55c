"""Damage of every file that kto writes: a bit flips, it is cut, emptied, deleted, replaced by a folder or other JSON.
What reads it says so in a line, or gives what it gave before."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import call, error_line, pairs, write_lines

from kto_cli.common.errors import KtoError
from kto_cli.data.dataset import load_data_dir
from kto_cli.evaluation.checkpoint import Checkpoint
from kto_cli.evaluation.files import faults
from kto_cli.evaluation.report.evidence import gather
from kto_cli.model.logprobs.reference_cache import _RECORD, ReferenceCache
from kto_cli.model.tokens.store_files import open_store
from kto_cli.training.run.run_dir import RunDir, read_settings
from kto_cli.training.step import TrainingEngine

SETTINGS = ("--batch-size", 8, "--max-steps", 4, "--save-every", 1, "--learning-rate", "1e-3")
WAYS = ("flip", "flip early", "flip late", "cut", "empty", "folder", "delete", "list", "deep")
Outcome = tuple[Any, list[str]]
"""What was read, and the faults that were said."""


def damage(path: Path, way: str, draw: random.Random) -> None:
    """Changes a file so that it is another."""
    data = path.read_bytes()
    if way.startswith("flip") and data:
        third = len(data) // 3
        low, high = {"flip": (0, len(data)), "flip early": (0, third + 1), "flip late": (2 * third, len(data))}[way]
        place = draw.randrange(low, high)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :])
    elif way == "cut":
        path.write_bytes(data[: draw.randrange(len(data))] if data else b"x")
    elif way in ("list", "deep"):
        path.write_bytes(b"[]\n" if way == "list" else b"[" * 100_000)
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way != "delete":
            path.write_bytes(b"")


class Killed(BaseException):
    """Nothing catches this: the process is gone."""


def dying_in(step: int) -> Callable[..., Any]:
    """Stands in for TrainingEngine.step and dies in the given step."""
    whole, calls = TrainingEngine.step, []

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return whole(self, *args, **kwargs)

    return dying


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def home(pico, tmp_path_factory) -> Path:
    """data/set, cache/, a finished run with its evaluation, and one that was killed in its last step."""
    home = tmp_path_factory.mktemp("home")
    write_lines(home / "pairs.jsonl", pairs(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("KTO_CACHE", str(home / "cache"))
        assert call("binarize", "pairs.jsonl", "--out", "data/set", "--validation", 0.2).code == 0
        words = ("--data", "data/set", "--model", pico, *SETTINGS)
        assert call("train", *words, "--out", "finished").code == 0
        assert call("eval", "finished", "--samples", 2, "--max-new-tokens", 4).code == 0
        patch.setattr(TrainingEngine, "step", dying_in(4))
        with pytest.raises(Killed):
            call("train", *words, "--out", "broken")
    return home


def read_dataset(home: Path) -> Outcome:
    """As every command does."""
    data = load_data_dir(home / "data/set")
    return (data.train, data.validation, data.manifest), []


def read_broken(home: Path) -> Outcome:
    """As `kto train --resume` does. Which checkpoint it is may change; how the run ends does not."""
    directory = RunDir(home / "broken")
    folder, _, said = directory.steps.latest()
    return (read_settings(directory), None if said else folder and folder.name), [*said, *directory.metrics_faults(3)]


def read_finished(home: Path) -> Outcome:
    """As `kto eval` does."""
    found = Checkpoint.find(str(home / "finished"))
    return found.settings, found.said()


def read_results(home: Path) -> Outcome:
    """As the report does."""
    evidence = gather(home / "finished/eval", home / "finished")
    rows = evidence.rows and {name: column.tolist() for name, column in evidence.rows.items()}
    return (evidence.results, rows, evidence.samples, evidence.parts), list(faults(home / "finished/eval").values())


def read_tokens(home: Path) -> Outcome:
    found = []
    for folder in sorted((home / "cache/tokens").iterdir()):
        store, report = open_store(folder)
        found.append(([row.tolist() for row in store.columns.values()], vars(report)))
    return found, []


def read_reference(home: Path) -> Outcome:
    """Values that are damaged are missing, never wrong."""
    (folder,) = (home / "cache/reference").iterdir()
    sound = numpy.frombuffer(KNOWN["payload"], _RECORD)
    cache = ReferenceCache(home / "cache", numbers=KNOWN["numbers"])
    assert cache.folder == folder
    order = numpy.argsort(sound["key"])
    logps, _ = cache.read(sound["key"][order])
    wrong = ~numpy.isnan(logps) & (logps != sound["logp"][order])
    assert not wrong.any()
    return "right or missing", []


KNOWN: dict[str, Any] = {}
"""What the reference cache of `home` holds."""
AREAS: dict[str, tuple[str, Callable[[Path], Outcome]]] = {
    "dataset": ("data/set", read_dataset),
    "broken run": ("broken", read_broken),
    "finished run": ("finished", read_finished),
    "results": ("finished/eval", read_results),
    "tokens": ("cache/tokens", read_tokens),
    "reference": ("cache/reference", read_reference),
}
NOT_READ = ("rejects.jsonl", "findings.jsonl", "report.html", "README.md")
"""Files for people, which no command reads."""


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@pytest.mark.parametrize("area", AREAS)
def test_damage_is_noticed_where_a_file_is_read(home, pico, tmp_path, area):
    """Each file in each way; together over 500 cases."""
    from kto_cli.model.identity import fingerprint, numbers_identity

    where, read = AREAS[area]
    if not KNOWN:
        segments = sorted((home / "cache/reference").glob("*/*.segment"))
        KNOWN["numbers"] = numbers_identity(fingerprint(pico), "torch.float32")
        cache = ReferenceCache(home / "cache", numbers=KNOWN["numbers"])
        KNOWN["payload"] = b"".join(payload for path in segments for payload in cache._frames(path.read_bytes())[0])
    right, _ = read(home)
    draw, cases = random.Random(area), 0
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    for path in sorted(path for path in (copy / where).rglob("*") if path.is_file()):
        if area != "results" and "eval" in path.relative_to(copy).parts:
            continue
        original = home / path.relative_to(copy)
        for way in WAYS:
            damage(path, way, draw)
            cases += 1
            try:
                found, said = read(copy)
            except KtoError as error:
                found, said = None, [str(error)]
            noticed = any(path.name in text for text in said)
            noticed |= area == "results" and way == "delete"  # a part that is not there is not shown
            # without it a finished run is a model like any other, whose reference must be named
            noticed |= (path.name, way) == ("kto_config.json", "delete")
            assert noticed or path.name in NOT_READ or same(found, right), (path, way, said)
            assert all("\n" not in text and "Traceback" not in text for text in said), said
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            shutil.copy2(original, path)
        for left in list((copy / where).rglob("*-fixed.segment")):
            left.unlink()
    assert cases >= (9 if area == "reference" else 40)


# --- through the commands -----------------------------------------------------------------------

COMMANDS: dict[str, tuple[tuple[object, ...], str]] = {
    "binarize": (("binarize", "pairs.jsonl", "--out", "data/set", "--validation", 0.2, "--overwrite"), "data/set"),
    "precompute": (("precompute",), "data/set"),
    "precompute, cache": (("precompute",), "cache"),
    "train, cache": (("train", *SETTINGS, "--out", "again"), "cache"),
    "resume": (("train", "--resume", "--out", "broken"), "broken"),
    "eval": (("eval", "finished", "--samples", 0), "finished"),
    "report": (("eval", "finished", "--report-only"), "finished"),
}


def result_of(command: str, home: Path) -> Any:
    """What the command left that must not depend on damage."""
    if command == "binarize":
        return [sha(home / "data/set" / name) for name in ("train.parquet", "validation.parquet", "rejects.jsonl")]
    if command in ("train, cache", "resume"):
        return sha(home / ("again" if "cache" in command else "broken") / "model.safetensors")
    if command == "eval":
        found = json.loads((home / "finished/eval/metrics.json").read_text())
        return {key: found[key] for key in ("of", "weights", "metrics")}
    return None


def run_damaged(command: str, home: Path, workplace: Path, model: Path, way: str | None, draw: random.Random) -> Any:
    """The command on a copy with one damaged file: its result, or None if it was refused in one line."""
    words, where = COMMANDS[command]
    copy = Path(shutil.copytree(home, workplace / f"copy-{draw.randrange(10**9)}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        patch.setenv("KTO_CACHE", str(copy / "cache"))
        files = sorted(path for path in (copy / where).rglob("*") if path.is_file())
        path = draw.choice(files)
        if way is not None:
            damage(path, way, draw)
        given = ("--model", model) if words[0] in ("precompute", "train") and "--resume" not in words else ()
        ran = call(*words, *given)
        if ran.code:
            error_line(ran)
            return None
        return result_of(command, copy)


def check_commands(
    commands: Sequence[str], home: Path, workplace: Path, model: Path, draw: random.Random, ways: Sequence[str]
) -> int:
    refused = 0
    for command in commands:
        right = run_damaged(command, home, workplace, model, None, draw)
        for way in ways:
            found = run_damaged(command, home, workplace, model, way, draw)
            refused += found is None
            assert found is None or same(found, right), (command, way)
    return refused


def test_commands_refuse_damage_in_one_line(home, workplace, pico):
    check_commands(["binarize"], home, workplace, pico, random.Random(1), WAYS)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_damage_in_one_line_or_give_the_right_result(home, workplace, pico, command):
    check_commands([command], home, workplace, pico, random.Random(command), WAYS)
