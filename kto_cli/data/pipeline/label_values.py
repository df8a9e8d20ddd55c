"""Values of label columns, with their counts and outcomes, and rules that name them, ready to paste."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence, Set

from kto_cli.common.binarize_config import BinarizeConfig
from kto_cli.common.words import plural
from kto_cli.data.formats.column_names import is_negative
from kto_cli.data.formats.counts import OTHER_VALUES, Counts, LabelCell
from kto_cli.data.formats.labels import BY_NUMBER, DESIRABLE, UNDESIRABLE, as_number, fold
from kto_cli.data.log.columns import rules_of
from kto_cli.data.log.labels import NUMBERS
from kto_cli.data.log.rule_ast import spell_column
from kto_cli.data.select import Chosen

MOST_SHOWN = 12
"""Values of a column that are listed."""
FAULTS = {"label_not_accepted", "score_not_a_number", "rule_not_applicable", "matches_both"}
"""Outcomes that are listed first among very many values."""
UNMATCHED = FAULTS | {"matches_neither"}
"""Outcomes of a value that rules may be proposed for."""
WORD = re.compile(r'"[^\W\d](?:[\w\'/+-]| (?! |"))*"')
"""A quoted value that is clear without its quotes."""
GOOD = frozenset(
    [
        *("up", "thumbs up", "thumb up", "thumbsup", "like", "liked", "upvote", "positive", "pos", "good", "great"),
        *("yes", "y", "true", "t", "helpful", "very helpful", "correct", "right", "accept", "accepted", "accurate"),
        *("satisfied", "happy", "resolved", "solved", "pass", "passed", "excellent", "useful", "desirable", "chosen"),
        *("👍", "✅", "✔", "✓", "+1", "1", "ok", "ja", "oui", "si", "sí", "sim", "да", "是", "好", "はい"),
        *("wahr", "vrai", "verdadero"),
    ]
)
BAD = frozenset(
    [
        *("down", "thumbs down", "thumb down", "thumbsdown", "dislike", "disliked", "downvote", "negative", "neg"),
        *("no", "n", "false", "f", "unhelpful", "not helpful", "incorrect", "wrong", "reject", "rejected", "bad"),
        *("dissatisfied", "unhappy", "unresolved", "unsolved", "fail", "failed", "poor", "terrible", "useless"),
        *("undesirable", "hallucinated", "hallucination", "toxic", "inaccurate", "awful"),
        *("👎", "❌", "✖", "✗", "✘", "-1", "nein", "non", "não", "нет", "否", "いいえ", "falsch", "faux", "falso"),
    ]
)
"""Values whose meaning is certain; rules are proposed only for these."""


def shown(value: str) -> str:
    """A value without its quotes where they are not needed."""
    return value[1:-1] if WORD.fullmatch(value) else value


def value_lines(counts: Counts, config: BinarizeConfig) -> list[str]:
    """One sentence per label column: `thumb: up 108 (desirable), down 78 (undesirable), empty 14 (no_label).`

    For a column of true / false, of 1 / 0 or of scores, only if some value had no label.
    """
    columns: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for (column, value, outcome), rows in counts.labels.items():
        columns[column][value][outcome] += rows
    lines = []
    for column, values in columns.items():
        unmatched = {outcome for found in values.values() for outcome in found} - {DESIRABLE, UNDESIRABLE, BY_NUMBER}
        ratings = any(BY_NUMBER in found and fold(value) not in ("0", "1", NUMBERS) for value, found in values.items())
        if config.desirable is not None or unmatched or (ratings and config.threshold is None):
            lines.append(f"{column}: {spelled(values)}.{variants_sentence(column, values, config)}")
    return lines


def spelled(values: dict[str, Counter[str]]) -> str:
    """Values with their counts and outcomes, the most frequent first."""
    ordered = sorted(values.items(), key=lambda entry: (entry[0] == OTHER_VALUES, -entry[1].total()))
    if len(ordered) > MOST_SHOWN:
        ordered.sort(key=lambda entry: not FAULTS & set(entry[1]))
        rest: Counter[str] = sum((found for _, found in ordered[MOST_SHOWN:]), Counter())
        ordered = [*ordered[:MOST_SHOWN], (f"{len(ordered) - MOST_SHOWN:,} other values", rest)]
    one_outcome = len({tuple(outcomes) for _, outcomes in ordered}) == 1 and len(ordered) > 1
    parts = []
    for value, outcomes in ordered:
        named = [(outcome, rows) for outcome, rows in outcomes.items() if outcome != BY_NUMBER]
        why = ", ".join(outcome if len(outcomes) == 1 else f"{rows:,} {outcome}" for outcome, rows in named)
        by = " x " if value[-1:] in '"0123456789' and not WORD.fullmatch(value) else " "
        parts.append(f"{shown(value)}{by}{outcomes.total():,}" + (f" ({why})" if why and not one_outcome else ""))
    return ", ".join(parts) + (f" (all {why})" if one_outcome and why else "")


def variants_sentence(column: str, values: Iterable[str], config: BinarizeConfig) -> str:
    """Sentence on values that a rule does not name, and that are read as one that it does."""
    named = {text for rule in rules_of(config) if rule for text in rule.texts.get(column, ())}
    folded = {fold(text): text for text in named}
    found: dict[str, list[str]] = defaultdict(list)
    for value in values:
        text = text_of(value)
        if value.startswith('"') and text not in named and fold(text) in folded:
            found[folded[fold(text)]].append(shown(value))
    spellings = [f"{', '.join(others)} as {text}" for text, others in found.items()]
    return f" Read in another spelling: {'; '.join(spellings)}." if spellings else ""


def text_of(value: str) -> str:
    """Text of a value that is written as in a rule."""
    return value[1:-1].replace('""', '"') if value.startswith('"') else value


OPTIONS = ("--desirable", "--undesirable")
NUMBER = "NUMBER"
"""Placeholder in a proposed rule."""
FEW = 0.2
"""Share of rows: slips are rejected, a column in two notations stops the run."""


def proposed_rules(counts: Counts) -> str | None:
    """The options --desirable and --undesirable for a column with a value of certain meaning that had no label.

    None if there is no such column, or it has no values for one of the two.
    """
    columns = dict.fromkeys(cell.column for cell in counts.labels)
    # a value of one of several columns may match neither rule on purpose
    unmatched = UNMATCHED if len(columns) == 1 else FAULTS
    for column in columns:
        cells = {cell: rows for cell, rows in counts.labels.items() if cell.column == column}
        numbers = numbers_of(cells)
        is_scale = not numbers <= {"-1", "0", "1"}
        ratings = {"-1", "1"} if "-1" in numbers and not is_scale else set()
        good_words = GOOD - numbers if is_scale else GOOD
        bad_words = BAD - numbers if is_scale else BAD if ratings else BAD | {"0"}
        meant = good_words | bad_words
        if not any(
            means(cell, meant) and (cell.outcome in unmatched or fold(text_of(cell.value)) in ratings) for cell in cells
        ):
            continue
        good, bad = (_spellings(cells, words) for words in (good_words, bad_words))
        signs = (">=", "<")
        if is_negative(column):
            good, bad, signs = bad, good, ("<", ">=")
        if is_scale or (good and bad):
            rules = [
                _rule(column, values, sign if is_scale else "") for values, sign in zip((good, bad), signs, strict=True)
            ]
            return " ".join(f"{option} {shlex.quote(rule)}" for option, rule in zip(OPTIONS, rules, strict=True))
    return None


def numbers_of(cells: Iterable[LabelCell]) -> set[str]:
    """Numbers among the values of a column."""
    return {fold(text) for text in map(text_of, (cell.value for cell in cells)) if as_number(text) is not None}


def means(cell: LabelCell, words: Set[str]) -> bool:
    """Whether a value is one of the words, in any spelling."""
    folded = fold(text_of(cell.value))
    return folded in words or re.sub(r"[\s_-]+", " ", folded) in words


def _spellings(cells: dict[LabelCell, int], words: Set[str]) -> list[str]:
    """Values that mean one of the words, the most frequent spelling of each, as a rule writes them."""
    found: dict[tuple[bool, str], Counter[str]] = defaultdict(Counter)
    for cell, rows in cells.items():
        if means(cell, words):
            folded = fold(text_of(cell.value))
            # numbers are compared as numbers, whether the file has 1 or "1"
            number = as_number(text_of(cell.value)) is not None
            found[number, folded][folded if number else cell.value] += rows
    return [spellings.most_common(1)[0][0] for spellings in found.values()]


def _rule(column: str, values: Sequence[str], sign: str) -> str:
    """Rule for some values, and with a sign for the numbers on one side of NUMBER."""
    name = spell_column(column)
    parts = [f"{name} {sign} {NUMBER}"] if sign else []
    if values:
        parts.insert(0, f"{name} == {values[0]}" if len(values) == 1 else f"{name} in ({', '.join(values)})")
    return " or ".join(parts)


def next_step(decisions: dict[int, Counts], sources: Sequence[Chosen]) -> str | None:
    """Command with rules for the first source that has values without a label."""
    for number, counts in decisions.items():
        source = sources[number]
        if (rules := proposed_rules(counts)) is None:
            continue
        threshold = f", with {NUMBER} where numbers begin to be desirable" if f" {NUMBER}" in rules else ""
        if "--desirable" in source.source.options:
            return f"Say what the values mean{threshold}: {rules}"
        if source.source.name == "trl" and "path" in source.where:
            path = shlex.quote(str(source.where["path"]))
            return f"Say what the values mean{threshold}: kto binarize log:{path} {rules}"
    return None


def unread_labels(decisions: dict[int, Counts]) -> str | None:
    """Sentence on labels that are written in words of certain meaning, unless they are few."""
    for counts in decisions.values():
        unread = sum(
            rows
            for cell, rows in counts.labels.items()
            if cell.outcome == "label_not_accepted" and means(cell, GOOD | BAD)
        )
        if unread > FEW * counts.labels.total():
            rows = plural(counts.labels.total(), "row")
            return f"{unread:,} of {rows} have a label in words, whose meaning is not assumed."
    return None
