"""report.html: one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kto_cli import __version__
from kto_cli.common import files
from kto_cli.common.tables import LABELS
from kto_cli.common.train_config import TrainConfig
from kto_cli.core.loss_kinds import BETA
from kto_cli.core.statistics.verdict import Verdict, run_verdict
from kto_cli.evaluation.report.benchmarks import benchmark_section
from kto_cli.evaluation.report.charts import Chart
from kto_cli.evaluation.report.comparisons import comparison_tables
from kto_cli.evaluation.report.curves import training_charts
from kto_cli.evaluation.report.differences import Piece, word_differences
from kto_cli.evaluation.report.evidence import Evidence, gather, is_number, objects, part
from kto_cli.evaluation.report.figures import calibration_chart, reward_chart, share_chart
from kto_cli.evaluation.report.generations import generations
from kto_cli.evaluation.report.numbers import MEANINGS, Entry, Grid, is_known_interval, sections, shown
from kto_cli.evaluation.report.saturation import odd_rows, saturation_grid
from kto_cli.evaluation.report.summary import questions
from kto_cli.evaluation.report.win_rate import win_rate_section

NAME = "report.html"
HEADLINES = (("auc",), ("margin_nats", "margin"), ("reward_desirable",), ("kl", "z_ref"))
"""Groups of keys; of each the first that is known."""
OUTSIDE_SECTIONS = (
    *("checkpoint", "weights", "of", "reference", "data", "dtype", "answer_dtype"),
    *("loss", "beta", "lambda_d", "lambda_u", "metrics"),
)
"""Keys of metrics.json that are shown elsewhere on the page."""
OPEN_ANSWERS = 12
"""Prompts whose answers are shown unfolded."""
VERDICTS = {
    "learned": ("✓", "Learned"),
    "length": ("!", "Perhaps length alone"),
    "unclear": ("?", "Unclear"),
    "barely moved": ("?", "Barely moved"),
    "overfit": ("!", "Overfit"),
    "too few rows": ("?", "Too few rows"),
    "drifted": ("!", "Drifted"),
    "collapsed": ("✗", "Collapsed"),
    "blown up": ("✗", "Blown up"),
    "unknown": ("?", "Unknown"),
}


@dataclass(frozen=True)
class MarkedAnswer:
    """One model's answer, in pieces."""

    by: str
    pieces: list[Piece]
    unlike: bool = False
    """It shares nothing with the reference's answer and is not marked."""


def write_report(out: Path, home: Path | None) -> Path:
    """Makes `out`/report.html from the files in `out` and in `home`, the run directory (None: no run).

    The same files give the same bytes.

    Raises:
        DiskFull: no space left; an earlier report is as it was.
    """
    page = render(gather(out, home))
    with files.replacing(out / NAME) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return out / NAME


def render(evidence: Evidence) -> str:
    """HTML. Every text from outside is escaped; only drawings are taken as markup."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("kto_cli.evaluation.report", ""),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdict = _verdict(evidence)
    validation = sections(evidence.metrics, "metrics", "On all validation rows")
    others = {key: value for key, value in evidence.results.items() if key not in OUTSIDE_SECTIONS}
    judged, tasks, answers = win_rate_section(evidence), benchmark_section(evidence), generations(evidence)
    page = environment.get_template("report.html.j2").render(
        version=__version__,
        evidence=evidence,
        results_file=f"{evidence.results_folder}/metrics.json",
        verdict=verdict,
        mark=VERDICTS.get(verdict.word, VERDICTS["unknown"])[0],
        word=VERDICTS.get(verdict.word, ("", verdict.word))[1],
        name=Path(evidence.called).name if Path(evidence.called).is_absolute() else evidence.called,
        headlines=_headlines(evidence.metrics),
        run=_run_tables(evidence),
        commands=_commands(evidence),
        audit=_audit(evidence),
        findings=sorted(objects(evidence.manifest.get("findings")), key=lambda one: one.get("severity") != "warning"),
        curves=[_safe(chart) for chart in training_charts(evidence)],
        rewards=_safe(reward_chart(evidence)),
        saturation=saturation_grid(evidence),
        odd=odd_rows(evidence),
        shares=_safe(share_chart(evidence)),
        calibration=_safe(calibration_chart(evidence)),
        validation=validation,
        others=sections(others, "", "Other results"),
        answers=[(sample.get("id", ""), sample["prompt"], _answers(sample)) for sample in evidence.samples],
        open_answers=OPEN_ANSWERS,
        generations=answers,
        questions=questions(_after_word(verdict), judged, answers, tasks),
        judged=judged,
        win_chart=_safe(judged.chart) if judged else None,
        tasks=tasks,
        task_chart=_safe(tasks.chart) if tasks else None,
        comparisons=comparison_tables(evidence),
        shown=shown,
    )
    return page.strip() + "\n"


def _safe(chart: Chart | None) -> dict[str, Any] | None:
    """A chart for the template: its drawing was made here and is markup."""
    return None if chart is None else {**vars(chart), "svg": Markup(chart.svg)}


def _verdict(evidence: Evidence) -> Verdict:
    """The verdict; results of another version of kto may lack a number it needs."""
    try:
        beta = evidence.beta if evidence.beta > 0 else BETA
        return run_verdict(evidence.metrics or None, evidence.steps_on_these_rows, beta=beta, kept=evidence.kept)
    except (KeyError, TypeError, ValueError):
        return Verdict("unknown", "The results lack a number that a verdict needs.", [])


def _headlines(metrics: dict[str, Any]) -> list[Entry]:
    """The few numbers at the top, in three digits."""
    known = [next((name for name in names if is_number(metrics.get(name))), None) for names in HEADLINES]
    found = []
    for name in filter(None, known):
        interval = metrics.get(f"{name}_interval")
        text = " to ".join(f"{edge:.3g}" for edge in interval) if is_known_interval(interval) else ""
        if name == "z_ref" and is_number(error := metrics.get("z_ref_se")):  # its interval is clamped at 0, as it is
            text = f"standard error {error:.3g}"
        found.append(Entry(LABELS.get(name, name), f"{metrics[name]:.3g}", text, f"metrics.{name}", MEANINGS[name]))
    return found


def _after_word(verdict: Verdict) -> str:
    """The sentence without the word before it, which stands above it."""
    word, colon, rest = verdict.sentence.partition(": ")
    return rest[:1].upper() + rest[1:] if colon and word.lower() == verdict.word else verdict.sentence


def _run_tables(evidence: Evidence) -> dict[str, Grid | None]:
    """Settings as given where they are not the default, as chosen, and what they were applied to; None: not known."""
    config, where = evidence.settings, evidence.config_file
    given = part(config, "train")
    defaults = {item.name: item.default for item in fields(TrainConfig)}
    changed = {key: value for key, value in given.items() if key in defaults and value != defaults[key]}
    tables = {
        "inputs": Grid(["", ""], _inputs(evidence), f"{evidence.results_folder}/metrics.json, {where}"),
        "changed": _pairs(changed, f"{where}: train"),
        "chosen": _pairs(part(config, "chosen"), f"{where}: chosen"),
        "all": _pairs(given, f"{where}: train"),
        "versions": _pairs(part(config, "versions"), f"{where}: versions"),
    }
    return {name: table if table.rows else None for name, table in tables.items()}


def _inputs(evidence: Evidence) -> list[list[str]]:
    """Checkpoint, reference and data with their fingerprints."""
    rows = [["checkpoint", evidence.called]]
    for name, key in (("reference", "name"), ("data", "folder")):
        about = {**part(evidence.settings, name), **part(evidence.results, name)}
        rows += [[name, shown(about[key])]] if key in about else []
        rows += [[f"fingerprint of the {name}", shown(about["fingerprint"])]] if "fingerprint" in about else []
    for name in ("dtype", "answer_dtype", "loss", "beta", "lambda_d", "lambda_u"):
        rows += [[name, shown(evidence.results[name])]] if name in evidence.results else []
    return rows


def _pairs(values: dict[str, Any], source: str) -> Grid:
    return Grid(["", ""], [[key.replace("_", " "), shown(value)] for key, value in values.items()], source)


def _commands(evidence: Evidence) -> list[str]:
    """The commands that repeat the run."""
    import shlex

    again = [f"kto eval {shlex.quote(evidence.called)}"]
    if not evidence.settings:
        return again
    home = Path(evidence.called)
    home = home.parent.parent if home.parent.name == "steps" else home
    return [f"kto train --config {shlex.quote(str(home / evidence.config_file))} --out again", *again]


def _audit(evidence: Evidence) -> dict[str, Grid | None]:
    """Tables of what became of the input rows; None without entries."""
    manifest = evidence.manifest
    splits = [
        [{"train": "training"}.get(name, name), *_class_counts(counts)]
        for name, counts in part(manifest, "splits").items()
        if isinstance(counts, dict)
    ]
    lost = [
        [reason.replace("_", " "), what, shown(count)]
        for what, key in (("rejected", "rejected"), ("dropped", "dropped_reasons"))
        for reason, count in part(manifest, key).items()
    ]
    mix = [
        [shown(one.get("name")), *_class_counts(one)] for one in objects(manifest.get("sources")) if "desirable" in one
    ]
    classes = ["desirable", "undesirable", "all"]
    return {
        "splits": Grid(["", *classes], splits, "manifest.json: splits") if splits else None,
        "lost": Grid(["reason", "", "rows"], lost, "manifest.json: rejected, dropped_reasons") if lost else None,
        "sources": Grid(["source", *classes], mix, "manifest.json: sources") if len(mix) > 1 else None,
    }


def _class_counts(counts: dict[str, Any]) -> list[str]:
    both = [counts.get(name) for name in ("desirable", "undesirable")]
    numbers = [count for count in both if isinstance(count, int)]
    return [*(shown(count) for count in both), shown(sum(numbers))]


def _answers(sample: dict[str, str]) -> list[MarkedAnswer]:
    """The reference's answer and each other one, with the words marked that differ from the reference's.

    The reference's own marks are those against the first other. Where two share nothing, marks would say nothing.
    """
    names = [name for name in sample if name not in ("id", "prompt", "prompt_id", "origin")]
    if "reference" not in names:
        return [MarkedAnswer(name, [Piece(sample[name], False)]) for name in names]
    others = [name for name in names if name != "reference"]
    compared = {name: word_differences(sample["reference"], sample[name]) for name in others}
    if others and all(piece.differs or not piece.text.strip() for both in compared.values() for piece in both[0]):
        return [MarkedAnswer(name, [Piece(sample[name], False)], bool(sample[name])) for name in ("reference", *others)]
    before = compared[others[0]][0] if others else [Piece(sample["reference"], False)]
    return [MarkedAnswer("reference", before), *(MarkedAnswer(name, compared[name][1]) for name in others)]
