"""Which row of one side is which of the other, and which rows of a run can tell what the machine itself did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finet_deploy.bench.records import Run
from finet_deploy.compare.evidence import Logs, against, mean_of
from finet_deploy.compare.sides import Measured, Side
from finet_deploy.errors import UsageError, suggest

__all__ = ["Match", "References", "match_rows", "twins"]


@dataclass
class Match:
    """A row of a table of changes: what BASE and NEW measured of it, one entry a run."""

    device: str
    network: str
    runtime: str
    precision: str
    threads: int
    base: list[Measured] = field(default_factory=list)
    new: list[Measured] = field(default_factory=list)


def match_rows(base: Side, new: Side, named: Sequence[tuple[str, str]]) -> list[Match]:
    """Rows of both sides by device, name, runtime, precision and threads, in the order of BASE.

    named: pairs of names (of a row in BASE, of a row in NEW) to compare, and no others; their precision may differ.
    UsageError for a name that no row has.
    """
    for side, index in ((base, 0), (new, 1)):
        known = {row.label for run in side.runs for row in run.job.rows}
        for pair in named:
            if pair[index] not in known:
                do = suggest(pair[index], known) or f"there are {', '.join(sorted(known))}"
                raise UsageError(f"no row {pair[index]!r} in {side.name}", do=do)
    found: dict[tuple[str, ...], Match] = {}
    for side, index in ((base, 0), (new, 1)):
        for run in side.runs:
            for item in side.rows(run):
                if not named and item.row.aa_of is not None:
                    continue
                for network in _names(item.label, named, index):
                    match = found.setdefault(
                        _key(run, network, item, bool(named)), _match(run, network, item)
                    )
                    (match.base, match.new)[index].append(item)
    return list(found.values())


def _names(label: str, named: Sequence[tuple[str, str]], index: int) -> list[str]:
    if not named:
        return [label]
    return [pair[0] if pair[0] == pair[1] else " → ".join(pair) for pair in named if pair[index] == label]


def _key(run: Run, network: str, item: Measured, named: bool) -> tuple[str, ...]:
    runtime, precision, threads = item.work
    return run.job.device.name, network, runtime, str(threads), "" if named else precision


def _match(run: Run, network: str, item: Measured) -> Match:
    runtime, precision, threads = item.work
    return Match(run.job.device.name, network, runtime, precision, threads)


def twins(side: Side, measured: Measured) -> dict[int, float]:
    """The row's logs, averaged by round with those of every other row of its run that has the very same file."""
    same = [item for item in side.rows(measured.run) if item.file == measured.file]
    return mean_of([side.logs(item) for item in same])


class References:
    """Files that every run of both sides on a device has measured in the same runtime version.

    What they did between BASE and NEW is what the machine did: nothing else about them has changed.
    """

    def __init__(self, base: Side, new: Side, device: str) -> None:
        self._sides = ((base, base.on(device)), (new, new.on(device)))
        self._names: dict[tuple[str, str, int], str] = {}
        common: set[tuple[str, str, int]] | None = None
        for side, runs in self._sides:
            for run in runs:
                here = [item for item in side.rows(run) if len(side.logs(item)) > 1]
                for item in here:
                    self._names.setdefault(item.file, item.label)  # the row comes before its A/A row
                files = {item.file for item in here}
                common = files if common is None else common & files
        self._files = sorted(file for file in common or () if self._same_version(file))
        self._levels = {file: self._level(file) for file in self._files}

    def _rows(self, side: Side, run: Run, file: tuple[str, str, int]) -> list[Measured]:
        return [item for item in side.rows(run) if item.file == file]

    def _same_version(self, file: tuple[str, str, int]) -> bool:
        versions = {
            side.versions(item)
            for side, runs in self._sides
            for run in runs
            for item in self._rows(side, run, file)
            if side.logs(item)
        }
        return len(versions) == 1

    def _level(self, file: tuple[str, str, int]) -> float:
        means = [
            np.mean([value for item in self._rows(side, run, file) for value in side.logs(item).values()])
            for side, runs in self._sides
            for run in runs
        ]
        return float(np.mean(means))

    def holds(self, measured: Measured) -> bool:
        """Whether the row is itself such a file."""
        return measured.file in self._files

    def of(self, runtime: str) -> list[tuple[str, str, int]]:
        """The files to hold a row of this runtime against: those of the same runtime, or else all."""
        return [file for file in self._files if file[0] == runtime] or self._files

    def label(self, file: tuple[str, str, int]) -> str:
        """The name of its row."""
        return self._names[file]

    def relative(
        self, side: Side, run: Run, row: Logs, files: Sequence[tuple[str, str, int]]
    ) -> dict[int, float]:
        """The logs of a row of `run`, less what these files did in the same round."""
        logs = [mean_of([side.logs(item) for item in self._rows(side, run, file)]) for file in files]
        return against(row, logs, [self._levels[file] for file in files])

    def drift(self, files: Sequence[tuple[str, str, int]]) -> tuple[list[Logs], list[Logs]]:
        """What the machine did: the files' mean logs, by round, of each run of BASE and of NEW."""
        zeros = [
            {number: 0.0 for item in side.rows(run) for number in side.logs(item)}
            for side, runs in self._sides
            for run in runs
        ]
        moved = [
            {number: -value for number, value in self.relative(side, run, zero, files).items()}
            for (side, run), zero in zip(((side, run) for side, runs in self._sides for run in runs), zeros)
        ]
        count = len(self._sides[0][1])
        return list(moved[:count]), list(moved[count:])
