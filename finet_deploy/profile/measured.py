"""Time of one inference, operator by operator, measured in interleaved rounds.

Each round takes, in fresh processes: what the core can do at best, then for each runtime a visit as `bench` makes it
and a profiled one. The plain visit is the whole; the profiled one says how it is made up. All figures of a round are
put in relation within that round, and of each visit the fastest quarter of its calls counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from finet_deploy.bench.plan import BenchRow, build_job, visit_request
from finet_deploy.bench.protocol import DeviceInfo, Load, Record, Row, Settings, Visit, VisitRequest
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.statistics import Estimate, median_estimate
from finet_deploy.bench.validity import visit_problem
from finet_deploy.errors import FinetDeployError
from finet_deploy.export.bundle import Bundle
from finet_deploy.profile import model
from finet_deploy.profile.model import BETWEEN, Profile, Roofline, naming_notes, where_it_runs
from finet_deploy.profile.naming import Named, name_operators
from finet_deploy.profile.roofline import CoreBest, bound_seconds, decode_core_best
from finet_deploy.profile.timeline import Call, Operator, Timeline, read_timeline

__all__ = ["PROFILE_SETTINGS", "ProfilingDevice", "profile_time", "split_up"]

PROFILE_SETTINGS = Settings(
    preset="profile",
    description="interleaved plain and profiled visits",
    rounds=5,
    warmup_min_runs=5,
    warmup_min_seconds=0.3,
    warmup_max_seconds=30.0,
    timed_min_runs=30,
    timed_min_seconds=1.0,
    timed_max_seconds=60.0,
    timed_max_runs=200,
    visit_timeout_seconds=600.0,
    statistic="median",
    aa_row=False,
)
FASTEST = (
    0.25  # of a visit's calls: what other processes did to the others says nothing of how one is made up
)


class ProfilingDevice(Protocol):
    """Where profiled visits run."""

    def info(self) -> DeviceInfo: ...

    def prepare(self, rows: Sequence[Row], folder: Path) -> None: ...

    def run_visit(self, request: VisitRequest) -> list[Record]: ...

    def profile_visit(self, request: VisitRequest) -> tuple[list[Record], bytes]: ...

    def core_best(self, threads: int) -> bytes: ...


@dataclass
class _Measured:
    """Of one row, a value for each round."""

    row: Row
    timeline: Timeline | None = None
    runtime_version: str = ""
    whole: list[float] = field(default_factory=list)  # seconds, plain
    profiled: list[float] = field(default_factory=list)
    times: list[list[float]] = field(default_factory=list)  # seconds of each operator
    best: list[CoreBest] = field(default_factory=list)
    left_out: int = 0


def profile_time(
    bundle: Bundle,
    *,
    device: ProfilingDevice,
    folder: Path,
    threads: int = 1,
    runtimes: Sequence[str] | None = None,
    supported: Sequence[str] | None = None,
    label: str | None = None,
    rounds: int | None = None,
    settings: Settings = PROFILE_SETTINGS,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Profile]:
    """One profile for each runtime that the bundle has a file for and the device runs. folder: for the device's notes.

    Raises UsageError for unknown runtimes, FinetDeployError when a visit fails or a profile does not fit its visit.
    """
    settings = msgspec.structs.replace(settings, rounds=rounds or settings.rounds)
    job = build_job(
        [BenchRow(bundle.path, label)],
        device=device.info(),
        settings=settings,
        threads=threads,
        runtimes=runtimes,
        folder=folder,
        runner="native",
        supported=supported,
    )
    device.prepare(job.rows, folder)
    measured = {row.id: _Measured(row) for row in job.rows}
    order = {visit.index: visit for visit in job.visits}
    for number in range(settings.rounds):
        best = decode_core_best(device.core_best(threads), device.info().name)
        for visit in [visit for visit in order.values() if visit.round == number]:
            _visit(measured[visit.row], visit_request(job, visit, folder), device, best)
            progress(f"round {number + 1}: {measured[visit.row].row.artifact.runtime}")
    return [_profile(bundle, item, device.info(), threads) for item in measured.values()]


def _visit(item: _Measured, request: VisitRequest, device: ProfilingDevice, best: CoreBest) -> None:
    """A plain and a profiled visit, in alternating order."""
    row, where = item.row, f"{item.row.label} on {item.row.artifact.runtime}"
    plain: list[Record] = []
    if request.visit.round % 2 == 0:
        plain = _checked(device.run_visit(request), request.visit, row)
    records, data = device.profile_visit(request)
    records = _checked(records, request.visit, row)
    plain = plain or _checked(device.run_visit(request), request.visit, row)
    timeline = read_timeline(data, row.artifact.runtime, where)
    if item.timeline is None:
        item.timeline = timeline
    order = _order(timeline.operators, item.timeline.operators, where)
    calls = _fastest(timeline)
    load = VisitResult(request.visit.index, tuple(records)).find(Load)
    item.runtime_version = load.runtime_version if load is not None else ""
    item.left_out += timeline.left_out
    item.best.append(best)
    item.whole.append(_fastest_mean(VisitResult(request.visit.index, tuple(plain)).latencies_ns))
    item.profiled.append(float(np.mean([call.end - call.begin for call in calls])) / 1e9)
    bounds = np.array([call.bounds for call in calls], dtype=np.float64).reshape(len(calls), -1, 2)
    times = (bounds[:, :, 1] - bounds[:, :, 0]).mean(axis=0) / 1e9
    item.times.append([float(times[i]) for i in order])


def _order(found: Sequence[Operator], first: Sequence[Operator], where: str) -> list[int]:
    """Where each operator of the first round is in this one.

    ONNX Runtime does not order independent nodes alike in every process; alike ones keep their order.
    """
    places: dict[str, list[int]] = {}
    for i, item in enumerate(found):
        places.setdefault(_key(item), []).append(i)
    if sorted(map(_key, first)) != sorted(map(_key, found)):
        do = "report this: the runtime chose other operators for the same file"
        raise FinetDeployError("two rounds had different operators", where=where, do=do)
    return [places[_key(item)].pop(0) for item in first]


def _key(item: Operator) -> str:
    return repr((item.name, item.type, item.instruction, sorted(item.details.items(), key=repr)))


def _checked(records: list[Record], visit: Visit, row: Row) -> list[Record]:
    problem = visit_problem(VisitResult(visit.index, tuple(records)), row)
    if problem is not None:
        do = "export the bundle again, or profile another one"
        raise FinetDeployError(f"a visit does not count: {problem}", where=row.label, do=do)
    return records


def _few(count: int) -> int:
    return max(1, round(count * FASTEST))


def _fastest(timeline: Timeline) -> list[Call]:
    calls = sorted(timeline.calls, key=lambda call: call.end - call.begin)
    return calls[: _few(len(calls))]


def _fastest_mean(latencies_ns: Sequence[int]) -> float:
    ordered = sorted(latencies_ns)
    return float(np.mean(ordered[: _few(len(ordered))])) / 1e9


def _profile(bundle: Bundle, item: _Measured, device: DeviceInfo, threads: int) -> Profile:
    assert item.timeline is not None
    row = item.row
    operators = item.timeline.operators
    known = bundle.operators()
    named = name_operators(operators, known, row.artifact.runtime)
    total = median_estimate(item.whole).times(1e6)
    accounted, shares = split_up(item.times, item.whole)
    rows = [
        _row(operator, name, shares[i], i, item) for i, (operator, name) in enumerate(zip(operators, named))
    ]
    rest = model.Row(
        module=None,
        operator=BETWEEN,
        name="",
        where="runtime",
        cost=(1 - accounted.value) * total.value,
        share=1 - accounted.value,
    )
    return Profile(
        label=row.label,
        format=row.artifact.format,
        runtime=row.artifact.runtime,
        runtime_version=item.runtime_version,
        artifact_sha256=row.artifact.sha256,
        device=device.name,
        emulated=device.emulated,
        threads=threads,
        unit="us",
        macs=row.macs,
        total=total.value,
        total_low=total.low,
        total_high=total.high,
        accounted=accounted.value,
        accounted_low=accounted.low,
        accounted_high=accounted.high,
        profiling=_ratio(item.profiled, item.whole).value,
        roofline=_roofline(item.best),
        notes=(*naming_notes(named, row.macs, known, row.artifact.format), *_notes(item)),
        rows=(*rows, rest),
    )


def _notes(item: _Measured) -> list[str]:
    notes = []
    if item.left_out:
        notes.append(
            f"{item.left_out} profiled calls were left out: their operators could not be placed in time"
        )
    if item.row.artifact.dtype != "float32":
        notes.append(
            f"the compute bound is fp32's, the file is {item.row.artifact.dtype}: no share of it is given"
        )
    return notes


def _ratio(values: Sequence[float], wholes: Sequence[float]) -> Estimate:
    return median_estimate([value / whole for value, whole in zip(values, wholes)])


def split_up(times: Sequence[Sequence[float]], wholes: Sequence[float]) -> tuple[Estimate, list[Estimate]]:
    """Of rounds: the operators' times, and the whole's. What all operators take of the whole, and each one's part.

    How the operators compare is known from one process, what they are of the whole from two: so only their sum is set
    against it, and the parts are medians of each one's share of that sum. They add up to what all take.
    """
    sums = [sum(item) for item in times]
    accounted = _ratio(sums, wholes)
    parts = [_ratio([item[i] for item in times], sums) for i in range(len(times[0]))]
    scale = accounted.value / sum(part.value for part in parts)
    return accounted, [part.times(scale) for part in parts]


def _row(operator: Operator, name: Named, share: Estimate, i: int, item: _Measured) -> model.Row:
    times = [times[i] for times in item.times]
    cost = share.times(median_estimate(item.whole).value * 1e6)
    macs = name.macs if item.row.artifact.dtype == "float32" else None
    bounds = [bound_seconds(best, macs, name.bytes) for best in item.best]
    reached = [bound[0] / time for bound, time in zip(bounds, times) if bound is not None and time > 0]
    first = bounds[0]
    return model.Row(
        module=name.module,
        operator=operator.type,
        name=operator.name,
        ops=name.ops,
        where=where_it_runs(operator, item.row.artifact.runtime),
        reason=name.reason,
        cost=cost.value,
        low=cost.low,
        high=cost.high,
        share=share.value,
        macs=name.macs,
        bytes=name.bytes,
        of_bound=float(np.median(reached)) if reached else None,
        bound=first[1] if first is not None else None,
    )


def _roofline(best: Sequence[CoreBest]) -> Roofline:
    return Roofline(
        gmacs=median_estimate([item.macs_per_second / 1e9 for item in best]),
        gbytes={
            item.bytes: median_estimate([one.streams[i].bytes_per_second / 1e9 for one in best])
            for i, item in enumerate(best[0].streams)
        },
        vectors=best[0].vectors,
    )
