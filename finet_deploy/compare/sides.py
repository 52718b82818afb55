"""The two sides of a comparison: their runs, whether these may be compared at all, and in what they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.protocol import DeviceInfo, Load, Reading, Row, Start
from finet_deploy.bench.records import JOB_FILE, Run, read_run
from finet_deploy.bench.summary import RowVisits
from finet_deploy.errors import FinetDeployError, UsageError

__all__ = ["Difference", "Measured", "Side", "check_comparable", "differences", "load_side", "same_device"]

# What a device is, whatever it is called: figures of two of them are not compared.
DEVICE_IDENTITY = ("kind", "emulated", "cpu_model", "cpu_count", "machine")
# Settings that change what a figure means. Rounds and the A/A row only change how sure it is.
SAME_SETTINGS = (
    "statistic",
    "warmup_min_runs",
    "warmup_min_seconds",
    "warmup_max_seconds",
    "timed_min_runs",
    "timed_min_seconds",
    "timed_max_seconds",
    "timed_max_runs",
)
MAX_RUNS = 1000


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Something beside the bundles that is not the same on both sides. device: None when it holds for all."""

    device: str | None
    what: str
    base: str
    new: str


@dataclass(frozen=True)
class Measured:
    """One row of one run."""

    run: Run
    row: Row

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.row.label

    @property
    def work(self) -> tuple[str, str, int]:
        """Runtime, precision and threads: rows that are compared have these in common."""
        return self.row.artifact.runtime, self.row.artifact.dtype, self.row.threads

    @property
    def file(self) -> tuple[str, str, int]:
        """The same for rows of the very same file in the same runtime with as many threads."""
        return self.row.artifact.runtime, self.row.artifact.sha256, self.row.threads


@dataclass
class Side:
    """The runs of one side. What is worked out of a row's visits is kept."""

    name: str
    runs: list[Run]
    _visits: dict[tuple[Path, str], RowVisits] = field(default_factory=dict, repr=False)
    _logs: dict[tuple[Path, str], dict[int, float]] = field(default_factory=dict, repr=False)

    def on(self, device: str) -> list[Run]:
        """Its runs on the device of this name."""
        return [run for run in self.runs if run.job.device.name == device]

    @property
    def devices(self) -> list[str]:
        """Names of its devices, in the order of the runs."""
        return list(dict.fromkeys(run.job.device.name for run in self.runs))

    def rows(self, run: Run) -> list[Measured]:
        """The rows of a run, A/A rows too."""
        return [Measured(run, row) for row in run.job.rows]

    def visits(self, item: Measured) -> RowVisits:
        """The visits of a row, the valid ones apart from the others."""
        key = (item.run.folder, item.row.id)
        if key not in self._visits:
            self._visits[key] = RowVisits(item.run, item.row)
        return self._visits[key]

    def logs(self, item: Measured) -> dict[int, float]:
        """Round -> ln(images per second) of the valid visits."""
        key = (item.run.folder, item.row.id)
        if key not in self._logs:
            rates = self.visits(item).rates(item.run.job.settings)
            self._logs[key] = {number: math.log(rate) for number, rate in sorted(rates.items())}
        return self._logs[key]

    def versions(self, item: Measured) -> tuple[str, ...]:
        """What the runtime called itself in the row's valid visits."""
        return tuple(sorted({load.runtime_version for load in self.visits(item).all(Load)}))


def load_side(name: str, folders: Sequence[Path]) -> Side:
    """The runs in these folders: run folders, or folders of run folders (one a device, as `bench` writes them).

    FinetDeployError for a folder without a run, or a run without a finished visit.
    """
    runs = [read_run(path) for folder in folders for path in _run_folders(folder)]
    for run in runs:
        if not any(result.complete for result in run.visits.values()):
            do = "run bench again with resume"
            raise FinetDeployError("no visit was finished in this run", where=str(run.folder), do=do)
    side = Side(name, runs)
    for device in side.devices:
        first, *others = side.on(device)
        for run in others:
            check_comparable(first, run)
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise UsageError(f"a run is named twice in {name}", do="name each run once")
    return side


def _run_folders(folder: Path) -> list[Path]:
    if (folder / JOB_FILE).exists() or not folder.is_dir():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{JOB_FILE}"))
    if len(found) > MAX_RUNS:
        raise UsageError(f"more than {MAX_RUNS} runs", where=str(folder), do="name the run folders")
    return found or [folder]


def same_device(base: DeviceInfo, new: DeviceInfo) -> list[str]:
    """In what two devices of one name are not the same one, as text; empty when they are."""
    return [
        f"{name} {show(getattr(base, name))} against {show(getattr(new, name))}"
        for name in DEVICE_IDENTITY
        if getattr(base, name) != getattr(new, name)
    ]


def check_comparable(base: Run, new: Run) -> None:
    """UsageError, with every difference listed, when figures of these runs do not mean the same."""
    found = same_device(base.job.device, new.job.device)
    if found:
        raise UsageError(
            f"not the same device: {'; '.join(found)}",
            where=f"{base.folder}, {new.folder}",
            do="measure both on one device",
        )
    mine, theirs = base.job.settings, new.job.settings
    found = [
        f"{name} {getattr(mine, name)} against {getattr(theirs, name)}"
        for name in SAME_SETTINGS
        if getattr(mine, name) != getattr(theirs, name)
    ]
    if base.job.runner and new.job.runner and base.job.runner != new.job.runner:
        found.append(f"runner {base.job.runner} against {new.job.runner}")
    if found:
        raise UsageError(
            f"measured by different protocols: {'; '.join(found)}",
            where=f"{base.folder}, {new.folder}",
            do="measure both with the same preset and runner",
        )


def differences(base: Side, new: Side) -> list[Difference]:
    """What else is not the same on both sides: versions, operating system, state of the device, rounds."""
    found = []
    for device in base.devices:
        if device not in new.devices:
            continue
        old = dict(_conditions(base, device))
        for what, value in _conditions(new, device):
            if old.get(what, value) != value:
                found.append(Difference(device=device, what=what, base=old[what], new=value))
    return found


def _conditions(side: Side, device: str) -> Iterator[tuple[str, str]]:
    runs = side.on(device)
    jobs = [run.job for run in runs]
    yield "finet-deploy", _all(job.tool_version for job in jobs)
    for name in ("operating_system", "memory_mib"):
        yield name.replace("_", " "), _all(show(getattr(job.device, name)) for job in jobs)
    yield "runner", _all(job.runner or "not kept" for job in jobs)
    yield "suite", _all(job.suite or "none" for job in jobs)
    yield "rounds", _all(str(job.settings.rounds) for job in jobs)
    yield "rows that share the rounds", _all(str(len(job.rows)) for job in jobs)
    yield "A/A row", _all("yes" if job.settings.aa_row else "no" for job in jobs)
    for runtime in dict.fromkeys(row.artifact.runtime for job in jobs for row in job.rows):
        rows = [item for run in runs for item in side.rows(run) if item.row.artifact.runtime == runtime]
        yield runtime, _all(version for item in rows for version in side.versions(item))
    starts = [start for run in runs for result in run.visits.values() if (start := result.find(Start))]
    yield "CPUs allowed", _all(show(start.affinity_cpus) for start in starts)
    for name in ("governor", "battery_charging"):
        yield name.replace("_", " "), _all(show(getattr(start.state, name)) for start in starts)


def _all(values: Any) -> str:
    return ", ".join(sorted(set(values))) or "unknown"


def show(value: Any) -> str:
    """A field, or what a probe read, as text."""
    if isinstance(value, Reading):
        return f"not readable ({value.reason})" if value.value is None else show(value.value)
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value))
    return str(value)
