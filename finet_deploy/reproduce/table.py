"""The table of a grid, from its records alone: Markdown, CSV, JSON. Pure but for `write_table`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.statistics import Estimate
from finet_deploy.files import atomic_write_text
from finet_deploy.report.markdown import escape, render_table
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.paper import paper_table
from finet_deploy.reproduce.grid import Plan
from finet_deploy.reproduce.records import CellRecord
from finet_deploy.reproduce.summary import Figure, summarise

__all__ = ["figures_of", "table_csv", "table_markdown", "table_object", "write_table"]

METRICS = {
    "last": "after the last epoch",
    "best": "of the best epoch, chosen on the held-out images as the paper does: a little flattered",
}


def figures_of(plan: Plan, records: Sequence[CellRecord]) -> list[Figure]:
    """The grid's figures, beside the paper's."""
    paper: list[dict[str, str]] = []
    if plan.grid.paper is not None:
        header, rows = paper_table(plan.grid.paper.table, plan.grid.paper.paper)
        paper = [dict(zip(header, row)) for row in rows]
    return summarise(plan, records, paper)


def table_markdown(plan: Plan, records: Sequence[CellRecord]) -> str:
    """In the paper's form: a line of ours for each of its rows, then the medians, then the paper's own."""
    figures = figures_of(plan, records)
    columns = [axis.label for axis in plan.grid.columns]
    lines = []
    for row in plan.grid.rows:
        own = [figure for figure in figures if figure.row == row.label]
        lines.append([f"{row.label}: here, {plan.dataset}", *map(_mean_text, own)])
        if any(len(figure.values) > 1 for figure in own):
            lines.append([f"{row.label}: here, median", *map(_median_text, own)])
        for index, paper in enumerate(own[0].paper):
            mark = "" if paper.same else ", another data set"
            cells = [figure.paper[index].text or "–" for figure in own]
            lines.append([f"{row.label}: paper, {paper.dataset}{mark}", *cells])
    head = f"# {escape(f'{plan.grid.name} on {plan.dataset}')}"
    about = escape(f"{plan.grid.description}. {plan.grid.source}. Top-1 accuracy in percent.")
    table = render_table(["", *columns], lines)
    notes = "\n".join(f"* {escape(note)}" for note in _notes(plan, records, figures))
    return f"{head}\n\n{about}\n\n{table}\n\n{notes}\n"


def _mean_text(figure: Figure) -> str:
    if figure.mean is None:
        return "failed" if figure.failed else "–"
    if figure.diverged == len(figure.values):
        return f"diverged ({100 * figure.mean:.3g})"
    low = None if figure.low is None else 100 * figure.low
    high = None if figure.high is None else 100 * figure.high
    rounds = len(figure.values)
    text = format_estimate(Estimate(value=100 * figure.mean, low=low, high=high, rounds=rounds))
    return f"{text}, {figure.diverged} of {rounds} diverged" if figure.diverged else text


def _median_text(figure: Figure) -> str:
    return format_significant(None if figure.median is None else 100 * figure.median, 4)


def _notes(plan: Plan, records: Sequence[CellRecord], figures: Sequence[Figure]) -> Iterator[str]:
    yield from _statistic_notes(plan, records, figures)
    ended = [record for record in records if record.status != "failed"]
    if ended:
        yield from _setting_notes(plan, ended)
    if any(figure.paper for figure in figures):
        if all(paper.same for figure in figures for paper in figure.paper):
            yield "The paper's figures are from its own runs, without an interval, on the same data set."
        else:
            yield (
                "The paper's figures are on another data set: compare the order of the networks and rates, not the "
                "figures."
            )
    for record in records:
        if record.status == "diverged":
            yield (
                f"DIVERGED, counted as chance: {record.row}, {record.column}, seed {record.seed}: {record.message}"
            )
    for record in records:
        if record.status == "failed":
            yield f"FAILED: {record.row}, {record.column}, seed {record.seed}: {record.message}"
    expected = len(figures) * plan.seeds
    if len(ended) < expected:
        yield f"INCOMPLETE: {expected - len(ended)} of {expected} runs are missing or failed."


def _statistic_notes(plan: Plan, records: Sequence[CellRecord], figures: Sequence[Figure]) -> Iterator[str]:
    images = {record.last.images for record in records if record.last is not None}
    held_out = ", ".join(map(str, sorted(images))) or "the"
    yield f"Accuracy on {held_out} held-out images, {METRICS[plan.grid.metric]}."
    counts = sorted({len(figure.values) for figure in figures if figure.values})
    kinds = {figure.kind for figure in figures}
    if "student" in kinds:
        several = ", ".join(str(count) for count in counts if count > 1)
        yield f"Mean over {several} seeds [95 % interval] (Student's t over seeds)."
    if "wilson" in kinds:
        yield (
            "Figures of a single seed have Wilson's 95 % interval of the held-out images: it says nothing of the "
            "spread between seeds."
        )


def _setting_notes(plan: Plan, records: Sequence[CellRecord]) -> Iterator[str]:
    names = ("model", "epochs", "batch_size", "lr", "schedule", "weight_decay")
    varied = [name for name in names if len({repr(record.recipe.get(name)) for record in records}) > 1]
    fixed = ", ".join(f"{name} {records[0].recipe.get(name)}" for name in names if name not in varied)
    changes = ", ".join(f"{name} = {value}" for name, value in plan.changes.items())
    seeds = sorted({record.seed for record in records})
    yield (
        f"Data set {plan.dataset}, recipe {plan.recipe}{f' with {changes}' if changes else ''}: {fixed}; seeds "
        f"{', '.join(map(str, seeds))}. Every value of every run is in its record."
    )
    yield (
        f"Trained on {_distinct(records, 'machine')}; torch {_distinct(records, 'torch')}, finet-deploy "
        f"{_distinct(records, 'finet_deploy')}; {sum(record.seconds for record in records):.0f} s in all."
    )
    if len({record.fingerprint for record in records}) > 1:
        yield "NOT THE SAME DATA: the runs saw different images."


def _distinct(records: Sequence[CellRecord], name: str) -> str:
    return "; ".join(dict.fromkeys(getattr(record, name) for record in records))


def table_csv(plan: Plan, records: Sequence[CellRecord]) -> str:
    """One line a place of the table, plain numbers, percent."""
    stream = io.StringIO()
    lines = [_csv_line(plan, figure) for figure in figures_of(plan, records)]
    writer = csv.DictWriter(stream, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _csv_line(plan: Plan, figure: Figure) -> dict[str, Any]:
    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 4)

    line: dict[str, Any] = {
        "grid": plan.grid.name,
        "dataset": plan.dataset,
        "row": figure.row,
        "column": figure.column,
        "top1_mean_percent": percent(figure.mean),
        "top1_low_percent": percent(figure.low),
        "top1_high_percent": percent(figure.high),
        "interval": figure.kind,
        "top1_median_percent": percent(figure.median),
        "runs": len(figure.values),
        "diverged": figure.diverged,
        "failed": figure.failed,
    }
    for paper in figure.paper:
        name = paper.dataset.lower().replace("-", "")
        line[f"paper_{name}_top1_percent"] = paper.value
    return line


def table_object(plan: Plan, records: Sequence[CellRecord]) -> dict[str, Any]:
    """Everything: the plan, the figures, the records."""
    figures = [{**asdict(figure), "median": figure.median} for figure in figures_of(plan, records)]
    return {
        "plan": msgspec.to_builtins(plan),
        "figures": figures,
        "records": [msgspec.to_builtins(record) for record in records],
    }


def write_table(plan: Plan, records: Sequence[CellRecord], folder: Path) -> list[Path]:
    """`table.md`, `table.csv` and `table.json` in the grid's folder; their paths."""
    texts = {
        "table.md": table_markdown(plan, records),
        "table.csv": table_csv(plan, records),
        "table.json": json.dumps(table_object(plan, records), indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        atomic_write_text(folder / name, text)
    return [folder / name for name in texts]
