"""Several devices, or several runners of one, side by side: a row a network, a column a device and runner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from finet_deploy.bench.protocol import Settings
from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import Estimate, unpaired_ratio
from finet_deploy.bench.summary import Comparison, RowSummary, summarise
from finet_deploy.errors import UsageError

__all__ = [
    "AcrossDevices",
    "Kind",
    "across_devices",
    "device_tables",
    "protocol_differences",
    "refuse_mixed_protocols",
]


class Kind(NamedTuple):
    """What is equal, or the figures do not share a table, whatever the protocol.

    An emulated device's times are not speeds: they never stand beside a real one's.
    """

    runtime: str
    precision: str
    input_shape: tuple[int, ...]
    fusion: str
    emulated: bool


class AcrossDevices:
    """One table: `columns` are its devices, `rows` maps a network's label to its summary by column.

    runtime_versions, sources: by column. All columns were measured by one protocol.
    """

    def __init__(self, kind: Kind) -> None:
        self.runtime, self.precision, self.input_shape, self.fusion, self.emulated = kind
        self.runtime_versions: dict[str, tuple[str, ...]] = {}
        self.sources: dict[str, tuple[Run, Comparison]] = {}
        self.devices: list[str] = []
        self.runners: list[str | None] = []
        self.kinds: list[tuple[int, str]] = []  # threads and preset
        self.columns: list[str] = []
        self.rows: dict[str, dict[str, RowSummary]] = {}

    def add(self, run: Run, comparison: Comparison) -> None:
        """The figures of one device by one runner."""
        name, runner = run.job.device.name, run.job.runner
        self.devices.append(name)
        self.runners.append(runner)
        self.kinds.append((comparison.threads, run.job.settings.preset))
        again = sum(pair == (name, runner) for pair in zip(self.devices, self.runners))
        threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
        by = f", {runner}" if runner is not None else ""
        column = f"{name}{f' ({again})' if again > 1 else ''}{by}, {threads}, {run.job.settings.preset}"
        while column in self.runtime_versions:  # a device may be named like another one's second run
            column += " (again)"
        self.columns.append(column)
        self.runtime_versions[column] = comparison.runtime_versions
        self.sources[column] = (run, comparison)
        for summary in comparison.rows:
            label = summary.row.label
            while column in self.rows.get(label, {}):
                label += " (again)"
            self.rows.setdefault(label, {})[column] = summary

    @property
    def other_files(self) -> list[str]:
        """Networks whose columns were not measured with the same file: after another export they are others."""
        return [
            label
            for label, row in self.rows.items()
            if len({summary.row.artifact.sha256 for summary in row.values()}) > 1
        ]

    @property
    def differences(self) -> dict[str, dict[str, Estimate | None]]:
        """Column -> network -> the app's images per second over those of the native runner on the same device, with as
        many threads and the same preset. Of two runs, one after the other: their rounds are no pairs."""
        found = {}
        for mine, runner in enumerate(self.runners):
            for theirs, other in enumerate(self.runners):
                same = self.devices[mine] == self.devices[theirs] and self.kinds[mine] == self.kinds[theirs]
                if same and (runner, other) == ("app", "native"):
                    title = f"{self.columns[mine]}: app / native"
                    found[title] = {
                        label: _over(row.get(self.columns[mine]), row.get(self.columns[theirs]))
                        for label, row in self.rows.items()
                    }
        return found


def _over(ours: RowSummary | None, theirs: RowSummary | None) -> Estimate | None:
    """Only of the same file: after another export the networks are others."""
    if ours is None or theirs is None or ours.row.artifact.sha256 != theirs.row.artifact.sha256:
        return None
    return unpaired_ratio(ours.rates, theirs.rates)


def across_devices(runs: Sequence[Run]) -> list[AcrossDevices]:
    """The tables that hold more than one device or runner, in the order of the runs. Never two protocols in one."""
    return [table for table in device_tables(runs) if _several(zip(table.devices, table.runners))]


def device_tables(runs: Sequence[Run]) -> list[AcrossDevices]:
    """All figures, a column a device and runner: also where there is one alone."""
    tables: dict[tuple[Kind, Settings], AcrossDevices] = {}
    for run in runs:
        for found in summarise(run):
            kind = _kind(run, found)
            table = tables.setdefault((kind, _protocol(run)), AcrossDevices(kind))
            table.add(run, found)
    return list(tables.values())


def protocol_differences(runs: Sequence[Run]) -> list[str]:
    """The settings that keep figures of several devices or runners out of one table: `rounds: 5 (host), 9 (phone)`."""
    groups: dict[Kind, list[Run]] = {}
    for run in runs:
        for found in summarise(run):
            groups.setdefault(_kind(run, found), []).append(run)
    mixed = [
        run
        for group in groups.values()
        if _several((run.job.device.name, run.job.runner) for run in group)
        and len({_protocol(run) for run in group}) > 1
        for run in group
    ]
    listed = []
    for name in Settings.__struct_fields__:
        values: dict[str, list[str]] = {}
        for run in dict.fromkeys(mixed):
            values.setdefault(f"{getattr(_protocol(run), name)}", []).append(str(run.folder))
        if len(values) > 1:
            listed.append(f"{name}: {', '.join(f'{value} ({_few(who)})' for value, who in values.items())}")
    return listed


def refuse_mixed_protocols(runs: Sequence[Run]) -> None:
    """UsageError, listing the settings that differ, when runs of several devices or runners would share a table."""
    differences = protocol_differences(runs)
    if differences:
        raise UsageError(
            f"measured by different protocols, so the runs may not share a table: {'; '.join(differences)}",
            do="report them one by one, or with --apart, which makes a table for each protocol",
        )


def _kind(run: Run, found: Comparison) -> Kind:
    return Kind(found.runtime, found.precision, found.input_shape, found.fusion, run.job.device.emulated)


def _protocol(run: Run) -> Settings:
    """How it was measured, without what it is called."""
    return msgspec.structs.replace(run.job.settings, preset="", description="")


def _several(items: Iterable[tuple[str, str | None]]) -> bool:
    return len(set(items)) > 1


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
