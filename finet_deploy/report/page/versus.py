"""Plots of a group of comparable tables, a series a device: speed by network, and speed against what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.page.colours import SERIES
from finet_deploy.report.page.drawing import (
    WIDTH,
    Picture,
    Scale,
    circle,
    line,
    text,
    x_axis,
    y_axis,
)
from finet_deploy.report.page.measured import Group, Panel, RowData
from finet_deploy.report.page.published import published_row
from finet_deploy.report.page.spread import MOST_ROWS, UNREAL
from finet_deploy.report.page.text import escaped, shown

__all__ = ["AXES", "ratios", "scatter"]

SHAPES = ("circle", "square", "diamond", "triangle")
LEGEND, NAMES, AXIS = 20, 240, 48  # NAMES: the width of their column


@dataclass(frozen=True)
class Axis:
    """What speed is plotted against. of: its value for a row, or None where the row has none."""

    name: str
    title: str
    unit: str
    of: Callable[[Panel, RowData], float | None]


AXES = (
    Axis(
        "multiply-adds",
        "multiply-adds of one image, millions",
        "MMACs",
        lambda _, r: r.summary.row.macs / 1e6,
    ),
    Axis("parameters", "parameters, millions", "M params", lambda _, r: r.summary.row.params / 1e6),
    Axis(
        "accuracy",
        "top-1 accuracy on ImageNet as the paper prints it, %",
        "% top-1 (paper)",
        lambda panel, row: _top1(panel, row),
    ),
)


def ratios(group: Group) -> Picture | None:
    """Ratio to the baseline with its interval, a line a network, and the widest noise floor as a band."""
    series = list(group.panels.items())
    names = list(dict.fromkeys(row.label for _, panel in series for row in _plain(panel)))[:MOST_ROWS]
    found = {
        (label, number): row
        for number, (_, panel) in enumerate(series)
        for row in _plain(panel)
        if row.summary.ratio is not None
        for label in [row.label]
    }
    values = [row.summary.ratio for row in found.values() if row.summary.ratio]
    if not values or len(names) < 2:
        return None
    floors = [panel.comparison.noise_floor for _, panel in series if panel.comparison.noise_floor]
    ends = [end for one in values for end in (one.value, one.low, one.high) if end is not None]
    low, high = min([*ends, 1 / max([1.0, *floors])]), max([*ends, *floors, 1.0])
    pad = (high - low) * 0.04
    scale = Scale(low - pad, high + pad, NAMES, WIDTH - 12)
    top = LEGEND * len(series) + 6
    step = max(34, 12 * len(series) + 14)
    height = top + step * len(names) + AXIS
    body = [_legend([shown(column) for column, _ in series])]
    if floors:
        left, right = scale.clipped(1 / max(floors)), scale.clipped(max(floors))
        body.append(
            f'<rect class="n" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{step * len(names)}"/>'
        )
    body.append(x_axis(scale, top, height - AXIS, "images per second, ratio to the table's baseline"))
    body.append(line(scale(1), top, scale(1), height - AXIS, "z"))
    for place, label in enumerate(names):
        y = top + step * place
        body.append(text(4, y + step / 2 + 4, shown(label, 36)))
        for number in range(len(series)):
            if (label, number) in found:
                body.append(
                    _interval(
                        found[label, number],
                        scale,
                        y + step / 2 + 12 * (number - (len(series) - 1) / 2),
                        number,
                    )
                )
    return Picture(
        name=f"{group.key}-ratios",
        caption="Ratio to the baseline",
        about=group.title,
        description=f"{len(names)} networks on {len(series)} devices. {_listed(found.values())}",
        height=height,
        body="".join(body),
        columns=("network", *(shown(column) for column, _ in series)),
        rows=tuple(
            (label, *(_ratio_text(found.get((label, number))) for number in range(len(series))))
            for label in names
        ),
        note=f"Line: 95 % interval; band: noise floor.{f' {UNREAL}' if group.table.emulated else ''}",
    )


def scatter(group: Group, axis: Axis) -> Picture | None:
    """Images per second against `axis`, with intervals. None where fewer than two rows have a place."""
    series = list(group.panels.items())
    points = [
        (number, row, across, middle)
        for number, (_, panel) in enumerate(series)
        for row in _plain(panel)[:MOST_ROWS]
        if (across := axis.of(panel, row)) is not None and (middle := row.summary.images_per_second)
    ]
    if len({across for _, _, across, _ in points}) < 2:
        return None
    top = LEGEND * len(series) + 26
    height = top + 300 + AXIS
    widths = [across for _, _, across, _ in points]
    heights = [end for *_, one in points for end in (one.value, one.low, one.high) if end is not None]
    room = (max(widths) - min(widths)) * 0.08
    along = Scale(min(widths) - room, max(widths) + room, 52, WIDTH - 12)
    up = Scale(min(0.9 * min(heights), max(heights) * 0.98), max(heights) * 1.04, height - AXIS, top)
    body = [_legend([shown(column) for column, _ in series]), x_axis(along, top, height - AXIS, axis.title)]
    body.append(y_axis(up, 52, WIDTH - 12, "images per second"))
    taken: list[tuple[float, float, float, float]] = []
    for number, row, across, middle in points:
        x, y = along(across), up(middle.value)
        taken.append((x - 7, y - 7, x + 7, y + 7))
        if middle.low is not None and middle.high is not None:
            body.append(line(x, up(middle.low), x, up(middle.high), f"i{number % SERIES}"))
            taken.append((x - 1, up(middle.high), x + 1, up(middle.low)))
        told = f"{row.label}: {format_estimate(middle)} images/s, {format_significant(across, 4)} {axis.unit}"
        body.append(_mark(x, y, number, told))
    body += [_label(row.label, along(across), up(middle.value), taken) for _, row, across, middle in points]
    return Picture(
        name=f"{group.key}-{axis.name}",
        caption=f"Images per second against {axis.name}",
        about=group.title,
        description=f"{len(points)} points. {_listed(row for _, row, _, _ in points)}",
        height=height,
        body="".join(body),
        columns=("network", "device", axis.title, "images/s [95 % interval]"),
        rows=tuple(
            (row.label, shown(series[number][0]), format_significant(across, 4), format_estimate(middle))
            for number, row, across, middle in points
        ),
        note=UNREAL if group.table.emulated else "Up is faster.",
    )


def _top1(panel: Panel, row: RowData) -> float | None:
    printed = published_row(panel, row).top1
    return float(printed) if printed else None


def _plain(panel: Panel) -> list[RowData]:
    """Without the row that repeats another's file."""
    return [row for row in panel.rows if row.summary.row.aa_of is None]


def _legend(names: Sequence[str]) -> str:
    parts = []
    for number, name in enumerate(names):
        y = 10 + LEGEND * number
        parts += [_mark(10, y, number, ""), text(24, y + 4, name)]
    return "".join(parts)


def _mark(x: float, y: float, number: int, told: str) -> str:
    """A device's mark: its colour and, for those who do not see it, its shape."""
    kind, shape = f"f{number % SERIES}", SHAPES[number % len(SHAPES)]
    if shape == "circle":
        return circle(x, y, 5, kind, told)
    outline = {
        "square": "m-5-5h10v10h-10z",
        "diamond": "m0-7l7 7l-7 7l-7-7z",
        "triangle": "m0-7l7 12h-14z",
    }[shape]
    title = f"<title>{escaped(told)}</title>" if told else ""
    return f'<path class="{kind}" d="M{x:.1f} {y:.1f}{outline}">{title}</path>'


def _interval(row: RowData, scale: Scale, y: float, number: int) -> str:
    ratio = row.summary.ratio
    assert ratio is not None
    parts = []
    if ratio.low is not None and ratio.high is not None:
        parts.append(line(scale(ratio.low), y, scale(ratio.high), y, f"i{number % SERIES}"))
    parts.append(_mark(scale(ratio.value), y, number, f"{row.label}: {_ratio_text(row)}"))
    return "".join(parts)


def _label(label: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> str:
    """The network's name beside its mark, where there is room: else only the pointer and the table tell it."""
    width = 6.4 * len(label)
    for left, base in (
        (x + 10, y + 4),
        (x - 10 - width, y + 4),
        (x - width / 2, y - 11),
        (x - width / 2, y + 20),
    ):
        box = (left, base - 10, left + width, base + 3)
        clear = all(box[2] < b[0] or box[0] > b[2] or box[3] < b[1] or box[1] > b[3] for b in taken)
        if clear and left > 48 and left + width < WIDTH:
            taken.append(box)
            return text(left, base, label, "m")
    return ""


def _ratio_text(row: RowData | None) -> str:
    if row is None:
        return "–"
    return "1 (baseline)" if row.summary.verdict == "baseline" else format_estimate(row.summary.ratio)


def _listed(rows: Iterable[RowData]) -> str:
    """The first rows in words, for those who do not see the picture."""

    def figure(estimate: Estimate | None) -> str:
        return format_estimate(estimate)

    return "; ".join(
        f"{row.label} {figure(row.summary.images_per_second)} images/s" for row in list(rows)[:8]
    )
