"""Judge throughput: verdicts a second by number of workers, what one costs besides waiting, and reading them back.

    python benchmarks/judging.py                               # 1, 4, 8 and 16 workers, a server that takes 0.2 s
    python benchmarks/judging.py --latency 0 --questions 400   # the overhead alone
    python benchmarks/judging.py --json

The server is a process of its own on this machine that answers each question after a fixed time, any number at once: so
the best possible is workers / latency. A verdict is one reply to one question in one order.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kto_cli.evaluation.judge.comparisons import Comparison
from kto_cli.evaluation.judge.judge import judge_all
from kto_cli.evaluation.judge.server_judge import ServerJudge
from kto_cli.evaluation.judge.store import VerdictStore
from kto_cli.evaluation.server.client import CallBudget, ChatServer

ANSWER = " ".join(["A sentence of an answer, as long as many are."] * 12)


def main() -> None:
    """Measures each number of workers on questions of its own, then a second run from the cache."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--latency", type=float, default=0.2, help="seconds the server takes")
    parser.add_argument("--questions", type=int, default=0, help="per measurement; default: about 4 seconds of them")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--read", type=int, default=10_000, help="verdicts to read back from the cache")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, options.latency), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    try:
        rows = [measure(url, workers, options) for workers in options.workers]
    finally:
        server.terminate()
    found = {"latency": options.latency, "workers": rows, "cache": read_back(options.read)}
    print(json.dumps(found) if options.json else table(found))


def serve(pipe: Connection, latency: float) -> None:
    """A thread per connection; each answers "Verdict: A" after `latency` seconds."""
    reply = {"choices": [{"message": {"role": "assistant", "content": "Verdict: A"}, "finish_reason": "stop"}]}
    body = json.dumps(reply).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(latency)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    pipe.send(server.server_port)
    server.serve_forever()


def comparisons(count: int, what: str) -> list[Comparison]:
    """Some comparisons of two questions each, with answers of about 100 words."""
    return [Comparison(f"{n}", f"{what} {n}?", f"Ours {n}. {ANSWER}", f"Theirs {n}. {ANSWER}") for n in range(count)]


def measure(url: str, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Verdicts a second with so many workers, and seconds a verdict took beyond the server's own."""
    count = options.questions or int(min(400, max(20, 4 * workers / max(options.latency, 0.01))))
    some = comparisons((count + 1) // 2, f"With {workers}")
    with tempfile.TemporaryDirectory(prefix="kto-judge-") as cache:
        client = ChatServer(url, calls=CallBudget(10 * count))
        judge = ServerJudge(client, "judge")
        store = VerdictStore(Path(cache), judge.identity)
        busy, began = time.process_time(), time.perf_counter()
        judge_all(judge, some, store, workers=workers)
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        client.close()
    asked = 2 * len(some)
    return {
        "workers": workers,
        "verdicts": asked,
        "per_second": asked / seconds,
        "best_possible": workers / options.latency if options.latency else None,
        "overhead_ms": 1000 * (seconds * workers / asked - options.latency),
        "processor_ms": 1000 * busy / asked,
    }


def read_back(count: int) -> dict[str, Any]:
    """Verdicts a second of a run that finds all of them in the cache, opening it included."""
    some = comparisons(count // 2, "Read")
    client = ChatServer("http://127.0.0.1:9", calls=CallBudget(0))
    with tempfile.TemporaryDirectory(prefix="kto-judge-") as cache:
        judge = ServerJudge(client, "judge")
        store = VerdictStore(Path(cache), judge.identity)
        value = {"verdict": "A", "reply": "Verdict: A"}
        store.add([(store.key(*asked), value) for comparison in some for asked in judge.asked(comparison)])
        began = time.perf_counter()
        judge_all(judge, some, VerdictStore(Path(cache), judge.identity))
        seconds = time.perf_counter() - began
    client.close()
    return {"verdicts": 2 * len(some), "per_second": 2 * len(some) / seconds}


def table(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"server latency {found['latency']:g} s", "workers  verdicts/s  of best  overhead ms  processor ms"]
    for row in found["workers"]:
        share = f"{row['per_second'] / row['best_possible']:7.0%}" if row["best_possible"] else "      -"
        numbers = f"{row['per_second']:10.1f}  {share}  {row['overhead_ms']:11.1f}  {row['processor_ms']:12.2f}"
        lines.append(f"{row['workers']:7d}  {numbers}")
    cache = found["cache"]
    return "\n".join(
        [*lines, f"from the cache: {cache['per_second']:,.0f} verdicts/s ({cache['verdicts']:,} verdicts)"]
    )


if __name__ == "__main__":
    main()
