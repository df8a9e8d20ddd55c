"""GGUF files, written by llama.cpp's own converters where they are installed.

convert_hf_to_gguf.py FOLDER --outfile FILE
convert_lora_to_gguf.py ADAPTER --base FOLDER --outfile FILE     (reads the config of the base alone)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kto_cli.common.errors import BadInput

MODEL, LORA = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
GET = (
    "Get it: git clone --depth 1 https://github.com/ggml-org/llama.cpp && pip install gguf sentencepiece, then "
    "--llama-cpp llama.cpp"
)
SHOWN = 3
"""Last lines of a converter that failed."""


def converter(name: str, folder: str | None) -> Path:
    """The path of a converter: in llama.cpp's folder if the user names it, else on the PATH.

    Raises:
        BadInput: it is not there.
    """
    if folder is not None:
        if not (path := Path(folder).expanduser() / name).is_file():
            raise BadInput(f"{folder} has no {name}: it is not llama.cpp's folder.", f"{GET}.")
        return path
    if (found := shutil.which(name)) is None:
        raise BadInput(f"GGUF is written by llama.cpp's {name}, which is not on the PATH.", f"{GET}.")
    return Path(found)


def convert(script: Path, source: Path, out: Path, base: Path | None = None) -> None:
    """Runs a converter; its output is shown only if it fails.

    Args:
        base: of an adapter.

    Raises:
        BadInput: it fails; with its last lines.
    """
    of_base = [] if base is None else ["--base", str(base)]
    words = [sys.executable, str(script), str(source), *of_base, "--outfile", str(out)]
    try:
        subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=True)
    except subprocess.CalledProcessError as error:
        last = " ".join(" ".join(error.output.strip().splitlines()[-SHOWN:]).split())
        raise BadInput(
            f"{script.name} cannot convert {source}: {last[-300:] or f'exit status {error.returncode}'}.",
            "Does your llama.cpp know this architecture?",
        ) from error
