"""A report as Markdown. Pure: records in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finet_deploy.bench.records import Run
from finet_deploy.report.document import TITLE, Section, cell_text, sections

__all__ = ["escape", "render_markdown", "render_table"]

# What stands between the brackets of an interval: it reads better without a backslash, and is no link.
INTERVAL = r"(?:-?[\d.]+, -?[\d.]+|no spread|95 % interval)"
# What begins a list, a heading or a rule where a line begins: a note stands at the begin of one.
BLOCK_START = re.compile(r"(?:[-+=](?=[-+=\s]|$)|#|\d{1,9}(?=[.)](?:\s|$)))")


def render_markdown(runs: Sequence[Run]) -> str:
    """All runs, a section each, a table per group of comparable rows; the paper's Table 4 where it belongs."""
    return "\n\n".join([f"# {TITLE}", *(_section(section) for section in sections(runs))]) + "\n"


def _section(section: Section) -> str:
    parts = [f"{'#' * section.level} {escape(section.title)}"]
    if section.text:
        parts.append(escape(section.text))
    if section.table is not None:
        rows = [[cell_text(cell) for cell in row] for row in section.table.rows]
        parts.append(render_table(section.table.columns, rows))
    if section.notes:
        parts.append("\n".join(f"* {escape(note)}" for note in section.notes))
    return "\n\n".join(parts)


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured table; cells are escaped here. The first column is text, the others align right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    head, *body = ([escape(cell) for cell in row] for row in [columns, *rows])
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def escape(text: str) -> str:
    """Text that shows as itself: no column break, no HTML, no emphasis, no link, no list, no heading, no line break."""
    text = "".join(char if char.isprintable() else " " for char in text).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(rf"\[(?!{INTERVAL}\](?![(\[:]))", r"\[", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    text = re.sub(r"(?i)\b(www)(?=\.)", r"\1\\", text)
    text = re.sub(r"#+$", lambda found: found[0].replace("#", "\\#"), text)  # would close a heading
    start = BLOCK_START.match(text)
    if start is not None:
        at = start.end() if text[0].isdigit() else 0
        text = f"{text[:at]}\\{text[at:]}"
    return re.sub(r"(\w)://", r"\1:\\/\\/", text)
