"""`kto label` as a process: its link, Ctrl-C, a kill, a taken port; the page in a headless browser."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import BINARY, Page, browsing
from conftest import call, error_line
from labelling import rows_of, running, write_lines

HOSTILE = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script></body><b>\u202egnp"
LONG = "\n".join(f"Line {number} of a long answer that needs to be scrolled." for number in range(200))


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    rows = [{"prompt": f"question {index}", "completion": f"answer {index}"} for index in range(4)]
    return write_lines(tmp_path / "answers.jsonl", rows)


def test_a_kill_loses_nothing_and_ctrl_c_ends_with_one_line(answers, tmp_path):
    out = tmp_path / "answers.labels.jsonl"
    with running("answers.jsonl", cwd=tmp_path) as page:
        assert "To label: 4 answers one at a time, 0 pairs side by side." in page.said
        page.client.label("ana", "good")
        page.client.label("ana", "bad")
        page.process.kill()
    with running("answers.jsonl", cwd=tmp_path) as page:
        assert "2 labels in answers.labels.jsonl from before." in page.said
        refused = error_line(call("label", answers, "--out", out, "--port", 0))
        assert "Another process is labelling into" in refused
        for choice in ("bad", "good"):
            page.client.label("ana", choice)
        for _ in range(4):
            page.client.label("ben", "good")
        code, said, err = page.end()
    assert code == 0
    assert re.fullmatch(
        r"8 labels \(ana 4, ben 4\) in answers\.labels\.jsonl\. ana and ben agree on 2 of 4 items, Cohen's kappa "
        r"0\.00 \[-0\.\d\d, 0\.\d\d\]\.\n",
        said,
    )
    assert "Next: kto binarize answers.labels.jsonl --fix contradictions --fix duplicates" in err
    assert len(rows_of(out)) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.labels.jsonl"]


def test_json_and_sigterm_without_labels(answers, tmp_path):
    with running("answers.jsonl", "--json", cwd=tmp_path) as page:
        code, out, _ = page.end(signal.SIGTERM)
    assert code == 0
    found = {"file": "answers.labels.jsonl", "items": 4, "labels": 0, "people": {}, "agreement": []}
    assert json.loads(out) == found
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_a_taken_port_and_a_foreign_address_are_one_line(answers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = error_line(call("label", "answers.jsonl", "--port", taken.getsockname()[1]))
        assert "cannot be used for the page: Address already in use. Give another with --port" in line
    assert "cannot be used for the page" in error_line(call("label", "answers.jsonl", "--host", "192.0.2.1"))
    assert "--host 0.0.0.0 cannot be used" in error_line(call("label", "answers.jsonl", "--host", "0.0.0.0"))
    assert "holds the answers" in error_line(call("label", "answers.jsonl", "--out", "./answers.jsonl"))
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if BINARY is None:
        pytest.skip("there is no chromium or google-chrome")
    with browsing(tmp_path / "profile") as opened:
        yield opened


def labelled(page: Page, done: int) -> None:
    page.wait(f"state.done === {done} && !busy")


@pytest.mark.slow
def test_keys_undo_reload_two_people_and_hostile_answers(page, tmp_path):
    rows: list[dict[str, Any]] = [
        {"prompt": HOSTILE, "completion": HOSTILE},
        {"prompt": "second", "completions": ["one", "two"]},
        {"prompt": "third", "completion": LONG},
    ]
    out = write_lines(tmp_path / "answers.jsonl", rows).with_name("labels.jsonl")
    with running("answers.jsonl", "--out", "labels.jsonl", cwd=tmp_path) as served:
        page.size(1280, 800)
        page.open(served.url)
        page.type(" ana ")
        page.press("Enter")
        page.wait("state && state.item")
        assert "name=ana" in page.value("location.search")
        seen = []
        for done in range(3):
            _look(page)
            shown = page.value("state.item.answers.map((answer) => answer[0].text)")
            assert [text for text in shown if text in page.value("main.textContent")] == shown
            page.press("r")
            page.type("s u g b")  # keys, were it not for the field
            page.press("Enter")
            page.press("3" if len(shown) == 2 else "g")
            labelled(page, done + 1)
            seen.append(shown)
            assert page.value("reason.value") == ""
        rows_now = rows_of(out)
        assert [row["completion"] for row in rows_now] == [
            rows[0]["completion"] if "<img" in text else text for shown in seen for text in shown
        ]
        assert {(row["label"], row["reason"], row["rater"]) for row in rows_now} == {(True, "s u g b", "ana")}
        page.press("u")
        labelled(page, 2)
        assert page.value("reason.value") == "s u g b"
        assert page.value("state.item.answers.map((answer) => answer[0].text)") == seen[2]
        assert len(rows_of(out)) == 4 - len(seen[2])
        page.call("Page.reload")
        page.wait("typeof state !== 'undefined' && state && state.done === 2")
        page.press("4" if len(seen[2]) == 2 else "b")
        labelled(page, 3)
        assert "All 3 labelled" in page.text()

        page.open(f"{served.url}&name=ben")
        page.wait("state && state.item")
        page.press("s")
        page.wait("state.skipped === 1 && !busy")
        for done in (1, 2):
            page.press("1")
            labelled(page, done)
        assert "1 put off" in page.text()
        page.click("#choices button")
        page.wait("state.item && !busy")
        page.press("1")
        labelled(page, 3)
        assert "ana and ben" in page.text()
        assert page.value("document.title") == "kto label"
        assert page.complaints() == []


def _look(page: Page) -> None:
    """Hostile texts made no elements; nothing is wider than the window."""
    assert page.value("document.querySelectorAll('main img, main script, main b').length") == 0
    assert page.value("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "phone"), [(390, 844, True), (1280, 800, False)])
@pytest.mark.parametrize("dark", [False, True])
def test_everything_fits_and_can_be_touched(page, tmp_path, width, height, phone, dark):
    """Buttons stay on the screen beside an answer of 200 lines, and are 44 pixels high at least; text contrasts."""
    write_lines(tmp_path / "a.jsonl", [{"prompt": LONG, "completions": [LONG, f"{HOSTILE} {'x' * 500}"]}])
    with running("a.jsonl", cwd=tmp_path) as served:
        page.size(width, height, phone=phone, dark=dark)
        page.open(f"{served.url}&name=ana")
        page.wait("state && state.item")
        _look(page)
        boxes = page.value(
            "[...document.querySelectorAll('#controls button, #controls input')].map((each) => {"
            " const r = each.getBoundingClientRect(); return [r.left, r.right, r.top, r.bottom, r.height]; })"
        )
        assert len(boxes) == 7
        for left, right, top, bottom, tall in boxes:
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert tall >= 44
        assert page.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(21, 23, 26)" if dark else "rgb(252, 252, 250)"
        )
        page.click("#choices button:nth-child(3)")
        labelled(page, 1)
        assert [row["choice"] for row in rows_of(tmp_path / "a.labels.jsonl")] == ["both good", "both good"]


@pytest.mark.slow
def test_the_page_says_when_a_label_was_not_saved(page, tmp_path, answers):
    with running("answers.jsonl", cwd=tmp_path) as served:
        page.size(390, 844, phone=True)
        page.open(f"{served.url}&name=ana")
        page.wait("state && state.item")
        served.process.kill()
        served.process.wait()
        time.sleep(0.1)
        page.press("g")
        page.wait("status.className === 'fault' && !busy")
        assert "this label is not saved" in page.text()
        assert page.value("state.done") == 0
