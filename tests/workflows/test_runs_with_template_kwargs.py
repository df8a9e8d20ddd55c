"""--chat-template-kwargs of the commands: recorded by a run, kept when it is resumed, taken by its evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Ran, call, error_line
from template_styles import EMPTY
from test_run_dir import train_until_killed_in

import kto_cli
from kto_cli.common.errors import KtoError

OFF = '{"enable_thinking": false}'
SHORT = ("--batch-size", 16, "--learning-rate", "1e-3", "--no-curves")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}"
    + EMPTY
    + "{% endif %}{% endif %}"
)
"""Its answers have no reasoning of their own: with the switch off, the prompt alone has more."""


@pytest.fixture
def given(pico, pico_data, workplace) -> tuple[Any, ...]:
    (workplace / "switch.jinja").write_text(TEMPLATE)
    return ("--data", pico_data, "--model", pico, "--chat-template", "switch.jinja")


def said(ran: Ran) -> str:
    assert ran.code == 0, ran.err
    return " ".join(ran.err.split())


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "kto_config.json").read_text())
    return found["train"]


def test_a_run_records_them_and_its_evaluation_takes_them(given, workplace):
    """The numbers of the evaluation are those with the arguments given, not those without any."""
    trained = call("train", *given, *SHORT, "--chat-template-kwargs", OFF, "--out", "run")
    assert f"The chat template is given {OFF}: inference must pass the same." in said(trained)
    assert f'each request must have "chat_template_kwargs": {OFF}' in " ".join(trained.out.split())
    assert config_of(workplace / "run")["chat_template_kwargs"] == {"enable_thinking": False}
    assert (
        f"| arguments of the chat template | `{OFF}`: inference must pass" in (workplace / "run/README.md").read_text()
    )
    flags = ((), ("--chat-template-kwargs", OFF), ("--chat-template-kwargs", "{}"))
    own, same, none = (call("eval", "run", "--samples", 0, *more, "--json").json["loss"] for more in flags)
    assert own == same != none


def test_precompute_of_the_same_arguments_is_all_there_is_to_compute(given, workplace):
    first = call("precompute", *given, "--chat-template-kwargs", OFF, "--json").json
    assert first["computed"] > 0
    assert call("precompute", *given, "--chat-template-kwargs", f" {OFF} ", "--json").json["computed"] == 0
    assert call("precompute", *given, "--json").json["computed"] == first["computed"]


def test_a_resumed_run_keeps_them_and_refuses_others(given, workplace):
    call("train", *given, *SHORT, "--chat-template-kwargs", OFF, "--out", "whole")
    train_until_killed_in(2, *given, *SHORT, "--chat-template-kwargs", OFF, "--out", "run")
    other = ("--chat-template-kwargs", '{"enable_thinking": true}')
    assert "chat_template_kwargs" in error_line(call("train", "--resume", "--out", "run", *other))
    assert f"is given {OFF}" in said(call("train", "--resume", "--out", "run", "--chat-template-kwargs", OFF))
    one, same = (workplace / name / "model.safetensors" for name in ("whole", "run"))
    assert one.read_bytes() == same.read_bytes()


def test_no_arguments_are_the_same_as_none_when_a_run_is_resumed(given, workplace):
    train_until_killed_in(2, *given, *SHORT, "--out", "run")
    assert call("train", "--resume", "--out", "run", "--chat-template-kwargs", "{}").code == 0


@pytest.mark.slow
def test_runs_that_are_compared_say_that_their_arguments_differ(given, workplace):
    for name, kwargs in (("off", ("--chat-template-kwargs", OFF)), ("plain", ())):
        call("train", *given, *SHORT, "--max-steps", 1, *kwargs, "--out", name)
    text = f"The chat template of off is given {OFF}, that of plain {{}}: each reads its own prompts."
    assert text in said(call("eval", "off", "plain", "--samples", 0))
    same = call("eval", "off", "plain", "--samples", 0, "--chat-template-kwargs", OFF)
    assert same.code == 0
    assert "each reads its own prompts" not in said(same)


def test_a_run_is_repeated_by_its_config(given, workplace):
    call("train", *given, *SHORT, "--max-steps", 1, "--chat-template-kwargs", OFF, "--out", "run")
    assert f"is given {OFF}" in said(call("train", "--config", "run/kto_config.json", "--out", "again"))
    first, again = (workplace / name / "model.safetensors" for name in ("run", "again"))
    assert first.read_bytes() == again.read_bytes()
    (workplace / "c.yaml").write_text("chat_template_kwargs: {enable_thinking: false}\nmax_steps: 1\n")
    assert f"is given {OFF}" in said(call("train", *given, *SHORT, "--config", "c.yaml", "--out", "yaml"))
    (workplace / "c.yaml").write_text("chat_template_kwargs: 'enable_thinking'\n")
    assert "must be a mapping" in error_line(call("train", *given, "--config", "c.yaml", "--out", "no"))


def test_from_python(given, workplace, pico, pico_data):
    settings = {"chat_template": "switch.jinja", "batch_size": 16, "max_steps": 1}
    kwargs = {"enable_thinking": False}
    kto_cli.train(str(pico_data), str(pico), out="run", chat_template_kwargs=kwargs, **settings)
    assert config_of(workplace / "run")["chat_template_kwargs"] == kwargs
    with pytest.raises(KtoError, match="must be a mapping"):
        kto_cli.train(str(pico_data), str(pico), out="no", chat_template_kwargs=OFF, **settings)


@pytest.mark.parametrize("command", ["train", "precompute", "eval", "binarize"])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{enable_thinking: false}", "is not a JSON object"),
        ('{"messages": []}', "cannot set messages"),
    ],
)
def test_faults_are_one_line(given, workplace, pico, pico_data, command, text, line):
    words = {"eval": ["run"], "binarize": ["x.jsonl", "--model", pico]}.get(command, list(given))
    ran = call(command, *words, "--chat-template-kwargs", text)
    assert line in error_line(ran)
    assert ran.code == 2


def test_a_name_that_the_template_does_not_use_is_said(given):
    ran = call("precompute", *given, "--chat-template-kwargs", '{"enable_thinkin": false}')
    assert "The chat template does not use enable_thinkin, given by --chat-template-kwargs." in said(ran)


def test_lengths_are_checked_with_them(workplace, pico, tmp_path):
    """80 words where the switch is on: with 48 tokens no row fits then."""
    model = Path(shutil.copytree(pico, tmp_path / "model"))
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text("{% if long %}" + "many words " * 40 + "{% endif %}" + template)
    rows = [{"prompt": f"Q{n}?", "completion": f"A{n}.", "label": n % 2 == 0} for n in range(12)]
    (workplace / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("binarize", "rows.jsonl", "--model", model, "--max-length", 48, "--overwrite", "--json")
    misfits = [
        {one["finding"]: one["rows"] for one in call(*flags, *more).json["findings"]}.get("does_not_fit")
        for more in ((), ("--chat-template-kwargs", '{"long": true}'))
    ]
    assert misfits == [None, 12]
    assert "Add --model" in error_line(call("binarize", "rows.jsonl", "--chat-template-kwargs", '{"long": true}'))
