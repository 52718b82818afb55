"""Runs as Markdown. Pure: records in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finet_deploy.bench.records import Run
from finet_deploy.bench.summary import Comparison, RowSummary, summarise
from finet_deploy.report.across import across_devices
from finet_deploy.report.footnotes import run_notes, table_notes
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.paper import paper_table

__all__ = ["escape", "render_markdown", "render_table"]

# What stands between the brackets of an interval: it reads better without a backslash, and is no link.
INTERVAL = r"(?:-?[\d.]+, -?[\d.]+|no spread|95 % interval)"
RUNTIME_NAMES = {
    "executorch": "ExecuTorch",
    "onnxruntime": "ONNX Runtime",
    "torch_mobile": "PyTorch Mobile (lite)",
}
UNPAIRED = (
    "app / native: images per second of two runs of the same file, one after the other, with a bootstrap interval over "
    "the rounds of both. Their rounds are not paired: what heat and other work did to one of them is in the figure, "
    "and not in the interval."
)
COLUMNS = (
    "network",
    "images/s [95 % interval]",
    "ratio to baseline [95 % interval]",
    "verdict",
    "p50 ms",
    "p90 ms",
    "load ms",
    "first ms",
    "delegates",
    "params M",
    "MMACs",
)


def render_markdown(runs: Sequence[Run]) -> str:
    """All runs, a section each, a table per group of comparable rows; the paper's Table 4 where it belongs."""
    parts = ["# Measured throughput", *_across(runs)]
    several_runners = len({run.job.runner for run in runs}) > 1
    for run in runs:
        title = f"{run.job.suite or 'bundles'} on {run.job.device.name}, preset {run.job.settings.preset}"
        if several_runners:
            title += f", runner {run.job.runner or 'unknown'}"
        parts.append(f"## {escape(title)}")
        parts.extend(_section(comparison) for comparison in summarise(run))
        parts.append("### How this was measured\n\n" + _notes(run_notes(run)))
    if any(run.job.suite == "table4" for run in runs):
        parts.append(_paper_section())
    return "\n\n".join(parts) + "\n"


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub-flavoured table; cells are escaped here. The first column is text, the others align right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    head, *body = ([escape(cell) for cell in row] for row in [columns, *rows])
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *body])


def escape(text: str) -> str:
    """Text that shows as itself: no column break, no HTML, no emphasis, no link, no line break."""
    text = "".join(char if char.isprintable() else " " for char in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(rf"\[(?!{INTERVAL}\](?![(\[:]))", r"\[", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return re.sub(r"(\w)://", r"\1:\\/\\/", text)


def _across(runs: Sequence[Run]) -> list[str]:
    """Networks by devices, where several devices were measured."""
    parts = []
    for table in across_devices(runs):
        shape = "x".join(map(str, table.input_shape))
        runtime = RUNTIME_NAMES.get(table.runtime, table.runtime)
        what = "EMULATED devices, not speeds" if table.emulated else "images/s by device"
        title = f"## {runtime}: {what} ({table.precision}, input {shape}, {table.fusion})"
        differences = table.differences
        rows = [
            [
                label,
                *(_rate(summaries.get(column)) for column in table.columns),
                *(format_estimate(values[label]) for values in differences.values()),
            ]
            for label, summaries in table.rows.items()
        ]
        text = render_table(["network", *table.columns, *differences], rows)
        parts.append(f"{escape(title)}\n\n{text}" + (f"\n\n* {UNPAIRED}" if differences else ""))
    return parts


def _rate(summary: RowSummary | None) -> str:
    if summary is None:
        return "–"
    return format_estimate(summary.images_per_second) if summary.valid_visits else "INVALID"


def _section(comparison: Comparison) -> str:
    shape = "x".join(map(str, comparison.input_shape))
    threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
    runtime = RUNTIME_NAMES.get(comparison.runtime, comparison.runtime)
    versions = ", ".join(comparison.runtime_versions) or "version unknown"
    title = f"### {escape(f'{runtime} {versions}')}"
    kind = f"{threads}, {comparison.precision}, input {shape}, {comparison.fusion}"
    rows = [_cells(summary) for summary in comparison.all_rows]
    notes = _notes(table_notes(comparison))
    return f"{title}\n\n{escape(kind[:1].upper() + kind[1:])}.\n\n{render_table(COLUMNS, rows)}\n\n{notes}"


def _cells(summary: RowSummary) -> list[str]:
    row = summary.row
    delegates = row.artifact.delegates
    return [
        row.label,
        format_estimate(summary.images_per_second) if summary.valid_visits else "INVALID",
        "1" if summary.verdict == "baseline" else format_estimate(summary.ratio),
        "same file" if row.aa_of else summary.verdict,
        format_significant(summary.p50_ms),
        format_significant(summary.p90_ms),
        format_significant(summary.load_ms),
        format_significant(summary.first_ms),
        "–" if delegates is None else str(delegates),
        f"{row.params / 1e6:.3f}",
        f"{row.macs / 1e6:.2f}",
    ]


def _notes(notes: Sequence[str]) -> str:
    return "\n".join(f"* {escape(note)}" for note in notes)


def _paper_section() -> str:
    _, phones = paper_table(3)
    _, rows = paper_table(4)
    columns = ["network", *(f"{phone[0]} ({phone[1]}), images/s" for phone in phones)]
    return (
        "## For orientation: the paper's Table 4\n\n"
        "Phones of 2020 with PyTorch Mobile, trained weights, normalization fused, mean of 1000 images. Other devices "
        "and another runtime: compare the order and the ratios of the networks, not the figures.\n\n"
        + render_table(columns, rows)
    )
