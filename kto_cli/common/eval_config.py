"""Settings of `kto eval`. The defaults live here alone; the flags read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from kto_cli.common.errors import BadFlag
from kto_cli.common.model_config import ModelConfig, require

SAMPLES, JUDGED, PAIRS = 16, 128, 128
"""Number of validation prompts to answer, without and with a judge; pairs on which a local judge is compared with
people."""
TARGET, REFERENCE = "target", "reference"
"""Values of `against` besides checkpoints: the data's desirable completions, the reference model's answers."""
ENGINES = ("auto", "continuous", "padded", "vllm")


@dataclass(frozen=True)
class EvalConfig(ModelConfig):
    """Settings of `kto eval`. `model` is the reference (--reference); default: the one the run started from."""

    checkpoint: str = "checkpoint"
    """A run directory, a step of one, a Hugging Face model folder or a Hub id."""
    beta: float | None = None
    """KTO beta for the rewards; default: the run's, else 0.1."""
    report_only: bool = False
    """Only write the report again, from existing results."""

    samples: int | None = None
    """Validation prompts to answer; default: `SAMPLES`, with a judge `JUDGED`."""
    max_new_tokens: int = 128
    """Maximum tokens of an answer."""
    temperature: float = 0.7
    """Sampling temperature; 0 = greedy. The default is that of the KTO authors' code (HALOs, train/sample.py)."""
    top_p: float = 0.95
    """Nucleus sampling: probability mass of the tokens to sample from. The default is from the same code."""
    seed: int = 0
    """Random seed for sampling; an answer depends on the model, its prompt and the seed."""
    engine: str = "auto"
    """Generation engine: one of `ENGINES`, or the URL of an OpenAI-compatible server that serves the models."""
    against: str | None = None
    """Baseline of the win rate: `TARGET` (default), `REFERENCE`, another checkpoint, or a JSON file of answers
    (AlpacaEval's format)."""

    judge_url: str | None = None
    """URL of an OpenAI-compatible server as judge."""
    judge_model: str | None = None
    """Name of the judge on that server; without a server, folder or Hub id of a reward or classifier model."""
    judge_for: str = "helpful, harmless and concise"
    """Criterion for the better answer. The default is the paper's."""
    judge_calls: int = 1000
    """Maximum requests to the judge, retries included; none is sent if they would not suffice."""
    judge_workers: int = 8
    """Concurrent requests to the judge."""

    judge_pairs: int | None = None
    """Validation prompts with rows of both labels on which the judge is compared with people; default: `PAIRS` for a
    judge on this machine, 0 for a server, as each takes two requests."""
    judge_labels: str | None = None
    """A file of `kto label` with pairs, on which the judge is compared with people instead."""

    tasks: str | None = None
    """Benchmarks of lm-eval, separated by commas."""
    task_folder: str | None = None
    """Folder with custom lm-eval tasks."""
    task_limit: int | None = None
    """Questions per task; default: all."""
    allow_code_execution: bool = False
    """Run code that the model writes, which humaneval needs."""

    def __post_init__(self) -> None:
        require(self.beta is None or 0 < self.beta < math.inf, "--beta", self.beta, "above 0, such as 0.1")
        require(self.samples is None or self.samples >= 0, "--samples", self.samples, "0 or above")
        require(self.max_new_tokens >= 1, "--max-new-tokens", self.max_new_tokens, "1 or above")
        require(0 <= self.temperature < math.inf, "--temperature", self.temperature, "0 or above")
        require(0 < self.top_p <= 1, "--top-p", self.top_p, "above 0 and at most 1")
        require(
            self.engine in ENGINES or is_url(self.engine),
            "--engine",
            self.engine,
            f"one of {', '.join(ENGINES)} or a URL such as http://localhost:8000/v1",
        )
        self._check_judge()
        self._check_tasks()
        self._check_against()
        self._check_report_only()
        require(self.task_limit is None or self.task_limit >= 1, "--task-limit", self.task_limit, "1 or above")
        super().__post_init__()

    def _check_judge(self) -> None:
        url = self.judge_url
        require(url is None or is_url(url), "--judge-url", url, "a URL such as http://localhost:8000/v1")
        require(bool(self.judge_for.strip()), "--judge-for", "''", "what makes an answer better, such as 'helpful'")
        require(self.judge_calls >= 1, "--judge-calls", self.judge_calls, "1 or above")
        require(self.judge_workers >= 1, "--judge-workers", self.judge_workers, "1 or above")
        require(self.judge_model != "", "--judge-model", "''", "a name on the server, or the folder of a reward model")
        require(self.judge_pairs is None or self.judge_pairs >= 0, "--judge-pairs", self.judge_pairs, "0 or above")
        people = "--judge-pairs" if self.judge_pairs is not None else "--judge-labels" if self.judge_labels else ""
        if people and self.judge_model is None:
            raise BadFlag(f"{people} needs --judge-model.", "Name the judge that is compared with people.")
        if self.judge_pairs is not None and self.judge_labels is not None:
            raise BadFlag("--judge-pairs are validation rows, --judge-labels are a file.", "Leave out one of them.")
        if url is not None and self.judge_model is None:
            raise BadFlag("--judge-url needs --judge-model.", "Name the model to ask, as the server calls it.")
        if self.judge_model is not None and self.samples == 0:
            raise BadFlag("With --samples 0 there are no answers to judge.", "Leave out --samples or --judge-model.")

    def _check_tasks(self) -> None:
        if self.task_names:
            return
        if self.tasks is not None:
            raise BadFlag("--tasks names no benchmark.", "Name some, such as --tasks mmlu,gsm8k.")
        given = {
            "--task-folder": self.task_folder is not None,
            "--task-limit": self.task_limit is not None,
            "--allow-code-execution": self.allow_code_execution,
        }
        for flag, is_given in given.items():
            if is_given:
                raise BadFlag(f"{flag} needs --tasks.", "Name benchmarks, such as --tasks mmlu,gsm8k.")

    def _check_against(self) -> None:
        require(self.against != "", "--against", "''", f"{TARGET}, {REFERENCE}, a checkpoint or a JSON file of answers")
        if self.against is not None and self.samples == 0:
            raise BadFlag(
                f"With --samples 0 there are no answers to put beside those of {self.against}.",
                "Leave out --samples or --against.",
            )

    def _check_report_only(self) -> None:
        given = ("judge_url", "judge_model", "tasks", "against", "samples")
        named = [f"--{name.replace('_', '-')}" for name in given if getattr(self, name) is not None]
        if self.report_only and named:
            raise BadFlag(
                f"--report-only computes nothing, and {' and '.join(named)} would have to.",
                "Leave out one or the other.",
            )

    @property
    def prompts(self) -> int:
        """Number of validation prompts to answer."""
        return self.samples if self.samples is not None else JUDGED if self.judge_model else SAMPLES

    @property
    def pairs(self) -> int:
        """Number of validation pairs on which the judge is compared with people."""
        if self.judge_pairs is not None:
            return self.judge_pairs
        return PAIRS if self.judge_model is not None and self.judge_url is None and self.judge_labels is None else 0

    @property
    def task_names(self) -> list[str]:
        """The names in `tasks`."""
        return [name.strip() for name in (self.tasks or "").split(",") if name.strip()]


def is_url(text: str) -> bool:
    """Whether the text is an http or https URL."""
    return urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).netloc)
