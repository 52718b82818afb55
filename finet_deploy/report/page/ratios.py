"""How much faster or slower each network is than the table's baseline, with its interval, against the noise floor."""

from __future__ import annotations

from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.page.colours import SERIES
from finet_deploy.report.page.drawing import WIDTH, Picture, Scale, line, rect, text, x_axis
from finet_deploy.report.page.marks import LEGEND, in_words, legend, mark
from finet_deploy.report.page.measured import Group, RowData
from finet_deploy.report.page.spread import MOST_ROWS, UNREAL
from finet_deploy.report.page.text import shown

__all__ = ["ratios"]

AXIS = 48
Found = dict[tuple[str, int], RowData]  # by network and number of the device


def ratios(group: Group) -> Picture | None:
    """A line a network, a mark a device; the widest noise floor as a band. None where there is nothing to compare."""
    panels, columns = list(group.panels.values()), [shown(column) for column in group.panels]
    rows = dict(list(group.by_label(repeats=False).items())[:MOST_ROWS])
    found = {
        (label, number): row
        for label, by_column in rows.items()
        for number, column in enumerate(group.panels)
        if (row := by_column.get(column)) is not None and row.summary.ratio is not None
    }
    if not found or len(rows) < 2:
        return None
    floor = max([panel.comparison.noise_floor or 1.0 for panel in panels])
    scale = _scale(found, floor)
    top = LEGEND * len(panels) + 6
    step = 34 + 12 * len(panels)
    bottom = top + step * len(rows)
    body = [legend(columns)]
    if floor > 1:
        body.append(rect(scale(1 / floor), top, scale(floor) - scale(1 / floor), bottom - top, "n"))
    body.append(x_axis(scale, top, bottom, "images per second, ratio to the table's baseline"))
    body.append(line(scale(1), top, scale(1), bottom, "z"))
    for place, label in enumerate(rows):
        body.append(text(4, top + step * place + 16, label))
        for number in range(len(panels)):
            if (label, number) in found:
                body.append(
                    _interval(found[label, number], scale, top + step * place + 30 + 12 * number, number)
                )
    return Picture(
        name=f"{group.key}-ratios",
        caption="Ratio to the baseline",
        about=group.title,
        description=f"{len(rows)} networks on {len(panels)} devices. {in_words(found.values())}",
        height=bottom + AXIS,
        body="".join(body),
        columns=("network", *columns),
        rows=tuple(
            (shown(label), *(_words(found.get((label, number))) for number in range(len(panels))))
            for label in rows
        ),
        note=f"Line: 95 % interval; band: noise floor.{f' {UNREAL}' if group.table.emulated else ''}",
        fits=True,
    )


def _scale(found: Found, floor: float) -> Scale:
    estimates = [row.summary.ratio for row in found.values() if row.summary.ratio is not None]
    ends = [end for one in estimates for end in (one.value, one.low, one.high) if end is not None]
    low, high = min([*ends, 1 / floor]), max([*ends, floor])
    pad = (high - low) * 0.04
    return Scale(low - pad, high + pad, 4, WIDTH - 4)


def _interval(row: RowData, scale: Scale, y: float, number: int) -> str:
    ratio = row.summary.ratio
    if ratio is None:
        return ""
    parts = []
    if ratio.low is not None and ratio.high is not None:
        parts.append(line(scale(ratio.low), y, scale(ratio.high), y, f"i{number % SERIES}"))
    parts.append(mark(scale(ratio.value), y, number, f"{row.label}: {_words(row)}"))
    return "".join(parts)


def _words(row: RowData | None) -> str:
    if row is None:
        return "–"
    return "1 (baseline)" if row.summary.verdict == "baseline" else format_estimate(row.summary.ratio)
