# ruff: noqa: E501 - templates
"""Chat templates with tools and reasoning in the styles of public models, in our own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from template_styles import IM, roles

ARGUMENTS = '{"city": "Bonn"}'
HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'
LEFT_OUT, NO_CALLS = "leaves out the reasoning", "leaves out the calls"
CLOSED, OTHERWISE = "closes the reasoning", "where there are tools otherwise"


@dataclass(frozen=True)
class ToolStyle:
    """A template, and what the model writes for each answer behind its prompt, or why the row is refused.

    Texts end with the token that ends an answer; a reason is written in round brackets.
    """

    template: str
    eos: str
    call: str
    text_and_call: str
    after_result: str
    reasoning: str
    reasoning_and_call: str
    field: str | None = None
    """Field that reasoning is read from."""
    as_text: bool = False
    """Arguments are read as text."""
    ends: tuple[str, ...] = ()
    """Other tokens that end an answer."""
    whole: bool = True
    """The whole chat begins with prompt and answer."""
    tools_shown: bool = True


def chatml(
    answer: str,
    *,
    tools: str = "{% for t in tools %}{{ t | tojson }}\n{% endfor %}",
    generation: str = "",
    end: str = "\n",
) -> str:
    """A ChatML template with tools; `answer` renders a message m of the assistant."""
    return (
        "{% if tools %}<|im_start|>system\n" + tools + "<|im_end|>\n{% endif %}{% for m in messages %}"
        "{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        + answer
        + "<|im_end|>"
        + end
        + "{% elif m.role == 'tool' %}"
        "<|im_start|>user\n<tool_response>{{ m.content }}</tool_response><|im_end|>\n{% else %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n" + generation + "{% endif %}"
    )


CALLS = (
    "{% for c in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
)
SPLIT = (
    "{% set r = m.reasoning_content or '' %}{% set c = m.content %}{% if not r and '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
THINKING = SPLIT + "<think>\n{{ r }}\n</think>\n\n{{ c }}" + CALLS
IM_END = "<|im_end|>"
EMPTY = "<think>\n\n</think>\n\n"
R1_CALL = f"<|tool_begin|>weather\n```json\n{ARGUMENTS}\n```<|tool_end|>"
XML = "<tool_call>\n<function=weather>\n<parameter=city>\nBonn\n</parameter>\n</function>\n</tool_call>"

STYLES: dict[str, ToolStyle] = {
    "hermes": ToolStyle(
        chatml("{{ m.content }}" + CALLS),
        IM_END,
        HERMES + IM_END,
        f"I look.\n{HERMES}{IM_END}",
        f"It is 18.{IM_END}",
        f"({LEFT_OUT})",
        f"({LEFT_OUT})",
    ),
    "qwen3": ToolStyle(
        chatml(THINKING),
        IM_END,
        EMPTY + HERMES + IM_END,
        f"{EMPTY}I look.\n{HERMES}{IM_END}",
        f"{EMPTY}It is 18.{IM_END}",
        f"<think>\nI know.\n</think>\n\nIt is 18.{IM_END}",
        f"<think>\nI ask.\n</think>\n\n{HERMES}{IM_END}",
        field="reasoning_content",
    ),
    "qwen3.5, thinking": ToolStyle(
        chatml(THINKING, generation="<think>\n"),
        IM_END,
        f"\n</think>\n\n{HERMES}{IM_END}",
        f"\n</think>\n\nI look.\n{HERMES}{IM_END}",
        f"\n</think>\n\nIt is 18.{IM_END}",
        f"I know.\n</think>\n\nIt is 18.{IM_END}",
        f"I ask.\n</think>\n\n{HERMES}{IM_END}",
        field="reasoning_content",
    ),
    "qwen3.5, not thinking": ToolStyle(
        chatml(THINKING, generation=EMPTY),
        IM_END,
        HERMES + IM_END,
        f"I look.\n{HERMES}{IM_END}",
        f"It is 18.{IM_END}",
        f"({CLOSED})",
        f"({CLOSED})",
        field="reasoning_content",
    ),
    "nemotron": ToolStyle(
        chatml(
            SPLIT
            + "<think>{% if r %}\n{{ r }}\n{% endif %}</think>{{ c }}{% for c in m.tool_calls or [] %}{{ '\n' }}<tool_call>\n"
            "<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n{{ v }}\n"
            "</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}",
            generation="<think>\n",
        ),
        IM_END,
        f"</think>\n{XML}{IM_END}",
        f"</think>I look.\n{XML}{IM_END}",
        f"</think>It is 18.{IM_END}",
        f"I know.\n</think>It is 18.{IM_END}",
        f"I ask.\n</think>\n{XML}{IM_END}",
        field="reasoning_content",
        whole=False,
    ),
    "llama3.1": ToolStyle(
        "{{ bos_token }}{% if tools %}<|start_header_id|>system<|end_header_id|>\n\n{% for t in tools %}{{ t | tojson(indent=4) }}"
        "{% endfor %}<|eot_id|>{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<|start_header_id|>ipython"
        "<|end_header_id|>\n\n{{ m.content | tojson }}<|eot_id|>{% elif 'tool_calls' in m %}{% if m.tool_calls | length > 1 %}"
        "{{ raise_exception('one call at once') }}{% endif %}<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
        "<|eot_id|>{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        "<|eot_id|>",
        '{"name": "weather", "parameters": {"city": "Bonn"}}<|eot_id|>',
        '{"name": "weather", "parameters": {"city": "Bonn"}}<|eot_id|>',
        "It is 18.<|eot_id|>",
        f"({LEFT_OUT})",
        f"({LEFT_OUT})",
    ),
    "mistral": ToolStyle(
        "{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}"
        "[/TOOL_RESULTS]{% elif m.tool_calls %}{{ m.content }}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id is undefined or "
        "c.id | length != 9 %}{{ raise_exception('ids have 9 letters') }}{% endif %}{{ {'name': c.function.name, 'arguments': "
        "c.function.arguments, 'id': c.id} | tojson }}{% endfor %}]{{ eos_token }}{% else %}{{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}",
        "</s>",
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}, "id": "abcdefghi"}}]</s>',
        f'I look.[TOOL_CALLS][{{"name": "weather", "arguments": {ARGUMENTS}, "id": "abcdefghi"}}]</s>',
        "It is 18.</s>",
        f"({LEFT_OUT})",
        f"({LEFT_OUT})",
    ),
    "deepseek r1, arguments as text": ToolStyle(
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
        "{% elif m.role == 'tool' %}<|result|>{{ m.content }}{% elif m.tool_calls %}<|assistant|>{{ m.content }}{% for c in m.tool_calls %}"
        "{{ '<|tool_begin|>' + c.function.name + '\n```json\n' + c.function.arguments + '\n```<|tool_end|>' }}{% endfor %}<|eos|>"
        "{% else %}{% if messages[loop.index0 - 1].role != 'tool' %}<|assistant|>{% endif %}{{ m.content.split('</think>')[-1] }}<|eos|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role != 'tool' %}<|assistant|><think>\n{% endif %}",
        "<|eos|>",
        f"\n</think>\n\n{R1_CALL}<|eos|>",
        f"\n</think>\n\nI look.{R1_CALL}<|eos|>",
        f"({OTHERWISE})",
        "I know.\n</think>\n\nIt is 18.<|eos|>",
        f"I ask.\n</think>\n\n{R1_CALL}<|eos|>",
        as_text=True,
        whole=False,
    ),
    "harmony": ToolStyle(
        "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
        "<|start|>user<|message|>{{ m.content }}<|end|>{% elif m.role == 'tool' %}<|start|>functions to=assistant<|channel|>commentary"
        "<|message|>{{ m.content | tojson }}<|end|>{% elif m.tool_calls %}{% if m.content %}<|start|>assistant<|channel|>analysis"
        "<|message|>{{ m.content }}<|end|>{% elif m.thinking and (loop.last or messages[-1].role == 'tool') %}<|start|>assistant"
        "<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}<|start|>assistant to=functions."
        "{{ m.tool_calls[0].function.name }}<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
        "{% elif loop.last and not add_generation_prompt %}{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>"
        "{{ m.thinking }}<|end|>{% endif %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>{% else %}<|start|>"
        "assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>"
        "assistant{% endif %}",
        "<|return|>",
        f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>",
        "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant to=functions.weather<|channel|>commentary json<|message|>"
        f"{ARGUMENTS}<|call|>",
        "<|channel|>final<|message|>It is 18.<|return|>",
        "<|channel|>analysis<|message|>I know.<|end|><|start|>assistant<|channel|>final<|message|>It is 18.<|return|>",
        "<|channel|>analysis<|message|>I ask.<|end|><|start|>assistant to=functions.weather<|channel|>commentary json<|message|>"
        f"{ARGUMENTS}<|call|>",
        field="thinking",
        ends=("<|call|>",),
    ),
    "results inside the turn, which reasoning opens behind": ToolStyle(
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<|turn|>user\n"
        "{{ m.content }}<|eos|>\n{% elif m.role == 'tool' %}<|result|>{{ m.content }}<|/result|>{% else %}"
        "{% if messages[loop.index0 - 1].role != 'tool' %}<|turn|>model\n{% endif %}{% if m.reasoning_content %}<|channel|>thought\n"
        "{{ m.reasoning_content }}<|/channel|>{% endif %}{{ m.content }}{% for c in m.tool_calls or [] %}<|tool_begin|>"
        "{{ c.function.name }} {{ c.function.arguments | tojson }}<|tool_end|>{% endfor %}{% if not m.tool_calls or loop.last %}"
        "<|eos|>\n{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}{% if messages[-1].role == 'tool' %}"
        "<|channel|>thought\n{% else %}<|turn|>model\n{% endif %}{% endif %}",
        "<|eos|>",
        f"<|tool_begin|>weather {ARGUMENTS}<|tool_end|><|eos|>",
        f"I look.<|tool_begin|>weather {ARGUMENTS}<|tool_end|><|eos|>",
        f"({OTHERWISE})",
        "<|channel|>thought\nI know.<|/channel|>It is 18.<|eos|>",
        f"<|channel|>thought\nI ask.<|/channel|><|tool_begin|>weather {ARGUMENTS}<|tool_end|><|eos|>",
        field="reasoning_content",
    ),
    "magistral": ToolStyle(
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
        "{% elif m.role == 'tool' %}[TOOL]{{ m.content }}[/TOOL]{% else %}{% if m.reasoning %}[THINK]{{ m.reasoning }}[/THINK]{% endif %}"
        "{{ m.content }}{% for c in m.tool_calls or [] %}[CALL]{{ c.function | tojson }}{% endfor %}</s>{% endif %}{% endfor %}",
        "</s>",
        f'[CALL]{{"name": "weather", "arguments": {ARGUMENTS}}}</s>',
        f'I look.[CALL]{{"name": "weather", "arguments": {ARGUMENTS}}}</s>',
        "It is 18.</s>",
        "[THINK]I know.[/THINK]It is 18.</s>",
        f'[THINK]I ask.[/THINK][CALL]{{"name": "weather", "arguments": {ARGUMENTS}}}</s>',
        field="reasoning",
    ),
    "python's own spelling": ToolStyle(
        chatml(
            "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments }}</call>{% endfor %}"
        ),
        IM_END,
        f"<call>weather {ARGUMENTS}</call>{IM_END}",
        f"I look.<call>weather {ARGUMENTS}</call>{IM_END}",
        f"It is 18.{IM_END}",
        f"({LEFT_OUT})",
        f"({LEFT_OUT})",
        as_text=True,
    ),
    "chatml without tools": ToolStyle(
        roles(IM, "<|im_end|>\n"),
        IM_END,
        f"({NO_CALLS})",
        f"({NO_CALLS})",
        f"It is 18.{IM_END}",
        f"({LEFT_OUT})",
        f"({LEFT_OUT})",
        tools_shown=False,
    ),
}
"""Name -> style."""


def native(style: ToolStyle, message: dict[str, Any]) -> dict[str, Any]:
    """A message as a user of transformers gives it to such a template."""
    import json

    found = {name: value for name, value in message.items() if name not in ("tool_calls", "reasoning_content")}
    if "reasoning_content" in message:
        if style.field:
            found[style.field] = message["reasoning_content"]
        else:
            found["content"] = f"<think>\n{message['reasoning_content']}\n</think>\n\n{found['content']}"
    if "tool_calls" in message:
        calls = json.loads(message["tool_calls"])
        for call in calls if style.as_text else []:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        found["tool_calls"] = calls
    return found
