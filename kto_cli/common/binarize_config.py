"""Settings of `kto binarize`, with their defaults and checks. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import require
from kto_cli.common.template_kwargs import FLAG, check_template_kwargs
from kto_cli.common.words import plural

Way = Literal["best-worst", "middle", "adjacent"]
RANKED: tuple[str, ...] = get_args(Way)
Reasoning = Literal["keep", "drop"]
Purpose = Literal["kto", "sft"]
THRESHOLDS = ("mean", "median", "prompt-mean", "prompt-median", "bernoulli")
FIXES = ("contradictions", "duplicates", "refusals", "urls", "echoes", "cut-answers", "encoding", "near-duplicates")
FORMATS = ("trl", "llama-factory", "halos", "openai-preference")


OF_SOURCES = (
    "ranked",
    "both_labels",
    "threshold",
    "margin",
    "score",
    "min_ratio",
    "prompt_column",
    "completion_column",
    "other_column",
    "messages_column",
    "system_column",
    "tools_column",
    "label_column",
    "score_column",
    "conversation_column",
    "desirable",
    "undesirable",
)
"""Options that apply to some sources only."""


@dataclass(frozen=True)
class BinarizeConfig:
    """Settings of `kto binarize`: any feedback as desirable / undesirable rows."""

    sources: tuple[str, ...]
    """Each a source's name (from the Hub), NAME:PATH (local raw files), a file, or the Hub id of a dataset."""
    from_path: str | None = None
    """File or folder with the raw files of the one source; NAME:PATH is the same."""
    out: str | None = None
    """Output folder; default data/SOURCE."""
    subsets: tuple[str, ...] = ()
    """Subsets of the source to read; default: all."""
    text: bool = False
    """Keep plain-text prompts as plain text instead of reading each as one user turn."""
    purpose: str = "kto"
    """Losses that the rows are for (`--for`): kto needs both classes, sft desirable rows alone."""
    reasoning: str = "keep"
    """Reasoning of the assistant (a field such as reasoning_content, or <think> in its text): keep or drop."""
    overwrite: bool = False
    """Replace an earlier dataset in the output folder."""

    # labels
    ranked: str = "best-worst"
    """Labels from a ranked list of answers: the best and the worst, the halves above and below the middle, or adjacent
    pairs that do not overlap."""
    both_labels: bool = False
    """With adjacent: overlapping pairs too, so that an answer in between is in both classes."""
    threshold: str | None = None
    """Labels from scores: a number (that score and above are desirable), the mean or median of all scores or of the
    prompt's, or bernoulli: desirable with a probability that is logistic in the score."""
    margin: float = 0.0
    """Scores nearer than this to the threshold are dropped."""
    logistic_mid: float | None = None
    """With bernoulli, the score with probability 1/2; default: the mean of all scores."""
    logistic_scale: float | None = None
    """With bernoulli, the width of the logistic curve in score units; default: the scores' standard deviation."""
    score: str | None = None
    """Which of several scores of an answer to use (ultrafeedback, oasst)."""
    min_ratio: float | None = None
    """Minimum ratio of the two answers' scores in a pair (shp)."""
    max_pairs: int | None = None
    """Maximum of pairs per prompt."""
    pair_within_prompts: int | None = None
    """Pairs of a desirable and an undesirable row to make per prompt at most, of rows in no pair; each row once."""
    prompt_column: str | None = None
    """The column with the prompt (log)."""
    completion_column: str | None = None
    """The column with the answer (log)."""
    other_column: str | None = None
    """The column with another answer to the same prompt; the rules then decide whether the answer in completion_column
    is the better (desirable) or the worse of the two (log)."""
    messages_column: str | None = None
    """The column with the whole chat, the answer last (log)."""
    system_column: str | None = None
    """The column with the system message of the prompt (log)."""
    tools_column: str | None = None
    """The column with the tools that the prompt offers, a list or its JSON (log)."""
    label_column: str | None = None
    """The column with true / false or 1 / 0 (log)."""
    score_column: str | None = None
    """The column with a number, for --threshold (log)."""
    conversation_column: str | None = None
    """The column with the conversation: rows with the same value stay in one split (log)."""
    desirable: str | None = None
    """The rule that makes a row desirable, such as `resolved == true` (log)."""
    undesirable: str | None = None
    """The rule that makes a row undesirable, such as `stars <= 2`, or `else` (log)."""

    # split and sample; only training rows are sampled, so that different samples share one validation split
    validation: float = 0.05
    """Share of the rows in the validation split."""
    keep_split: str | None = None
    """An earlier dataset: its prompts and conversations stay on their sides of the split."""
    seed: int = 0
    """Seed of the validation split, of samples and of Bernoulli labels."""
    one_y_per_x: bool = False
    """One row per prompt, chosen by the seed."""
    max_per_prompt: int | None = None
    """Maximum of rows per prompt."""
    keep_desirable: float = 1.0
    """Share of the desirable rows to keep, exact to one row."""
    keep_undesirable: float = 1.0
    """Share of the undesirable rows to keep, exact to one row."""
    balance: bool = False
    """Equal numbers of rows of both classes."""
    weights: tuple[float, ...] = ()
    """Shares of several sources among the rows, in the order of the sources."""
    limit: int | None = None
    """Maximum of training rows."""

    # doctor
    scrub: bool = False
    """Replace personal data and keys by their kind, such as <EMAIL>."""
    scrub_model: str | None = None
    """With `scrub`, also what a token classification model sees (folder or Hub id), or Presidio (`presidio`)."""
    fix: tuple[str, ...] = ()
    """Findings to fix, not only to report."""
    check: bool = False
    """Only report: write nothing."""
    model: str | None = None
    """A model folder or Hub id, to report rows that are too long for it."""
    max_length: int | None = None
    """Maximum tokens of prompt and completion, with `model`."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template besides the messages, with `model`."""

    formats: tuple[str, ...] = ()
    """Other tools' formats to write, besides kto's own."""
    workers: int = 1
    """Number of parsing processes."""

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "--validation", self.validation, "a share from 0 to below 1, such as 0.05")
        _one_of("--for", self.purpose, get_args(Purpose))
        _one_of("--ranked", self.ranked, RANKED)
        _one_of("--reasoning", self.reasoning, get_args(Reasoning))
        for flag, given, known in (("--fix", self.fix, (*FIXES, "all")), ("--format", self.formats, FORMATS)):
            for value in given:
                _one_of(flag, value, known)
        for flag, share in (("--keep-desirable", self.keep_desirable), ("--keep-undesirable", self.keep_undesirable)):
            require(0 < share <= 1, flag, share, "a share above 0 and up to 1, such as 0.1")
        for flag, count in (
            ("--max-per-prompt", self.max_per_prompt),
            ("--max-pairs", self.max_pairs),
            ("--pair-within-prompts", self.pair_within_prompts),
            ("--limit", self.limit),
            ("--workers", self.workers),
        ):
            require(count is None or count >= 1, flag, count, "1 or above")
        require(0 <= self.margin < math.inf, "--margin", self.margin, "0 or above")
        require(self.min_ratio is None or self.min_ratio >= 1, "--min-ratio", self.min_ratio, "1 or above")
        require(
            self.logistic_scale is None or self.logistic_scale > 0, "--logistic-scale", self.logistic_scale, "above 0"
        )
        require(
            all(0 < weight < math.inf for weight in self.weights), "--weights", self.weights, "numbers above 0, as 2,1"
        )
        if self.threshold is not None and self.threshold not in THRESHOLDS:
            wanted = f"a number or one of {', '.join(THRESHOLDS)}"
            require(_is_number(self.threshold), "--threshold", self.threshold, wanted)
        if self.weights and len(self.weights) != len(self.sources):
            what = f"--weights has {plural(len(self.weights), 'weight')} for {plural(len(self.sources), 'source')}."
            raise BadFlag(what, "Give one for each source, in their order.")
        if self.max_length is not None and self.model is None:
            raise BadFlag("--max-length counts tokens, which needs a tokenizer.", "Add --model FOLDER_OR_HUB_ID.")
        if self.scrub_model is not None and (not self.scrub or self.workers > 1):
            what = "needs --scrub" if not self.scrub else "works in one process"
            raise BadFlag(f"--scrub-model {what}.", "Add it." if not self.scrub else "Remove --workers.")
        if self.chat_template_kwargs is not None:
            check_template_kwargs(self.chat_template_kwargs)
            if self.model is None:
                raise BadFlag(f"{FLAG} are for the model's chat template.", "Add --model FOLDER_OR_HUB_ID.")
        if self.threshold != "bernoulli" and (self.logistic_mid is not None or self.logistic_scale is not None):
            raise BadFlag("--logistic-mid and --logistic-scale need --threshold bernoulli.", "Add it, or remove them.")
        if self.both_labels and self.ranked != "adjacent":
            raise BadFlag("--both-labels needs --ranked adjacent.", "Add it, or remove --both-labels.")

    @property
    def source_flags(self) -> tuple[str, ...]:
        """Flags given that apply to some sources only."""
        defaults = {each.name: each.default for each in fields(self)}
        return tuple(flag(name) for name in OF_SOURCES if getattr(self, name) != defaults[name])

    @property
    def beside(self) -> tuple[tuple[str, str], ...]:
        """(flag, column) of the columns of a log that are read besides texts and labels."""
        return ()

    @property
    def fixes(self) -> frozenset[str]:
        """Findings to fix; `all` means every one."""
        return frozenset(FIXES if "all" in self.fix else self.fix)


def flag(field: str) -> str:
    """Name of a setting on the command line."""
    return "--" + field.replace("_", "-")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    require(value in known, flag, value, f"one of {', '.join(known)}")
