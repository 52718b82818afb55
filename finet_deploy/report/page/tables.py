"""The tables of figures and evidence that the page shows: by device, row by row, proofs, and what did not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finet_deploy.bench.statistics import Estimate
from finet_deploy.bench.summary import RowSummary, fusion_label
from finet_deploy.devices.equivalence import Equivalence
from finet_deploy.report.footnotes import across_notes, table_notes
from finet_deploy.report.numbers import format_estimate, format_significant
from finet_deploy.report.page.measured import Group, Panel, RowData
from finet_deploy.report.page.table import Bar, Cell, Column, Line, Table, estimate_cell, number_cell
from finet_deploy.report.page.text import shown

__all__ = ["all_rows", "by_device", "evidence", "invalid_visits"]

Proofs = Mapping[tuple[str, str], Equivalence]  # by panel's key and row's id
TONES = {"faster": "good", "slower": "bad", "baseline": "base"}


def by_device(group: Group) -> Table:
    """A line a network, a column a device: images per second with interval, ratio with interval, verdict."""
    panels, differences = list(group.panels.items()), group.table.differences
    columns = [Column("network", False)]
    columns += [Column(f"{shown(column)}: images/s", device=panel.device) for column, panel in panels]
    columns += [Column(shown(title)) for title in differences]
    most = {
        column: max(_top(row.summary.images_per_second) for row in panel.rows) for column, panel in panels
    }
    lines = []
    for label, found in group.by_label().items():
        cells = [_speed(found.get(column), most[column], panel) for column, panel in panels]
        extra = [estimate_cell(values.get(label)) for values in differences.values()]
        state = "invalid" if any(_state(row) == "invalid" for row in found.values()) else "valid"
        lines.append(Line([Cell(shown(label)), *cells, *extra], runtime=group.table.runtime, state=state))
    return Table(
        group.title,
        columns,
        lines,
        [shown(note, 600) for note in _notes(group)],
        runtime=group.table.runtime,
        filtered=True,
        emulated=group.table.emulated,
        key=group.key,
    )


def _notes(group: Group) -> list[str]:
    """Footnotes of all columns: those that each column has once, the others with their device."""
    panels = list(group.panels.values())
    notes = {panel.key: table_notes(panel.comparison) for panel in panels}
    common = [note for note in notes[panels[0].key] if all(note in found for found in notes.values())]
    own = [f"{panel.device}: {note}" for panel in panels for note in notes[panel.key] if note not in common]
    return list(dict.fromkeys([*own, *common, *across_notes(group.table)]))


def _speed(row: RowData | None, most: float, panel: Panel) -> Cell:
    if row is None:
        return Cell("–", second="not measured here", device=panel.device)
    summary = row.summary
    if summary.images_per_second is None:
        return Cell("INVALID", chip="no valid visit", tone="bad", device=panel.device)
    figure, _, interval = format_estimate(summary.images_per_second).partition(" ")
    verdict = "same file" if summary.row.aa_of else summary.verdict
    ratio = "× 1" if summary.verdict == "baseline" else f"× {format_estimate(summary.ratio)}"
    return Cell(
        figure,
        summary.images_per_second.value,
        small=interval,
        second=ratio if summary.ratio else "",
        chip=verdict,
        tone=TONES.get(verdict, ""),
        bar=_bar(summary.images_per_second, most),
        device=panel.device,
    )


def _top(estimate: Estimate | None) -> float:
    return max(estimate.value, estimate.high or 0.0) if estimate else 0.0


def _bar(estimate: Estimate, most: float) -> Bar:
    low, high = (estimate.value if end is None else end for end in (estimate.low, estimate.high))
    return Bar(*(round(100 * value / (most or 1.0), 1) for value in (estimate.value, low, high)))


def _state(row: RowData) -> str:
    return "invalid" if row.summary.invalid or row.summary.missing_visits else "valid"


def all_rows(panels: Sequence[Panel]) -> Table:
    """Every row of every run with all its figures. What may be compared, the columns after the network tell."""
    names = ("device", "runtime", "fusion", "precision", "verdict")
    columns = [Column("network", False), *(Column(name, False) for name in names[:4])]
    columns += [Column("threads"), Column("images/s"), Column("ratio to baseline"), Column("verdict", False)]
    columns += [
        Column(title)
        for title in (
            "p50, ms",
            "p90, ms",
            "p99, ms",
            "load, ms",
            "first, ms",
            "warm-up mean, ms",
            "peak memory, MiB",
            "params, M",
            "MMACs",
            "samples",
            "valid visits",
        )
    ]
    lines = [_all_line(panel, row) for panel in panels for row in panel.rows]
    return Table(
        "All rows of all runs. Rows are compared only where runtime, threads, precision, input and fusion are equal.",
        columns,
        lines,
        filtered=True,
        key="all-rows",
    )


def _all_line(panel: Panel, row: RowData) -> Line:
    summary = row.summary
    found = summary.row
    verdict = "same file" if found.aa_of else summary.verdict
    visits = summary.valid_visits + len(summary.invalid) + summary.missing_visits
    times = (
        summary.p50_ms,
        summary.p90_ms,
        summary.p99_ms,
        summary.load_ms,
        summary.first_ms,
        summary.warmup_mean_ms,
        summary.peak_rss_mib,
    )
    cells = [
        Cell(row.label),
        Cell(panel.device),
        Cell(panel.runtime),
        Cell(shown(fusion_label(found))),
        Cell(shown(found.artifact.dtype)),
        number_cell(found.threads, str(found.threads)),
        estimate_cell(summary.images_per_second) if summary.valid_visits else Cell("INVALID"),
        Cell("1", 1.0) if summary.verdict == "baseline" else estimate_cell(summary.ratio),
        Cell("", chip=verdict, tone=TONES.get(verdict, "")),
        *(number_cell(value, format_significant(value)) for value in times),
        number_cell(found.params / 1e6, f"{found.params / 1e6:.3f}"),
        number_cell(found.macs / 1e6, f"{found.macs / 1e6:.2f}"),
        number_cell(summary.samples, str(summary.samples)),
        number_cell(summary.valid_visits, f"{summary.valid_visits} of {visits}"),
    ]
    return Line(cells, device=panel.device, runtime=found.artifact.runtime, state=_state(row))


def evidence(panels: Sequence[Panel], proofs: Proofs) -> Table:
    """Certificate, outputs and delegation of every row: that it computes what it should, and who computes it."""
    columns = [Column("network", False), Column("device", False), Column("runtime", False)]
    columns += [
        Column("bundle's certificate", False),
        Column("proof on the phone", False),
        Column("worst output error / limit"),
        Column("normalization ops left"),
        Column("delegates"),
        Column("delegated share"),
        Column("nodes outside"),
        Column("file", False),
        Column("size, MB"),
        Column("SHA-256", False),
    ]
    lines = [
        _evidence_line(panel, row, proofs.get((panel.key, row.summary.row.id)))
        for panel in panels
        for row in panel.rows
    ]
    notes = [
        "Certificate: fused and unfused network are the same function, and each file of the bundle computes it. Proof: "
        "the phone's own outputs on the golden inputs, judged before anything was timed. Worst output error: of the "
        "check that ends each visit, norm-relative, as a share of its limit; above 1 the visit is invalid.",
        "Delegates: parts that the runtime hands to its accelerated backend; 1 is best. A dash: the exporter knows of "
        "none in this format.",
    ]
    return Table(
        "Certificate and delegation of every row", columns, lines, notes, filtered=True, key="evidence"
    )


def _evidence_line(panel: Panel, row: RowData, proof: Equivalence | None) -> Line:
    found = row.summary.row
    artifact = found.artifact
    passed = found.certificate_passed
    counts = (artifact.normalization_ops, artifact.delegates)
    share = artifact.delegated_share
    cells = [
        Cell(row.label),
        Cell(panel.device),
        Cell(panel.runtime),
        Cell("", chip="passed" if passed else "FAILED", tone="good" if passed else "bad"),
        _proof(proof, panel),
        number_cell(row.error_share, format_significant(row.error_share, 2)),
        *(number_cell(count, str(count)) for count in counts),
        number_cell(share, f"{share:.1%}" if share is not None else ""),
        number_cell(artifact.nodes_outside, str(artifact.nodes_outside)),
        Cell(shown(artifact.file, 60)),
        number_cell(artifact.bytes / 1e6, f"{artifact.bytes / 1e6:.2f}"),
        Cell(artifact.sha256[:12] + "…"),
    ]
    return Line(cells, device=panel.device, runtime=artifact.runtime, state=_state(row))


def _proof(proof: Equivalence | None, panel: Panel) -> Cell:
    if proof is None:
        return Cell("–" if panel.run.job.device.kind == "host" else "not recorded")
    if not proof.passed:
        return Cell(shown(proof.problem or "", 200), chip="FAILED", tone="bad")
    return Cell("", chip="passed", tone="good", second=f"{len(proof.errors)} golden inputs")


def invalid_visits(panels: Sequence[Panel]) -> Table | None:
    """The visits that do not count, with the reason, and how many are missing. None when all counted."""
    lines = []
    for panel in panels:
        for row in panel.rows:
            lines += _bad_lines(panel, row.summary, row.label)
    columns = [Column(title, False) for title in ("network", "device", "runtime")]
    columns += [Column("round"), Column("why it does not count", False)]
    caption = "Visits that are left out of the figures"
    return Table(caption, columns, lines, filtered=True, key="invalid") if lines else None


def _bad_lines(panel: Panel, summary: RowSummary, label: str) -> list[Line]:
    def line(number: Cell, reason: str) -> Line:
        cells = [Cell(label), Cell(panel.device), Cell(panel.runtime), number, Cell(shown(reason, 300))]
        return Line(cells, device=panel.device, runtime=summary.row.artifact.runtime, state="invalid")

    found = [
        line(number_cell(bad.round + 1, str(bad.round + 1)), f"INVALID: {bad.reason}")
        for bad in summary.invalid
    ]
    if summary.missing_visits:
        count = summary.missing_visits
        told = f"{count} visit{' was' if count == 1 else 's were'} not finished"
        found.append(line(Cell("–"), f"MISSING: {told}"))
    return found
