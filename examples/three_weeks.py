"""Three weeks of one product: from a log of thumbs to a model that was trained, labelled, judged, exported and checked.

    python examples/three_weeks.py --quick                    # built-in model and feedback, three minutes of CPU time
    python examples/three_weeks.py --model DIR --logs DIR     # a model of yours, and public feedback in DIR
    python examples/three_weeks.py --quick --people           # you label, in the browser

Each week's log becomes rows, the model of the week before is trained on with them and some of its own, two people
compare its answers with those of the week before, a judge does the same and is corrected by the people. The last model
is exported, served and checked, and the thumbs of the weeks are compared. docs/weekly.md has the same as commands to
copy.

`--logs` has `halueval/general_data.json`, `xstest/*.csv` and `oasst/*message.jsonl`: public feedback on the answers of
several models, a week each. It was given before this script ran, so no thumb of it can rise through this training.
People and judge are stand-ins too, unless `--people` and `--judge-url` say otherwise: they count words, with what the
logs say of each.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import http.server
import importlib.util
import json
import math
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
WEEKS = (1, 2, 3)
RULES = ("--desirable", 'thumb == "up"', "--undesirable", 'thumb == "down"')
KTO = (sys.executable, "-m", "kto_cli")
SESSION, SERVER = "session.txt", "server.txt"
"""Files with all that the commands said, and the server of the last model."""
SHOWN = 3
"""Last lines of a command that are shown."""
LOGS = ("halueval/general_data.json", "xstest/*.csv", "oasst/*message.jsonl")
"""Public feedback of each week."""
SERVING = ("fastapi", "uvicorn", "openai")
"""Packages that `transformers serve` needs."""


class Thumb(NamedTuple):
    """An answer of the log."""

    prompt: str
    completion: str
    thumb: str


# --- the logs -----------------------------------------------------------------------------------


def built_in_logs() -> list[list[Thumb]]:
    """Thumbs and pairs of sample_data, the answers of a pair as two thumbs, dealt out to the weeks by prompt."""
    with (SAMPLE / "thumbs.csv").open(encoding="utf-8", newline="") as file:
        found = [
            [Thumb(row["prompt"], row["completion"], thumb(row["label"] == "true"))] for row in csv.DictReader(file)
        ]
    with gzip.open(SAMPLE / "hh-rlhf/harmless-base/train.jsonl.gz", "rt", encoding="utf-8") as file:
        for pair in map(json.loads, file):
            if pair["chosen"].count("\n\nHuman: ") == 1:
                texts = [re.split("\n\nHuman: |\n\nAssistant: ", pair[side])[1:] for side in ("chosen", "rejected")]
                found.append([Thumb(*text, thumb(good)) for text, good in zip(texts, (True, False), strict=True)])
    return [[row for rows in found[week::3] for row in rows] for week in range(3)]


def public_logs(folder: Path) -> list[list[Thumb]]:
    """HaluEval's answers without or with hallucinations, XSTest's completions that comply or refuse, OpenAssistant's
    thumbs."""
    with (folder / LOGS[0]).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    first = [Thumb(row["user_query"], row["chatgpt_response"], thumb(row["hallucination"] == "no")) for row in rows]
    second, words = [], {"1_full_compliance": "up", "2_full_refusal": "down"}
    for path in sorted(folder.glob(LOGS[1])):
        with path.open(encoding="utf-8", newline="") as file:
            second += [
                Thumb(row["prompt"], row["completion"], words.get(row["final_label"], ""))
                for row in csv.DictReader(file)
                if not row["type"].startswith("contrast")
            ]
    third: list[Thumb] = []
    for path in sorted(folder.glob(LOGS[2])):
        with path.open(encoding="utf-8") as file:
            for line in file:
                third += replies(json.loads(line))
    return [first, second, third]


def replies(message: dict[str, Any]) -> Iterator[Thumb]:
    """Answers below a message, with more thumbs up than down, fewer, or as many."""
    for reply in message.get("replies") or []:
        given = reply.get("emojis") or {}
        balance = given.get("+1", 0) - given.get("-1", 0)
        if reply["role"] == "assistant":
            yield Thumb(message["text"], reply["text"], thumb(balance > 0) if balance else "")
        yield from replies(reply)


def thumb(good: bool) -> str:
    return "up" if good else "down"


def write_logs(folder: Path, logs: list[list[Thumb]], most: int) -> list[Path]:
    """week1.csv to week3.csv; `model` is the one whose answers a week's users saw."""
    paths = []
    for week, rows in zip(WEEKS, logs, strict=True):
        paths.append(folder / f"week{week}.csv")
        with paths[-1].open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file)
            lines.writerow((*Thumb._fields, "model"))
            lines.writerows((*row, f"week{week - 1}" if week > 1 else "base") for row in evenly(rows, most))
    return paths


def evenly(rows: list[Thumb], most: int) -> list[Thumb]:
    """At most so many of the rows, from all over the log: its first ones may all be of one kind."""
    count = min(most, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


# --- stand-ins for people and for a judge -------------------------------------------------------


class Taste:
    """Likes answers whose words are those of answers with thumbs up."""

    def __init__(self, rows: Sequence[Thumb]) -> None:
        self.counts = {
            side: Counter(word for row in rows if row.thumb == side for word in set(words_of(row.completion)))
            for side in ("up", "down")
        }
        self.rows = Counter(row.thumb for row in rows)

    def of(self, answer: str) -> float:
        """Mean log-odds of its words."""
        odds = [
            math.log((self.counts["up"][word] + 1) / (self.rows["up"] + 2))
            - math.log((self.counts["down"][word] + 1) / (self.rows["down"] + 2))
            for word in words_of(answer)
        ]
        return sum(odds) / max(len(odds), 1)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


@contextmanager
def judge_server(taste: Taste) -> Iterator[str]:
    """The address of an OpenAI-compatible server whose only model prefers one of two answers by `taste`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            self.reply({"object": "list", "data": [{"id": "word-counts"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
            one, other = (
                taste.of(re.split(f"--- \\w+ answer {side} (?:begins|ends)\n?", asked)[1]) for side in ("A", "B")
            )
            message = {"role": "assistant", "content": f"Verdict: {'A' if one > other else 'B'}"}
            self.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def reply(self, answer: dict[str, Any]) -> None:
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def label_as(name: str, taste: Taste, link: str) -> None:
    """Labels all that the page of `kto label` shows, through its own interface."""
    address, token = link.split("/?token=")

    def ask(path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        headers = {"X-Token": token, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=60) as reply:
            return dict(json.load(reply))

    state = ask(f"/api/state?name={name}")
    while item := state["item"]:
        liked = [taste.of(" ".join(turn["text"] for turn in answer)) for answer in item["answers"]]
        if len(liked) == 1:
            choice = "good" if liked[0] > 0 else "bad"
        else:
            choice = "first" if liked[0] > liked[1] else "second"
        state = ask("/api/label", {"name": name, "item": item["id"], "choice": choice, "reason": ""})


# --- the commands -------------------------------------------------------------------------------


def kto(folder: Path, *words: object) -> None:
    """Runs `kto WORDS` in `folder` and shows the end of what it says; a command that fails ends the script."""
    session = folder / SESSION
    with session.open("a", encoding="utf-8") as file:
        started = file.tell()
        typed = announce(words, file)
        code = subprocess.run([*KTO, *typed], cwd=folder, stdout=file, stderr=subprocess.STDOUT).returncode
    with session.open("rb") as said:
        said.seek(started)
        lines = said.read().decode("utf-8", "replace").splitlines()[2:]
    print("\n".join(lines[-SHOWN:]), flush=True)
    if code:
        sys.exit(code)


def labelled(folder: Path, *words: object, answer: Callable[[str], None]) -> str:
    """Runs `kto label WORDS --json`, hands its link to `answer`, ends it then and returns its result."""
    with (folder / SESSION).open("a", encoding="utf-8") as file:
        typed = announce(("label", *words, "--port", 0, "--json"), file)
        with subprocess.Popen(
            [*KTO, *typed], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                assert process.stderr is not None
                for line in process.stderr:
                    print(line, end="", file=file)
                    if found := re.search(r"http://\S+/\?token=\w+", line):
                        answer(found[0])
                        break
            finally:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate()
        print(out, err, end="", file=file)
    if process.returncode:
        sys.exit(err)
    for found in json.loads(out)["agreement"]:
        print(f"{' and '.join(found['people'])} agree on {found['agree']} of {found['items']} items.", flush=True)
    return out


def announce(words: Sequence[object], file: TextIO) -> list[str]:
    """Shows a command as it is typed."""
    typed = [str(word) for word in words]
    for place in (sys.stdout, file):
        print(f"\n$ kto {shlex.join(typed)}", file=place, flush=True)
    return typed


def week(number: int, folder: Path, settings: argparse.Namespace, people: Callable[[str], None], judge: str) -> None:
    """From the week's log to the corrected win rate of the week's model."""
    print(f"\n===== week {number} =====", flush=True)
    data, run, labels = f"data/week{number}", f"runs/week{number}", f"labels/week{number}.jsonl"
    kept = ("--keep-split", f"data/week{number - 1}") if number > 1 else ()
    kto(folder, "binarize", f"log:week{number}.csv", *RULES, "--validation", settings.validation, *kept, "--out", data)
    before = f"runs/week{number - 1}" if number > 1 else "reference"
    start = ("--after", before) if number > 1 else (*settings.start, *settings.training)
    kto(folder, "train", *start, "--data", data, "--out", run)
    answers = ("--samples", settings.samples, "--max-new-tokens", settings.tokens)
    kto(folder, "eval", run, *((before,) if number > 1 else ()), *answers)
    said = labelled(folder, run, before, "--out", labels, answer=people)
    (folder / f"labels/week{number}.json").write_text(said, encoding="utf-8")
    asked = ("--judge-url", judge, "--judge-model", settings.judge_model, "--judge-labels", labels)
    kto(folder, "eval", run, *answers, "--against", before, *asked)
    shutil.copytree(folder / run / "eval", folder / f"evals/week{number}")


def release(folder: Path) -> None:
    """The last week's model as a clean folder, served, and compared with what was trained."""
    print("\n===== export, serve, check =====", flush=True)
    words = ("export", f"runs/week{WEEKS[-1]}", "--to", "export")
    missing = [name for name in SERVING if importlib.util.find_spec(name) is None]
    if missing:
        kto(folder, *words)
        print(f"\nNot served: there is no {', '.join(missing)} (pip install 'transformers[serving]').", flush=True)
        return
    with transformers_serve(folder) as url:
        kto(folder, *words, "--check", url)


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """The address of `transformers serve`, which loads the folder that a request names."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    typed = ["serve", "--host", "127.0.0.1", "--port", str(port)]
    print(f"\n$ transformers {shlex.join(typed)} &", flush=True)
    with (folder / SERVER).open("w", encoding="utf-8") as file:
        command = [str(Path(sys.executable).with_name("transformers")), *typed]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None and not is_healthy(f"http://127.0.0.1:{port}/health"):
            time.sleep(0.5)
        if process.returncode is not None:
            sys.exit(f"transformers serve ended; see {folder / SERVER}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def outcome(folder: Path) -> None:
    """Thumbs by the model that answered."""
    print("\n===== did thumbs rise? =====", flush=True)
    kto(folder, "outcome", *(f"week{number}.csv" for number in WEEKS), "--by", "model", *RULES, "--out", "outcome")


# --- the last table -----------------------------------------------------------------------------


def read(folder: Path, *parts: str) -> Any:
    return json.loads(folder.joinpath(*parts).read_text(encoding="utf-8"))


def column(folder: Path, number: int) -> dict[str, str]:
    """What the files of a week say."""
    rows = read(folder, "runs", f"week{number}", "kto_config.json")["data"]
    found = read(folder, "evals", f"week{number}", "metrics.json")["metrics"]
    rate = read(folder, "evals", f"week{number}", "win_rate.json")
    agreement = read(folder, "labels", f"week{number}.json")["agreement"]
    thumbs = read(folder, "outcome", "outcome.json")["versions"][number - 1]
    people = rate["people"]
    return {
        "training rows": f"{rows['train_rows']:,}",
        "validation rows": f"{rows['validation_rows']:,}",
        "AUC": spread(found["auc"], found["auc_interval"]),
        "margin": spread(found["margin"], found["margin_interval"]),
        "win rate": percent(rate["win_rate"], rate["interval"]),
        "corrected": percent(people["win_rate"], people["interval"]) if people["known"] else NOT_KNOWN[people["why"]],
        "kappa": spread(agreement[0]["kappa"], agreement[0]["interval"]) if agreement else "one person",
        "thumbs up": percent(thumbs["share"], thumbs["interval"]),
    }


NOT_KNOWN = {"few": "too few pairs", "guessing": "the judge guesses", "unlike": "pairs are unlike"}
"""Why a win rate is not corrected, in few words."""


def spread(value: float | None, interval: Sequence[float]) -> str:
    if value is None:
        return "undefined"
    low, high = interval
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def percent(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def table(folder: Path) -> str:
    """The three weeks beside each other, with 90 % intervals."""
    columns = [column(folder, number) for number in WEEKS]
    lines = [["", *(f"week {number}" for number in WEEKS)]]
    lines += [[name, *(each[name] for each in columns)] for name in columns[0]]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


# --- all of it ----------------------------------------------------------------------------------


def settings_of(words: Sequence[str] | None) -> argparse.Namespace:
    """What was typed, and what follows from it."""
    parser = argparse.ArgumentParser(description="Three weeks of one product.")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--quick", action="store_true", help="the built-in model")
    model.add_argument("--model", metavar="DIR", help="a model folder or Hub id")
    parser.add_argument("--logs", metavar="DIR", type=Path, help="halueval, xstest, oasst; default: built-in feedback")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("three-weeks"), help="a new folder")
    parser.add_argument("--rows", metavar="N", type=int, default=400, help="rows of a week at most")
    parser.add_argument("--learning-rate", metavar="RATE", help="default: that of kto train")
    parser.add_argument("--people", action="store_true", help="people label, in the browser")
    parser.add_argument("--judge-url", metavar="URL", help="a judge in place of the stand-in; with --judge-model")
    parser.add_argument("--judge-model", metavar="NAME", default="word-counts")
    found = parser.parse_args(words)
    if found.out.exists():
        parser.error(f"{found.out} exists already; give the name of a new folder with --out")
    if found.logs is not None:
        missing = [name for name in LOGS if not any(found.logs.glob(name))]
        if missing:
            parser.error(f"{found.logs} has no {missing[0]}")
    folder = Path(found.model or "").absolute()  # the commands run in the new folder
    found.start = () if found.quick else ("--model", str(folder) if folder.is_dir() else found.model)
    found.training = ("--learning-rate", found.learning_rate) if found.learning_rate else ()
    found.validation, found.samples, found.tokens = 0.3, 48, 40 if found.quick else 128
    return found


def by_hand(link: str) -> None:
    input(f"\nOpen {link}\nTwo people: add &name=ana and &name=ben. Press Enter here when they are done. ")


def main(words: Sequence[str] | None = None) -> None:
    """Plays the three weeks in a new folder."""
    settings = settings_of(words)
    logs = built_in_logs() if settings.logs is None else public_logs(settings.logs)
    (settings.out / "labels").mkdir(parents=True)
    write_logs(settings.out, logs, settings.rows)
    rows = [row for log in logs for row in log]
    tastes = {"ana": Taste(rows[::2]), "ben": Taste(rows[1::2])}

    def people(link: str) -> None:
        for name, taste in tastes.items():
            label_as(name, taste, link)

    with judge_server(Taste(rows[::5])) as stub:
        for number in WEEKS:
            week(number, settings.out, settings, by_hand if settings.people else people, settings.judge_url or stub)
    release(settings.out)
    outcome(settings.out)
    print(f"\n{table(settings.out)}\n\nWin rates are against the model of the week before; intervals are of 90 %.")


if __name__ == "__main__":
    main()
