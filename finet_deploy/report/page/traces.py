"""What the device did while it was measured: clocks, heat, battery and load over the time of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finet_deploy.bench.protocol import THERMAL_STATUSES, DeviceState, End, Reading, Start
from finet_deploy.bench.records import Run
from finet_deploy.devices.phone_log import PhoneLine
from finet_deploy.devices.phone_visit import PhoneVisit
from finet_deploy.report.numbers import format_significant
from finet_deploy.report.page.colours import SERIES
from finet_deploy.report.page.drawing import WIDTH, Picture, Scale, line, path, text, tick_label, x_axis
from finet_deploy.report.page.measured import device_label
from finet_deploy.report.page.text import shown, slug

__all__ = ["traces"]

LEFT, PANEL, HEAD, AXIS = 64, 96, 40, 48
MOST_SERIES, MOST_POINTS = 6, 400
STATUS = "thermal status, 0 none to 6 shutdown"
Points = list[tuple[float, float]]  # minutes since the run began, value


@dataclass(frozen=True)
class Trace:
    """One quantity: its series by name, each a list of (minutes, value). ends: of its axis, where they are known."""

    title: str
    series: dict[str, Points]
    ends: tuple[float, float] | None = None


def traces(run: Run, number: int, lines: Sequence[PhoneLine]) -> tuple[Picture | None, list[str]]:
    """The picture, or None where nothing could be read, and for each quantity without a trace the reason."""
    moments = list(_moments(run))
    if not moments:
        return None, ["No visit tells when it began."]
    began = moments[0][0]
    found = list(_of_states([((at - began).total_seconds() / 60, state) for at, state in moments]))
    clocks = _clocks(run, lines, began)
    drawn = [Trace(one.title, _merged(one.series), one.ends) for one in [*clocks, *found] if one.series]
    missing = _reasons(moments[0][1], {one.title for one in drawn})
    return (_picture(run, number, drawn) if drawn else None), missing


def _moments(run: Run) -> Iterator[tuple[datetime, DeviceState]]:
    """When a state was read and what it was, in the order of time; times that are none are left out."""
    found = []
    for result in run.visits.values():
        for record in result.records:
            if isinstance(record, (Start, End)):
                at = _time(record.started_utc if isinstance(record, Start) else record.ended_utc)
                if at is not None:
                    found.append((at, record.state))
    yield from sorted(found, key=lambda one: one[0])


def _time(words: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(words.replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def _of_states(states: Sequence[tuple[float, DeviceState]]) -> Iterator[Trace]:
    def one(title: str, name: str, field: str, ends: tuple[float, float] | None = None) -> Trace:
        points = [(at, float(v)) for at, state in states if (v := getattr(state, field).value) is not None]
        return Trace(title, {name: points} if points else {}, ends)

    temperatures: dict[str, Points] = {}
    frequencies: dict[str, Points] = {}
    for at, state in states:
        for sensor, celsius in (state.temperatures_celsius.value or {}).items():
            temperatures.setdefault(shown(sensor, 40), []).append((at, celsius))
        for core, mhz in enumerate(state.frequencies_mhz.value or ()):
            frequencies.setdefault(f"CPU {core}", []).append((at, mhz))
    yield Trace("clock before and after visits, MHz", frequencies)
    yield Trace("temperature, °C", temperatures)
    statuses = [
        (at, float(THERMAL_STATUSES.index(state.thermal_status.value)))
        for at, state in states
        if state.thermal_status.value in THERMAL_STATUSES
    ]
    yield Trace(STATUS, {"status": statuses} if statuses else {}, (0, len(THERMAL_STATUSES) - 1))
    yield one("thermal headroom, 1 is severe", "headroom", "thermal_headroom")
    yield one("battery, %", "battery", "battery_percent", (0, 100))
    yield one("load average of one minute", "load", "load_average_1min")


def _clocks(run: Run, lines: Sequence[PhoneLine], began: datetime) -> list[Trace]:
    """The mean clock of each core from before a visit to after it, where the phone counts its time in each clock."""
    visits = {one.visit: one for one in lines if isinstance(one, PhoneVisit)}
    series: dict[str, Points] = {}
    for index, visit in sorted(visits.items()):
        result = run.visits.get(index)
        start = result.find(Start) if result else None
        at = _time(start.started_utc) if start else None
        if at is None:
            continue
        for core, shares in sorted((visit.residency.value or {}).items()):
            mean = sum(khz / 1000 * share for khz, share in shares.items())
            series.setdefault(f"CPU {core}", []).append(((at - began).total_seconds() / 60, mean))
    return [Trace("mean clock during visits, MHz", series)]


def _merged(series: dict[str, Points]) -> dict[str, Points]:
    """Series with the same points under one name; the ones that reach highest where there are many."""
    same: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in series.items():
        same.setdefault(tuple(points), []).append(name)
    named = {_together(names): list(points) for points, names in same.items()}
    highest = sorted(named, key=lambda name: -max(value for _, value in named[name]))[:MOST_SERIES]
    return {name: _thinned(points) for name, points in named.items() if name in highest}


def _together(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    numbers = [name.removeprefix("CPU ") for name in names]
    if all(number.isdigit() for number in numbers):
        return f"CPUs {', '.join(numbers)}"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _thinned(points: Points) -> Points:
    """At most `MOST_POINTS`: the highest and the lowest of each stretch."""
    if len(points) <= MOST_POINTS:
        return points
    size = -(-2 * len(points) // MOST_POINTS)
    kept: Points = []
    for first in range(0, len(points), size):
        stretch = points[first : first + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _picture(run: Run, number: int, drawn: Sequence[Trace]) -> Picture:
    last = max(at for one in drawn for points in one.series.values() for at, _ in points)
    along = Scale(0, last if last > 0 else 1, LEFT, WIDTH - 12)
    height = (PANEL + HEAD) * len(drawn) + AXIS
    bottom = height - AXIS
    body = [x_axis(along, HEAD, bottom, "minutes since the first visit began")]
    body += [_panel(one, along, (PANEL + HEAD) * place) for place, one in enumerate(drawn)]
    device = device_label(run)
    emulated = run.job.device.emulated
    return Picture(
        name=slug("run", number + 1, "traces"),
        caption="Clocks, heat and load",
        about=f"{device}, preset {shown(run.job.settings.preset)}",
        description=f"{len(drawn)} quantities over {format_significant(last)} minutes. "
        + "; ".join(f"{row[0]}, {row[1]}: {row[3]} to {row[5]}" for row in _table(drawn)),
        height=height,
        body="".join(body),
        columns=("quantity", "series", "readings", "least", "median", "most"),
        rows=tuple(_table(drawn)),
        note="Read when a visit began and when it ended."
        + (
            " An emulated device: its clocks and temperatures are made up by the emulation."
            if emulated
            else ""
        ),
    )


def _panel(one: Trace, along: Scale, top: float) -> str:
    values = [value for points in one.series.values() for _, value in points]
    low, high = one.ends or (min(values), max(values))
    pad = 0.0 if one.ends else (high - low) * 0.1 or abs(high) * 0.05 or 1.0
    up = Scale(low - pad, high + pad, top + HEAD + PANEL - 8, top + HEAD)
    marks = up.ticks(3)
    step = marks[1] - marks[0] if len(marks) > 1 else high
    parts = [text(4, top + 14, one.title)]
    for value in marks:
        parts.append(line(LEFT, up(value), WIDTH - 12, up(value), "g"))
        parts.append(text(LEFT - 8, up(value) + 4, tick_label(value, step), "a", "end"))
    x = float(LEFT)
    for place, (name, points) in enumerate(one.series.items()):
        number = place % SERIES
        placed = [(along(at), up.clipped(value)) for at, value in points]
        parts += [
            path(placed, f"l{number}"),
            path(placed, f"d{number}", dots=True) if len(points) < 2 else "",
        ]
        if len(one.series) > 1 and x < WIDTH - 60:
            parts += [line(x, top + 26, x + 14, top + 26, f"i{number}"), text(x + 18, top + 30, name, "m")]
            x += 30 + 6 * len(name)
    return "".join(parts)


def _table(drawn: Sequence[Trace]) -> list[tuple[str, ...]]:
    rows = []
    for one in drawn:
        for name, points in one.series.items():
            values = sorted(value for _, value in points)
            figures = (values[0], values[len(values) // 2], values[-1])
            rows.append((one.title, name, str(len(points)), *(format_significant(v, 4) for v in figures)))
    return rows


def _reasons(state: DeviceState, drawn: set[str]) -> list[str]:
    fields: dict[str, tuple[str, Reading[Any]]] = {
        "clock before and after visits, MHz": ("Clock", state.frequencies_mhz),
        "temperature, °C": ("Temperature", state.temperatures_celsius),
        STATUS: ("Thermal status", state.thermal_status),
        "battery, %": ("Battery", state.battery_percent),
    }
    return [
        shown(f"{name}: no trace, not readable ({found.reason}).", 300)
        for title, (name, found) in fields.items()
        if title not in drawn
    ]
