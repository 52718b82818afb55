"""What pictures written by hand share."""

from __future__ import annotations

from xml.sax.saxutils import escape

__all__ = ["svg_text"]


def svg_text(
    x: float, y: float, text: str, *, size: int, anchor: str = "start", fill: str = "#000000"
) -> str:
    """A line of text. anchor: which end of it stands at x."""
    where = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {where}>{escape(text)}</text>"
