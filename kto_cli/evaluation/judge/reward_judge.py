"""A judge on this machine: a reward model or a classifier scores each answer by itself, and the higher score wins.

No order is shown to it, so both orders have one verdict and cost nothing extra; equal scores are a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch

from kto_cli.common.errors import BadModel, first_line
from kto_cli.common.read import read_json
from kto_cli.common.words import plural
from kto_cli.data.texts import Text, api_messages, joined, offered
from kto_cli.evaluation.judge.comparisons import Comparison, Vote
from kto_cli.evaluation.judge.judge import Asked, Tick
from kto_cli.evaluation.judge.store import Value, VerdictStore
from kto_cli.model import load
from kto_cli.model.identity import fingerprint
from kto_cli.model.lengths import independent_length

GOOD = {"accepted", "acceptable", "chosen", "desirable", "good", "harmless", "helpful", "positive", "preferred", "safe"}
BAD = {
    "bad",
    "harmful",
    "negative",
    "rejected",
    "toxic",
    "toxicity",
    "unacceptable",
    "undesirable",
    "unhelpful",
    "unsafe",
}
TOKENS_A_BATCH = 8192
SERVE_IT = "For a chat model, serve it (vllm serve, transformers serve) and give --judge-url and --judge-model."


def score_weights(config: dict[str, Any], folder: Path) -> tuple[float, ...]:
    """What the logits are multiplied with to give one score: 1 for a reward; +1 for good, -1 for bad.

    Raises:
        BadModel: no classification head, or its labels do not say which one is good.
    """
    heads = config.get("architectures") or []
    if not any(str(head).endswith("ForSequenceClassification") for head in heads):
        raise BadModel(
            f"The judge {folder} has no classification head ({', '.join(heads) or 'unknown kind'}).", SERVE_IT
        )
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # the default, which is not stored
    names = [str(named[index]).strip().lower() for index in sorted(named, key=int)]
    if len(names) == 1 and names[0] not in BAD:
        return (1.0,)
    if len(names) == 2 and names[0] in BAD and names[1] in GOOD:
        return (-1.0, 1.0)
    if len(names) == 2 and names[0] in GOOD and names[1] in BAD:
        return (1.0, -1.0)
    raise BadModel(
        f"The labels of the judge {folder} do not say which answer is better: {', '.join(names)}.",
        "Name them in id2label of its config.json: one label (a reward), or two such as bad and good.",
    )


class RewardJudge:
    """A folder with AutoModelForSequenceClassification; its head is in float32 whatever the dtype."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """
        Raises:
            BadModel: the folder is no reward model, or cannot be loaded.
        """
        self.folder = folder
        self._say = say
        self._print = fingerprint(folder)
        self._dtype = dtype
        config = read_json(folder / "config.json", "the judge's config", constants=True)
        self.weights = torch.tensor(score_weights(config, folder), dtype=torch.float64)
        self.tokenizer, self.in_pairs = self._load_tokenizer()
        self.model = _load(folder, dtype).to(device)
        self.longest = independent_length(self.model.config)
        self._own_pad = self.model.config.get_text_config().pad_token_id
        self.shortened = 0
        """Texts that lost their beginning to fit."""
        self._texts: dict[Asked, tuple[Text, str]] = {}

    def _load_tokenizer(self) -> tuple[Any, bool]:
        tokenizer, fallback = load.load_tokenizer(self.folder, chat_template=None, trust_remote_code=None)
        in_pairs = fallback and tokenizer.sep_token is not None
        if in_pairs:
            self._say("The judge has no chat template: it reads prompt and answer as a pair of texts.")
        elif fallback:
            self._say("The judge has no chat template: it reads the turns as in hh-rlhf (Human: ... Assistant: ...).")
        return tokenizer, in_pairs

    @property
    def identity(self) -> tuple[str, ...]:
        """Weights, config, dtype, and how a prompt is written."""
        written = "pairs" if self.in_pairs else str(self.tokenizer.chat_template)
        return "reward", self._print, str(self._dtype), written

    @property
    def overhead(self) -> int:
        """It makes no calls."""
        return 0

    def check_prompts(self, prompts: Sequence[Text]) -> None:
        """
        Raises:
            BadModel: the judge's chat template refuses some, such as those with a system message.
        """
        faults = [fault for prompt in prompts if (fault := self._fault(prompt))]
        if faults:
            raise BadModel(
                f"The judge {self.folder} cannot read {len(faults):,} of {len(prompts):,} prompts; its chat template "
                f"says of the first: {faults[0]}.",
                "Give another judge, or leave such rows (a system message?) out of the validation split.",
            )

    def _fault(self, prompt: Text) -> str | None:
        """Why the chat template does not render a prompt and its answer."""
        try:
            self.encode(prompt, "An answer.")
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError) as error:
            return first_line(error)
        finally:
            self.shortened = 0
        return None

    def asked(self, comparison: Comparison) -> tuple[Asked, Asked]:
        """The scores of both answers."""
        asked = []
        for answer in (comparison.model, comparison.baseline):
            prompt, _, _ = comparison.questions()[0].parts
            self._texts[prompt, answer, ""] = (comparison.prompt, answer)
            asked.append((prompt, answer, ""))
        return asked[0], asked[1]

    def is_answered(self, answers: Sequence[Value]) -> bool:
        """It has a score."""
        return bool(answers)

    def votes(self, answers: tuple[Sequence[Value], Sequence[Value]]) -> tuple[Vote | None, Vote | None]:
        """The higher score wins, whichever is shown first."""
        model, baseline = (some[0]["score"] for some in answers)
        vote: Vote = "model" if model > baseline else "baseline" if model < baseline else "tie"
        return vote, vote

    def ask(self, todo: Sequence[Asked], store: VerdictStore, *, workers: int = 1, tick: Tick) -> None:
        """Scores all, batch by batch, longest first (a batch that does not fit in memory fails at once).

        Raises:
            BadModel: a score is not a number.
        """
        ids = {asked: self.encode(*self._texts[asked]) for asked in todo}
        if self.shortened:
            self._say(
                f"{plural(self.shortened, 'text')} lost their beginning: the judge reads {self.longest:,} tokens."
            )
        for batch in _batches(sorted(todo, key=lambda asked: -len(ids[asked]["input_ids"])), ids):
            scores = self.scores([ids[asked] for asked in batch])
            if not all(torch.isfinite(scores)):
                raise BadModel(f"The judge {self.folder} gives scores that are not numbers.", "Try it in float32.")
            store.add(
                [(store.key(*asked), {"score": score}) for asked, score in zip(batch, scores.tolist(), strict=True)]
            )
            tick(len(batch))

    def encode(self, prompt: Text, answer: str) -> dict[str, list[int]]:
        """Token ids (and segment ids where the model has them) of a prompt and its answer; where they do not fit, the
        beginning goes (of a pair of texts that of the longer one)."""
        turns, tools = api_messages(prompt), offered(prompt)
        if self.in_pairs:
            asked = joined(prompt)
            self.tokenizer.truncation_side = "left"
            whole = dict(self.tokenizer(asked, answer, truncation=False))
            if self.longest is None or len(whole["input_ids"]) <= self.longest:
                return whole
            self.shortened += 1
            return dict(self.tokenizer(asked, answer, truncation="longest_first", max_length=self.longest))
        turns.append({"role": "assistant", "content": answer})
        text = self.tokenizer.apply_chat_template(turns, tools=tools, tokenize=False)
        found = self.tokenizer(text, add_special_tokens=False).input_ids
        if self.longest is not None and len(found) > self.longest:
            self.shortened += 1
            found = found[-self.longest :]
        return {"input_ids": found}

    def scores(self, rows: Sequence[dict[str, list[int]]]) -> torch.Tensor:
        """[rows] in float64. Padded on the right behind a mask, so positions are those of each row alone."""
        pad = self._pad(rows)
        width = max(len(row["input_ids"]) for row in rows)
        inputs = {}
        for name in (name for name in rows[0] if name != "attention_mask"):
            filler = pad if name == "input_ids" else 0
            inputs[name] = torch.tensor([row[name] + [filler] * (width - len(row[name])) for row in rows])
        mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
        device = self.model.device
        with torch.inference_mode():
            logits = self.model(
                attention_mask=mask.to(device), **{name: value.to(device) for name, value in inputs.items()}
            ).logits
        return logits.double().cpu() @ self.weights

    def _pad(self, rows: Sequence[dict[str, list[int]]]) -> int:
        """The model's padding token; where it has none, a token that no row holds: decoders take the last token that is
        not the padding one for the end of a text."""
        text = self.model.config.get_text_config()
        if self._own_pad is None:
            present = {token for row in rows for token in row["input_ids"]}
            text.pad_token_id = next(token for token in range(text.vocab_size) if token not in present)
        return int(text.pad_token_id)


def _batches(ordered: Sequence[Asked], ids: dict[Asked, dict[str, list[int]]]) -> Iterator[list[Asked]]:
    """Some at a time, of up to so many padded tokens; the longest come first, so each batch is as wide as its first."""
    start = 0
    while start < len(ordered):
        count = max(1, TOKENS_A_BATCH // max(1, len(ids[ordered[start]]["input_ids"])))
        yield list(ordered[start : start + count])
        start += count


def _load(folder: Path, dtype: torch.dtype) -> Any:
    """The model, in evaluation mode.

    Raises:
        BadModel: weights are missing or damaged.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BadModel(f"The judge {folder} cannot be loaded: {first_line(error)}.") from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        raise BadModel(f"The judge {folder} lacks weights: {names}.", "Copy the model folder again.")
    _keep_head_exact(model)
    load.keep_soft_cap(model)
    return model.eval()


def _keep_head_exact(model: Any) -> None:
    """Computes what follows the body in float32: scores in bfloat16 have three digits, and many would be ties."""

    def widen(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.float() if torch.is_tensor(value) else value for value in inputs)

    for name, child in model.named_children():
        if name != model.base_model_prefix:
            child.float().register_forward_pre_hook(widen)
