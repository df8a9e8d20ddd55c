"""Make everything in sample_data/: preference pairs, a thumbs log, and a tiny base model with its tokenizer.

    python sample_data/make_sample_data.py              # data and model (a few minutes on two cores)
    python sample_data/make_sample_data.py --data-only  # data alone (a second)

The data files depend on the seed alone, byte for byte. The model is trained from scratch on other dialogues
of the same kind, half of them answered well and half badly, so that learning has something to shift.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import random
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dialogues import distinct_dialogues, draw_dialogue, length_goals

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SEED = 2402

PAIRS = 400
THUMBS = 400
THUMBS_UP_SHARE = 0.75
FLIPPED_SHARE = 0.05
SUBTLE_SHARE = 0.10

CORPUS = 40_000
SYSTEM_SHARE = 0.05
SYSTEM_PROMPTS = (
    "You are a helper for everyday questions.",
    "You answer questions about home, garden, school and travel.",
)

VOCAB_SIZE = 2048
MAX_LENGTH = 512
BOS, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("system", "user", "assistant")
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('Unknown role: ' + message['role']) }}
    {%- endif %}
    {{- '<|' + message['role'] + '|>' + message['content'] + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""

BATCH_ROWS = 32
PEAK_LEARNING_RATE = 3e-3

Message = dict[str, str]


def hh_text(turns: tuple[str, ...]) -> str:
    """Turns in the raw hh-rlhf layout."""
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[k % 2]}: {turn}" for k, turn in enumerate(turns))


def preference_pairs(rng: random.Random) -> list[dict[str, str]]:
    """Chosen and rejected dialogues that differ in the last answer; some are swapped, some close calls."""
    pairs = []
    flipped = set(rng.sample(range(PAIRS), round(PAIRS * FLIPPED_SHARE)))
    dialogues = distinct_dialogues("pairs", rng)
    good_goals, bad_goals = length_goals(PAIRS, rng), length_goals(PAIRS, rng)
    for n, dialogue in enumerate(islice(dialogues, PAIRS)):
        good = dialogue.answer(True, rng, good_goals[n])
        bad = dialogue.answer(False, rng, bad_goals[n], subtle=rng.random() < SUBTLE_SHARE)
        chosen, rejected = (bad, good) if n in flipped else (good, bad)
        turns = dialogue.turns
        pairs.append({"chosen": hh_text((*turns, chosen)), "rejected": hh_text((*turns, rejected))})
    return pairs


def thumbs_log(rng: random.Random) -> list[tuple[str, str, str]]:
    """Single answers with a thumb each, about three up for one down, a few of them wrong."""
    rows = []
    count_up = round(THUMBS * THUMBS_UP_SHARE)
    plan = [(True, goal) for goal in length_goals(count_up, rng)]
    plan += [(False, goal) for goal in length_goals(THUMBS - count_up, rng)]
    rng.shuffle(plan)
    flipped = set(rng.sample(range(THUMBS), round(THUMBS * FLIPPED_SHARE)))
    dialogues = distinct_dialogues("thumbs", rng, multi_turn_share=0.0)
    for n, (up, goal) in enumerate(plan):
        dialogue = next(dialogues)
        text = dialogue.answer(up != (n in flipped), rng, goal, subtle=rng.random() < SUBTLE_SHARE)
        rows.append((dialogue.turns[0], text, "true" if up else "false"))
    return rows


def write_pairs(path: Path, pairs: list[dict[str, str]]) -> None:
    """JSON lines, gzipped without a time stamp so that the same data gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.encode())


def write_thumbs(path: Path, rows: list[tuple[str, str, str]]) -> None:
    """A CSV file with Unix line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("prompt", "completion", "label"))
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode())


def base_corpus(rng: random.Random) -> list[list[Message]]:
    """Dialogues on topics that the feedback does not have, half the answers good and half bad."""
    corpus = []
    for _ in range(CORPUS):
        dialogue = draw_dialogue("base", rng)
        turns = (*dialogue.turns, dialogue.answer(rng.random() < dialogue.topic.good_share, rng))
        messages = [{"role": ROLES[1 + k % 2], "content": turn} for k, turn in enumerate(turns)]
        if rng.random() < SYSTEM_SHARE:
            messages.insert(0, {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
        corpus.append(messages)
    return corpus


def make_tokenizer(corpus: list[list[Message]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template in which the end of a turn ends the sequence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, BOS, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator((message["content"] for messages in corpus for message in messages), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A randomly initialised Llama of about a million parameters."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        **tokens,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=96, **tokens)
    return model


def answer_labels(row: list[int], start: int, end: int) -> list[int]:
    """The tokens of the assistant's turns with their ends, and -100 (ignored) everywhere else."""
    labels, inside = [], False
    for token in row:
        labels.append(token if inside else -100)
        inside = token == start or (inside and token != end)
    return labels


def token_batches(
    rows: list[list[int]], tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch of (input ids, labels), rows of similar length together, the batches in random order."""
    import torch

    start, end = tokenizer.get_vocab()["<|assistant|>"], tokenizer.get_vocab()[END]
    rows = sorted(rng.sample(rows, len(rows)), key=len)
    batches = []
    for first in range(0, len(rows), BATCH_ROWS):
        group = rows[first : first + BATCH_ROWS]
        fill = [len(group[-1]) - len(row) for row in group]
        ids = [row + [tokenizer.pad_token_id] * n for row, n in zip(group, fill, strict=True)]
        labels = [answer_labels(row, start, end) + [-100] * n for row, n in zip(group, fill, strict=True)]
        batches.append((torch.tensor(ids), torch.tensor(labels)))
    rng.shuffle(batches)
    return batches


def train(model: LlamaForCausalLM, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Plain language modelling of the answers, one pass, AdamW with warm-up and decay.

    Padding is on the right, so the causal mask alone keeps it out of the answers.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=len(batches), pct_start=0.05, cycle_momentum=False
    )
    model.train()
    began = time.monotonic()
    for step, (ids, labels) in enumerate(batches, 1):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == len(batches):
            print(
                f"step {step}/{len(batches)}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s",
                flush=True,
            )


def write_model(folder: Path) -> None:
    """Train the tokenizer and the base model and save both as one Hugging Face model folder."""
    os.environ.update(TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="passive")
    import torch

    torch.set_num_threads(2)
    rng = random.Random(f"{SEED} corpus")
    corpus = base_corpus(rng)
    tokenizer = make_tokenizer(corpus)
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in corpus]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    model = make_model(tokenizer)
    total = sum(p.numel() for p in model.parameters())
    print(f"{len(encoded)} dialogues, {sum(map(len, encoded))} tokens, {total} parameters")
    train(model, token_batches(encoded, tokenizer, rng))
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-only", action="store_true", help="write the data files and leave the model as it is")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: this one)")
    args = parser.parse_args()
    write_pairs(
        args.out / "hh-rlhf" / "harmless-base" / "train.jsonl.gz",
        preference_pairs(random.Random(f"{SEED} pairs")),
    )
    write_thumbs(args.out / "thumbs.csv", thumbs_log(random.Random(f"{SEED} thumbs")))
    if not args.data_only:
        write_model(args.out / "model")


if __name__ == "__main__":
    main()
