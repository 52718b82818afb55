"""The Pareto picture (SVG): how exact against how fast, a mark a candidate, the front joined. Written by hand, as all
pictures here: text and marks need no library, and the file is the same on every machine."""

from __future__ import annotations

import functools
import math
from xml.sax.saxutils import escape

from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.svg import svg_text
from finet_deploy.tune.model import TuneResult, TuneRow
from finet_deploy.tune.render import where_measured

__all__ = ["render_svg"]

_text = functools.partial(svg_text, size=12)
# Okabe and Ito's palette, which people with colour blindness can tell apart.
COLOURS = {"executorch": "#0072B2", "onnxruntime": "#E69F00", "torch_mobile": "#009E73"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 520, 80, 96, 30, 92
TICKS = 5
EXACT_SHARE = 0.88  # of the width: where fp32 stands, right of every decibel


def render_svg(result: TuneResult) -> str:
    """The picture. x: SQNR in dB, fp32 at its right; y: ratio to the default, with the interval where there is one."""
    rows = [row for row in result.rows if row.ratio is not None]
    what = "images per second" if result.unit == "images/s" else "cheapness (emulated instructions)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, f"{result.subject} on {where_measured(result)}", size=16),
        _text(LEFT, 46, f"Ratio of {what} to the default bundle, against exactness; filled: Pareto front"),
        *_legend(rows),
    ]
    scale = _Scale(rows)
    parts += [*_axes(scale), *_front(rows, scale)]
    for row in rows:
        parts += _mark(row, scale)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """From figures to places in the picture."""

    def __init__(self, rows: list[TuneRow]) -> None:
        tops = [row.ratio.high or row.ratio.value for row in rows if row.ratio is not None]
        self.highest = 1.08 * max([1.0, *tops])
        known = [db for row in rows if (db := _decibels(row)) is not None]
        self.least = math.floor(min(known) - 2) if known else 0
        self.most = math.ceil(max(known) + 2) if known else 1
        self.has_decibels = bool(known)

    def x(self, row: TuneRow) -> float:
        decibels = _decibels(row)
        share = EXACT_SHARE
        if decibels is not None:
            share = 0.72 * (decibels - self.least) / (self.most - self.least)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, ratio: float) -> float:
        return HEIGHT - BOTTOM - ratio / self.highest * (HEIGHT - TOP - BOTTOM)


def _decibels(row: TuneRow) -> float | None:
    """The SQNR that tells candidates apart; None for fp32."""
    return None if row.candidate.dtype == "float32" else row.candidate.sqnr_db


def _axes(scale: _Scale) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for i in range(TICKS + 1):
        value = scale.highest * i / TICKS
        y = scale.y(value)
        parts.append(_line(LEFT, y, right, y, "#dddddd"))
        parts.append(_text(LEFT - 8, y + 4, f"{value:.2f}", anchor="end"))
    y = scale.y(1.0)
    parts.append(_line(LEFT, y, right, y, "#555555", dash="5 4"))
    parts.append(_text(right, y - 5, "the default bundle", anchor="end", fill="#555555"))
    width = right - LEFT
    if scale.has_decibels:
        for i in range(TICKS):
            value = scale.least + (scale.most - scale.least) * i / (TICKS - 1)
            parts.append(
                _text(LEFT + 0.72 * width * i / (TICKS - 1), bottom + 18, f"{value:.1f} dB", anchor="middle")
            )
    parts.append(_text(LEFT + EXACT_SHARE * width, bottom + 18, "fp32 (exact)", anchor="middle"))
    parts.append(_text(LEFT + width / 2, bottom + 40, "SQNR, median over the photographs", anchor="middle"))
    return parts


def _front(rows: list[TuneRow], scale: _Scale) -> list[str]:
    """A line for each number of threads: the front is one of three figures, and the picture has two."""
    parts = []
    for threads in sorted({row.candidate.threads for row in rows}):
        mine = [row for row in rows if row.pareto and row.candidate.threads == threads]
        points = sorted((scale.x(row), scale.y(row.ratio.value)) for row in mine if row.ratio is not None)
        if len(points) > 1:
            listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{listed}" fill="none" stroke="#999999"/>')
    return parts


def _mark(row: TuneRow, scale: _Scale) -> list[str]:
    if row.ratio is None:
        return []
    colour = COLOURS.get(row.candidate.runtime, "#999999")
    x, y = scale.x(row), scale.y(row.ratio.value)
    parts = [f"<g><title>{escape(f'{row.candidate.label}: {format_estimate(row.ratio)}')}</title>"]
    if row.ratio.low is not None and row.ratio.high is not None:
        parts.append(_line(x, scale.y(row.ratio.low), x, scale.y(row.ratio.high), colour))
    fill = colour if row.pareto else "white"
    radius = 8 if row.winner else 5
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{colour}"/>')
    if row.pareto or row.winner or row.default:
        threads = f"{row.candidate.threads} thread{'' if row.candidate.threads == 1 else 's'}"
        words = [threads, *(word for word, on in (("winner", row.winner), ("default", row.default)) if on)]
        parts.append(_text(x + 11, y + 4, ", ".join(words), size=10))
    return [*parts, "</g>"]


def _legend(rows: list[TuneRow]) -> list[str]:
    parts = []
    runtimes = dict.fromkeys(row.candidate.runtime for row in rows)
    for i, runtime in enumerate(runtimes):
        x, colour = LEFT + 160 * i, COLOURS.get(runtime, "#999999")
        parts.append(f'<circle cx="{x + 5}" cy="66" r="5" fill="{colour}"/>')
        parts.append(_text(x + 16, 70, runtime))
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, *, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"{dashes}/>'
