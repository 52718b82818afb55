"""A profile as data: what each operator of one inference cost, and what all of it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from finet_deploy.bench.statistics import Estimate
from finet_deploy.export.operators import Operators
from finet_deploy.profile.naming import Named
from finet_deploy.profile.timeline import Operator

__all__ = ["BETWEEN", "Profile", "Roofline", "Row", "naming_notes", "where_it_runs"]

Where = Literal["delegate", "outside", "runtime"]
SCHEMA_VERSION = 1
BETWEEN = "what is left: the runtime, between operators"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One operator, or what is none: `where` is `runtime` for the runtime's own steps and for what is left.

    cost: instructions, or µs. share: of the whole inference. classes: instructions by class. macs, bytes: None where
    nothing tells them. of_bound: share of what the core could do at best (see `Roofline`); bound: by what.
    """

    module: str | None
    operator: str
    name: str
    ops: tuple[str, ...] = ()
    where: Where
    reason: str | None = None
    cost: float
    low: float | None = None
    high: float | None = None
    share: float
    classes: dict[str, int] | None = None
    macs: int | None = None
    bytes: int | None = None
    of_bound: float | None = None
    bound: Literal["compute", "bandwidth"] | None = None


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """What this core can do at best, measured between the visits: 10^9 multiply-adds and 10^9 bytes, per second.

    gbytes: by the working set's size in bytes. vectors: the instructions that were used.
    """

    gmacs: Estimate
    gbytes: dict[int, Estimate]
    vectors: str


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One file on one device. total: of an inference without profiling; `rows` sum up to it.

    accounted: share of it that all rows but the last took; the last one is what is left. profiling: what profiling
    made of an inference, as a factor.
    """

    schema_version: int = SCHEMA_VERSION
    label: str
    format: str
    runtime: str
    runtime_version: str
    artifact_sha256: str
    device: str
    emulated: bool
    threads: int
    unit: Literal["instructions", "us"]
    macs: int
    total: float
    total_low: float | None = None
    total_high: float | None = None
    accounted: float
    accounted_low: float | None = None
    accounted_high: float | None = None
    profiling: float
    roofline: Roofline | None = None
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...]


def where_it_runs(item: Operator, runtime: str) -> Where:
    """ONNX Runtime has no delegates here: nothing is outside of one."""
    if item.place == "runtime":
        return "runtime"
    return "delegate" if item.place == "delegate" or runtime == "onnxruntime" else "outside"


def naming_notes(named: Sequence[Named], macs: int, known: Operators | None, fmt: str) -> list[str]:
    """What a reader must know about names and multiply-adds. known: of the bundle, for files of format `fmt` or not."""
    if all(item.module is None for item in named):
        if known is None or getattr(known, fmt) is None:
            found = "the bundle does not say which module an operator belongs to: export it again with this version"
        else:
            found = "the runtime made other operators of the file than the bundle tells: none could be named"
        return [found]
    told = sum(item.macs or 0 for item in named)
    if told > macs:
        return [
            f"the file's operators do {told:,} multiply-adds, the network {macs:,}: passes padded channels"
        ]
    return [] if told == macs else [f"operators with {told:,} of {macs:,} multiply-adds could be told"]
