"""Whether the native runner measures what the Python runner does, and how soon a visit of it starts. Exit 1 when not.

    python tests/benchmarks/runner_agreement.py BUNDLE... [--rounds 20] [--preset quick] [--threads 1]

One interleaved run for each bundle: three rows of the very same file, visited once a round in rotated order by the
Python runner, the native runner, and the Python runner again (A/A). Native over Python is the table's own ratio, paired
by round, with its interval and verdict: they agree when it is neither `faster` nor `slower`, which takes an interval
that lies outside the noise floor. What comes before and after inference (process, imports, hash, loading, golden
outputs and the two inferences that check them) is the visit's wall time less the runs that it reports: no less than the
start of a visit. Its median has to be under 0.2 s for the native runner.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import DeviceInfo, End, First, Record, Row, VisitRequest, Warmup
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.settings import load_preset
from finet_deploy.bench.summary import Comparison, summarise
from finet_deploy.devices.base import Device
from finet_deploy.devices.host import HostDevice
from finet_deploy.runner.host import NativeHostRunner
from finet_deploy.runner.targets import NATIVE_RUNTIMES

START_LIMIT_SECONDS = 0.2
PYTHON, NATIVE, AGAIN = "python", "native", "python again"


class BothRunners:
    """This machine, where a row's label says which runner visits it."""

    def __init__(self) -> None:
        self.runners: dict[str, Device] = {
            PYTHON: HostDevice(),
            NATIVE: NativeHostRunner(),
            AGAIN: HostDevice(),
        }
        self.outside: dict[tuple[str, str], list[float]] = defaultdict(list)  # (runtime, label) -> seconds

    @property
    def runner(self) -> str:
        return "both"

    @property
    def runtimes(self) -> tuple[str, ...]:
        return NATIVE_RUNTIMES

    def info(self) -> DeviceInfo:
        return self.runners[PYTHON].info()

    def default_threads(self) -> int:
        return 1

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """Nothing to bring."""

    def run_visit(self, request: VisitRequest) -> list[Record]:
        before = time.perf_counter()
        records = self.runners[request.row.label].run_visit(request)
        wall = time.perf_counter() - before
        result = VisitResult(request.visit.index, tuple(records))
        first, warmup, end = result.find(First), result.find(Warmup), result.find(End)
        if first and warmup and end:
            inference = first.first_ms + warmup.total_ms + end.total_ms
            self.outside[request.row.artifact.runtime, request.row.label].append(wall - inference / 1000)
        return records


def tell(bundle: Path, comparison: Comparison, outside: dict[tuple[str, str], list[float]]) -> bool:
    """Print what was found; whether it holds."""
    rows = {summary.row.label: summary for summary in comparison.rows}
    ratio, again = rows[NATIVE].ratio, rows[AGAIN].ratio
    starts = {label: median(outside[comparison.runtime, label]) for label in (PYTHON, NATIVE)}
    invalid = sum(len(row.invalid) for row in rows.values())
    if ratio is None or again is None or ratio.low is None or again.low is None or invalid:
        print(f"{bundle.name} {comparison.runtime}: {invalid} invalid visits, no ratio: FAIL")
        return False
    assert ratio.high is not None and again.high is not None
    floor = max(1 / again.low, again.high)
    agrees = not (ratio.low > floor or ratio.high < 1 / floor)
    starts_soon = starts[NATIVE] < START_LIMIT_SECONDS
    print(
        f"{bundle.name:24} {comparison.runtime:12} "
        f"native / python {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}], "
        f"python / python [{again.low:.3f}, {again.high:.3f}]: {'PASS' if agrees else 'FAIL'}; "
        f"outside inference {starts[NATIVE]:.3f} s (python {starts[PYTHON]:.2f} s): "
        f"{'PASS' if starts_soon else 'FAIL'}"
    )
    return agrees and starts_soon


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    settings = msgspec.structs.replace(load_preset(options.preset), rounds=options.rounds, aa_row=False)
    holds = True
    for bundle in options.bundles:
        device = BothRunners()
        with tempfile.TemporaryDirectory(prefix="finet-deploy-agreement-") as name:
            run = run_bench(
                [BenchRow(bundle, label) for label in device.runners],
                device=device,
                out=Path(name) / "run",
                preset=settings,
                threads=options.threads,
            )
        for comparison in summarise(run):
            holds &= tell(bundle, comparison, device.outside)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
