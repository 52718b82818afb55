"""What a report says, before it has a format: sections with tables and notes. Every format prints these."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import Estimate
from finet_deploy.bench.summary import Comparison, RowSummary, summarise
from finet_deploy.report.across import AcrossDevices, across_devices, protocol_differences
from finet_deploy.report.footnotes import across_notes, run_notes, table_notes
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.paper import paper_table

__all__ = ["RUNTIME_NAMES", "Cell", "Section", "Table", "cell_text", "sections"]

TITLE = "Measured throughput"
RUNTIME_NAMES = {
    "executorch": "ExecuTorch",
    "onnxruntime": "ONNX Runtime",
    "torch_mobile": "PyTorch Mobile (lite)",
}
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

Cell = str | Estimate


class Table(msgspec.Struct, frozen=True):
    """The first column is text, the others are figures. An `Estimate` is written as each format writes intervals."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Section(msgspec.Struct, frozen=True):
    """A heading of `level` (2 is a run, 3 a part of one), a paragraph, a table and its footnotes; each may be empty."""

    level: int
    title: str
    text: str = ""
    table: Table | None = None
    notes: tuple[str, ...] = ()


def cell_text(cell: Cell) -> str:
    """A cell as plain text."""
    return cell if isinstance(cell, str) else format_estimate(cell)


def sections(runs: Sequence[Run]) -> list[Section]:
    """All that a report of these runs says: a table per group of comparable rows, the paper's where it belongs."""
    found = [_across(table) for table in across_devices(runs)]
    differences = protocol_differences(runs)
    if differences:
        text = "These runs were measured by different protocols: their figures share no table."
        found.append(Section(2, "Not side by side", text, notes=tuple(f"{line}." for line in differences)))
    several_runners = len({run.job.runner for run in runs}) > 1
    for run in runs:
        title = f"{run.job.suite or 'bundles'} on {run.job.device.name}, preset {run.job.settings.preset}"
        if several_runners:
            title += f", runner {run.job.runner or 'unknown'}"
        found.append(Section(2, title))
        found.extend(_comparison(comparison) for comparison in summarise(run))
        found.append(Section(3, "How this was measured", notes=tuple(run_notes(run))))
    if any(run.job.suite == "table4" for run in runs):
        found.append(_paper())
    return found


def _across(table: AcrossDevices) -> Section:
    shape = "x".join(map(str, table.input_shape))
    runtime = RUNTIME_NAMES.get(table.runtime, table.runtime)
    what = "EMULATED devices, not speeds" if table.emulated else "images/s by device"
    differences = table.differences
    rows = [
        (
            label,
            *(_rate(summaries.get(column)) for column in table.columns),
            *(values[label] or "–" for values in differences.values()),
        )
        for label, summaries in table.rows.items()
    ]
    return Section(
        2,
        f"{runtime}: {what} ({table.precision}, input {shape}, {table.fusion})",
        table=Table(("network", *table.columns, *differences), tuple(rows)),
        notes=tuple(across_notes(table)),
    )


def _rate(summary: RowSummary | None) -> Cell:
    if summary is None:
        return "–"
    return summary.images_per_second or "INVALID"


def _comparison(comparison: Comparison) -> Section:
    shape = "x".join(map(str, comparison.input_shape))
    threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
    runtime = RUNTIME_NAMES.get(comparison.runtime, comparison.runtime)
    versions = ", ".join(comparison.runtime_versions) or "version unknown"
    kind = f"{threads}, {comparison.precision}, input {shape}, {comparison.fusion}"
    return Section(
        3,
        f"{runtime} {versions}",
        f"{kind[:1].upper()}{kind[1:]}.",
        Table(COLUMNS, tuple(_cells(summary) for summary in comparison.all_rows)),
        tuple(table_notes(comparison)),
    )


def _cells(summary: RowSummary) -> tuple[Cell, ...]:
    row = summary.row
    delegates = row.artifact.delegates
    return (
        row.label,
        _rate(summary),
        "1" if summary.verdict == "baseline" else summary.ratio or "–",
        "same file" if row.aa_of else summary.verdict,
        format_significant(summary.p50_ms),
        format_significant(summary.p90_ms),
        format_significant(summary.load_ms),
        format_significant(summary.first_ms),
        "–" if delegates is None else str(delegates),
        f"{row.params / 1e6:.3f}",
        f"{row.macs / 1e6:.2f}",
    )


def _paper() -> Section:
    _, phones = paper_table(3)
    _, rows = paper_table(4)
    return Section(
        2,
        "For orientation: the paper's Table 4",
        "Phones of 2020 with PyTorch Mobile, trained weights, normalization fused, mean of 1000 images. Other devices "
        "and another runtime: compare the order and the ratios of the networks, not the figures.",
        Table(
            ("network", *(f"{phone[0]} ({phone[1]}), images/s" for phone in phones)),
            tuple(tuple(row) for row in rows),
        ),
    )
