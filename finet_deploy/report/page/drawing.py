"""What the pictures share: a picture with its data table, scales and marks. SVG written by hand; colours are classes.

On the page the classes take their colours from the page's variables and follow light and dark. A picture that is
saved carries the light ones with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finet_deploy.report.page.colours import picture_css
from finet_deploy.report.page.text import escaped, shown

__all__ = ["WIDTH", "Picture", "Scale", "circle", "line", "path", "rect", "text", "tick_label", "ticks"]
__all__ += ["x_axis", "y_axis"]

WIDTH = 640  # of every picture, in its own units
LARGEST = 1e300  # of a scale: beyond it, differences overflow
MARGIN, HEAD = 16, 68  # around a saved picture, and above it for its title


@dataclass(frozen=True)
class Picture:
    """A plot and the figures in it. name: of its files and ids. caption: what it shows; about: of which rows. body: SVG
    elements; columns, rows: its table. fits: its words have room to be larger, so that a phone shows it whole."""

    name: str
    caption: str
    about: str
    description: str
    height: float
    body: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    fits: bool = False

    @property
    def title(self) -> str:
        """Caption and what it is about."""
        return f"{self.caption}: {self.about}"

    def inline(self) -> str:
        """For the page, which prints the title above it and the table below."""
        return (
            f'<svg class="plot{" fits" if self.fits else ""}" viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
            f'aria-labelledby="{self.name}-t {self.name}-d">'
            f'<title id="{self.name}-t">{escaped(self.title)}</title>'
            f'<desc id="{self.name}-d">{escaped(self.description, 600)}</desc>{self.body}</svg>'
        )

    def file(self) -> str:
        """For a file of its own: with title, note, background and colours."""
        foot = 22 if self.note else 0
        width, height = WIDTH + 2 * MARGIN, self.height + HEAD + foot + MARGIN
        note = text(0, self.height + 14, self.note, "m") if self.note else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
            f'viewBox="0 0 {width:g} {height:g}" class="plot" role="img">'
            f"<title>{escaped(self.title)}</title><desc>{escaped(self.description, 600)}</desc>"
            f"<style>{picture_css()}</style>"
            f'<rect class="paper" width="{width:g}" height="{height:g}"/>'
            f"{text(MARGIN, 30, self.caption, 'h')}{text(MARGIN, 48, shown(self.about, 105), 'a')}"
            f'<g transform="translate({MARGIN} {HEAD})">{self.body}{note}</g></svg>\n'
        )


class Scale:
    """From values to places: `low` at `start`, `high` at `end`; logarithmic where asked for and possible."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        low, high = max(low, -LARGEST), min(high, LARGEST)
        if not high > low:
            spread = abs(low) * 0.05 or 1.0
            low, high = low - spread, high + spread
        self.log = log and low > 0
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        """The place of a value; beyond the ends for one that lies there."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(max(one, 1e-300)) for one in (value, low, high))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """The place of a value, at an end for one that lies beyond it."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, count: int = 5) -> list[float]:
        """Round values in the range."""
        if not self.log:
            return ticks(self.low, self.high, count)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [m * 10.0**p for p in powers for m in (1, 2, 5)]
        return [value for value in found if self.low <= value <= self.high] or [self.low, self.high]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(count, 1)
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, min(last, first + 4 * count) + 1)]


def tick_label(value: float, step: float) -> str:
    """A tick with as many decimals as its step needs."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or (step and abs(step) < 1e-6):
        return f"{value:.3g}"
    decimals = max(0, -math.floor(math.log10(abs(step)) + 1e-9)) if step else 0
    return f"{value:,.{decimals}f}".replace(",", " ")


def x_axis(scale: Scale, top: float, bottom: float, title: str, count: int = 6) -> str:
    """Grid lines from `top` to `bottom`, their values, and the axis' title below."""
    marks = scale.ticks(count)
    step = 0.0 if scale.log or len(marks) < 2 else marks[1] - marks[0]
    parts = []
    for value in marks:
        x = scale(value)
        parts.append(line(x, top, x, bottom, "g"))
        label = f"{value:g}" if scale.log else tick_label(value, step)
        parts.append(text(x, bottom + 16, label, "a", "middle"))
    parts.append(text((scale.start + scale.end) / 2, bottom + 36, title, "a", "middle"))
    return "".join(parts)


def y_axis(scale: Scale, left: float, right: float, title: str, count: int = 5) -> str:
    """Grid lines from `left` to `right`, their values, and the axis' title above its upper end."""
    marks = scale.ticks(count)
    step = marks[1] - marks[0] if len(marks) > 1 else 0.0
    parts = []
    for value in marks:
        y = scale(value)
        parts.append(line(left, y, right, y, "g"))
        parts.append(text(left - 8, y + 4, tick_label(value, step), "a", "end"))
    parts.append(text(0, min(scale.start, scale.end) - 12, title, "a"))
    return "".join(parts)


def text(x: float, y: float, words: str, kind: str = "t", anchor: str = "start") -> str:
    """A line of text. kind: its class. anchor: which end of it stands at x."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{_short(x)}" y="{_short(y)}"{where}>{escaped(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A line; its class tells colour and width."""
    ends = f'x1="{_short(x1)}" y1="{_short(y1)}" x2="{_short(x2)}" y2="{_short(y2)}"'
    return f'<line class="{kind}" {ends}/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A box."""
    size = f'width="{_short(max(width, 0))}" height="{_short(max(height, 0))}"'
    return f'<rect class="{kind}" x="{_short(x)}" y="{_short(y)}" {size}/>'


def circle(x: float, y: float, radius: float, kind: str, title: str = "") -> str:
    """A dot; `title` is what a pointer over it shows."""
    where = f'<circle class="{kind}" cx="{_short(x)}" cy="{_short(y)}" r="{_short(radius)}"'
    return f"{where}><title>{escaped(title)}</title></circle>" if title else f"{where}/>"


def path(
    points: Sequence[tuple[float, float]], kind: str, *, dots: bool = False, closed: bool = False
) -> str:
    """A line through points, or a dot at each: one element for all of them."""
    if not points:
        return ""
    between = "h0M" if dots else "L"
    listed = between.join(f"{_short(x)} {_short(y)}" for x, y in points)
    return f'<path class="{kind}" d="M{listed}{"h0" if dots else ""}{"z" if closed else ""}"/>'


def _short(value: float) -> str:
    """At most one decimal, and none that is zero."""
    words = f"{value:.1f}"
    return "0" if words == "-0.0" else words.removesuffix(".0")
