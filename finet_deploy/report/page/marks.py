"""What the plots over several devices share: a mark a device, the key to them, and the rows in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.page.colours import SERIES
from finet_deploy.report.page.drawing import circle, text
from finet_deploy.report.page.measured import Panel, RowData
from finet_deploy.report.page.text import escaped

__all__ = ["LEGEND", "in_words", "legend", "mark", "plain_rows"]

LEGEND = 24  # a line of the key
OUTLINES = {1: "m-5-5h10v10h-10z", 2: "m0-7l7 7l-7 7l-7-7z", 3: "m0-7l7 12h-14z"}  # square, diamond, triangle


def mark(x: float, y: float, number: int, told: str = "") -> str:
    """A device's mark: its colour and, for those who do not see it, its shape. told: what a pointer over it shows."""
    kind, outline = f"f{number % SERIES}", OUTLINES.get(number % 4)
    if outline is None:
        return circle(x, y, 5, kind, told)
    title = f"<title>{escaped(told)}</title>" if told else ""
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}{outline}">{title}</path>'


def legend(names: Sequence[str]) -> str:
    """The key: a line a device, each `LEGEND` high."""
    return "".join(
        mark(10, 10 + LEGEND * number, number) + text(24, 14 + LEGEND * number, name)
        for number, name in enumerate(names)
    )


def plain_rows(panel: Panel) -> list[RowData]:
    """Without the row that repeats another's file."""
    return [row for row in panel.rows if row.summary.row.aa_of is None]


def in_words(rows: Iterable[RowData]) -> str:
    """The first rows, for those who do not see the picture."""
    first = list(rows)[:8]
    return "; ".join(
        f"{row.label} {format_estimate(row.summary.images_per_second)} images/s" for row in first
    )
