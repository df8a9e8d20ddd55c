"""Files of ratings that lie beside the files of what was rated, as exports of tables write them."""

from __future__ import annotations

from pathlib import Path

from kto_cli.common.errors import BadInput
from kto_cli.common.words import printable
from kto_cli.data.readers import any_file


def is_of(path: Path, kind: str) -> bool:
    """Whether a path says, in its last two parts, what it holds: `observations`, `scores`."""
    return any(kind.rstrip("s") in part.lower() for part in path.parts[-2:])


def files_beside(path: Path, holds: str, kind: str) -> tuple[Path, ...]:
    """Files of a kind beside a file, by their names; or in a folder beside its own, if the two folders are named so.

    Args:
        holds: what the file itself holds.

    Raises:
        BadInput: there are none.
    """
    near = [each for each in path.parent.glob("*") if is_of(Path(each.name), kind)]
    if is_of(Path(path.parent.name), holds):
        near += [each for each in path.parent.parent.glob("*/*") if is_of(Path(each.parent.name), kind)]
    readable = (each for each in near if each.is_file() and any_file.suffix(each.name) in any_file.SUFFIXES)
    if found := tuple(sorted(each for each in readable if each != path)):
        return found
    what = f"{printable(str(path))} has {holds}, and no file of {kind} lies beside it."
    raise BadInput(what, f"Put files or folders called {holds} and {kind} side by side.")
