"""A profile as a picture (SVG): operators in their order, each as tall as it is dear, in the colour of its kind.

Written by hand: bars and text need no library, and the file is the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from finet_deploy.profile.model import Profile, Row
from finet_deploy.profile.render import groups_of, kind_of, module_of, title_of
from finet_deploy.report.svg import svg_text

__all__ = ["render_svg"]

_text = functools.partial(svg_text, size=11)
# Okabe and Ito's palette, which people with colour blindness can tell apart; the last one is for what is left.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
OTHERS = "#999999"
BAR, GAP, LEFT, TOP, CHART, BOTTOM = 9, 2, 64, 96, 320, 260
LEGEND_LINE, LEGEND_WIDTH = 18, 430
TICKS = 4


def render_svg(profile: Profile) -> str:
    """The picture. Bars: cost; where the bound is known, the dark part is what the core needs at its best."""
    rows = [row for row in profile.rows if row.cost > 0]
    colours = _colours(rows)
    width = LEFT + max(len(rows) * (BAR + GAP), 2 * LEGEND_WIDTH) + 20
    legend_top = TOP + CHART + BOTTOM
    height = legend_top + LEGEND_LINE * (len(colours) + 2) // 2 + 24
    tallest = max((row.cost for row in rows), default=1.0)
    unit = "thousand instructions" if profile.unit == "instructions" else "µs"
    scale = 1e3 if profile.unit == "instructions" else 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(LEFT, 24, f"{profile.label}: {title_of(profile)}", size=15),
        _text(LEFT, 44, _subtitle(profile)),
        _text(LEFT, 62, _key(profile), fill="#555555"),
        *_axis(tallest, scale, unit, width),
    ]
    for i, row in enumerate(rows):
        parts += _bar(row, LEFT + i * (BAR + GAP), tallest, colours.get(kind_of(row), OTHERS), profile)
    parts += _legend(colours, rows, legend_top)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _subtitle(profile: Profile) -> str:
    if profile.unit == "instructions":
        total = f"{profile.total / 1e6:.2f} M ARM instructions an inference, counted under emulation"
    else:
        plural = "" if profile.threads == 1 else "s"
        total = f"{profile.total / 1e3:.3f} ms an inference, {profile.threads} thread{plural}"
    return f"{total}; all bars but the last account for {profile.accounted:.1%}"


def _key(profile: Profile) -> str:
    if profile.unit == "instructions":
        return (
            "One bar an operator, in their order. Dark: multiply-adds; the rest is loads, stores and other."
        )
    return "One bar an operator, in their order. Dark: what this core would need at its measured best."


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    """The dearest kinds have colours of their own."""
    sums: dict[str, float] = {}
    for row in rows:
        sums[kind_of(row)] = sums.get(kind_of(row), 0.0) + row.cost
    dearest = sorted(sums, key=lambda kind: -sums[kind])
    return dict(zip(dearest, COLOURS))


def _bar(row: Row, x: int, tallest: float, colour: str, profile: Profile) -> list[str]:
    height = CHART * row.cost / tallest
    base = TOP + CHART
    useful = _useful(row, profile)
    told = f"{module_of(row) or row.operator}: {row.operator}, {row.share:.2%}"
    parts = [
        f"<g><title>{escape(told)}</title>",
        _rect(x, base - height, BAR, height, colour, 0.45 if useful else 1),
    ]
    if useful:
        parts.append(_rect(x, base - height * min(useful, 1.0), BAR, height * min(useful, 1.0), colour, 1))
    parts.append("</g>")
    name = module_of(row) or row.operator
    parts.append(
        f'<text transform="translate({x + BAR - 1},{base + 6}) rotate(-90)" text-anchor="end" font-size="8">'
        f"{escape(name)}</text>"
    )
    return parts


def _useful(row: Row, profile: Profile) -> float | None:
    """The part of an operator's cost that its arithmetic, or its bound, explains."""
    if profile.unit == "us":
        return row.of_bound
    groups = groups_of(row.classes or {})
    return (groups["fma"] + groups["dot"]) / row.cost if row.cost else None


def _axis(tallest: float, scale: float, unit: str, width: int) -> list[str]:
    parts = [
        f'<text transform="translate(14,{TOP + CHART / 2}) rotate(-90)" text-anchor="middle">{escape(unit)}</text>'
    ]
    for i in range(TICKS + 1):
        y = TOP + CHART - CHART * i / TICKS
        parts.append(f'<line x1="{LEFT - 4}" x2="{width - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tallest * i / TICKS / scale:.4g}", anchor="end"))
    return parts


def _legend(colours: dict[str, str], rows: Sequence[Row], top: int) -> list[str]:
    total = sum(row.cost for row in rows) or 1.0
    parts = []
    entries = list(colours.items())
    if any(kind_of(row) not in colours for row in rows):
        entries.append(("all other kinds", OTHERS))
    for i, (kind, colour) in enumerate(entries):
        mine = [
            row for row in rows if (kind_of(row) if kind_of(row) in colours else "all other kinds") == kind
        ]
        share = sum(row.cost for row in mine) / total
        x, y = LEFT + (i % 2) * LEGEND_WIDTH, top + (i // 2) * LEGEND_LINE
        parts.append(_rect(x, y, 10, 10, colour, 1))
        parts.append(_text(x + 16, y + 9, f"{kind}, {len(mine)}: {share:.1%}"))
    return parts


def _rect(x: float, y: float, width: float, height: float, fill: str, opacity: float) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.2f}" width="{width:.1f}" height="{height:.2f}" fill={quoteattr(fill)} '
        f'fill-opacity="{opacity}"/>'
    )
