"""A comparison as text for a terminal, as Markdown for a pull request, and as plain data. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from finet_deploy.bench.statistics import Estimate
from finet_deploy.compare.changes import Changes, Drift, RowChange, Verdict
from finet_deploy.compare.facts import Fact
from finet_deploy.report.document import RUNTIME_NAMES
from finet_deploy.report.markdown import escape, render_table
from finet_deploy.report.numbers import format_estimate, format_significant

__all__ = ["MARKER", "changes_object", "render_markdown", "render_text"]

SCHEMA_VERSION = 1
MARKER = "<!-- finet-deploy compare -->"
ORDER: tuple[Verdict, ...] = ("slower", "invalid", "cannot tell", "missing", "new", "faster", "unchanged")
COLUMNS = ("network", "where", "verdict", "base images/s", "new images/s", "new / base", "evidence")
EVIDENCE = {
    "paired": "pairs of rounds",
    "referenced": "two runs, held against unchanged rows",
    "apart": "two runs, nothing in common",
    "same file": "same file",
    "said": "said to be unchanged",
    None: "–",
}
HOW = (
    "new / base is the ratio of images per second, its mean over rounds (of logarithms) with a 95 % interval. A row is "
    "called faster or slower when that is no chance at 5 % among all rows together (Holm), and the change is larger "
    "than the noise floor of the A/A rows and the threshold."
)


def changes_object(changes: Changes) -> dict[str, Any]:
    """Plain dicts and lists, for `--json`."""
    found = msgspec.to_builtins(changes)
    counts = Counter(row.verdict for row in changes.rows)
    return {"schema_version": SCHEMA_VERSION, "failed": changes.failed, "verdicts": dict(counts), **found}


def render_text(changes: Changes) -> str:
    """For a terminal: a table, then what must be known about it."""
    rows = [[_plain(cell) for cell in _cells(row, changes)] for row in changes.rows]
    widths = [max(len(line[i]) for line in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
        for line in [COLUMNS, *rows]
    ]
    notes = [*_row_notes(changes), *_fact_notes(changes), *_context(changes)]
    return "\n".join([*lines, "", *(f"* {_plain(note)}" for note in notes), "", _headline(changes)])


def render_markdown(changes: Changes) -> str:
    """For a pull request: what changed, and all else in a section that opens. `MARKER` finds the comment again."""
    told = [row for row in changes.rows if row.verdict != "unchanged" or row.failures]
    others = [row for row in changes.rows if row not in told]
    notes = [*_row_notes(changes), *_fact_notes(changes, only_failing=True)]
    context = _bullets([HOW, *_context(changes)])
    summary = f"{len(others)} rows without a change, sizes, and how this was compared"
    parts = [
        MARKER,
        f"### {_headline(changes)}",
        _fitted(_rows_table(told, changes), 20_000) if told else "",
        _fitted(_bullets(notes), 12_000),
        f"<details>\n<summary>{summary}</summary>",
        _fitted(_rows_table(others, changes), 8_000) if others else "",
        _fitted(_facts_table(changes), 10_000),
        _fitted(context, 8_000),
        "</details>",
    ]
    return "\n\n".join(part for part in parts if part)


def _fitted(text: str, size: int) -> str:
    """The lines that fit; how many are left out is told. All parts together stay below what a comment may hold."""
    lines, kept, used = text.split("\n"), 0, 0
    while kept < len(lines) and used + len(lines[kept].encode()) < size:
        used += len(lines[kept].encode()) + 1
        kept += 1
    left = len(lines) - kept
    return "\n".join(lines[:kept]) + (f"\n\n{left} more lines are not shown: see `--json`." if left else "")


def _headline(changes: Changes) -> str:
    counts = Counter(row.verdict for row in changes.rows)
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict])
    told = any(counts[verdict] for verdict in ("faster", "slower", "unchanged"))
    found = "Regression" if changes.failed else "No regression found" if told else "Nothing could be compared"
    return f"{found}: {listed or 'no rows'}"


def _rows_table(rows: Sequence[RowChange], changes: Changes) -> str:
    ordered = sorted(rows, key=lambda row: ORDER.index(row.verdict))
    return render_table(COLUMNS, [_cells(row, changes) for row in ordered])


def _cells(row: RowChange, changes: Changes) -> list[str]:
    return [
        row.network,
        _where(row, changes),
        row.verdict,
        format_estimate(row.base_rate),
        format_estimate(row.new_rate),
        format_estimate(row.ratio),
        EVIDENCE[row.evidence] + (", confirmed" if row.confirmed else ""),
    ]


def _facts_table(changes: Changes) -> str:
    """Every property that changed, of every row."""
    cells = [
        [row.network, _where(row, changes), fact.name, _value(fact.base), _value(fact.new), _factor(fact)]
        for row in changes.rows
        for fact in row.facts
        if fact.changed
    ]
    if not cells:
        return "Size, delegation, fusion and certificate are the same in all rows."
    return render_table(["network", "where", "property", "base", "new", "new / base"], cells)


def _where(row: RowChange, changes: Changes) -> str:
    """Runtime, and of device, precision and threads what is not the same in all rows, or not what it usually is."""
    parts = [RUNTIME_NAMES.get(row.runtime, row.runtime)]
    if row.precision != "float32" or len({other.precision for other in changes.rows}) > 1:
        parts.append(row.precision)
    parts.append(f"{row.threads} thread{'' if row.threads == 1 else 's'}")
    if row.device != "host" or len({other.device for other in changes.rows}) > 1:
        parts.append(row.device)
    return ", ".join(parts)


def _row_notes(changes: Changes) -> Iterator[str]:
    for row in changes.rows:
        texts = [*([row.reason] if row.reason else []), *row.notes]
        if row.suspect and row.confirmed is None and row.evidence != "paired":
            suspected = "" if row.verdict == "slower" else "suspected to be slower: "
            texts.append(f"{suspected}--confirm measures both sides again, in one run")
        if texts:
            yield f"{row.network}, {_where(row, changes)}: {'; '.join(texts)}"


def _fact_notes(changes: Changes, *, only_failing: bool = False) -> Iterator[str]:
    for row in changes.rows:
        for fact in row.facts:
            if not fact.changed and not (fact.worse and fact.kind in row.failures):
                continue
            fails = fact.worse and fact.kind in row.failures
            if only_failing and not fails:
                continue
            factor = f" ({_factor(fact)})" if fact.factor is not None else ""
            yield (
                f"{row.network}, {_where(row, changes)}: {fact.name} {_value(fact.base)} → {_value(fact.new)}{factor}"
                f"{', a regression' if fails else ''}"
            )


def _context(changes: Changes) -> Iterator[str]:
    """What both sides are, in what else they differ, and what the machine did."""
    if changes.base != changes.new:
        yield f"BASE: {', '.join(changes.base)}. NEW: {', '.join(changes.new)}."
    else:
        yield f"Both sides: {', '.join(changes.base)}."
    yield from changes.warnings
    for item in changes.differences:
        yield f"Not the same on {item.device}: {item.what}, {item.base} in BASE, {item.new} in NEW."
    yield from map(_drift, changes.drifts)
    floors = sorted({row.noise_floor for row in changes.rows if row.noise_floor is not None})
    if floors:
        ends = f"{floors[0] - 1:.1%}" + (f" to {floors[-1] - 1:.1%}" if len(floors) > 1 else "")
        yield (
            f"Noise floor from the A/A rows: {ends}; threshold {changes.options.threshold:.1%}; rows judged together: "
            f"{changes.family}."
        )


def _drift(item: Drift) -> str:
    names = ", ".join(item.files)
    text = f"{item.ratio.value - 1:+.1%}{_interval(item.ratio)}"
    runtime = RUNTIME_NAMES.get(item.runtime, item.runtime)
    return (
        f"What the machine itself did from BASE to NEW ({item.device}, {runtime}): {text}, from rows that are "
        f"the same on both sides ({names}). It is taken out of the other rows."
    )


def _interval(ratio: Estimate) -> str:
    return (
        "" if ratio.low is None or ratio.high is None else f" ({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"
    )


def _value(value: str | float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,}" if float(value).is_integer() else format_significant(value)


def _factor(fact: Fact) -> str:
    return "–" if fact.factor is None else f"{fact.factor - 1:+.2%}"


def _bullets(notes: Sequence[str]) -> str:
    return "\n".join(f"* {escape(note)}" for note in notes)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
