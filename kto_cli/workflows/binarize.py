"""`kto binarize`: any feedback to desirable / undesirable rows in a data folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kto_cli.config import BinarizeConfig
from kto_cli.core.weights import lambda_interval
from kto_cli.data_dir import Row, check_out, find_data_dir, write_data_dir
from kto_cli.display import Screen
from kto_cli.errors import BadData, BadInput
from kto_cli.files import text_hash
from kto_cli.sources.records import Feedback, Item, Output, Reject
from kto_cli.sources.select import default_name, read_source
from kto_cli.sources.split import Split, canonical, split_items


def run(config: BinarizeConfig, screen: Screen) -> dict[str, Any]:
    """Reads the source, splits it, writes the data folder and shows what came of it.

    Returns:
        The result for --json; counts are rows, `desirable` and `undesirable` those of train.

    Raises:
        BadInput: the source or the output folder cannot be used.
        BadData: what is left cannot be learned from.
    """
    out = Path("data", default_name(config.source)) if config.out is None else Path(config.out)
    check_out(out, overwrite=config.overwrite)
    feedback = read_source(config.source, config.from_path, config.subsets, as_text=config.text)
    split = split_items(feedback.items, config.holdout, config.seed)
    for text in (*feedback.warnings, *split.warnings):
        screen.warn(text)
    for text in (*feedback.notes, *split.notes):
        screen.note(text)
    check_learnable(feedback, split)
    train, held_out = rows_of(split.train, feedback.name), rows_of(split.held_out, feedback.name)
    result = counts(feedback, split, train, held_out)
    result |= {"source": {"name": feedback.name, **feedback.where}, "options": asdict(config)}
    lost = [*map(reject_line, feedback.rejects), *map(left_out_line, split.left_out)]
    manifest = write_data_dir(out, train, held_out, lost, result, overwrite=config.overwrite)
    result |= {"out": str(out), "files": manifest["files"]}
    show(result, screen)
    return result


# --- rows -------------------------------------------------------------------------------------


def rows_of(items: Iterable[Item], source: str) -> list[Row]:
    """The rows of the items, in order, each with its ids; the desirable row of a pair first."""
    seen: Counter[tuple[str, ...]] = Counter()

    def numbered(*parts: str) -> str:
        """A hash of the parts and of how often they came before."""
        seen[parts] += 1
        return text_hash(*parts, str(seen[parts] - 1))

    rows = []
    for item in items:
        prompt, pair_id = canonical(item.prompt), None
        prompt_id = text_hash(prompt)
        if isinstance(item, Output):
            outputs = [(item.completion, item.label)]
        else:
            outputs = [(item.chosen, True), (item.rejected, False)]
            pair_id = numbered("pair", prompt, canonical(item.chosen), canonical(item.rejected))
        for completion, label in outputs:
            row_id = numbered(prompt, canonical(completion), str(label).lower())
            rows.append(Row(row_id, prompt_id, pair_id, source, item.origin, item.prompt, completion, label))
    return rows


def reject_line(reject: Reject) -> dict[str, Any]:
    """One line of rejects.jsonl."""
    return {"kind": "rejected", **asdict(reject)}


def left_out_line(entry: tuple[Item, str, str]) -> dict[str, Any]:
    """One line of rejects.jsonl for what is well-formed and in neither split; its origin tells the text."""
    item, reason, detail = entry
    return {
        "kind": "left_out",
        "origin": item.origin,
        "reason": reason,
        "detail": detail,
        "rows": item.rows,
        "raw": "",
    }


# --- counts -----------------------------------------------------------------------------------


def by_reason(entries: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Rows by reason, the most frequent first."""
    total: Counter[str] = Counter()
    for reason, rows in entries:
        total[reason] += rows
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


def per_class(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows of each class."""
    desirable = [row.label for row in rows]
    return {"desirable": sum(desirable), "undesirable": len(desirable) - sum(desirable)}


def counts(feedback: Feedback, split: Split, train: Sequence[Row], held_out: Sequence[Row]) -> dict[str, Any]:
    """All counts of the result; that they add up is checked here."""
    rejected = by_reason((reject.reason, reject.rows) for reject in feedback.rejects)
    left_out = by_reason((reason, item.rows) for item, reason, _ in split.left_out)
    in_train = per_class(train)
    accounted = len(train) + len(held_out) + sum(left_out.values()) + sum(rejected.values())
    assert accounted == feedback.rows_in, f"{feedback.rows_in} rows in, {accounted} accounted for"
    return {
        "rows_in": feedback.rows_in,
        **in_train,
        "held_out": len(held_out),
        "left_out": sum(left_out.values()),
        "rejected": rejected,
        "lambda_interval": lambda_interval(in_train["desirable"], in_train["undesirable"]),
        "lines_in": feedback.lines_in,
        "splits": {"train": in_train, "held_out": per_class(held_out)},
        "left_out_reasons": left_out,
    }


def check_learnable(feedback: Feedback, split: Split) -> None:
    """Refuses train rows that KTO cannot learn from; the rejects, not written then, are named in short.

    Raises:
        BadData: no rows, one class only or one prompt only.
    """
    rejected = by_reason((reject.reason, reject.rows) for reject in feedback.rejects)
    total = sum(rejected.values())
    reasons = ", ".join(f"{reason} {rows:,}" for reason, rows in list(rejected.items())[:5])
    also = f" {total:,} of {feedback.rows_in:,} rows rejected: {reasons}." if total else ""
    if feedback.rejects:
        first = feedback.rejects[0]
        also += f" First: {first.origin}: {first.detail[:200]}."
    if not split.train:
        raise BadData(f"No rows are left to learn from.{also}", "Nothing is written.")
    # of a class that is there at all, some rows are in train: the split sees to that
    desirable = sum(item.label if isinstance(item, Output) else 1 for item in feedback.items)
    undesirable = sum(item.rows for item in feedback.items) - desirable
    if not desirable or not undesirable:
        what = f"There are {desirable:,} desirable and {undesirable:,} undesirable rows; KTO needs both classes."
        raise BadData(what + also, "Nothing is written.")
    if all(item.prompt == split.train[0].prompt for item in split.train):
        rows = sum(item.rows for item in split.train)
        what = f"All {rows:,} rows have one prompt; KTO also pairs each prompt with the answer to another."
        raise BadData(what + also, "Nothing is written.")


# --- what people see --------------------------------------------------------------------------


def show(result: dict[str, Any], screen: Screen) -> None:
    """The tables and the next command."""
    splits = result["splits"]
    rows = [(name.replace("_", "-"), *split.values(), sum(split.values())) for name, split in splits.items()]
    screen.table(result["source"]["name"], ("rows", "desirable", "undesirable", "all"), rows)
    lost = [("rejected: " + reason, count) for reason, count in result["rejected"].items()]
    lost += [("left out: " + reason, count) for reason, count in result["left_out_reasons"].items()]
    if lost:
        screen.table("Not used", ("reason", "rows"), lost)
    total = sum(result["rejected"].values())
    screen.say(f"{result['lines_in']:,} lines, {result['rows_in']:,} rows in; {total:,} rejected.")
    low_d, high_d = result["lambda_interval"]["lambda_d"]
    low_u, high_u = result["lambda_interval"]["lambda_u"]
    interval = f"lambda_d in [{low_d:.4g}, {high_d:.4g}] with lambda_u 1, or lambda_u in [{low_u:.4g}, {high_u:.4g}]"
    screen.say(f"Weights (Eq. 8): {interval} with lambda_d 1.")
    screen.say(f"Written to {result['out']}." + (" rejects.jsonl says why rows are not used." if lost else ""))
    flag = data_flag(Path(result["out"]))
    screen.say(f"Next: kto precompute{flag}, or at once kto train{flag}")


def data_flag(out: Path) -> str:
    """What the next command needs to find this dataset: nothing where it is the only one in data/."""
    try:
        return "" if find_data_dir(None) == out else f" --data {out}"
    except BadInput:
        return f" --data {out}"
