"""ARM instructions of one inference, operator by operator, counted under emulation: a cost, not a speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from finet_deploy.bench.protocol import VisitRequest
from finet_deploy.errors import FinetDeployError
from finet_deploy.export.bundle import Bundle
from finet_deploy.profile.model import BETWEEN, Profile, Row, naming_notes, where_it_runs
from finet_deploy.profile.naming import Named, name_operators
from finet_deploy.profile.timeline import Operator, Timeline, read_timeline
from finet_deploy.runner.cost import NOTE
from finet_deploy.runner.counting import (
    CLASSES,
    SPREAD_LIMIT,
    Count,
    Snapshots,
    build_plugin,
    count_visit,
    emulated_rows,
    trace_visit,
)
from finet_deploy.runner.emulate import Core, core, find_qemu
from finet_deploy.runner.folder import runner_folder

__all__ = ["attribute", "profile_instructions"]

TICK_NS = 1_000_000  # of the clock that the runner is profiled on


def profile_instructions(
    bundle: Bundle,
    *,
    core_name: str,
    runtimes: Sequence[str] | None = None,
    label: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Profile]:
    """One profile for each of the bundle's runtimes that the native runner has.

    Each row is counted twice: as `finet-deploy cost` counts it, for the total, and profiled, for the operators' part
    of it. Raises UsageError for an unknown core or runtime, FinetDeployError when a tool is missing or a visit fails.
    """
    wanted = core(core_name)
    find_qemu()
    runner, plugin = runner_folder("aarch64"), build_plugin()
    requests = emulated_rows(bundle.path, label, wanted, None if runtimes is None else list(runtimes))
    profiles = []
    for request in requests:
        profiles.append(_profile(bundle, request, wanted, runner, plugin))
        progress(f"{request.row.artifact.runtime}, {wanted.name}")
    return profiles


def _profile(bundle: Bundle, request: VisitRequest, wanted: Core, runner: Path, plugin: Path) -> Profile:
    artifact = request.row.artifact
    where = f"{request.row.label} on {artifact.runtime}"
    whole = count_visit(request, wanted, runner, plugin)
    traced = trace_visit(request, wanted, runner, plugin)
    timeline = read_timeline(traced.profile, artifact.runtime, where)
    counts = attribute(timeline, traced.ticks, where)
    known = bundle.operators()
    named = name_operators(timeline.operators, known, artifact.runtime)
    rows = [
        _row(item, name, count, whole, artifact.runtime)
        for item, name, count in zip(timeline.operators, named, counts)
    ]
    inside = sum(sum(count.values()) for count in counts)
    if inside > whole.total:
        found = f"the operators took {inside} instructions, all of an inference only {whole.total}"
        raise FinetDeployError(found, where=where, do="report this: profiling changed what was profiled")
    return Profile(
        label=request.row.label,
        format=artifact.format,
        runtime=artifact.runtime,
        runtime_version=whole.runtime_version,
        artifact_sha256=artifact.sha256,
        device=wanted.name,
        emulated=True,
        threads=1,
        unit="instructions",
        macs=request.row.macs,
        total=whole.total,
        accounted=inside / whole.total,
        profiling=traced.count.total / whole.total,
        notes=(NOTE, *naming_notes(named, request.row.macs, known, artifact.format)),
        rows=(*rows, _rest(counts, whole)),
    )


def attribute(timeline: Timeline, ticks: Snapshots, where: str) -> list[dict[str, int]]:
    """What the plugin counted, by class, between the bounds of each operator of the last call.

    Reading the clock takes instructions too: they are no operator's, and taken out.
    """
    reading = _reading_itself(ticks)

    def place(ns: int) -> int:
        tick, off = divmod(ns, TICK_NS)
        if off or not 1 <= tick <= len(ticks):
            do = "report this: the profile is of another clock"
            raise FinetDeployError(f"no snapshot was taken at {ns} ns", where=where, do=do)
        return tick - 1

    def between(begin: int, end: int) -> dict[str, int]:
        first, last = place(begin), place(end)
        counted = zip(ticks[first], ticks[last], reading)
        return dict(zip(CLASSES, (max(0, b - a - (last - first) * own) for a, b, own in counted)))

    calls = [[between(*bounds) for bounds in call.bounds] for call in timeline.calls[-2:]]
    first, last = (sum(sum(count.values()) for count in counts) for counts in (calls[0], calls[-1]))
    if abs(first - last) > SPREAD_LIMIT * last:
        do = "report this: the count is not deterministic"
        raise FinetDeployError(
            f"operators took {first} and {last} instructions in two inferences", where=where, do=do
        )
    return calls[-1]


def _reading_itself(ticks: Snapshots) -> tuple[int, ...]:
    """What one reading of the clock takes: the least between two snapshots, where nothing else was done."""
    steps = [tuple(b - a for a, b in zip(*pair)) for pair in itertools.pairwise(ticks)]
    return min(steps, key=sum, default=(0,) * len(CLASSES))


def _row(item: Operator, name: Named, count: dict[str, int], whole: Count, runtime: str) -> Row:
    cost = sum(count.values())
    return Row(
        module=name.module,
        operator=item.type,
        name=item.name,
        ops=name.ops,
        where=where_it_runs(item, runtime),
        reason=name.reason,
        cost=cost,
        share=cost / whole.total,
        classes=count,
        macs=name.macs,
        bytes=name.bytes,
    )


def _rest(counts: Sequence[dict[str, int]], whole: Count) -> Row:
    """What no operator took: all classes together sum up to the whole, each by itself as well."""
    rest = {name: whole.classes[name] - sum(count[name] for count in counts) for name in CLASSES}
    cost = sum(rest.values())
    return Row(
        module=None,
        operator=BETWEEN,
        name="",
        where="runtime",
        cost=cost,
        share=cost / whole.total,
        classes=rest,
    )
