"""vLLM and servers, against stand-ins with their real interfaces."""

from __future__ import annotations

import inspect
import json
import sys
import threading
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub.utils import HFValidationError, validate_repo_id

from kto_cli.common.errors import BadInput, BadModel
from kto_cli.data.formats.tool_calls import calls_json
from kto_cli.data.texts import api_messages, turn_text
from kto_cli.evaluation.answers.choose import choose
from kto_cli.evaluation.answers.records import Answer, AnsweringModel, Decoding, Question
from kto_cli.evaluation.answers.server import NO_MODEL, Server
from kto_cli.evaluation.answers.vllm import AT_ONCE, Vllm

DECODING = Decoding(max_new_tokens=6, temperature=0.5, top_p=0.8)


class Words:
    """One token a word."""

    def decode(self, ids, *, skip_special_tokens):
        return " ".join(map(str, ids))

    def __call__(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return types.SimpleNamespace(input_ids=text.split())


def not_to_be_loaded():
    raise AssertionError("this engine loads the model itself")


def subject_of(name="runs/checkpoint", **other) -> AnsweringModel:
    return AnsweringModel(name, Path("/models/checkpoint"), Words(), (2, 7), 16, not_to_be_loaded, **other)


def test_the_name_of_no_model_is_not_looked_for_on_the_hub():
    """`transformers serve` tried for minutes without network."""
    with pytest.raises(HFValidationError):
        validate_repo_id(NO_MODEL)


# --- vLLM ---------------------------------------------------------------------------------------


class FakeLLM:
    """Says the first prompt token over and over; ends by itself after an even one. As vllm 0.33: keyword-only settings
    after the model, `generate(prompts, sampling_params, *, use_tqdm, lora_request)`."""

    made: list[FakeLLM] = []  # noqa: RUF012

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        seed: int,
        trust_remote_code: bool,
        generation_config: str,
        max_model_len: int | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
        enforce_eager: bool = False,
    ):
        self.settings = {name: value for name, value in locals().items() if name != "self"}
        if model.endswith("broken"):
            raise ValueError("no such architecture\nand more")
        self.calls: list[tuple[list, list, object]] = []
        FakeLLM.made.append(self)

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        assert not use_tqdm
        assert len(prompts) == len(sampling_params)
        self.calls.append((prompts, sampling_params, lora_request))
        return [self._output(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _output(self, prompt, sampling):
        first = prompt["prompt_token_ids"][0]
        ends = first % 2 == 0
        ids = [first] * 3 + [7] if ends else [first] * sampling.max_tokens
        output = types.SimpleNamespace(token_ids=tuple(ids), text="", finish_reason="stop" if ends else "length")
        return types.SimpleNamespace(outputs=[output])


@dataclass
class FakeSampling:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int] = field(default_factory=list)
    detokenize: bool = True


@dataclass
class FakeLoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@pytest.fixture
def fake_vllm(monkeypatch):
    FakeLLM.made.clear()
    modules = {
        "vllm": {"LLM": FakeLLM, "SamplingParams": FakeSampling},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": FakeLoRARequest},
    }
    for name, members in modules.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)


def questions_of(count):
    return [Question(str(n), [20 + n, 30], [{"role": "user", "content": f"say {n}"}]) for n in range(count)]


@pytest.mark.usefixtures("fake_vllm")
def test_vllm_answers_from_token_ids():
    questions = [*questions_of(3), Question("long", [40] * 14, "x"), Question("full", [40] * 16, "x")]
    engine = choose("vllm", subject_of(dtype="bfloat16"), questions, pytest.fail)
    found = dict(engine.answers(questions, DECODING))
    assert found[0] == Answer("20 20 20", 3, True)
    assert found[1] == Answer("21 21 21 21 21 21", 6, False)
    assert found[4] == Answer("", 0, False), "no room, not asked"
    (llm,) = FakeLLM.made
    assert llm.settings["model"] == "/models/checkpoint"
    assert (llm.settings["dtype"], llm.settings["max_model_len"]) == ("bfloat16", 16)
    assert llm.settings["generation_config"] == "vllm"
    ((prompts, sampling, adapter),) = llm.calls
    assert prompts == [{"prompt_token_ids": question.tokens} for question in questions[:4]]
    assert [(one.temperature, one.top_p, one.stop_token_ids) for one in sampling] == [(0.5, 0.8, [2, 7])] * 4
    assert [one.max_tokens for one in sampling] == [6, 6, 6, 2]
    assert len({one.seed for one in sampling}) == 4
    assert all(0 <= one.seed < 2**31 for one in sampling)
    assert adapter is None


@pytest.mark.usefixtures("fake_vllm")
def test_vllm_is_asked_in_parts_and_loaded_once():
    engine = Vllm(subject_of(), enforce_eager=True)
    answers = engine.answers(questions_of(AT_ONCE + 5), DECODING)
    assert not FakeLLM.made, "nothing is loaded before it is needed"
    next(answers)
    assert [len(call[0]) for call in FakeLLM.made[0].calls] == [AT_ONCE]
    assert len(list(answers)) == AT_ONCE + 4
    list(engine.answers(questions_of(1), DECODING))
    assert [len(call[0]) for call in FakeLLM.made[0].calls] == [AT_ONCE, 5, 1]


@pytest.mark.usefixtures("fake_vllm")
def test_vllm_puts_an_adapter_on_its_base(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 12}))
    subject = AnsweringModel("tuned", tmp_path, Words(), (2,), 16, not_to_be_loaded, base=Path("/models/base"))
    list(Vllm(subject).answers(questions_of(1), DECODING))
    (llm,) = FakeLLM.made
    assert (llm.settings["model"], llm.settings["enable_lora"]) == ("/models/base", True)
    assert llm.settings["max_lora_rank"] == 16, "12 is none that vLLM takes"
    assert llm.calls[0][2] == FakeLoRARequest("tuned", 1, str(tmp_path))


@pytest.mark.usefixtures("fake_vllm")
@pytest.mark.parametrize("settings", [{"peft_type": "IA3"}, {"r": 8, "use_dora": True}, {"r": 1024}])
def test_adapters_that_vllm_cannot_serve_are_refused(tmp_path, settings):
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    subject = AnsweringModel("tuned", tmp_path, Words(), (2,), 16, not_to_be_loaded, base=Path("/models/base"))
    with pytest.raises(BadModel, match="vLLM serves"):
        list(Vllm(subject).answers(questions_of(1), DECODING))


@pytest.mark.usefixtures("fake_vllm")
def test_a_model_that_vllm_cannot_load_is_said_in_one_line():
    subject = AnsweringModel("it", Path("/models/broken"), Words(), (2,), 16, not_to_be_loaded)
    with pytest.raises(BadModel) as caught:
        list(Vllm(subject).answers(questions_of(1), DECODING))
    assert str(caught.value) == "vLLM cannot load it: no such architecture Use --engine auto."


def test_without_vllm_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match="pip install vllm"):
        choose("vllm", subject_of(), [], pytest.fail)


def test_the_stand_in_has_no_argument_that_vllm_lacks():
    """Where vLLM is installed."""
    vllm = pytest.importorskip("vllm")
    real = inspect.signature(vllm.LLM.generate).parameters
    assert {"prompts", "sampling_params", "use_tqdm", "lora_request"} <= set(real)


# --- servers ------------------------------------------------------------------------------------


class FakeClient:
    """Answers with the last turn, in two words; `wrong` replaces the reply."""

    url = "http://host:8000/v1"

    def __init__(self, *, models=("other", "me/checkpoint"), wrong=None, wait_for=0, fails_at=None, loads=()):
        self.listed = list(models)
        self.loads = loads
        self.wrong = wrong
        self.fails_at = fails_at
        self.payloads: list[dict] = []
        self._lock = threading.Lock()
        self._meeting = threading.Barrier(wait_for, timeout=10) if wait_for else None

    def models(self):
        return self.listed

    def has(self, model):
        return self.loads == "any name" or model in self.loads

    def complete(self, payload):
        with self._lock:
            self.payloads.append(payload)
            number = len(self.payloads)
        if self.fails_at is not None and number >= self.fails_at:
            raise BadInput("the server is gone")
        if self._meeting is not None:
            self._meeting.wait()
        if self.wrong is not None:
            return self.wrong
        text = payload["messages"][-1]["content"]
        reason = "length" if text.endswith("1") else "stop"
        return {"choices": [{"message": {"role": "assistant", "content": f" {text}\n"}, "finish_reason": reason}]}


def test_a_server_that_loads_on_demand_is_asked_for_the_folder():
    subject = subject_of()
    folder = str(subject.folder.resolve())
    assert Server(subject, FakeClient(models=["other"], loads=[folder])).model == folder


@pytest.mark.parametrize("loads", ["any name", ()])
def test_a_server_that_takes_any_name_has_not_this_model(loads):
    """It would answer as whatever it has: the reference's answers would pass for the checkpoint's."""
    with pytest.raises(BadInput, match="no such model"):
        Server(subject_of(), FakeClient(models=["other"], loads=loads))


def test_a_server_is_asked_with_the_turns():
    client = FakeClient()
    engine = choose(client.url, subject_of(), [], pytest.fail, lambda url: client)
    questions = [*questions_of(3), Question("plain", [50], api_messages("plain text"))]
    found = dict(engine.answers(questions, DECODING))
    assert found == {
        0: Answer("say 0", 2, True),
        1: Answer("say 1", 2, False),
        2: Answer("say 2", 2, True),
        3: Answer("plain text", 2, True),
    }
    asked = sorted(client.payloads, key=lambda payload: payload["messages"][0]["content"])
    assert asked[0]["messages"] == [{"role": "user", "content": "plain text"}]
    for payload in asked:
        assert {name: payload[name] for name in ("model", "temperature", "top_p", "max_tokens")} == {
            "model": "me/checkpoint",
            "temperature": 0.5,
            "top_p": 0.8,
            "max_tokens": 6,
        }
    assert len({payload["seed"] for payload in asked}) == 4
    assert (engine.name, engine.family) == ("http://host:8000/v1", "server http://host:8000/v1")


def test_a_server_is_given_tools_and_a_call_is_an_answer():
    """Arguments are JSON text in OpenAI's API; the answer is shown as the data's own calls are."""
    call = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "I ask.", "tool_calls": [call]}
    client = FakeClient(wrong={"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    said = {"role": "assistant", "content": "", "tool_calls": calls_json([call], "it")}
    asked = api_messages(({"role": "user", "content": "Weather?"}, said), arguments_as_text=True)
    tools = [{"type": "function", "function": {"name": "weather"}}]
    engine = choose(client.url, subject_of(), [], pytest.fail, lambda url: client)
    ((_, answer),) = engine.answers([Question("a", [5], asked, tools)], DECODING)
    assert answer.text == f"<think>\nI ask.\n</think>\n\n{turn_text(said)}"
    assert answer.ended
    assert (client.payloads[0]["tools"], client.payloads[0]["messages"][1]["tool_calls"]) == (tools, [call])


def test_a_server_is_asked_with_the_arguments_of_the_template():
    """vLLM and llama.cpp render with them; without any, the request has no such field, which other servers refuse."""
    given = {"enable_thinking": False}
    for subject, sent in ((subject_of(template_kwargs=given), given), (subject_of(), None)):
        client = FakeClient()
        list(
            choose(client.url, subject, [], pytest.fail, lambda url, client=client: client).answers(
                questions_of(1), DECODING
            )
        )
        assert [payload.get("chat_template_kwargs") for payload in client.payloads] == [sent]
        assert ("chat_template_kwargs" in client.payloads[0]) == (sent is not None)


def test_requests_are_under_way_together():
    """Each of four waits for the others."""
    client = FakeClient(wait_for=4)
    found = dict(Server(subject_of(), client, in_flight=4).answers(questions_of(8), DECODING))
    assert sorted(found) == list(range(8))


def test_after_a_failure_nothing_new_is_asked():
    client = FakeClient(fails_at=3)
    given = []
    with pytest.raises(BadInput, match="the server is gone"):
        given.extend(Server(subject_of(), client, in_flight=2).answers(questions_of(50), DECODING))
    assert 2 <= len(client.payloads) <= 5
    assert len(given) <= 2


@pytest.mark.parametrize(
    ("listed", "name", "served"),
    [
        (["a", "runs/checkpoint"], "runs/checkpoint", "runs/checkpoint"),
        (["x/checkpoint", "y"], "runs/checkpoint", "x/checkpoint"),
        (["checkpoint"], "/somewhere/checkpoint/", "checkpoint"),
    ],
)
def test_the_servers_name_of_a_model(listed, name, served):
    assert Server(subject_of(name), FakeClient(models=listed)).model == served


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (["a", "b"], "no such model: runs/checkpoint. It lists a, b."),
        ([], "no model"),
        (["a/checkpoint"] * 2, "several"),
    ],
)
def test_a_model_that_the_server_has_not(listed, problem):
    with pytest.raises(BadInput, match=problem):
        Server(subject_of(), FakeClient(models=listed))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": {"content": 3}}]},
    ],
)
def test_a_reply_without_an_answer_is_said(wrong):
    with pytest.raises(BadInput, match="OpenAI-compatible"):
        list(Server(subject_of(), FakeClient(wrong=wrong)).answers(questions_of(1), DECODING))


def test_a_silent_answer_is_empty():
    wrong = {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}
    assert dict(Server(subject_of(), FakeClient(wrong=wrong)).answers(questions_of(1), DECODING)) == {
        0: Answer("", 0, True)
    }
