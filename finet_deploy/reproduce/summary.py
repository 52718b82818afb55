"""From records to the figures of a table: means over seeds with their intervals. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from finet_deploy.reproduce.grid import Axis, Grid, Plan
from finet_deploy.reproduce.records import CellRecord, Share

__all__ = ["CONFIDENCE", "Figure", "PaperFigure", "student_interval", "summarise"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PaperFigure:
    """What the paper has in this place, in percent, as it is printed; empty where it has nothing.

    same: on our data set.
    """

    dataset: str
    text: str
    same: bool

    @property
    def value(self) -> float | None:
        return float(self.text) if self.text else None


@dataclass(frozen=True)
class Figure:
    """One place of a table, over its seeds. Fractions. values: runs that ended, by seed; diverged ones as chance.

    kind: of the interval: Student's t over seeds, or, of a single run, Wilson's over the held-out images.
    """

    row: str
    column: str
    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    kind: Literal["student", "wilson", "none"]
    diverged: int
    failed: int
    paper: tuple[PaperFigure, ...]

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """mean -+ t(n - 1) s / sqrt(n) of two or more fractions, cut to [0, 1] (Student 1908)."""
    mean, n = statistics.fmean(values), len(values)
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))
    half = t * statistics.stdev(values) / math.sqrt(n)
    return max(0.0, mean - half), min(1.0, mean + half)


def summarise(plan: Plan, records: Sequence[CellRecord], paper: Sequence[dict[str, str]]) -> list[Figure]:
    """A figure for every place of the grid, row by row, also where no run has ended.

    paper: the rows of the paper's table, by column name.
    """
    return [
        _figure(plan, row, column, records, paper) for row in plan.grid.rows for column in plan.grid.columns
    ]


def _figure(
    plan: Plan, row: Axis, column: Axis, records: Sequence[CellRecord], paper: Sequence[dict[str, str]]
) -> Figure:
    grid = plan.grid
    own = [record for record in records if (record.row, record.column) == (row.label, column.label)]
    ended = sorted((record for record in own if record.top1(grid) is not None), key=lambda one: one.seed)
    values = tuple(value for record in ended if (value := record.top1(grid)) is not None)
    low, high, kind = _interval(grid, ended, values)
    return Figure(
        row=row.label,
        column=column.label,
        values=values,
        mean=statistics.fmean(values) if values else None,
        low=low,
        high=high,
        kind=kind,
        diverged=sum(record.status == "diverged" for record in own),
        failed=sum(record.status == "failed" for record in own),
        paper=_paper_figures(plan, row, column, paper),
    )


def _interval(
    grid: Grid, ended: Sequence[CellRecord], values: Sequence[float]
) -> tuple[float | None, float | None, Literal["student", "wilson", "none"]]:
    if len(values) > 1:
        return (*student_interval(values), "student")
    if len(values) == 1:
        share: Share | None = ended[0].last if grid.metric == "last" else ended[0].best
        if ended[0].status == "done" and share is not None:
            return share.low, share.high, "wilson"
    return None, None, "none"


def _paper_figures(
    plan: Plan, row: Axis, column: Axis, table: Sequence[dict[str, str]]
) -> tuple[PaperFigure, ...]:
    """The paper's figures on our data set; on all of its own where ours is not among them."""
    paper = plan.grid.paper
    if paper is None or not isinstance(row.paper, dict) or not isinstance(column.paper, str):
        return ()
    names = paper.datasets
    shown = {plan.dataset: names[plan.dataset]} if plan.dataset in names else names
    figures = []
    for own_name, name in shown.items():
        key = {**row.paper, **({"dataset": name} if table and "dataset" in table[0] else {})}
        matches = [line for line in table if all(line.get(part) == value for part, value in key.items())]
        text = matches[0].get(column.paper, "") if matches else ""
        figures.append(PaperFigure(name, text, own_name == plan.dataset))
    return tuple(figures)
