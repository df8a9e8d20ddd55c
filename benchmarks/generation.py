"""Generation throughput: continuous batching, padded batches and one prompt at a time (and vLLM, where installed).

    python benchmarks/generation.py                                  # the built-in model and a Llama of 31M weights
    python benchmarks/generation.py --model FOLDER --prompts 64 --repeats 5 --json

All ways answer the same prompts with the same draws, in turns in one process; the first turn warms up and does not
count. Answers of unequal length, as models give them, decide between the ways, so one token in --mean-length of the
vocabulary ends an answer. Tokens are those of the answers, never padding. Processor seconds stand beside wall seconds:
on a busy machine they are the fairer of the two (with one thread).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from versus_trl.shapes import BODY_HEAVY, llama

from kto_cli.common import files
from kto_cli.evaluation.answers.continuous import Continuous
from kto_cli.evaluation.answers.padded import Padded
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.model.lengths import context_length
from kto_cli.model.load import load_model, load_tokenizer


class OneByOne(Padded):
    """`generate` with one prompt, then with the next."""

    name = "one by one"

    def answers(self, questions: Sequence[Question], decoding: Decoding) -> Iterator[tuple[int, Answer]]:
        """In their order."""
        for place, question in enumerate(questions):
            for _, answer in super().answers([question], decoding):
                yield place, answer


def main() -> None:
    """Measures every model and prints a table."""
    options = arguments()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="kto-generation-") as folder:
        found = {name: measured(subject, options) for name, subject in subjects(options, Path(folder)).items()}
    if options.json:
        print(json.dumps({"machine": machine(options), "models": found}))
        return
    print(json.dumps(machine(options)))
    for name, ways in found.items():
        print(f"\n{name}")
        for way, numbers in ways.items():
            print(
                f"  {way:<11} {numbers['tokens_per_second']:8.0f} tokens/s  x{numbers['against_one_by_one']:.2f}  "
                f"{numbers['tokens_per_cpu_second']:8.0f} tokens/processor second"
            )


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", action="append", help="a model folder (repeatable); default: two built-in ones")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--mean-length", type=int, default=48, help="of answers, where tokens are equally likely")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ways", nargs="+", default=["continuous", "padded", "one by one", "vllm"])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


def subjects(options: argparse.Namespace, folder: Path) -> dict[str, AnsweringModel]:
    """The models, loaded."""
    built_in = files.sample_data() / "model"
    names = options.model or [str(built_in), "body-heavy"]
    found = {}
    for name in names:
        place = Path(name)
        if name == "body-heavy":
            place = folder / name
            torch.manual_seed(0)
            llama(BODY_HEAVY, max_position_embeddings=1024).save_pretrained(place)
        model = load_model(place).to(options.device)
        source = built_in if name == "body-heavy" else place
        tokenizer, _ = load_tokenizer(source, chat_template=None, trust_remote_code=False)
        ends = tuple(range(5, model.config.vocab_size, options.mean_length))
        found[place.name] = AnsweringModel(
            name, place, tokenizer, ends, context_length(model.config), lambda model=model: model
        )
    return found


def measured(subject: AnsweringModel, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Medians of each way."""
    decoding = Decoding(options.max_new_tokens, options.temperature)
    questions = prompts(subject, options.prompts)
    ways: dict[str, Any] = {
        "continuous": Continuous(subject),
        "padded": Padded(subject),
        "one by one": OneByOne(subject),
    }
    if importlib.util.find_spec("vllm"):
        from kto_cli.evaluation.answers.vllm import Vllm

        ways["vllm"] = Vllm(subject)
    ways = {name: engine for name, engine in ways.items() if name in options.ways}
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for turn in range(options.repeats + 1):
        for name, engine in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            tokens = sum(answer.tokens for _, answer in engine.answers(questions, decoding))
            if turn:
                times[name].append((time.perf_counter() - wall, time.process_time() - processor, tokens))
    return compared({name: rates(runs) for name, runs in times.items()})


def prompts(subject: AnsweringModel, count: int) -> list[Question]:
    """Random tokens, of 8 to 128."""
    chosen = random.Random(0)
    vocabulary = subject.model().config.vocab_size
    lengths = [chosen.randint(8, 128) for _ in range(count)]
    return [
        Question(str(n), [chosen.randrange(3, vocabulary - 1) for _ in range(m)], "") for n, m in enumerate(lengths)
    ]


def rates(runs: list[tuple[float, float, int]]) -> dict[str, Any]:
    """Medians over the runs."""
    return {
        "tokens_per_second": statistics.median(tokens / wall for wall, _, tokens in runs),
        "tokens_per_cpu_second": statistics.median(tokens / processor for _, processor, tokens in runs),
        "seconds": [wall for wall, _, _ in runs],
        "tokens": runs[0][2],
    }


def compared(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With each way's speed over that of one by one (or of the slowest, if that is left out)."""
    base = found.get("one by one") or min(found.values(), key=lambda numbers: numbers["tokens_per_second"])
    for numbers in found.values():
        numbers["against_one_by_one"] = numbers["tokens_per_second"] / base["tokens_per_second"]
    return found


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What was measured on."""
    gpu = torch.cuda.get_device_name() if options.device.startswith("cuda") else None
    return {"machine": platform.platform(), "torch": torch.__version__, "threads": options.threads, "gpu": gpu}


if __name__ == "__main__":
    main()
