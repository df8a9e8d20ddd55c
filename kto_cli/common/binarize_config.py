"""What `kto binarize` is asked for; its defaults live here alone. Standard library only."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import require

RANKED = ("best-worst", "middle", "adjacent")
CUTS = ("mean", "median", "prompt-mean", "prompt-median", "bernoulli")
FIXES = ("contradictions", "duplicates", "refusals", "urls", "echoes", "encoding", "near-duplicates")
FORMATS = ("trl", "llama-factory", "halos")


OF_SOURCES = (
    "ranked",
    "both_labels",
    "cut",
    "margin",
    "score",
    "min_ratio",
    "prompt_column",
    "completion_column",
    "other_column",
    "messages_column",
    "label_column",
    "score_column",
    "conversation_column",
    "desirable",
    "undesirable",
)
"""Options that mean something for some sources only."""


@dataclass(frozen=True)
class BinarizeConfig:
    """`kto binarize`: any feedback to desirable / undesirable rows."""

    sources: tuple[str, ...]
    """Each a source's name (from the Hub), NAME:PATH (its raw files here), a file, or the Hub id of a dataset."""
    from_path: str | None = None
    """Where the raw files of the one source lie, as NAME:PATH says it for each of several."""
    out: str | None = None
    """The folder to write; default data/SOURCE."""
    subsets: tuple[str, ...] = ()
    """Subsets of the source to read; none named means all."""
    text: bool = False
    """Keep plain-text prompts as plain text instead of reading each as one user turn."""
    overwrite: bool = False
    """Replace an earlier dataset in the output folder."""

    # labels
    ranked: str = "best-worst"
    """What a ranked list of answers gives: its best and its worst, those above and below the middle, or adjacent
    pairs that do not overlap."""
    both_labels: bool = False
    """With adjacent pairs: all of them, so that an answer in between is in both classes."""
    cut: str | None = None
    """Where scores become labels: a number (that score and above are desirable), the mean or median of all scores or
    of the prompt's, or bernoulli: desirable with a probability logistic in the score."""
    margin: float = 0.0
    """Scores nearer than this to the cut are left out."""
    logistic_mid: float | None = None
    """With bernoulli, the score of probability 1/2; default: the mean of all scores."""
    logistic_scale: float | None = None
    """With bernoulli, how much score takes the log-odds from 0 to 1; default: the scores' standard deviation."""
    score: str | None = None
    """Which of several scores of an answer (ultrafeedback)."""
    min_ratio: float | None = None
    """The least ratio of the two answers' scores in a pair (shp)."""
    max_pairs: int | None = None
    """Most pairs of one prompt (shp)."""
    prompt_column: str | None = None
    """The column with the prompt (log)."""
    completion_column: str | None = None
    """The column with the answer (log)."""
    other_column: str | None = None
    """The column with another answer to the same prompt; the rules then say whether the answer of completion_column is
    the better (desirable) or the worse of the two (log)."""
    messages_column: str | None = None
    """The column with the whole chat, the answer last (log)."""
    label_column: str | None = None
    """The column with true / false or 1 / 0 (log)."""
    score_column: str | None = None
    """The column with a number, for --cut (log)."""
    conversation_column: str | None = None
    """The column that tells which rows must not be split between train and validation (log)."""
    desirable: str | None = None
    """The rule that makes a row desirable, such as `resolved == true` (log)."""
    undesirable: str | None = None
    """The rule that makes a row undesirable, such as `stars <= 2`, or `else` (log)."""

    # shape: of the rows to learn from; validation rows stay as they are, so that shapes can be compared on them
    validation: float = 0.05
    """The share of prompts kept back for evaluation."""
    seed: int = 0
    """Chooses which prompts are for validation, which rows a sample keeps, and Bernoulli labels."""
    one_y_per_x: bool = False
    """One row of each prompt, chosen by the seed."""
    max_per_prompt: int | None = None
    """Most rows of one prompt."""
    keep_desirable: float = 1.0
    """The share of desirable rows to keep, exact to one row."""
    keep_undesirable: float = 1.0
    """The share of undesirable rows to keep, exact to one row."""
    balance: bool = False
    """As many rows of each class."""
    weights: tuple[float, ...] = ()
    """With several sources, their shares of the rows, in the order of the sources."""
    limit: int | None = None
    """Most rows to learn from."""

    # doctor
    fix: tuple[str, ...] = ()
    """Findings to act on, not only to report."""
    check: bool = False
    """Only report: write nothing."""
    model: str | None = None
    """A model folder or Hub id whose tokenizer tells which rows will not fit."""
    max_length: int | None = None
    """Most tokens of prompt and completion, for that."""

    formats: tuple[str, ...] = ()
    """Other tools' formats to write besides kto's own."""
    workers: int = 1
    """Processes that parse."""

    def __post_init__(self) -> None:
        require(0 <= self.validation < 1, "--validation", self.validation, "a share from 0 to below 1, such as 0.05")
        _one_of("--ranked", self.ranked, RANKED)
        for flag, given, known in (("--fix", self.fix, (*FIXES, "all")), ("--format", self.formats, FORMATS)):
            for value in given:
                _one_of(flag, value, known)
        for flag, share in (("--keep-desirable", self.keep_desirable), ("--keep-undesirable", self.keep_undesirable)):
            require(0 < share <= 1, flag, share, "a share above 0 and up to 1, such as 0.1")
        for flag, count in (
            ("--max-per-prompt", self.max_per_prompt),
            ("--max-pairs", self.max_pairs),
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
        if self.cut is not None and self.cut not in CUTS:
            require(_is_number(self.cut), "--cut", self.cut, f"a number or one of {', '.join(CUTS)}")
        if self.weights and len(self.weights) != len(self.sources):
            raise BadFlag(
                f"--weights names {len(self.weights)} weights for {len(self.sources)} sources.",
                "Give one for each source, in their order.",
            )
        if self.max_length is not None and self.model is None:
            raise BadFlag("--max-length counts tokens, which needs a tokenizer.", "Add --model FOLDER_OR_HUB_ID.")
        if self.cut != "bernoulli" and (self.logistic_mid is not None or self.logistic_scale is not None):
            raise BadFlag("--logistic-mid and --logistic-scale go with --cut bernoulli.", "Leave them out.")
        if self.both_labels and self.ranked != "adjacent":
            raise BadFlag("--both-labels goes with --ranked adjacent only.", "Leave it out.")

    @property
    def asked_of_sources(self) -> tuple[str, ...]:
        """The flags given that mean something for some sources only."""
        defaults = {each.name: each.default for each in fields(self)}
        return tuple(flag(name) for name in OF_SOURCES if getattr(self, name) != defaults[name])

    @property
    def fixes(self) -> frozenset[str]:
        """The findings to act on; `all` stands for every one."""
        return frozenset(FIXES if "all" in self.fix else self.fix)


def flag(field: str) -> str:
    """The command line's name of a setting."""
    return "--" + field.replace("_", "-")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> None:
    require(value in known, flag, value, f"one of {', '.join(known)}")
