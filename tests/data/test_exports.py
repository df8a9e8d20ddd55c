"""Exports: what each tool's own documentation and loader ask for, and every row there and back unchanged."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_feedback import Recorder, binarize, both_splits
from trl_step import take_step

from kto_cli.common.binarize_config import FORMATS, BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data.dataset import TRAIN, VALIDATION, Row, load_data_dir, schema
from kto_cli.data.dataset_writer import table_of
from kto_cli.data.formats import halos, llama_factory, trl
from kto_cli.data.formats import records as kinds
from kto_cli.data.formats.source import RawFile, Source
from kto_cli.data.pipeline.export import FORMS, write_exports, write_rows
from kto_cli.data.pipeline.export_pairs import NAME as PAIRS
from kto_cli.data.readers.jsonl import Record
from kto_cli.data.texts import Text

SOURCES = {"trl": trl.SOURCE, "llama-factory": llama_factory.SOURCE, "halos": halos.SOURCE}
Plain = tuple[Text, Text, bool]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12).map(lambda text: text + "x")
"""Any text with something in it; line ends, NUL and quotes among it."""


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@st.composite
def chats(draw: st.DrawFn) -> Plain:
    """A prompt of up to five turns, perhaps after a system message, its answer and label."""
    prompt = [turn("system", draw(TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        prompt += [turn("user", draw(TEXT)), turn("assistant", draw(TEXT))]
    return (*prompt, turn("user", draw(TEXT))), (turn("assistant", draw(TEXT)),), draw(st.booleans())


TEXTS = st.tuples(TEXT, TEXT, st.booleans())
DATA = st.one_of(
    st.tuples(st.just(True), st.lists(chats(), min_size=1, max_size=4), st.lists(chats(), max_size=3)),
    st.tuples(st.just(False), st.lists(TEXTS, min_size=1, max_size=4), st.lists(TEXTS, max_size=3)),
)


def some(count: int, *, chat: bool) -> list[Plain]:
    """`count` rows, two to a prompt, desirable and undesirable in turn."""
    rows: list[Plain] = []
    for number in range(count):
        prompt, answer = f"Question {number // 2}?", f"Answer {number}."
        if chat:
            rows.append(((turn("user", prompt),), (turn("assistant", answer),), number % 2 == 0))
        else:
            rows.append((prompt, answer, number % 2 == 0))
    return rows


def write_data(folder: Path, train: Sequence[Plain], validation: Sequence[Plain], *, chat: bool) -> Path:
    """The Parquet files of a dataset."""
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    for file, rows in ((TRAIN, train), (VALIDATION, validation)):
        whole = [
            Row(f"{file}-{number}", f"p-{hash(str(row[0]))}", None, "s", f"f:{number}", *row)
            for number, row in enumerate(rows)
        ]
        parquet.write_table(table_of(whole, schema(chat=chat)), folder / file, row_group_size=1024)
    return folder


def read_back(source: Source, folder: Path, split: str, *, chat: bool) -> Iterator[Plain]:
    """The rows of an exported file, through the source of its format."""
    lines = source is trl.SOURCE
    path = folder / f"{split}.jsonl" if lines else folder / f"{split}.json"
    file = RawFile(path, path.name)
    config = BinarizeConfig(("x",), text=not chat and source is not halos.SOURCE)
    text = path.read_text(encoding="utf-8")
    values = [json.loads(line) for line in text.split("\n") if line] if lines else json.loads(text)
    for number, value in enumerate(values, start=1):
        for result in source.parse(Record(f"{path.name}:{number}", value), file, config):
            if isinstance(result, kinds.Scored):
                assert result.by_label
                assert result.score in (0, 1)
                yield result.prompt, result.completion, result.score == 1
            else:
                assert isinstance(result, kinds.Output), result
                yield result.prompt, result.completion, result.label


def as_chat(row: Plain) -> Plain:
    prompt, completion, label = row
    return (turn("user", str(prompt)),), (turn("assistant", str(completion)),), label


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@given(DATA)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_comes_back_as_it_was(place, data):
    chat, train, validation = data
    folder = write_data(place / "data", train, validation, chat=chat)
    shutil.rmtree(place / "out", ignore_errors=True)
    llama_factory.column_map.cache_clear()  # the description is another one each time
    counts = write_exports(place / "out", FORMS, folder)
    for tool, source in SOURCES.items():
        for split, rows in (("train", train), ("validation", validation)):
            name = f"{tool}/{split}{'.jsonl' if tool == 'trl' else '.json'}"
            assert (name in counts) == (place / "out" / name).exists() == bool(rows)
            assert counts.get(name, 0) == len(rows)
            expected = [as_chat(row) for row in rows] if tool == "halos" and not chat else list(rows)
            if rows:
                assert list(read_back(source, place / "out" / tool, split, chat=chat)) == expected


@pytest.mark.parametrize("chat", [True, False])
def test_a_split_without_rows_is_not_written(tmp_path, chat):
    """`datasets` and HALOs fail on a file without rows."""
    folder = write_data(tmp_path / "data", some(2, chat=chat), [], chat=chat)
    written = write_exports(tmp_path / "out", FORMS, folder)
    assert written == {"trl/train.jsonl": 2, "llama-factory/train.json": 2, "halos/train.json": 2}
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert found == {*written, "llama-factory/dataset_info.json"}
    assert list(json.loads((tmp_path / "out" / "llama-factory" / "dataset_info.json").read_text())) == ["kto_train"]
    (file,) = llama_factory.raw_files(tmp_path / "out" / "llama-factory")
    assert file.name == "train.json"


def test_only_what_is_asked_for_is_written(tmp_path):
    folder = write_data(tmp_path / "data", some(4, chat=True), some(2, chat=True), chat=True)
    assert write_exports(tmp_path / "out", ["halos", "halos"], folder) == {
        "halos/train.json": 4,
        "halos/validation.json": 2,
    }
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == [
        "halos/train.json",
        "halos/validation.json",
    ]
    assert {*FORMS, PAIRS} == {*FORMATS}


# --- LLaMA-Factory, by its data/README.md -----------------------------------------------------

COLUMNS = {"prompt", "query", "response", "history", "messages", "system", "tools", "images", "videos", "audios"} | {
    *("chosen", "rejected", "kto_tag")
}


def valid_for_llama_factory(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each described dataset, as the documentation says they must be, in the words of its converter."""
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    datasets = {}
    for name, entry in info.items():
        assert set(entry) <= {"file_name", "formatting", "ranking", "columns", "tags"}
        assert entry["formatting"] in ("alpaca", "sharegpt")
        assert set(entry["columns"]) <= COLUMNS
        rows = json.loads((folder / entry["file_name"]).read_text(encoding="utf-8"))
        assert isinstance(rows, list)
        read = []
        for row in rows:
            assert set(row) == set(entry["columns"].values())
            assert isinstance(row[entry["columns"]["kto_tag"]], bool), "another kind is dropped with a warning"
            read.append(sharegpt(row, entry) if entry["formatting"] == "sharegpt" else alpaca(row, entry))
        datasets[name] = read
    return datasets


def sharegpt(row: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """A sharegpt row: human in odd positions, gpt in even ones, the last message the answer; system may come first."""
    assert "tags" not in entry, "the default tags"
    turns = row[entry["columns"]["messages"]]
    assert all(set(turn) == {"from", "value"} and isinstance(turn["value"], str) for turn in turns)
    system = turns[0]["value"] if turns[0]["from"] == "system" else ""
    turns = turns[1:] if turns[0]["from"] == "system" else turns
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    assert turns[-1]["value"], "an empty answer would be read as the other class"
    texts = [turn["value"] for turn in turns]
    return {"system": system, "turns": texts[:-1], "answer": texts[-1], "desirable": row[entry["columns"]["kto_tag"]]}


def alpaca(row: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """An alpaca row: one prompt, one answer."""
    columns = entry["columns"]
    prompt, answer = row[columns["prompt"]], row[columns["response"]]
    assert isinstance(prompt, str)
    assert isinstance(answer, str)
    assert prompt
    assert answer
    return {"system": "", "turns": [prompt], "answer": answer, "desirable": row[columns["kto_tag"]]}


@given(DATA)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_llama_factory_files_are_as_documented(place, data):
    chat, train, validation = data
    folder = write_data(place / "data", train, validation, chat=chat)
    write_exports(place / "documented", ["llama-factory"], folder, name="mine")
    datasets = valid_for_llama_factory(place / "documented" / "llama-factory")
    assert list(datasets) == ["mine_train", "mine_validation"] if validation else ["mine_train"]
    for name, rows in (("mine_train", train), ("mine_validation", validation)):
        for row, (prompt, completion, label) in zip(datasets.get(name, []), rows, strict=True):
            texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
            assert [text for text in [row["system"], *row["turns"]] if text] == texts
            assert row["answer"] == (completion if isinstance(completion, str) else completion[0]["content"])
            assert row["desirable"] is label


def test_an_answer_of_several_messages_is_refused_where_its_last_alone_would_be_taken(tmp_path):
    prompt, answers = (turn("user", "Q"),), (turn("assistant", "A"), turn("assistant", "B"))
    folder = write_data(tmp_path / "data", [(prompt, answers, True)], [], chat=True)
    with pytest.raises(BadInput, match="f:0 has 2 messages"):
        write_exports(tmp_path / "out", ["llama-factory"], folder)


# --- HALOs, by get_feedback of its train/dataloader.py ----------------------------------------


def read_as_halos(path: Path, split: str) -> dict[str, dict[str, list[Any]]]:
    """Prompt in one text -> its generations, labels and scores; keys that must be there are read without a default."""
    examples: dict[str, dict[str, list[Any]]] = defaultdict(lambda: {"outputs": [], "desirable": [], "scores": []})
    for item in json.loads(path.read_text(encoding="utf-8")):
        if item.get("split", split) != split:
            continue
        assert item["type"] == "binary_feedback"
        assert isinstance(item["prompt_id"], str)
        example = examples[" ".join(message["content"] for message in item["prompt"])]
        assert [message["role"] for message in item["output"]] == ["assistant"]
        example["outputs"].append(item["output"][0]["content"])
        example["desirable"].append(bool(item["label"]))
        example["scores"].append(item["reward"])
    return examples


@pytest.mark.parametrize("chat", [True, False])
def test_halos_files_are_read_as_halos_reads_them(tmp_path, chat):
    folder = write_data(tmp_path / "data", some(4, chat=chat), some(2, chat=chat), chat=chat)
    write_exports(tmp_path / "out", ["halos"], folder)
    train = tmp_path / "out" / "halos" / "train.json"
    assert read_as_halos(train, "train") == {
        "Question 0?": {"outputs": ["Answer 0.", "Answer 1."], "desirable": [True, False], "scores": [1.0, 0.0]},
        "Question 1?": {"outputs": ["Answer 2.", "Answer 3."], "desirable": [True, False], "scores": [1.0, 0.0]},
    }
    assert read_as_halos(train, "test") == {}
    assert list(read_as_halos(train.with_name("validation.json"), "test")) == ["Question 0?"]


# --- OpenAI's preference file, by its guide -----------------------------------------------------


def pairs_of_openai(path: Path) -> list[tuple[list[dict[str, str]], str, str]]:
    """(messages, preferred text, other text) of each line, whose fields are those of the guide."""
    found = []
    for line in path.read_text(encoding="utf-8").removesuffix("\n").split("\n"):
        value = json.loads(line)
        assert set(value) == {"input", "preferred_output", "non_preferred_output"}
        assert set(value["input"]) == {"messages", "tools", "parallel_tool_calls"}
        sides = []
        for side in ("preferred_output", "non_preferred_output"):
            [message] = value[side]
            assert message["role"] == "assistant"
            sides.append(message["content"])
        found.append((value["input"]["messages"], *sides))
    return found


@given(pairs=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=2, max_size=6, unique_by=lambda pair: pair[0]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairs_come_back_through_the_source_of_their_format(place, pairs):
    pairs = [(prompt, f"{better}1", f"{worse}2") for prompt, better, worse in pairs]
    lines = [{"prompt": prompt, "chosen": better, "rejected": worse} for prompt, better, worse in pairs]
    lines += [{"prompt": f"alone {number}", "completion": "x", "label": number == 0} for number in range(2)]
    path, out, again = place / "pairs.jsonl", place / "pairs", place / "again"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[: len(pairs)]), encoding="utf-8")
    single = place / "single.jsonl"
    single.write_text("".join(json.dumps(line) + "\n" for line in lines[len(pairs) :]), encoding="utf-8")
    result = binarize(*(str(path), str(single)), out=out, validation=0.0, formats=(PAIRS, "trl"), overwrite=True)
    file = out / PAIRS / "train.jsonl"
    asked = [([turn("user", prompt)], better, worse) for prompt, better, worse in pairs]
    assert sorted(pairs_of_openai(file), key=str) == sorted(asked, key=str)
    assert result["exports"] == {f"{PAIRS}/train.jsonl": len(pairs), "trl/train.jsonl": 2 * len(pairs) + 2}
    assert result["exports_left_out"] == {f"{PAIRS}/train.jsonl": 2}
    binarize(f"openai-preference:{file}", out=again, validation=0.0, overwrite=True)

    def texts(folder: Path) -> list[Any]:
        return sorted((row["id"], row["label"]) for row in both_splits(folder) if row["pair_id"])

    assert texts(again) == texts(out)


def test_a_row_whose_partner_was_sampled_away_is_left_out_and_counted(tmp_path):
    lines = [{"prompt": f"Q{k}", "chosen": f"A{k}", "rejected": f"B{k}"} for k in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    screen = Recorder()
    result = binarize(
        str(tmp_path / "pairs.jsonl"),
        out=tmp_path / "out",
        validation=0.0,
        formats=(PAIRS,),
        screen=screen,
        keep_undesirable=0.5,
    )
    assert result["exports"] == {f"{PAIRS}/train.jsonl": 10}
    assert result["exports_left_out"] == {f"{PAIRS}/train.jsonl": 10}
    assert load_data_dir(tmp_path / "out").manifest["exports_left_out"] == result["exports_left_out"]
    assert not (tmp_path / "out" / PAIRS / "validation.jsonl").exists()


def test_without_any_pair_nothing_is_written(tmp_path):
    rows = [{"prompt": f"Q{k}", "completion": "A", "label": k % 2 == 0} for k in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=r"No two rows of the dataset are a pair.*Remove --format openai-preference"):
        binarize(str(tmp_path / "rows.jsonl"), out=tmp_path / "out", formats=(PAIRS,))
    assert not (tmp_path / "out").exists()


# --- loading and memory -----------------------------------------------------------------------


@pytest.mark.parametrize("chat", [True, False])
def test_datasets_loads_every_file(tmp_path, chat):
    import datasets

    folder = write_data(tmp_path / "data", some(6, chat=chat), some(2, chat=chat), chat=chat)
    counts = write_exports(tmp_path / "out", FORMS, folder)
    for name, rows in counts.items():
        path = str(tmp_path / "out" / name)
        loaded = datasets.load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == rows
    train = datasets.load_dataset(
        "json",
        data_files=str(tmp_path / "out" / "trl" / "train.jsonl"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert train["label"][:] == [True, False] * 3
    assert train[1]["prompt"] == ([turn("user", "Question 0?")] if chat else "Question 0?")


@pytest.mark.parametrize("chat", [True, False])
def test_trl_takes_a_step_on_its_export(tmp_path, chat):
    pytest.importorskip("trl")
    folder = write_data(tmp_path / "data", some(8, chat=chat), some(2, chat=chat), chat=chat)
    write_exports(tmp_path / "out", ["trl"], folder)
    step = take_step(tmp_path / "out" / "trl", SAMPLE / "model")
    assert step["rows"] == {"validation": 2, "train": 8}
    assert step["labels"] == [True, False] * 4
    assert step["loss"] == pytest.approx(0.5)  # the policy is the reference at the first step
    assert "Question 0?" in step["prompt"]
    assert step["completion"].strip().startswith("Answer 0.")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_values_are_written_one_by_one(tmp_path, suffix):
    """200 values of 100 kB: 20 MB go through, one at a time is held."""
    values = ({"text": str(number) * 100_000} for number in range(200))
    tracemalloc.start()
    write_rows(tmp_path / f"rows{suffix}", values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert (tmp_path / f"rows{suffix}").stat().st_size > 20e6
    assert (tmp_path / f"rows{suffix}").read_text().count('"text"') == 200
