"""What names a source, and what comes from the Hub: downloaded, from its cache, or not at all and why."""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from binarizing import Recorder, binarize, bot, read, user, write_lines

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.errors import BadInput
from kto_cli.data import hub, select
from kto_cli.data.formats.records import Output
from kto_cli.data.registry import MODULES, source
from kto_cli.data.select import choose, default_name, split_name

# --- the Hub ----------------------------------------------------------------------------------


def test_a_dataset_of_the_hub_goes_the_same_way(tmp_path, monkeypatch):
    """`datasets` reads a local folder as it reads a Hub id."""
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"prompt": "Q", "completion": "A", "label": True, "more": 1}, {"prompt": "Q"}]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    fetch = hub.table_records
    monkeypatch.setattr(hub, "table_records", lambda hub_id: fetch({"owner/name": str(folder)}[hub_id]))
    feedback = read(tmp_path / "spool", "owner/name")
    assert feedback.items == [Output((user("Q"),), (bot("A"),), True, f"{folder}:row 1", "Q")]
    assert [(reject.origin, reject.reason) for reject in feedback.rejects] == [(f"{folder}:row 2", "label_missing")]


def test_offline_is_known_without_asking(monkeypatch):
    monkeypatch.setattr(hub, "answers", lambda endpoint: pytest.fail("asked"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.why_unreachable() == "HF_HUB_OFFLINE is set"
    with pytest.raises(hub.Unreachable):
        hub.snapshot("Anthropic/hh-rlhf-that-no-cache-has", ["*.jsonl"], ["harmless-base"])
    with pytest.raises(BadInput, match="the Hub cannot be reached"):
        hub.table_records("owner/name")


def test_an_address_that_does_not_answer_is_offline_quickly():
    assert not hub.answers("http://127.0.0.1:9", seconds=2)
    assert not hub.answers("nonsense", seconds=2)


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (404, True), (429, True), (403, False), (503, False)])
def test_a_wall_or_a_hub_that_is_down_is_offline(status, reachable):
    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert hub.answers(f"http://127.0.0.1:{server.server_port}") is reachable


def test_what_names_a_source():
    assert select._is_hub_id("owner/name")
    assert select._is_hub_id("owner/v1.5")
    assert not any(map(select._is_hub_id, ("a/b/c", "./x", "x", "owner/a.csv", "a.csv", "owner/")))
    names = ("hh-rlhf", "Anthropic/hh-rlhf", "logs/thumbs.csv.gz", "a.parquet", "owner/v1.5", "log:a/b.csv", "shp:x")
    found = [default_name([name]) for name in names]
    assert found == ["hh-rlhf", "hh-rlhf", "thumbs", "a", "v1.5", "b", "shp"]
    assert default_name(["shp", "hh-rlhf"]) == "mix"


def test_every_source_is_named_as_it_says_and_its_hub_ids_are_its_own():
    hub_ids = [hub_id for name in MODULES for hub_id in source(name).hub_ids]
    assert len(set(hub_ids)) == len(hub_ids) >= 8
    for name in MODULES:
        assert source(name).name == name
        assert split_name(name) == (name, None)
        assert split_name(f"{name}:a/b.jsonl") == (name, "a/b.jsonl")
        assert all(split_name(hub_id) == (name, None) for hub_id in source(name).hub_ids)
    assert split_name("a.jsonl") == split_name("owner/name") == (None, None)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("nothing", {}, "neither a known source"),
        ("missing.csv", {}, "missing.csv does not exist"),
        ("a/b/c", {}, "does not exist"),
        ("hh-rlfh", {}, "hh-rlfh is neither a known source nor a file. Did you mean hh-rlhf?"),
        ("oast:trees.jsonl", {}, "oast:trees.jsonl is neither a known source nor a file. Did you mean oasst?"),
        ("hh-rlhf", {"text": True}, "--text does not apply to hh-rlhf"),
        ("shp", {"label_column": "x"}, "--label-column does not apply to shp"),
        ("owner/name", {"label_column": "x"}, "--label-column does not apply to trl"),
        ("missing.csv", {"label_column": "x"}, "missing.csv does not exist"),
        ("missing.csv", {"from_path": "x"}, "--from goes with a named source"),
        ("missing.csv", {"subsets": ("x",)}, "--subset goes with a named source"),
        ("log", {}, "log needs a file. Write log:FILE"),
        ("shp", {}, "the Hub cannot be reached (HF_HUB_OFFLINE is set), and stanfordnlp/SHP is not in its cache"),
        ("shp:a.jsonl", {"from_path": "b.jsonl"}, "shp:a.jsonl has a path, and --from gives another one"),
    ],
)
def test_sources_that_are_none(tmp_path, monkeypatch, name, options, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=re.compile(re.escape(says), re.IGNORECASE)):
        choose(BinarizeConfig((name,), **options))


def test_from_goes_with_one_source():
    with pytest.raises(BadInput, match="--from goes with one source"):
        choose(BinarizeConfig(("shp", "hh-rlhf"), from_path="x"))
    with pytest.raises(BadInput, match="No source is given"):
        choose(BinarizeConfig(()))


# --- offline ----------------------------------------------------------------------------------


def hh_pair(number: int) -> dict[str, str]:
    head = f"\n\nHuman: Question {number}?\n\nAssistant:"
    return {"chosen": f"{head} Gladly {number}.", "rejected": f"{head} No {number}."}


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """The Hub's cache, with nothing in it and nobody to fill it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "why_unreachable", lambda: "no answer")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def in_cache(cache: Path, hub_id: str, *files: str) -> Path:
    """A copy of a dataset as huggingface_hub keeps it."""
    folder = cache / f"datasets--{hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    for file in files:
        write_lines(folder / "snapshots" / "abc" / file, *map(hh_pair, range(8)))
    return folder / "snapshots" / "abc"


def fake_sample(folder: Path) -> Path:
    path = folder / "hh-rlhf" / "harmless-base" / "train.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("".join(json.dumps(hh_pair(number)) + "\n" for number in range(20)).encode()))
    return folder


def test_offline_falls_back_to_the_sample_and_says_so(tmp_path, monkeypatch, offline):
    monkeypatch.setattr(select, "sample_data", lambda: fake_sample(tmp_path / "sample"))
    screen = Recorder()
    result = binarize("hh-rlhf", None, screen)
    assert result["out"] == str(Path("data/hh-rlhf"))
    assert result["sources"][0]["sample"] is True
    assert "built-in sample of hh-rlhf, NOT the real data: 20 pairs written by this project" in screen.warnings[0]
    assert "--from PATH" in screen.warnings[0]


def test_offline_uses_what_was_downloaded_before(offline):
    """A complete copy in the Hub's cache is the real data; an incomplete one is not silently used."""
    place = in_cache(offline, "Anthropic/hh-rlhf", "helpful-base/train.jsonl")
    assert hub.snapshot("Anthropic/hh-rlhf", ["*.jsonl"], ["helpful-base"]) == place
    with pytest.raises(hub.Unreachable):
        hub.snapshot("Anthropic/hh-rlhf", ["*.jsonl"], ["helpful-base", "harmless-base"])
    (one,) = choose(BinarizeConfig(("hh-rlhf",), subsets=("helpful-base",)))
    assert (one.where["hub"], one.where["revision"], one.where["sample"]) == ("Anthropic/hh-rlhf", "abc", False)
    assert [file.name for file in one.files] == ["helpful-base/train.jsonl"]
    (all_subsets,) = choose(BinarizeConfig(("hh-rlhf",)))
    assert all_subsets.where["sample"] is True


@pytest.mark.parametrize(
    ("name", "subset", "file", "there"),
    [
        ("shp", "askhr", "askhr/train.json", True),
        ("shp", "askhr", "askcooking/train.json", False),
        ("shp", "hr", "askhr/train.json", False),
        ("ultrafeedback", "evol_instruct", "evol_instruct.jsonl", True),
        ("ultrafeedback", "evol", "evol_instruct.jsonl", False),
        ("oasst", "en", "data/train-00000-of-00001.parquet", True),
        ("alpaca-eval", "judge", "results/model/judge/annotations.json", True),
    ],
)
def test_a_subset_is_a_folder_a_file_or_within_the_records(offline, name, subset, file, there):
    found = source(name)
    in_cache(offline, found.hub_ids[0], file)
    config = BinarizeConfig((name,), subsets=(subset,))
    if there:
        assert [file.path.name for file in choose(config)[0].files] == [Path(file).name]
    else:
        with pytest.raises(BadInput, match="not in its cache"):
            choose(config)


def made_dataset(folder: Path, files: list[str], configs: list[str]) -> str:
    """A dataset of `datasets` in a local folder: files of one row, and configs that are folders of it."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_lines(folder / name, [{"prompt": "Q", "completion": "A", "label": True}])
    named = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in configs)
    if configs:
        (folder / "README.md").write_text(f"---\nconfigs:\n{named}---\n")
    return str(folder)


def test_a_dataset_with_several_configs_names_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    name = made_dataset(tmp_path / "set", ["de/train.jsonl", "en/train.jsonl"], ["de", "en"])
    with pytest.raises(BadInput) as caught:
        hub.table_records(name)
    assert "has 2 configs: de, en." in str(caught.value)
    assert f'load_dataset("{name}", "de", split="train")' in caught.value.next_step


def test_a_dataset_without_a_train_split_names_those_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    name = made_dataset(tmp_path / "set", ["test.jsonl", "validation.jsonl"], [])
    with pytest.raises(BadInput) as caught:
        hub.table_records(name)
    assert "has no split train, only " in str(caught.value)
    assert {"test", "validation"} <= set(re.findall(r"\w+", str(caught.value)))


def test_a_refused_dataset_names_the_token(monkeypatch):
    """datasets says in its own words that a dataset is gated, or not there."""
    import datasets

    def refuses(*_: object, **__: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/tea' is a gated dataset on the Hub.")

    monkeypatch.setattr(hub, "why_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", refuses)
    with pytest.raises(BadInput, match=r"gated dataset on the Hub\..*hf auth login.*HF_TOKEN"):
        hub.table_records("me/tea")
