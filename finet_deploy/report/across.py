"""Several devices side by side: a row a network, a column a device."""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.bench.protocol import DeviceInfo
from finet_deploy.bench.records import Run
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
        self.columns: list[str] = []
        self.rows: dict[str, dict[str, RowSummary]] = {}

    def add(self, device: DeviceInfo, preset: str, comparison: Comparison) -> None:
        """The figures of one device."""
        self.devices.append(device.name)
        again = self.devices.count(device.name)
        threads = f"{comparison.threads} thread{'s' if comparison.threads > 1 else ''}"
        column = f"{device.name}{f' ({again})' if again > 1 else ''}, {threads}, {preset}"
        self.columns.append(column)
        for summary in comparison.rows:
            self.rows.setdefault(summary.row.label, {})[column] = summary


def across_devices(runs: Sequence[Run]) -> list[AcrossDevices]:
    """The tables that hold more than one device, in the order of the runs."""
    tables: dict[Key, AcrossDevices] = {}
    for run in runs:
        device = run.job.device
        for found in summarise(run):
            key = (found.runtime, found.precision, found.input_shape, found.fusion, device.emulated)
            tables.setdefault(key, AcrossDevices(key)).add(device, run.job.settings.preset, found)
    return [table for table in tables.values() if len(set(table.devices)) > 1]
