"""The records of runs, arranged for the page: per run, per table of comparable rows, per row its visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finet_deploy.bench.protocol import End
from finet_deploy.bench.records import Run, VisitResult
from finet_deploy.bench.statistics import images_per_second
from finet_deploy.bench.summary import Comparison, RowSummary, summarise
from finet_deploy.bench.validity import visit_problem
from finet_deploy.report.across import AcrossDevices, device_tables
from finet_deploy.report.document import RUNTIME_NAMES
from finet_deploy.report.page.text import shown, slug

__all__ = ["Group", "Panel", "RowData", "arrange", "device_label", "group_panels"]


@dataclass(frozen=True)
class RowData:
    """One row: its figures, by round its rates (images per second), and all valid samples in ms.

    error_share: the largest error on a golden output as a share of its limit; None when no visit compared any.
    """

    summary: RowSummary
    rates: dict[int, float]
    latencies_ms: NDArray[np.float64]
    error_share: float | None

    @property
    def label(self) -> str:
        return shown(self.summary.row.label)

    @property
    def bad_rounds(self) -> tuple[int, ...]:
        return tuple(visit.round for visit in self.summary.invalid)


@dataclass(frozen=True)
class Panel:
    """One table of comparable rows of one run. key: a slug that no other panel of the page has."""

    run: Run
    comparison: Comparison
    rows: tuple[RowData, ...]
    key: str

    @property
    def runtime(self) -> str:
        return runtime_name(self.comparison)

    @property
    def device(self) -> str:
        return device_label(self.run)

    @property
    def kind(self) -> str:
        """What its rows have in common."""
        found = self.comparison
        shape = "x".join(map(str, found.input_shape))
        threads = f"{found.threads} thread{'s' if found.threads > 1 else ''}"
        return shown(f"{threads}, {found.precision}, input {shape}, {found.fusion}")

    @property
    def emulated(self) -> bool:
        return self.run.job.device.emulated

    @property
    def title(self) -> str:
        """Device, runtime and kind, for headings and captions."""
        return f"{self.runtime} on {self.device}, {self.kind}, preset {shown(self.run.job.settings.preset)}"


@dataclass(frozen=True)
class Group:
    """Panels whose figures may stand side by side, a column each."""

    table: AcrossDevices
    panels: dict[str, Panel]  # by column
    key: str

    @property
    def title(self) -> str:
        table = self.table
        shape = "x".join(map(str, table.input_shape))
        runtime = RUNTIME_NAMES.get(table.runtime, table.runtime)
        return shown(f"{runtime}: {table.precision}, input {shape}, {table.fusion}")

    def by_label(self, *, repeats: bool = True) -> dict[str, dict[str, RowData]]:
        """Network, as the records name it -> column -> its row; last, and only with `repeats`, the A/A rows."""
        found: dict[str, dict[str, RowData]] = {}
        rows = {
            column: {row.summary.row.id: row for row in panel.rows} for column, panel in self.panels.items()
        }
        for label, summaries in self.table.rows.items():
            found[label] = {column: rows[column][summary.row.id] for column, summary in summaries.items()}
        for column, panel in self.panels.items():
            for row in panel.rows:
                if repeats and row.summary.row.aa_of is not None:
                    found.setdefault(row.summary.row.label, {})[column] = row
        return found


def runtime_name(comparison: Comparison) -> str:
    """The runtime and its versions, as people write them."""
    versions = ", ".join(comparison.runtime_versions) or "version unknown"
    return shown(f"{RUNTIME_NAMES.get(comparison.runtime, comparison.runtime)} {versions}")


def device_label(run: Run) -> str:
    """The device, its runner where that is not Python, and whether it is emulated."""
    job = run.job
    by = f", {job.runner}" if job.runner not in (None, "python") else ""
    return shown(f"{job.device.name}{by}") + (" (emulated)" if job.device.emulated else "")


def arrange(runs: Sequence[Run]) -> list[Panel]:
    """All panels, in the order of the runs and of their rows."""
    panels: list[Panel] = []
    for run in runs:
        visits = _by_row(run)
        for found in summarise(run):
            rows = tuple(_row(run, summary, visits.get(summary.row.id, [])) for summary in found.all_rows)
            words = (len(panels) + 1, run.job.suite or "bundles", run.job.device.name, found.runtime)
            panels.append(Panel(run, found, rows, slug(*words)))
    return panels


def group_panels(panels: Sequence[Panel]) -> list[Group]:
    """Panels side by side where runtime, precision, input, fusion and protocol are equal; emulated devices apart."""
    of = {id(panel.comparison): panel for panel in panels}  # `summarise` gives the same object each time
    tables = device_tables(list(dict.fromkeys(panel.run for panel in panels)))
    return [
        Group(
            table,
            {column: of[id(found)] for column, (_, found) in table.sources.items()},
            slug("group", number, table.runtime),
        )
        for number, table in enumerate(tables, 1)
    ]


def _by_row(run: Run) -> dict[str, list[tuple[int, VisitResult]]]:
    """Row -> its finished visits with their rounds."""
    found: dict[str, list[tuple[int, VisitResult]]] = {}
    for visit in run.job.visits:
        result = run.visits.get(visit.index)
        if result is not None and result.complete:
            found.setdefault(visit.row, []).append((visit.round, result))
    return found


def _row(run: Run, summary: RowSummary, visits: list[tuple[int, VisitResult]]) -> RowData:
    valid = {number: result for number, result in visits if visit_problem(result, summary.row) is None}
    rates = {
        number: images_per_second(result.latencies_ns, run.job.settings.statistic)
        for number, result in valid.items()
    }
    samples = [np.asarray(result.latencies_ns, dtype=np.float64) / 1e6 for result in valid.values()]
    shares = [
        error / limit
        for _, result in visits
        if (end := result.find(End)) is not None
        for name, limit in summary.row.golden.output_limits.items()
        if (error := end.output_errors.get(name)) is not None and limit > 0
    ]
    return RowData(
        summary=summary,
        rates=rates,
        latencies_ms=np.concatenate(samples) if samples else np.empty(0),
        error_share=max(shares) if shares else None,
    )
