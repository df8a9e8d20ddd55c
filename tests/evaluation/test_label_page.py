"""The page of `kto label` over HTTP: labels, undo, several people, refusals, going on after a kill."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from labelling import rows_of, served, write_lines

from kto_cli.common.errors import BadInput
from kto_cli.evaluation.labelling import session
from kto_cli.evaluation.labelling.label_file import LabelFile
from kto_cli.evaluation.labelling.server import MOST_BYTES
from kto_cli.evaluation.labelling.session import Person

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script></script> \u202egnp.exe"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Six answers, each to a prompt of its own."""
    rows = [{"prompt": f"question {index}", "completion": f"answer {index}", "model": "secret"} for index in range(6)]
    return write_lines(tmp_path / "answers.jsonl", rows)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight prompts with two answers each."""
    rows = [{"prompt": f"question {index}", "completions": [f"one {index}", f"two {index}"]} for index in range(8)]
    return write_lines(tmp_path / "pairs.jsonl", rows)


def test_a_label_is_in_the_file_when_the_request_is_answered(answers, tmp_path):
    out = tmp_path / "labels.jsonl"
    with served(answers, out) as page:
        first = page.state("ana")["item"]
        after = page.label("ana", "good", "  short and right ")
        [row] = rows_of(out)
        assert {name: row[name] for name in ("label", "reason", "rater", "choice", "item", "of", "shown", "model")} == {
            "label": True,
            "reason": "short and right",
            "rater": "ana",
            "choice": "good",
            "item": first["id"],
            "of": 1,
            "shown": 1,
            "model": "secret",
        }
        assert row["prompt"] == first["prompt"][0]["text"]
        assert row["completion"] == first["answers"][0][0]["text"]
        assert re.fullmatch(r"answers\.jsonl:[1-6]", row["origin"])
        assert (after["done"], after["total"], after["undo"]) == (1, 6, True)
        assert after["item"]["id"] != first["id"]
        page.label("ana", "bad")
        assert [row["label"] for row in rows_of(out)] == [True, False]


def test_a_page_never_says_who_answered_or_what_others_said(pairs, tmp_path):
    rows = [{**json.loads(line), "model": "secret", "label": True} for line in pairs.read_text().splitlines()]
    with served(write_lines(pairs, rows), tmp_path / "l.jsonl") as page:
        page.label("ana", "first", "hidden reason")
        seen = json.dumps(page.state("ben"))
        assert not [word for word in ("secret", "label", "hidden", "ana", "origin") if word in seen]


@pytest.mark.parametrize(
    ("choice", "labels", "choices"),
    [
        ("first", (True, False), ("better", "worse")),
        ("second", (False, True), ("worse", "better")),
        ("both", (True, True), ("both good", "both good")),
        ("neither", (False, False), ("both bad", "both bad")),
    ],
)
def test_of_two_answers_each_gets_the_label_of_its_position(pairs, tmp_path, choice, labels, choices):
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        for _ in range(8):
            shown = page.state("ana")["item"]
            page.label("ana", choice)
            rows = rows_of(out)[-2:]
            assert [row["completion"] for row in rows] == [answer[0]["text"] for answer in shown["answers"]]
            assert tuple(row["label"] for row in rows) == labels
            assert tuple(row["choice"] for row in rows) == choices


def test_orders_are_random_stay_and_differ_between_people_and_seeds(pairs, tmp_path):
    def order(name: str, seed: int = 0) -> list[str]:
        with served(pairs, tmp_path / f"{name}{seed}.jsonl", seed=seed) as page:
            found = []
            while item := page.state(name)["item"]:
                found += [answer[0]["text"] for answer in item["answers"]]
                page.label(name, "both")
            return found

    ana = order("ana")
    assert {text.split()[0] for text in ana[::2]} == {"one", "two"}
    assert ana != sorted(ana)
    (tmp_path / "ana0.jsonl").unlink()
    assert order("ana") == ana
    assert len({tuple(each) for each in (ana, order("ben"), order("ana", 1))}) == 3


def test_one_at_a_time_shows_each_answer_alone(pairs, tmp_path):
    with served(pairs, tmp_path / "l.jsonl", one_at_a_time=True) as page:
        state = page.state("ana")
        assert state["total"] == 16
        assert len(state["item"]["answers"]) == 1


def test_undo_takes_labels_and_skips_back_one_by_one(pairs, tmp_path):
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        first = page.state("ana")["item"]
        page.label("ana", "first", "because")
        page.label("ben", "second")
        second = page.state("ana")["item"]
        page.post("skip", name="ana", item=second["id"])
        assert page.state("ana")["skipped"] == 1
        assert page.post("undo", name="ana").json["item"] == second
        back = page.post("undo", name="ana").json
        assert (back["item"], back["reason"], back["done"], back["undo"]) == (first, "because", 0, False)
        assert [row["rater"] for row in rows_of(out)] == ["ben", "ben"]
        assert page.post("undo", name="ana").status == 409
        assert page.post("undo", name="nobody").status == 409


def test_skipped_answers_come_again_when_asked_for(answers, tmp_path):
    with served(answers, tmp_path / "l.jsonl") as page:
        skipped = page.state("ana")["item"]["id"]
        page.post("skip", name="ana", item=skipped)
        for _ in range(5):
            assert page.state("ana")["item"]["id"] != skipped
            page.label("ana", "good")
        assert page.state("ana")["item"] is None
        again = page.post("again", name="ana").json
        assert (again["item"]["id"], again["skipped"]) == (skipped, 0)


def test_a_label_of_an_answer_that_is_not_shown_now_is_refused(answers, tmp_path):
    """A key pressed twice, or in two windows, labels one answer once."""
    out = tmp_path / "l.jsonl"
    with served(answers, out) as page:
        old = page.state("ana")["item"]["id"]
        page.label("ana", "good")
        again = page.post("label", name="ana", item=old, choice="bad", reason="")
        assert again.status == 409
        now = page.state("ana")["item"]["id"]
        assert page.post("label", name="ana", item=now, choice="first", reason="").status == 409
        assert len(rows_of(out)) == 1


def test_two_people_and_their_agreement(answers, tmp_path):
    """Both label six answers and differ on one: Po = 5/6, ana calls 3 good, ben 4: Pe = 1/2, kappa 2/3."""
    with served(answers, tmp_path / "l.jsonl") as page:
        good = {"ana": {0, 1, 2}, "ben": {0, 1, 2, 3}}
        for name in ("ana", "ben"):
            while item := page.state(name)["item"]:
                number = int(item["answers"][0][0]["text"].split()[1])
                page.label(name, "good" if number in good[name] else "bad")
        end = page.state("ana")
        assert end["people"] == {"ana": 6, "ben": 6}
        [found] = end["agreement"]
        assert (found["people"], found["items"], found["agree"]) == (["ana", "ben"], 6, 5)
        assert found["kappa"] == pytest.approx(2 / 3)
        low, high = found["interval"]
        assert low < 2 / 3 < high


def test_agreement_on_pairs_does_not_depend_on_who_saw_which_first(pairs, tmp_path):
    with served(pairs, tmp_path / "l.jsonl") as page:
        for name in ("ana", "ben"):
            while item := page.state(name)["item"]:
                ones = item["answers"][0][0]["text"].startswith("one")
                number = int(item["answers"][0][0]["text"].split()[1])
                page.label(name, "both" if number < 4 else "first" if ones else "second")
        [found] = page.state("ana")["agreement"]
        assert (found["agree"], found["items"], found["kappa"]) == (8, 8, 1)


def test_a_persons_order_is_made_once_whatever_the_labels_in_the_file(pairs, tmp_path, monkeypatch):
    """An order sorts all items: made for each label, opening 20,000 labels of 50,000 items would take hours."""
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        for _ in range(5):
            page.label("ana", "both")
    made = []
    monkeypatch.setattr(session, "Person", lambda name, *more: made.append(name) or Person(name, *more))
    with served(pairs, out) as page:
        assert page.state("ana")["done"] == 5
    assert made == ["ana"]


def test_people_are_compared_with_the_labels_of_before_which_nobody_sees(tmp_path):
    """Of four answers with a label ana contradicts one; of two pairs she chooses the rejected answer of one."""
    rows = [{"prompt": f"q {index}", "completion": f"a {index}", "label": index < 2} for index in range(4)]
    rows += [{"prompt": f"p {index}", "chosen": f"b {index}", "rejected": f"c {index}"} for index in range(2)]
    rows += [{"prompt": "r", "completion": "d", "label": 1}, {"prompt": "s", "completions": ["e", "f"], "label": True}]
    out = tmp_path / "l.jsonl"
    with served(write_lines(tmp_path / "a.jsonl", rows), out) as page:
        while item := page.state("ana")["item"]:
            assert set(item) == {"id", "prompt", "answers"}
            first, number = (item["answers"][0][0]["text"] + " 0").split()[:2]
            if len(item["answers"]) == 1:
                page.label("ana", "good" if first == "a" and number == "0" else "bad")
            else:
                page.label("ana", "first" if (first == "b") == (number == "0") else "second")
        [found] = page.state("ana")["agreement"]
    assert (found["people"], found["items"], found["agree"]) == (["ana", "the labels of before"], 6, 4)
    before = {row["completion"]: row.get("before") for row in rows_of(out)}
    expected = {
        "a 0": True,
        "a 1": True,
        "a 2": False,
        "a 3": False,
        "b 0": True,
        "b 1": True,
        "c 0": False,
        "c 1": False,
    }
    assert before == {**expected, "d": None, "e": None, "f": None}


# --- going on ----------------------------------------------------------------------------------


def test_a_reload_and_a_restart_go_on_where_one_stopped(pairs, tmp_path):
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        page.label("ana", "first")
        before = page.label("ana", "both", "a reason")
        assert page.state("ana")["item"] == before["item"]
    with served(pairs, out) as page:
        after = page.state("ana")
        assert (after["done"], after["item"]) == (2, before["item"])
        assert page.post("undo", name="ana").json["reason"] == "a reason"
        assert len(rows_of(out)) == 2


def test_a_label_cut_off_anywhere_is_removed_and_shown_again(pairs, tmp_path):
    """A kill within the write of two rows leaves any part of them; what was saved before is as it was."""
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        page.label("ana", "first")
        saved = out.read_bytes()
        shown = page.state("ana")["item"]
        page.label("ana", "second")
    whole = out.read_bytes()
    for length in range(len(saved) + 1, len(whole) - 1, 37):
        out.write_bytes(whole[:length])
        file = LabelFile(out)
        assert [label.rater for label in file.labels] == ["ana"]
        assert out.read_bytes() == saved
        assert "not saved completely" in file.notes[0]
    out.write_bytes(whole[:-1])  # all but the line's end is there
    assert len(LabelFile(out).labels) == 2
    assert out.read_bytes() == whole
    out.write_bytes(whole[:-40])
    with served(pairs, out) as page:
        assert page.state("ana")["item"] == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "x", "completion": "y"}\n', "Line 1 of .* is not a label of kto label"),
        ('{"prompt": "x", "completion": "y"}', "Line 1 of .* is not a label of kto label"),
        ("a diary", "Line 1 of .* is damaged"),
        ("{}\n", "Line 1 of .* is not a label"),
        ("\n", "Line 1 of .* is damaged"),
    ],
)
def test_another_file_is_never_written_to(tmp_path, text, said):
    out = tmp_path / "diary.jsonl"
    out.write_text(text)
    with pytest.raises(BadInput, match=said):
        LabelFile(out)
    assert out.read_text() == text


def test_faults_within_the_file_are_named_by_line(pairs, tmp_path):
    out = tmp_path / "l.jsonl"
    with served(pairs, out) as page:
        page.label("ana", "first")
        page.label("ana", "both")
    one, two, three, four = out.read_text().splitlines(keepends=True)
    for lines, said in (
        ((one, three, four), "Line 1 .* lacks a row"),
        ((one, two, one, two), "Line 3 .* is a second label of ana"),
        ((one, two.replace("false", "true"), three, four), "Line 2 .* is not a label"),
        ((one, two.replace('"prompt"', '"ask"'), three, four), "Line 2 .* is not a label"),
        ((one.replace('"of": 2', '"of": [2]'), two, three, four), "Line 1 .* is not a label"),
        ((one.replace('"of": 2', '"of": 2.0'), two, three, four), "Line 1 .* is not a label"),
        ((one, two.replace("worse", "better").replace("false", "true"), three, four), "Lines 1 and 2 .* contradict"),
        ((one, two[:30] + "\n", three, four), "Line 2 .* is damaged"),
    ):
        out.write_text("".join(lines))
        with pytest.raises(BadInput, match=said):
            LabelFile(out)
        assert out.read_text() == "".join(lines)


def test_a_full_disk_loses_no_label_and_the_page_says_so(answers, tmp_path, monkeypatch):
    out = tmp_path / "l.jsonl"
    with served(answers, out) as page:
        page.label("ana", "good")
        before, shown = out.read_bytes(), page.state("ana")["item"]

        def full(*words: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("kto_cli.common.files.os.fsync", full)
            refused = page.post("label", name="ana", item=shown["id"], choice="good", reason="")
            assert refused.status == 507
            assert "No space left" in refused.text
            assert page.post("undo", name="ana").status == 507
        assert out.read_bytes() == before
        assert page.state("ana")["item"] == shown
        page.label("ana", "good")
        assert len(rows_of(out)) == 2


# --- who is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": None},
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "null"},
        {"X_Token": "0" * 24},
        {"X_Token": None},
    ],
    ids=str,
)
def test_requests_of_others_get_403_and_change_nothing(answers, tmp_path, headers):
    out = tmp_path / "l.jsonl"
    with served(answers, out) as page:
        item = page.state("ana")["item"]["id"]
        given = {name: value and value.format(port=page.server.port) for name, value in headers.items()}
        body = json.dumps({"name": "ana", "item": item, "choice": "good", "reason": ""})
        assert page.request("POST", "/api/label", body, **given).status == 403
        assert page.request("GET", "/api/state?name=ana", **given).status == 403
        if "X_Token" not in headers:
            assert page.request("PUT", "/api/label", body, **given).status == 403
            assert page.request("GET", f"/?token={page.server.token}", **given).status == 403
        assert not out.exists()
        assert page.state("ana")["done"] == 0


def test_the_page_needs_its_token_and_localhost_is_its_name_too(answers, tmp_path):
    with served(answers, tmp_path / "l.jsonl") as page:
        port = page.server.port
        assert page.request("GET", "/").status == 403
        assert page.request("GET", "/?token=x").status == 403
        assert page.request("GET", f"/?token={page.server.token}", Host=f"localhost:{port}").status == 200
        own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
        assert page.request("GET", "/api/state?name=a", **own).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[]", 400),
        ("not json", 400),
        ('{"name": "ana"}', 400),
        ('{"name": "ana", "name": "ben", "item": "x", "choice": "good", "reason": ""}', 400),
        ('{"name": "", "item": "x", "choice": "good", "reason": ""}', 400),
        ('{"name": "a\\nb", "item": "x", "choice": "good", "reason": ""}', 400),
        ('{"name": "a\\u202eb", "item": "x", "choice": "good", "reason": ""}', 400),
        ('{"name": "ana", "item": 7, "choice": "good", "reason": ""}', 400),
        ('{"name": "ana", "item": "x", "choice": "good", "reason": "\\ud800"}', 400),
        ('{"name": "ana", "item": "x", "choice": "good", "reason": "", "more": ""}', 400),
        (f'{{"name": "{"a" * 65}", "item": "x", "choice": "good", "reason": ""}}', 400),
        (f'{{"name": "ana", "item": "x", "choice": "good", "reason": "{"a" * 4001}"}}', 400),
        (" " * (MOST_BYTES + 1), 413),
        ("[" * MOST_BYTES, 400),
    ],
    ids=lambda each: str(each)[:40],
)
def test_bodies_are_bounded_and_checked(answers, tmp_path, body, status):
    out = tmp_path / "l.jsonl"
    with served(answers, out) as page:
        assert page.request("POST", "/api/label", body).status == status
        assert not out.exists()


def test_other_requests_are_refused(answers, tmp_path):
    with served(answers, tmp_path / "l.jsonl") as page:
        assert page.request("POST", "/api/undo", '{"name": "a"}', Content_Type="text/plain").status == 415
        assert page.request("POST", "/api/undo", None).status == 411
        assert page.request("POST", "/api/undo", '{"name": "a"}', Content_Length="-1").status == 411
        assert page.request("POST", "/api/undo", '{"name": "a"}', Content_Length="9" * 5000).status == 413
        assert page.request("POST", "/elsewhere", "{}").status == 404
        assert page.request("GET", "/../etc/passwd").status == 404
        assert page.request("PUT", "/api/label", "{}").status == 501


def test_the_page_takes_nothing_from_elsewhere_and_its_policy_allows_nothing_else(answers, tmp_path):
    rows = [{"prompt": HOSTILE, "completion": HOSTILE}]
    with served(write_lines(tmp_path / "h.jsonl", rows), tmp_path / "l.jsonl") as page:
        pages = [page.request("GET", f"/?token={page.server.token}") for _ in range(2)]
        for reply in pages:
            policy = reply.headers["Content-Security-Policy"]
            nonce = re.search(r"script-src 'nonce-([\w-]{16,})';", policy)
            assert nonce is not None
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.text.count(f'nonce="{nonce[1]}"') == 2 == len(re.findall("<(?:script|style)", reply.text))
            assert not re.findall(r"(?:https?:)?//[\w.]+\.\w+|\bsrc=|@import|url\(", reply.text)
            assert "alert(" not in reply.text
            assert not re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=", reply.text)
        assert pages[0].headers["Content-Security-Policy"] != pages[1].headers["Content-Security-Policy"]
        shown = page.request("GET", "/api/state?name=ana")
        assert shown.headers["Content-Type"].startswith("application/json")
        assert shown.headers["X-Content-Type-Options"] == "nosniff"
        [answer] = shown.json["item"]["answers"]
        assert answer[0]["text"] == HOSTILE.replace("\u202e", "\\u202e")
        page.label("ana", "bad")
        assert rows_of(tmp_path / "l.jsonl")[0]["completion"] == HOSTILE
