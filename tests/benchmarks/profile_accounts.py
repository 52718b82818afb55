"""How much of an inference the operators of a profile are, seen inside profiled calls: no plain visit is needed.

Of each profiled call: the operators' time over the call's, without what the runtime's own profiler is known to have
taken in it (ONNX Runtime's texts about shapes, inside the time that it gives for a node). What it takes elsewhere stays
in, so the share is a lower bound. Both are of the same call, so that other processes on the machine matter little.

    python tests/benchmarks/profile_accounts.py bundles/finet_large_g4_se --visits 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from finet_deploy.bench.plan import BenchRow, build_job, visit_request
from finet_deploy.profile.host import HostProfiler
from finet_deploy.profile.measured import PROFILE_SETTINGS
from finet_deploy.profile.timeline import read_timeline
from finet_deploy.runner.targets import NATIVE_RUNTIMES

KERNEL_TIME = "_kernel_time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--visits", type=int, default=3)
    arguments = parser.parse_args()
    device = HostProfiler()
    settings = msgspec.structs.replace(PROFILE_SETTINGS, rounds=arguments.visits)
    with tempfile.TemporaryDirectory() as name:
        job = build_job(
            [BenchRow(bundle) for bundle in arguments.bundles],
            device=device.info(),
            settings=settings,
            threads=1,
            runtimes=None,
            folder=Path(name),
            runner="native",
            supported=NATIVE_RUNTIMES,
        )
        device.prepare(job.rows, Path(name))
        rows = {row.id: row for row in job.rows}
        for visit in job.visits:
            row = rows[visit.row]
            _, data = device.profile_visit(visit_request(job, visit, Path(name)))
            shares = shares_of(data, row.artifact.runtime)
            low, middle, high = np.percentile(shares, [5, 50, 95])
            print(
                f"{row.label}, {row.artifact.runtime}, visit {visit.round + 1}: {middle:.2%} of {len(shares)} calls "
                f"(5 % to 95 %: {low:.2%} to {high:.2%})",
                flush=True,
            )


def shares_of(data: bytes, runtime: str) -> list[float]:
    """Of each call: the operators' part of it."""
    profile = msgspec.json.decode(data)
    timeline = read_timeline(data, runtime, "here")
    spans: dict[int, float] = {}
    if runtime == "onnxruntime":
        spans = node_spans(profile)
    shares = []
    for call in timeline.calls:
        own = sum(end - begin for begin, end in call.bounds)
        beside = max(0.0, spans.get(call.begin, own) - own)
        shares.append(own / (call.end - call.begin - beside))
    return shares


def node_spans(profile: dict[str, Any]) -> dict[int, float]:
    """Begin of a call -> ns that ONNX Runtime gives for all its nodes together, its profiler's work included."""
    nodes = {i for i, kind in enumerate(profile["kinds"]) if kind["name"].endswith(KERNEL_TIME)}
    runs = sorted(
        (begin, end) for kind, begin, end in profile["spans"] if profile["kinds"][kind]["name"] == "model_run"
    )
    runs = runs[-len(profile["calls_ns"]) :]
    sums = {}
    for (begin, end), (call, _) in zip(runs, profile["calls_ns"]):
        sums[call] = 1000.0 * sum(
            last - first
            for kind, first, last in profile["spans"]
            if kind in nodes and begin <= first and last <= end
        )
    return sums


if __name__ == "__main__":
    main()
