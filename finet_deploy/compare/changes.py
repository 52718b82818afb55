"""The result of a comparison, as data."""

from __future__ import annotations

from typing import Literal

import msgspec

from finet_deploy.bench.statistics import Estimate
from finet_deploy.compare.facts import Fact
from finet_deploy.compare.sides import Difference

__all__ = ["FAILURES", "Changes", "Drift", "Evidence", "Options", "RowChange", "Verdict"]

Verdict = Literal["faster", "slower", "unchanged", "new", "missing", "invalid", "cannot tell"]
Evidence = Literal["paired", "referenced", "apart", "same file", "said"]
FAILURES = ("speed", "certificate", "cost", "size", "delegation", "missing")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """threshold: the least change that matters. drift: how much the machine may have changed between runs that have
    no row in common. fail_on: which of FAILURES make the comparison fail."""

    threshold: float = 0.01
    drift: float = 0.10
    fail_on: tuple[str, ...] = ("speed", "certificate")


class RowChange(msgspec.Struct, frozen=True, kw_only=True):
    """One row: network x runtime x precision x threads x device. ratio: images per second, new over base.

    p_adjusted: after Holm, over all rows that could be judged. suspect: worth a confirming run. confirmed: folder of
    the run that this verdict is from. failures: why it fails the comparison.
    """

    device: str
    network: str
    runtime: str
    precision: str
    threads: int
    verdict: Verdict
    reason: str | None = None
    evidence: Evidence | None = None
    ratio: Estimate | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    noise_floor: float | None = None
    base_rate: Estimate | None = None
    new_rate: Estimate | None = None
    facts: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()
    suspect: bool = False
    confirmed: str | None = None
    failures: tuple[str, ...] = ()


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine itself did from BASE to NEW: images per second of files that did not change."""

    device: str
    runtime: str
    files: tuple[str, ...]
    ratio: Estimate


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison. family: how many rows were judged, and are allowed for together. warnings: what was amiss
    in the runs."""

    base: tuple[str, ...]
    new: tuple[str, ...]
    options: Options
    family: int
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...] = ()
    drifts: tuple[Drift, ...] = ()
    rows: tuple[RowChange, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is a regression."""
        return any(row.failures for row in self.rows)
