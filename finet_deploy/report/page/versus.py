"""Speed against what it costs: images per second over multiply-adds, parameters, or accuracy; a mark a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.page.colours import SERIES
from finet_deploy.report.page.drawing import WIDTH, Picture, Scale, line, text, x_axis, y_axis
from finet_deploy.report.page.marks import LEGEND, in_words, legend, mark, plain_rows
from finet_deploy.report.page.measured import Group, Panel, RowData
from finet_deploy.report.page.published import published_row
from finet_deploy.report.page.spread import MOST_ROWS, UNREAL
from finet_deploy.report.page.text import shown

__all__ = ["AXES", "Axis", "scatter"]

LEFT, TALL, AXIS = 52, 300, 48
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Axis:
    """What speed is plotted against. of: its value for a row, or None where the row has none."""

    name: str
    title: str
    unit: str
    of: Callable[[Panel, RowData], float | None]


@dataclass(frozen=True)
class Point:
    """A row's place: the device's number, the value on the axis, its images per second."""

    number: int
    row: RowData
    across: float
    rate: Estimate


def _top1(panel: Panel, row: RowData) -> float | None:
    printed = published_row(panel, row).top1
    return float(printed) if printed else None


AXES = (
    Axis(
        "multiply-adds",
        "multiply-adds of one image, millions",
        "MMACs",
        lambda _, row: row.summary.row.macs / 1e6,
    ),
    Axis("parameters", "parameters, millions", "M parameters", lambda _, row: row.summary.row.params / 1e6),
    Axis("accuracy", "top-1 accuracy on ImageNet as the paper prints it, %", "% top-1 in the paper", _top1),
)


def scatter(group: Group, axis: Axis) -> Picture | None:
    """Images per second against `axis`, with intervals. None where fewer than two rows have a place."""
    points = _points(group, axis)
    if len({point.across for point in points}) < 2:
        return None
    columns = [shown(column) for column in group.panels]
    top = LEGEND * len(columns) + 26
    along, up = _scales(points, top)
    body = [legend(columns), x_axis(along, top, top + TALL, axis.title)]
    body.append(y_axis(up, LEFT, WIDTH - 12, "images per second"))
    taken: list[Box] = []
    for point in points:
        x, y, rate = along(point.across), up(point.rate.value), point.rate
        taken.append((x - 7, y - 7, x + 7, y + 7))
        if rate.low is not None and rate.high is not None:
            body.append(line(x, up(rate.low), x, up(rate.high), f"i{point.number % SERIES}"))
            taken.append((x - 1, up(rate.high), x + 1, up(rate.low)))
    names = [_label(one.row.label, along(one.across), up(one.rate.value), taken, top) for one in points]
    marks = [_mark(point, along, up, axis) for point in points]
    return Picture(
        name=f"{group.key}-{axis.name}",
        caption=f"Images per second against {axis.name}",
        about=group.title,
        description=f"{len(points)} points. {in_words(point.row for point in points)}",
        height=top + TALL + AXIS,
        body="".join([*body, *names, *marks]),
        columns=("network", "device", axis.title, "images/s [95 % interval]"),
        rows=tuple(
            (one.row.label, columns[one.number], format_significant(one.across, 4), format_estimate(one.rate))
            for one in points
        ),
        note=UNREAL if group.table.emulated else "Up is faster. Line: 95 % interval.",
    )


def _points(group: Group, axis: Axis) -> list[Point]:
    return [
        Point(number, row, across, rate)
        for number, panel in enumerate(group.panels.values())
        for row in plain_rows(panel)[:MOST_ROWS]
        if (across := axis.of(panel, row)) is not None and (rate := row.summary.images_per_second)
    ]


def _scales(points: Sequence[Point], top: float) -> tuple[Scale, Scale]:
    across = [point.across for point in points]
    room = (max(across) - min(across)) * 0.08
    rates = [point.rate for point in points]
    ends = [end for one in rates for end in (one.value, one.low, one.high) if end is not None]
    pad = (max(ends) - min(ends)) * 0.12 or max(ends) * 0.1
    along = Scale(min(across) - room, max(across) + room, LEFT, WIDTH - 12)
    return along, Scale(max(min(ends) - pad, 0.0), max(ends) + pad, top + TALL, top)


def _mark(point: Point, along: Scale, up: Scale, axis: Axis) -> str:
    value = f"{format_significant(point.across, 4)} {axis.unit}"
    told = f"{point.row.label}: {format_estimate(point.rate)} images/s, {value}"
    return mark(along(point.across), up(point.rate.value), point.number, told)


def _label(label: str, x: float, y: float, taken: list[Box], top: float) -> str:
    """The network's name where nothing else is, as near to its mark as can be, with a line to it from farther away.

    Without any room: only the pointer and the table tell it.
    """
    width = 6.0 * len(label)
    for lift in (0, -16, 16, -32, 32, -48, 48, -64, 64):
        for left in (x + 11, x - 11 - width):
            box = (left, y + lift - 8, left + width, y + lift + 6)
            inside = left > LEFT and box[2] < WIDTH and top - 8 < box[1] and box[3] < top + TALL
            if inside and not any(_meet(box, other) for other in taken):
                taken.append(box)
                end = left - 2 if left > x else box[2] + 2
                joined = line(x, y, end, y + lift, "g") if lift else ""
                return joined + text(left, y + lift + 4, label, "m")
    return ""


def _meet(one: Box, other: Box) -> bool:
    return not (one[2] < other[0] or one[0] > other[2] or one[3] < other[1] or one[1] > other[3])
