"""What a search is made of, as data: recipes, candidates, and the result."""

from __future__ import annotations

from typing import Literal

import msgspec

from finet_deploy.bench.protocol import DeviceInfo
from finet_deploy.bench.statistics import Estimate, Verdict

__all__ = ["Candidate", "LeftOut", "Recipe", "RungReport", "TuneResult", "TuneRow", "Unit"]

SCHEMA_VERSION = 1
Unit = Literal["images/s", "instructions"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle to export. passes and core: as `export` takes them. name: of its folder."""

    name: str
    dtype: str
    passes: str
    core: str
    formats: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to run the network. bundle: its folder's name. cores: a kind of the device's cores, None: its own choice.

    changed_by: the passes that changed the file's network. sqnr_db: the certificate's median over the photographs.
    """

    id: str
    bundle: str
    format: str
    runtime: str
    dtype: str
    passes: str
    core: str
    threads: int
    cores: str | None
    changed_by: tuple[str, ...]
    sqnr_db: float | None
    bytes: int
    sha256: str

    @property
    def label(self) -> str:
        """For people, in one line."""
        precision = "fp32" if self.dtype == "float32" else self.dtype
        plural = "" if self.threads == 1 else "s"
        words = [self.runtime, precision, f"passes {self.passes}", f"{self.threads} thread{plural}"]
        if any(name in self.changed_by for name in ("pad-channels", "split-pixels")):
            words[2] += f" for {self.core}"
        return ", ".join([*words, f"{self.cores} cores"] if self.cores else words)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was not searched, or not to the end, and why."""

    what: str
    reason: str


class RungReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the halving: who was measured, in how many rounds, and who went on."""

    entrants: tuple[str, ...]
    rounds: int
    kept: tuple[str, ...]


class TuneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate and its last figures. ratio: how many times as fast (or as cheap) as the default bundle.

    rung: the last one that it was measured in, from 1. No figure: None. instructions: emulated, of one inference.
    """

    candidate: Candidate
    default: bool
    winner: bool
    pareto: bool
    ratio: Estimate | None
    images_per_second: Estimate | None = None
    instructions: int | None = None
    p50_ms: float | None = None
    peak_rss_mib: float | None = None
    verdict: Verdict | None = None
    rung: int | None = None
    rounds: int = 0
    why_not: str | None = None


class TuneResult(msgspec.Struct, frozen=True, kw_only=True):
    """All of a search. device: None for a count, which is of `core` under emulation and no speed."""

    schema_version: int = SCHEMA_VERSION
    tool_version: str
    created_utc: str
    subject: str
    device: DeviceInfo | None
    core: str | None
    emulated: bool
    runner: str | None
    unit: Unit
    min_sqnr_db: float
    budget_seconds: float
    used_seconds: float
    noise_floor: float | None
    beats_default: bool
    sentence: str
    rungs: tuple[RungReport, ...]
    rows: tuple[TuneRow, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]

    @property
    def winner(self) -> TuneRow:
        """The row that won: the default bundle's where nothing beat it."""
        return next(row for row in self.rows if row.winner)
