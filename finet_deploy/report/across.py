"""Several devices, or several runners of one, side by side: a row a network, a column a device and runner."""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.bench.protocol import DeviceInfo
from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import Estimate, unpaired_ratio
from finet_deploy.bench.summary import Comparison, RowSummary, summarise

__all__ = ["AcrossDevices", "across_devices"]

# Runtime, precision, input shape, fusion, emulated: equal, or the figures do not share a table. An emulated device's
# times are not speeds: they never stand beside a real one's.
Key = tuple[str, str, tuple[int, ...], str, bool]


class AcrossDevices:
    """One table: `columns` are its devices, `rows` maps a network's label to its summary by column."""

    def __init__(self, key: Key) -> None:
        self.runtime, self.precision, self.input_shape, self.fusion, self.emulated = key
        self.devices: list[str] = []
        self.runners: list[str | None] = []
        self.kinds: list[tuple[int, str]] = []  # threads and preset
        self.columns: list[str] = []
        self.rows: dict[str, dict[str, RowSummary]] = {}

    def add(self, device: DeviceInfo, runner: str | None, preset: str, comparison: Comparison) -> None:
        """The figures of one device by one runner."""
        self.devices.append(device.name)
        self.runners.append(runner)
        self.kinds.append((comparison.threads, preset))
        again = sum(pair == (device.name, runner) for pair in zip(self.devices, self.runners))
        threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
        by = f", {runner}" if runner is not None else ""
        column = f"{device.name}{f' ({again})' if again > 1 else ''}{by}, {threads}, {preset}"
        self.columns.append(column)
        for summary in comparison.rows:
            self.rows.setdefault(summary.row.label, {})[column] = summary

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
    """The tables that hold more than one device or runner, in the order of the runs."""
    tables: dict[Key, AcrossDevices] = {}
    for run in runs:
        device = run.job.device
        for found in summarise(run):
            key = (found.runtime, found.precision, found.input_shape, found.fusion, device.emulated)
            table = tables.setdefault(key, AcrossDevices(key))
            table.add(device, run.job.runner, run.job.settings.preset, found)
    return [table for table in tables.values() if len(set(zip(table.devices, table.runners))) > 1]
