"""Which row of one side is which of the other, and which rows of a run can tell what the machine itself did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from finet_deploy.bench.records import Run
from finet_deploy.compare.evidence import Logs, against, mean_of
from finet_deploy.compare.sides import Measured, Side
from finet_deploy.errors import UsageError, suggest

__all__ = ["File", "Match", "References", "match_rows", "twins"]


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


File = tuple[str, str, int]  # runtime, hash (or the name of a row that is said to be unchanged), threads


class References:
    """Files that every run of both sides on a device has measured in the same runtime version.

    What they did between BASE and NEW is what the machine did: nothing else about them has changed. said: names of
    rows to take for such, whatever their files and versions are.
    """

    def __init__(self, base: Side, new: Side, device: str, said: Sequence[str] = ()) -> None:
        self._sides = ((base, base.on(device)), (new, new.on(device)))
        self._said = tuple(said)
        self._names: dict[File, str] = {}
        common: set[File] | None = None
        for side, runs in self._sides:
            for run in runs:
                here = [item for item in side.rows(run) if len(side.logs(item)) > 1]
                for item in here:
                    self._names.setdefault(
                        self._file(side, item), item.label
                    )  # a row comes before its A/A row
                files = {self._file(side, item) for item in here}
                common = files if common is None else common & files
        self._files = sorted(file for file in common or () if self.is_said(file) or self._same_version(file))
        if any(self.is_said(file) for file in self._files):
            self._files = [file for file in self._files if self.is_said(file)]
        self._levels = {file: self._level(file) for file in self._files}

    def _file(self, side: Side, item: Measured) -> File:
        """The row's file; by its name when that, or that of a row of the same file in the run, is said."""
        runtime, _, threads = item.file
        for other in side.rows(item.run) if self._said else ():
            if other.label in self._said and other.file == item.file:
                return runtime, other.label, threads
        return item.file

    def is_said(self, file: File) -> bool:
        """Whether somebody said that this row is to be taken as unchanged."""
        return file[1] in self._said

    def _rows(self, side: Side, run: Run, file: File) -> list[Measured]:
        return [item for item in side.rows(run) if self._file(side, item) == file]

    def _same_version(self, file: File) -> bool:
        versions = {
            side.versions(item)
            for side, runs in self._sides
            for run in runs
            for item in self._rows(side, run, file)
            if side.logs(item)
        }
        return len(versions) == 1

    def _level(self, file: File) -> float:
        means = [
            np.mean([value for item in self._rows(side, run, file) for value in side.logs(item).values()])
            for side, runs in self._sides
            for run in runs
        ]
        return float(np.mean(means))

    def found(self, side: Side, measured: Measured) -> File | None:
        """The row's own file, when it is one of them."""
        file = self._file(side, measured)
        return file if file in self._files else None

    def of(self, runtime: str) -> list[File]:
        """The files to hold a row of this runtime against: those of the same runtime, or else all."""
        return [file for file in self._files if file[0] == runtime] or self._files

    def label(self, file: File) -> str:
        """The name of its row."""
        return self._names[file]

    def relative(self, side: Side, run: Run, row: Logs, files: Sequence[File]) -> dict[int, float]:
        """The logs of a row of `run`, less what these files did in the same round."""
        logs = [mean_of([side.logs(item) for item in self._rows(side, run, file)]) for file in files]
        return against(row, logs, [self._levels[file] for file in files])

    def drift(self, files: Sequence[File]) -> tuple[list[Logs], list[Logs]]:
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
