"""Text of records on its way to the page: what it may hold, and how it becomes part of a picture.

Names, reasons and versions come from files that anybody may have written. The template escapes what it prints, the
pictures escape here; both get text without control characters or marks that turn the direction of writing.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

__all__ = ["escaped", "shown", "slug"]

LONGEST = 160


def shown(text: object, longest: int = LONGEST) -> str:
    """`text` as one line of printable characters, cut with an ellipsis when it is longer than `longest`."""
    line = "".join(char if char.isprintable() else " " for char in str(text)[: 4 * longest])
    line = " ".join(line.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def escaped(text: object, longest: int = LONGEST) -> str:
    """`shown` text for an element or a quoted attribute of SVG or HTML."""
    return escape(shown(text, longest), {'"': "&quot;", "'": "&#39;"})


def slug(*words: object) -> str:
    """A file name or an id: small ASCII letters, digits and dashes, at most 80 of them; never empty."""
    text = re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, words)).lower())
    return text[:80].strip("-") or "figure"
