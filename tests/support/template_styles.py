"""Chat templates in the styles of public models, in our own words, with what a model must write behind each prompt."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN, THOUGHT = "It is 5.", "<think>\n2 plus 3\n</think>\n\nIt is 5."
REFUSED = None


@dataclass(frozen=True)
class Style:
    """A template, its end token, and the text of two completions, end token included; None: the row is refused."""

    template: str
    eos: str
    plain: str | None
    thought: str | None
    system: str = "shown"
    """shown, refused or left out."""


def each(user: str, answer: str, generation: str, *, system: str | None = None, start: str = "") -> str:
    """A template of one piece a role; {} is the content."""
    pieces = {"user": user, "assistant": answer, "system": system if system is not None else user}
    text = start + "{% for m in messages %}"
    for place, (role, piece) in enumerate(pieces.items()):
        before, _, after = piece.partition("{}")
        content = "{{ m['content'] }}" if "{}" in piece else ""
        text += f"{{% {'elif' if place else 'if'} m['role'] == '{role}' %}}{before}{content}{after}"
    text += "{% else %}{{ raise_exception('Unknown role: ' + m['role']) }}{% endif %}{% endfor %}"
    return text + "{% if add_generation_prompt %}" + generation + "{% endif %}"


def roles(head: str, end: str, *, trim: bool = False, start: str = "", generation: str | None = None) -> str:
    """A template that writes every role alike; ROLE in `head` is the role."""
    content = "{{ m['content'] | trim }}" if trim else "{{ m['content'] }}"
    ask = head.replace("ROLE", "assistant") if generation is None else generation
    turn = head.replace("ROLE", "{{ m['role'] }}") + content + end
    return f"{start}{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{ask}{{% endif %}}"


IM = "<|im_start|>ROLE\n"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DATE = (
    "{% if strftime_now is defined %}{% set date = strftime_now('%d %b %Y') %}{% else %}{% set date = '?' %}{% endif %}"
)
SPLIT = (
    "{% set r = '' %}{% set c = m['content'] %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
"""Parts reasoning from answer, as templates of reasoning models do."""
OTHERS = "{% if m['role'] != 'assistant' %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% else %}"
GENERATE = "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"


def reasoning(answer: str, generation: str = "") -> str:
    """A ChatML template whose answers are rendered by `answer` (r: reasoning, c: the rest)."""
    head = "{% for m in messages %}" + OTHERS + SPLIT + "<|im_start|>assistant\n"
    return head + answer + "<|im_end|>\n" + GENERATE + generation + "{% endif %}"


def parts(template: str) -> str:
    """The template with contents read as a list of parts alone."""
    read = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"
    return template.replace("{{ m['content'] }}", read)


EMPTY = "<think>\n\n</think>\n\n"
STYLES: dict[str, Style] = {
    "chatml": Style(roles(IM, "<|im_end|>\n"), "<|im_end|>", f"{PLAIN}<|im_end|>", f"{THOUGHT}<|im_end|>"),
    "chatml without generation prompt": Style(
        roles(IM, "<|im_end|>\n", generation=""),
        "<|im_end|>",
        f"<|im_start|>assistant\n{PLAIN}<|im_end|>",
        f"<|im_start|>assistant\n{THOUGHT}<|im_end|>",
    ),
    "chatml whose end is no end of generation": Style(
        roles(IM, "<|im_end|>\n"), "<|endoftext|>", f"{PLAIN}<|endoftext|>", f"{THOUGHT}<|endoftext|>"
    ),
    "generation tags": Style(
        "{% for m in messages %}" + OTHERS + "<|im_start|>assistant\n{% generation %}{{ m['content'] }}<|im_end|>"
        "{% endgeneration %}\n" + GENERATE + "{% endif %}",
        "<|im_end|>",
        f"{PLAIN}<|im_end|>",
        f"{THOUGHT}<|im_end|>",
    ),
    "llama2": Style(
        each("<s>[INST] {} [/INST]", " {} </s>", "", system="<<SYS>>{}<</SYS>>"),
        "</s>",
        f" {PLAIN} </s>",
        f" {THOUGHT} </s>",
    ),
    "llama3, trimming": Style(
        roles("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", trim=True, start="{{ bos_token }}"),
        "<|eot_id|>",
        f"{PLAIN}<|eot_id|>",
        f"{THOUGHT}<|eot_id|>",
    ),
    "llama3.2, date": Style(
        roles("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", start=DATE + "Today Date: {{ date }}\n"),
        "<|eot_id|>",
        f"{PLAIN}<|eot_id|>",
        f"{THOUGHT}<|eot_id|>",
    ),
    "mistral": Style(
        each("[INST]{}[/INST]", "{}</s>", "", system="[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]", start="{{ bos_token }}"),
        "</s>",
        f"{PLAIN}</s>",
        f"{THOUGHT}</s>",
    ),
    "gemma": Style(
        NO_SYSTEM + roles("<start_of_turn>ROLE\n", "<end_of_turn>\n", trim=True),
        "<end_of_turn>",
        f"{PLAIN}<end_of_turn>",
        f"{THOUGHT}<end_of_turn>",
        system="refused",
    ),
    "gemma3": Style(
        each(
            "<start_of_turn>user\n{}<end_of_turn>\n",
            "<start_of_turn>model\n{}<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        "<end_of_turn>",
        f"{PLAIN}<end_of_turn>",
        f"{THOUGHT}<end_of_turn>",
    ),
    "system left out": Style(
        each("<|user|>{}<|end|>", "<|assistant|>{}<|end|>", "<|assistant|>", system=""),
        "<|end|>",
        f"{PLAIN}<|end|>",
        f"{THOUGHT}<|end|>",
        system="left out",
    ),
    "phi3": Style(roles("<|ROLE|>\n", "<|end|>\n"), "<|end|>", f"{PLAIN}<|end|>", f"{THOUGHT}<|end|>"),
    "qwen2.5": Style(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
        + roles(IM, "<|im_end|>\n"),
        "<|im_end|>",
        f"{PLAIN}<|im_end|>",
        f"{THOUGHT}<|im_end|>",
    ),
    "qwen3": Style(
        reasoning("<think>\n{{ r }}\n</think>\n\n{{ c }}"),
        "<|im_end|>",
        f"{EMPTY}{PLAIN}<|im_end|>",
        f"{THOUGHT}<|im_end|>",
    ),
    "qwen3.5, thinking": Style(
        reasoning("<think>\n{{ r }}\n</think>\n\n{{ c }}", "<think>\n"),
        "<|im_end|>",
        f"\n</think>\n\n{PLAIN}<|im_end|>",
        f"2 plus 3\n</think>\n\n{PLAIN}<|im_end|>",
    ),
    "qwen3.5, not thinking": Style(
        reasoning("<think>\n{{ r }}\n</think>\n\n{{ c }}", EMPTY), "<|im_end|>", f"{PLAIN}<|im_end|>", REFUSED
    ),
    "smollm3, not thinking": Style(
        reasoning("{% if r %}<think>\n{{ r }}\n</think>\n\n{% endif %}{{ c }}", EMPTY),
        "<|im_end|>",
        f"{PLAIN}<|im_end|>",
        REFUSED,
    ),
    "deepseek r1": Style(
        reasoning("{{ c }}", "<think>\n"),
        "<|im_end|>",
        f"\n</think>\n\n{PLAIN}<|im_end|>",
        f"2 plus 3\n</think>{PLAIN}<|im_end|>",
    ),
    "deepseek v3.1": Style(reasoning("</think>{{ c }}", "</think>"), "<|im_end|>", f"{PLAIN}<|im_end|>", REFUSED),
    "nemotron": Style(
        reasoning("<think>{% if r %}\n{{ r }}\n{% endif %}</think>{{ c }}", "<think>\n"),
        "<|im_end|>",
        f"</think>{PLAIN}<|im_end|>",
        f"2 plus 3\n</think>{PLAIN}<|im_end|>",
    ),
    "glm4": Style(
        "[gMASK]<sop>" + roles("<|ROLE|>\n", "", generation="<|assistant|>\n"),
        "<|endoftext|>",
        f"{PLAIN}<|endoftext|>",
        f"{THOUGHT}<|endoftext|>",
    ),
    "command r": Style(
        roles("<|start|><|ROLE|>", "<|end|>", generation="<|start|><|assistant|>"),
        "<|end|>",
        f"{PLAIN}<|end|>",
        f"{THOUGHT}<|end|>",
    ),
    "command r7b": Style(
        each("<|start|>user{}<|end|>", "<|start|>bot<|START_RESPONSE|>{}<|END_RESPONSE|><|end|>", "<|start|>bot"),
        "<|end|>",
        f"<|START_RESPONSE|>{PLAIN}<|END_RESPONSE|><|end|>",
        f"<|START_RESPONSE|>{THOUGHT}<|END_RESPONSE|><|end|>",
    ),
    "harmony": Style(
        each(
            "<|start|>user<|message|>{}<|end|>",
            "<|start|>assistant<|channel|>final<|message|>{}{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}",
            "<|start|>assistant",
        ),
        "<|return|>",
        f"<|channel|>final<|message|>{PLAIN}<|return|>",
        f"<|channel|>final<|message|>{THOUGHT}<|return|>",
    ),
    "smolvlm, parts only": Style(
        parts(each("<|im_start|>User:{}<end_of_utterance>\n", "Assistant:{}<end_of_utterance>\n", "Assistant:")),
        "<end_of_utterance>",
        f"{PLAIN}<end_of_utterance>",
        f"{THOUGHT}<end_of_utterance>",
    ),
    "zephyr": Style(roles("<|ROLE|>\n", "{{ eos_token }}\n"), "</s>", f"{PLAIN}</s>", f"{THOUGHT}</s>"),
    "vicuna": Style(
        each("USER: {} ", "ASSISTANT: {}</s>", "ASSISTANT:", system="{} "), "</s>", f" {PLAIN}</s>", f" {THOUGHT}</s>"
    ),
    "prompt with a last space": Style(
        each("USER: {}\n", "ASSISTANT: {}</s>", "ASSISTANT: "), "</s>", f"{PLAIN}</s>", f"{THOUGHT}</s>"
    ),
    "a space that the chat lacks": Style(
        each("USER: {}\n", "ASSISTANT:{}</s>", "ASSISTANT: "), "</s>", f"{PLAIN}</s>", f"{THOUGHT}</s>"
    ),
    "alpaca": Style(
        each("### Instruction:\n{}\n\n", "### Response:\n{}\n\n", "### Response:\n"),
        "</s>",
        f"{PLAIN}</s>",
        f"{THOUGHT}</s>",
    ),
    "falcon": Style(roles("ROLE: ", "\n\n", trim=True), "</s>", f"{PLAIN}</s>", f"{THOUGHT}</s>"),
    "olmo": Style(
        roles("<|ROLE|>\n", "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n", start="{{ bos_token }}"),
        "</s>",
        f"{PLAIN}</s>",
        f"{THOUGHT}</s>",
    ),
    "granite": Style(
        roles("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>\n"),
        "<|end_of_text|>",
        f"{PLAIN}<|end_of_text|>",
        f"{THOUGHT}<|end_of_text|>",
    ),
    "minicpm": Style(each("<用户>{}", "<AI>{}</s>", "<AI>"), "</s>", f"{PLAIN}</s>", f"{THOUGHT}</s>"),
}
