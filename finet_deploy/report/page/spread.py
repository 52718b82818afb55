"""Plots of one table's rows below each other: the distribution of the latencies, and the rounds one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finet_deploy.report.numbers import format_significant
from finet_deploy.report.page.drawing import WIDTH, Picture, Scale, line, path, rect, text, x_axis
from finet_deploy.report.page.measured import Panel, RowData

__all__ = ["distribution", "rounds"]

MOST_ROWS = 40  # of one plot: the page's other tables have them all
BINS = 72
STRIP, ROUND, TOP, AXIS = 68, 82, 8, 48  # STRIP, ROUND: the height of a row in either plot
SERIES = 0
WIDEST, NARROWEST = 0.30, 0.01  # of the rounds' scale, as a share of the row's median
DOTS = 80  # rounds, up to which each has a dot
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
UNREAL = "Emulated device: these are not speeds of a real one."


def distribution(panel: Panel) -> Picture | None:
    """All valid samples of each row as a histogram of its own; below it 5 to 95 %, quartiles, median."""
    rows = [row for row in panel.rows if len(row.latencies_ms)]
    if not rows:
        return None
    drawn = rows[:MOST_ROWS]
    low = min(float(np.quantile(row.latencies_ms, 0.002)) for row in drawn)
    high = max(float(np.quantile(row.latencies_ms, 0.98)) for row in drawn)
    log = high > 6 * low
    pad = 0.0 if log else (high - low) * 0.03
    scale = Scale(low - pad, high + pad, 4, WIDTH - 4, log=log)
    height = TOP + STRIP * len(drawn) + AXIS
    body = [x_axis(scale, TOP, height - AXIS, f"latency of one image, ms{' (logarithmic)' if log else ''}")]
    body += [_histogram(row, scale, TOP + STRIP * number) for number, row in enumerate(drawn)]
    return Picture(
        name=f"{panel.key}-distribution",
        caption="Latency of every timed image",
        about=panel.title,
        description=f"Histograms of {len(drawn)} rows on one axis. {_medians(drawn)}",
        height=height,
        body="".join(body),
        columns=("network", "samples", *(f"{_quantile_name(q)}, ms" for q in QUANTILES), "beyond the axis"),
        rows=tuple(_quantiles(row, scale) for row in drawn),
        fits=True,
        note=_note(panel, len(drawn), len(rows), "Line: 5 to 95 %; box: quartiles; bar: median."),
    )


def _histogram(row: RowData, scale: Scale, top: float) -> str:
    samples = row.latencies_ms
    spaced = np.geomspace if scale.log else np.linspace
    counts, _ = np.histogram(samples, bins=spaced(scale.low, scale.high, BINS + 1))
    base, tall = top + 50, 30.0
    points = [(scale.start, base)]
    width = (scale.end - scale.start) / BINS
    for number, count in enumerate(counts):
        y = base - tall * float(count) / max(1, int(counts.max()))
        x = scale.start + width * number
        points += [(x, y), (x + width, y)]
    points.append((scale.end, base))
    low, first, middle, third, high = (float(q) for q in np.quantile(samples, QUANTILES[1:-1]))
    places = [scale.clipped(q) for q in (low, first, middle, third, high)]
    return "".join(
        [
            text(4, top + 13, row.label),
            text(WIDTH - 4, top + 13, f"median {format_significant(middle)} ms", "a", "end"),
            path(_without_repeats(points), f"b{SERIES}", closed=True),
            line(places[0], base + 4, places[4], base + 4, f"i{SERIES}"),
            rect(places[1], base + 1, max(places[3] - places[1], 1), 6, f"f{SERIES}"),
            line(places[2], base - 2, places[2], base + 9, "mid"),
        ]
    )


def _without_repeats(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points between two others at the same height add nothing."""
    kept = [
        here
        for before, here, after in zip(points, points[1:], points[2:])
        if not before[1] == here[1] == after[1]
    ]
    return [points[0], *kept, points[-1]]


def rounds(panel: Panel) -> Picture | None:
    """Images per second of each round against the row's median, all rows on one scale: drift and outliers show."""
    rows = [row for row in panel.rows if row.rates or row.bad_rounds]
    if not any(row.rates for row in rows):
        return None
    drawn = rows[:MOST_ROWS]
    widest = max(abs(share) for row in drawn for share in [*_deviations(row).values(), 0.0])
    reach = min(max(widest * 1.1, NARROWEST), WIDEST)
    total = panel.run.job.settings.rounds
    along = Scale(1, total, 64, WIDTH - 12) if total > 1 else Scale(0, 2, 64, WIDTH - 12)
    height = TOP + ROUND * len(drawn) + AXIS
    body = [_round_axis(along, total, TOP, height - AXIS)]
    body += [_strip(row, along, reach, TOP + ROUND * number) for number, row in enumerate(drawn)]
    return Picture(
        name=f"{panel.key}-rounds",
        caption="Images per second, round by round, against the row's median",
        about=panel.title,
        description=f"{len(drawn)} rows over {total} rounds, each against its own median. {_medians(drawn)}",
        height=height,
        body="".join(body),
        columns=("round", *(row.label for row in drawn)),
        rows=tuple(
            (str(number + 1), *(_round_figure(row, number) for row in drawn)) for number in range(total)
        ),
        fits=True,
        note=_note(panel, len(drawn), len(rows), "Band: 95 % interval of the median; cross: invalid visit."),
    )


def _deviations(row: RowData) -> dict[int, float]:
    middle = row.summary.images_per_second
    return {number: rate / middle.value - 1 for number, rate in row.rates.items()} if middle else {}


def _strip(row: RowData, along: Scale, reach: float, top: float) -> str:
    up = Scale(-reach, reach, top + 70, top + 30)
    found, middle = _deviations(row), row.summary.images_per_second
    shown = f"median {format_significant(middle.value)} images/s" if middle else "no valid visit"
    parts = [text(4, top + 13, row.label), text(WIDTH - 4, top + 13, shown, "a", "end")]
    if middle and middle.low is not None and middle.high is not None:
        low, high = up.clipped(middle.low / middle.value - 1), up.clipped(middle.high / middle.value - 1)
        parts.append(rect(along.start, high, along.end - along.start, max(low - high, 1), f"b{SERIES}"))
    parts.append(line(along.start, up(0), along.end, up(0), "z"))
    for share in (-reach, reach):
        parts.append(text(along.start - 8, up(share) + 4, f"{share:+.1%}", "m", "end"))
    points = [(along(number + 1), up.clipped(found[number])) for number in sorted(found)]
    parts.append(path(points, f"l{SERIES}"))
    if len(points) <= DOTS:
        parts.append(path(points, f"d{SERIES}", dots=True))
    for number in row.bad_rounds:
        x, y = along(number + 1), up(0)
        parts.append(f'<path class="x" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"/>')
    return "".join(parts)


def _round_axis(along: Scale, total: int, top: float, bottom: float) -> str:
    step = max(1, round(total / 10))
    marks = range(1, total + 1, step)
    lines = [line(along(number), top, along(number), bottom, "g") for number in marks]
    words = [text(along(number), bottom + 16, str(number), "a", "middle") for number in marks]
    middle = (along.start + along.end) / 2
    return "".join([*lines, *words, text(middle, bottom + 36, "round", "a", "middle")])


def _round_figure(row: RowData, number: int) -> str:
    if number in row.rates:
        return format_significant(row.rates[number], 4)
    return "invalid" if number in row.bad_rounds else "–"


def _quantile_name(share: float) -> str:
    names = {0.0: "least", 0.5: "median", 1.0: "most"}
    return names.get(share, f"{share:.0%}")


def _quantiles(row: RowData, scale: Scale) -> tuple[str, ...]:
    samples = row.latencies_ms
    beyond = float(np.mean((samples < scale.low) | (samples > scale.high)))
    figures = (format_significant(float(value), 4) for value in np.quantile(samples, QUANTILES))
    return (row.label, str(len(samples)), *figures, f"{beyond:.1%}")


def _medians(rows: Sequence[RowData]) -> str:
    found = [
        f"{row.label}: {format_significant(row.summary.images_per_second.value)} images/s"
        for row in rows[:8]
        if row.summary.images_per_second
    ]
    return f"Medians: {'; '.join(found)}." if found else ""


def _note(panel: Panel, drawn: int, total: int, key: str) -> str:
    left = f" The first {drawn} of {total} rows." if drawn < total else ""
    return f"{key}{left}{f' {UNREAL}' if panel.emulated else ''}"
