"""Every real feedback file through the command line: counts, and every row found again in the raw file by its origin.

The raw files are read here a second time, by parsers of a few lines that share nothing with the sources. Their rows,
(origin, prompt, answer, label), have to be those of the Parquet files to the last one: none missing, none twice.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from shared import shared

Chat = tuple[tuple[str, str], ...]
Row = tuple[str, Chat, str, bool]
"""(origin, prompt as (role, text) turns, answer, label)"""


class Case(NamedTuple):
    """A real file, how it is given to `kto binarize`, and what has to come of it."""

    place: str
    """Below the shared data folder."""
    source: str
    flags: tuple[str, ...]
    oracle: Callable[[Path], Iterator[Row]]
    records: int
    rows: int
    desirable: int
    """Validation ones included; so for the next."""
    undesirable: int
    dropped: dict[str, int] = {}  # noqa: RUF012
    rejected: dict[str, int] = {}  # noqa: RUF012


# --- the raw files, read a second time --------------------------------------------------------


def objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(origin, object) of JSON lines."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    for number, line in enumerate(text.split("\n"), start=1):
        if line:
            yield f"{path.name}:{number}", json.loads(line)


def items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(origin, object) of a JSON array."""
    for number, item in enumerate(json.loads(path.read_text(encoding="utf-8")), start=1):
        yield f"{path.name}:item {number}", item


def cells(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(origin, cells) of a CSV file: the origin is the line that a row starts in."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        start = reader.line_num + 1
        for row in reader:
            yield f"{path.name}:{start}", dict(zip(header, row, strict=True))
            start = reader.line_num + 1


def hh_turns(text: str) -> Chat:
    """The turns of one conversation of hh-rlhf; () where text stands before the first of them."""
    for role, marker in (("user", "\n\nHuman:"), ("assistant", "\n\nAssistant:")):
        text = text.replace(marker, f"\0{role}\0")
    before, *parts = text.split("\0")
    contents = [part[1:] if part[:1] == " " else part for part in parts[1::2]]
    return () if before else tuple(zip(parts[::2], map(str.rstrip, contents), strict=True))


def hh_rlhf(path: Path) -> Iterator[Row]:
    """Pairs whose turns take turns, share a prompt, and have two answers."""
    for origin, line in objects(path):
        chosen, rejected = hh_turns(line["chosen"]), hh_turns(line["rejected"])
        roles = ["user", "assistant"] * (len(chosen) // 2)
        sound = chosen[:-1] == rejected[:-1] and [role for role, _ in chosen] == roles
        if sound and all(text for _, text in (*chosen, *rejected)):
            yield origin, chosen[:-1], chosen[-1][1], True
            yield origin, chosen[:-1], rejected[-1][1], False


def oasst_replies(path: Path) -> Iterator[tuple[Chat, list[tuple[str, dict[str, Any]]]]]:
    """(prompt, its replies with their origins); a line is a tree or its first message, replies nested."""

    def below(message: dict[str, Any], thread: Chat, origin: str) -> Iterator[Any]:
        thread = (*thread, ({"prompter": "user"}.get(message["role"], message["role"]), message["text"]))
        if message["role"] == "prompter":
            yield thread, [(f"{origin} message {reply['message_id']}", reply) for reply in message["replies"]]
        for reply in message["replies"]:
            yield from below(reply, thread, origin)

    for origin, line in objects(path):
        yield from below(line.get("prompt", line), (), origin)


def oasst_ranks(path: Path) -> Iterator[Row]:
    """The best and the worst of two or more ranked replies."""
    for prompt, replies in oasst_replies(path):
        ranked = sorted(
            (reply["rank"], origin, reply["text"]) for origin, reply in replies if reply.get("rank") is not None
        )
        if len(ranked) > 1:
            yield ranked[0][1], prompt, ranked[0][2], True
            yield ranked[-1][1], prompt, ranked[-1][2], False


def oasst_thumbs(path: Path) -> Iterator[Row]:
    """Replies with more thumbs up than down, or fewer."""
    for prompt, replies in oasst_replies(path):
        for origin, reply in replies:
            emojis = reply.get("emojis") or {}
            score = emojis.get("+1", 0) - emojis.get("-1", 0)
            if score:
                yield origin, prompt, reply["text"], score > 0


def halueval(path: Path) -> Iterator[Row]:
    """Answers that people marked as hallucinating, or not."""
    for origin, line in objects(path):
        label = {"no": True, "yes": False}[line["hallucination"]]
        yield origin, (("user", line["user_query"]),), line["chatgpt_response"], label


def llmbar(path: Path) -> Iterator[Row]:
    """Two outputs, the better one by its number."""
    for origin, item in items(path):
        outputs = {number: item[f"output_{number}"] for number in (1, 2)}
        if outputs[1] != outputs[2] and all(text.strip() for text in outputs.values()):
            for number, text in outputs.items():
                yield origin, (("user", item["input"]),), text, number == item["label"]


def xstest(path: Path) -> Iterator[Row]:
    """Completions that comply in full, or refuse in full."""
    for origin, row in cells(path):
        if row["final_label"] != "3_partial_refusal":
            yield origin, (("user", row["prompt"]),), row["completion"], row["final_label"].startswith("1_full_com")


def llama_factory_kto(path: Path) -> Iterator[Row]:
    """Chats with a label."""
    for origin, item in items(path):
        turns = [(turn["role"], turn["content"]) for turn in item["messages"]]
        yield origin, tuple(turns[:-1]), turns[-1][1], item["label"]


def llama_factory_dpo(path: Path) -> Iterator[Row]:
    """Chats with two answers."""
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    for origin, item in items(path):
        prompt = tuple((names[turn["from"]], turn["value"]) for turn in item["conversations"])
        yield origin, prompt, item["chosen"]["value"], True
        yield origin, prompt, item["rejected"]["value"], False


# --- what has to come of them -----------------------------------------------------------------

THUMBS = ("--score", "thumbs", "--threshold", "0", "--margin", "0.5")
HALUEVAL = (
    *("--prompt-column", "user_query", "--completion-column", "chatgpt_response"),
    *("--desirable", "hallucination == 'no'", "--undesirable", "hallucination == 'yes'"),
)
LLMBAR = (
    *("--prompt-column", "input", "--completion-column", "output_1", "--other-column", "output_2"),
    *("--desirable", "label == 1", "--undesirable", "label == 2"),
)
XSTEST = ("--desirable", "final_label == '1_full_compliance'", "--undesirable", "final_label == '2_full_refusal'")
# 641 replies to 212 prompts are ranked, so 424 are best or worst and 217 between; 46 more are not ranked
OASST = {"ranked_between": 217, "only_reply": 40, "unranked": 6}
NO_THUMBS = {"no_thumbs": 232, "undecided": 25}


def oasst(name: str) -> list[Case]:
    """By ranks and by thumbs: 687 replies in both forms."""
    place = f"oasst/en_100_{name}.jsonl"
    return [
        Case(place, "oasst", (), oasst_ranks, 100, 687, 212, 212, OASST),
        Case(place, "oasst", THUMBS, oasst_thumbs, 100, 687, 334, 96, NO_THUMBS),
    ]


def two_outputs(name: str, pairs: int, rejected: dict[str, int] | None = None) -> Case:
    """A file of llmbar; two rows each record, one of each class."""
    each = pairs - sum((rejected or {}).values()) // 2
    return Case(f"llmbar/{name}.json", "log", LLMBAR, llmbar, pairs, 2 * pairs, each, each, {}, rejected or {})


def refusals(model: str, comply: int, refuse: int, between: int) -> Case:
    """A file of xstest."""
    place = f"xstest/xstest_v2_completions_{model}_gpteval.csv"
    return Case(place, "log", XSTEST, xstest, 450, 450, comply, refuse, {"matches_neither": between})


CASES = [
    # 2,312 pairs, of which 5 differ before the answer, 4 have the roles wrong and 4 an empty answer
    Case(
        *("hh-rlhf/harmless-base_test.jsonl.gz", "hh-rlhf", (), hh_rlhf, 2312, 4624, 2299, 2299, {}),
        {"prompts_differ": 10, "empty_answer": 8, "roles_do_not_alternate": 8},
    ),
    *oasst("tree"),
    *oasst("message"),
    Case("halueval/general_data.json", "log", HALUEVAL, halueval, 4507, 4507, 3692, 815),
    two_outputs("LLMBar_Adversarial_GPTInst", 92),
    two_outputs("LLMBar_Adversarial_GPTOut", 47),
    two_outputs("LLMBar_Adversarial_Manual", 46),
    two_outputs("LLMBar_Adversarial_Neighbor", 134),
    two_outputs("LLMBar_Natural", 100),
    two_outputs("Processed_FairEval", 66),
    two_outputs("Processed_LLMEval2", 200, {"answers_identical": 2, "empty_answer": 2}),
    two_outputs("Processed_MT-Bench", 200),
    refusals("gpt4", 230, 211, 9),
    refusals("llama2new", 176, 230, 44),
    refusals("llama2orig", 101, 294, 55),
    refusals("mistralguard", 210, 199, 41),
    refusals("mistralinstruct", 374, 49, 27),
    Case("llama-factory/kto_en_demo.json", "llama-factory", (), llama_factory_kto, 300, 300, 150, 150),
    Case("llama-factory/dpo_en_demo.json", "llama-factory", (), llama_factory_dpo, 300, 600, 300, 300),
]


def called(case: Case) -> str:
    """The name of a case."""
    return f"{Path(case.place).name.split('.')[0]}{' by thumbs' if case.flags == THUMBS else ''}"


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def as_row(row: dict[str, Any]) -> Row:
    """A written row as the oracle spells it."""
    (answer,) = row["completion"]
    assert answer["role"] == "assistant"
    prompt = tuple((turn["role"], turn["content"]) for turn in row["prompt"])
    return row["origin"], prompt, answer["content"], row["label"]


@pytest.mark.parametrize("case", CASES, ids=called)
def test_every_row_of_a_real_file_is_accounted_for(case, kto, tmp_path):
    path = shared("data", case.place)
    result = kto(
        "binarize", f"{case.source}:{path}", *case.flags, "--validation", 0, "--out", tmp_path / "set", "--json"
    ).json

    assert (result["lines_in"], result["rows_in"]) == (case.records, case.rows)
    both = [result["splits"][name] for name in ("train", "validation")]
    assert sum(split["desirable"] for split in both) == case.desirable
    assert sum(split["undesirable"] for split in both) == case.undesirable
    assert result["dropped_reasons"] == case.dropped
    assert result["rejected"] == case.rejected
    lost = sum(case.dropped.values()) + sum(case.rejected.values())
    assert case.rows == case.desirable + case.undesirable + lost

    train, validation = table(tmp_path / "set/train.parquet"), table(tmp_path / "set/validation.parquet")
    assert (len(train), len(validation)) == (result["desirable"] + result["undesirable"], result["validation"])
    assert not {row["prompt_id"] for row in train} & {row["prompt_id"] for row in validation}
    assert Counter(map(as_row, [*train, *validation])) == Counter(case.oracle(path))
    assert len({row["id"] for row in (*train, *validation)}) == len(train) + len(validation)

    lines = [json.loads(line) for line in (tmp_path / "set/rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    for kind, expected in (("dropped", case.dropped), ("rejected", case.rejected)):
        found: Counter[str] = Counter()
        for line in lines:
            if line["kind"] == kind:
                found[line["reason"]] += line["rows"]
        assert found == expected
    # what was rejected leads back to the raw line
    raw = dict(objects(path)) if case.source == "hh-rlhf" else {}
    assert all(json.loads(line["raw"]) == raw[line["origin"]] for line in lines if raw)


def test_pairs_of_real_files_are_one_of_each_label(kto, tmp_path):
    """Both rows of a pair have one pair id, one prompt, and are on one side of the split."""
    path = shared("data", "hh-rlhf", "harmless-base_test.jsonl.gz")
    kto("binarize", f"hh-rlhf:{path}", "--out", tmp_path / "set")
    for name in ("train", "validation"):
        rows = table(tmp_path / f"set/{name}.parquet")
        assert Counter(Counter(row["pair_id"] for row in rows).values()) == {2: len(rows) // 2}
        sides = {(row["pair_id"], row["prompt_id"], row["origin"]): set() for row in rows}
        assert len(sides) == len(rows) // 2
        for row in rows:
            sides[row["pair_id"], row["prompt_id"], row["origin"]].add(row["label"])
        assert all(labels == {True, False} for labels in sides.values())


def test_real_trees_and_messages_are_the_same_dataset(kto, tmp_path):
    """Two forms of the same feedback: the same rows with the same ids, on the same side of the split."""
    for name in ("tree", "message"):
        path = shared("data", "oasst", f"en_100_{name}.jsonl")
        kto("binarize", f"oasst:{path}", "--out", tmp_path / name)
    for file in ("train.parquet", "validation.parquet"):
        one, other = (table(tmp_path / name / file) for name in ("tree", "message"))
        for row in (*one, *other):
            row["origin"] = row["origin"].partition(":")[2]
        assert one == other
