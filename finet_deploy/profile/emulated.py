"""ARM instructions of one inference, operator by operator, counted under emulation: a cost, not a speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finet_deploy.bench.protocol import VisitRequest
from finet_deploy.errors import FinetDeployError
from finet_deploy.profile.timeline import Operator, Timeline, read_timeline
from finet_deploy.runner.counting import CLASSES, Count, Traced, count_visit, trace_visit
from finet_deploy.runner.emulate import Core

__all__ = ["OperatorCounts", "attribute", "profile_counts"]

TICK_NS = 1_000_000  # of the clock that the runner is profiled on


class OperatorCounts:
    """Instructions by class of each operator, and of all that is none: they sum up to the count without profiling."""

    def __init__(self, operators: Sequence[Operator], counts: Sequence[dict[str, int]], whole: Count) -> None:
        self.operators, self.counts, self.whole = tuple(operators), tuple(counts), whole
        inside = {name: sum(count[name] for count in counts) for name in CLASSES}
        self.rest = {name: whole.classes[name] - inside[name] for name in CLASSES}


def profile_counts(request: VisitRequest, wanted: Core, runner: Path, plugin: Path) -> OperatorCounts:
    """Count the row twice: as it is, for the total, and profiled, for the operators' shares of it.

    FinetDeployError when a visit fails, or when the operators together took more than all did without profiling.
    """
    whole = count_visit(request, wanted, runner, plugin)
    traced = trace_visit(request, wanted, runner, plugin)
    where = f"{request.row.label} on {request.row.artifact.runtime}"
    timeline = read_timeline(traced.profile, request.row.artifact.runtime, where)
    return OperatorCounts(timeline.operators, attribute(timeline, traced, where), whole)


def attribute(timeline: Timeline, traced: Traced, where: str) -> list[dict[str, int]]:
    """What the plugin counted between the bounds of each operator of the last call."""

    def snapshot(ns: int) -> tuple[int, ...]:
        tick, off = divmod(ns, TICK_NS)
        if off or not 1 <= tick <= len(traced.ticks):
            do = "report this: the profile is of another clock"
            raise FinetDeployError(f"no snapshot was taken at {ns} ns", where=where, do=do)
        return traced.ticks[tick - 1]

    counts = []
    for begin, end in timeline.calls[-1].bounds:
        counts.append(dict(zip(CLASSES, (b - a for a, b in zip(snapshot(begin), snapshot(end))))))
    return counts
