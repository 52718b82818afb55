"""A table of the page, before it is HTML: columns, lines and cells; the template prints and escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report.numbers import format_estimate

__all__ = ["Bar", "Cell", "Column", "Line", "Table", "estimate_cell", "number_cell", "plain_table"]


@dataclass(frozen=True)
class Bar:
    """Places on a scale of 0 to 100: a figure, and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """text: the figure; value: what the column is sorted by, where that is a number. small: its interval. second:
    another figure below; chip: a word after it, in the colour of `tone`: good, bad, warn or empty. device: whose
    figure it is, where a column belongs to one."""

    text: str
    value: float | None = None
    small: str = ""
    second: str = ""
    chip: str = ""
    tone: str = ""
    bar: Bar | None = None
    device: str = ""


@dataclass(frozen=True)
class Column:
    """A column's title, whether it holds numbers, and the device that it belongs to."""

    title: str
    numeric: bool = True
    device: str = ""


@dataclass(frozen=True)
class Line:
    """A row: its cells, the first of which names it, and what the page filters by: device, runtime, state."""

    cells: Sequence[Cell]
    device: str = ""
    runtime: str = ""
    state: str = ""


@dataclass(frozen=True)
class Table:
    """caption: what it shows. Filtered ones count in the page's "rows shown"; notes stand below it."""

    caption: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    notes: Sequence[str] = ()
    runtime: str = ""
    filtered: bool = False
    emulated: bool = False
    key: str = field(default="")


def estimate_cell(estimate: Estimate | None) -> Cell:
    """A figure with its interval apart, so that the page can set it smaller."""
    figure, _, interval = format_estimate(estimate).partition(" ")
    return Cell(figure, estimate.value if estimate else None, small=interval)


def number_cell(value: float | None, words: str, second: str = "") -> Cell:
    """A figure as `words`, or a dash."""
    return Cell("–" if value is None else words, value, second=second)


def plain_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Text and figures as they are; a column is numeric when each of its cells, but the empty ones, is a number."""
    values = [[_number(cell) for cell in row] for row in rows]
    made = []
    for place, title in enumerate(columns):
        filled = [
            (row[place], value[place]) for row, value in zip(rows, values) if row[place] not in ("", "–")
        ]
        made.append(Column(title, bool(filled) and all(value is not None for _, value in filled)))
    lines = [
        Line([Cell(cell or "–", value) for cell, value in zip(row, found)])
        for row, found in zip(rows, values)
    ]
    return Table(caption, made, lines)


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None
