"""What the worker's timing loop costs over a bare loop around the same runtime call. Exit 1 when it is 1 % or more.

    python tests/benchmarks/harness_overhead.py [--bundle DIR] [--format onnx] [--pairs 150] [--runs 20]

One process, one session, one input. Blocks of `runs` inferences alternate between the two loops (ABBA, so that drift
hits both alike); each pair of blocks gives a ratio of mean latencies, and the overhead is the median ratio with its
bootstrap interval. The upper end of the interval is what has to stay below 1 %. Beside it: the loop's own time per
run, measured on a call that does nothing, in percent of the network's latency.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finet_deploy.bench.golden import GoldenFile
from finet_deploy.bench.statistics import median_estimate
from finet_deploy.cli import run
from finet_deploy.devices.worker import timing_loop
from finet_deploy.export import read_bundle
from finet_deploy.runtimes import open_session

LIMIT_PERCENT = 1.0


def bare_ns(call: Callable[[], Any], runs: int) -> float:
    """Mean time of a run in a loop that does nothing else."""
    before = time.perf_counter_ns()
    for _ in range(runs):
        call()
    return (time.perf_counter_ns() - before) / runs


def harness_ns(call: Callable[[], Any], runs: int) -> float:
    """Mean time of a run as the worker would report it."""
    latencies, _ = timing_loop(call, min_runs=runs, min_seconds=0, max_seconds=3600, max_runs=runs)
    return sum(latencies) / len(latencies)


def loop_ns(loop: Callable[[Callable[[], Any], int], float], runs: int) -> float:
    """Wall time of a run of `loop` around a call that does nothing, all that the loop does included."""
    before = time.perf_counter_ns()
    loop(lambda: None, runs)
    return (time.perf_counter_ns() - before) / runs


def overheads_percent(call: Callable[[], Any], pairs: int, runs: int) -> list[float]:
    """One overhead a pair of blocks. The garbage collector is off, as it is in the worker."""
    found = []
    for pair in range(pairs):
        if pair % 2:
            bare, ours = bare_ns(call, runs), harness_ns(call, runs)
        else:
            ours, bare = harness_ns(call, runs), bare_ns(call, runs)
        found.append((ours / bare - 1) * 100)
    return found


def export_default(folder: Path, fmt: str) -> Path:
    """The smallest network of the paper, so that the harness weighs as much as it ever will."""
    words = f"export finet_small --num-groups 4 --formats {fmt} -q -o".split()
    if run([*words, str(folder / "finet_small")]) != 0:
        raise SystemExit(2)
    return folder / "finet_small"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, help="a bundle; by default finet_small is exported")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = read_bundle(options.bundle or export_default(Path(scratch), options.format))
        session = open_session(bundle.artifact_path(options.format), options.format, threads=1)
        golden = GoldenFile(bundle.path / bundle.manifest.golden.file)
        photo = next(name for name in bundle.manifest.golden.inputs if name.startswith("photo"))
        call = session.bind(golden.input(photo))
        gc.collect()
        gc.disable()
        latency = bare_ns(call, 3 * options.runs)  # warm-up as well
        estimate = median_estimate(overheads_percent(call, options.pairs, options.runs))
    own = loop_ns(harness_ns, 100_000) - loop_ns(bare_ns, 100_000)
    print(
        f"{bundle.manifest.name}, {session.runtime} {session.version}, 1 thread: {latency / 1e6:.2f} ms a run"
    )
    print(
        f"harness over bare loop: {estimate.value:+.3f} % [{estimate.low:+.3f}, {estimate.high:+.3f}] (95 %)"
    )
    print(f"the loop's own time: {own:.0f} ns a run, {own / latency * 100:.4f} % of this network's latency")
    passed = (
        estimate.high is not None and estimate.high < LIMIT_PERCENT and own < latency * LIMIT_PERCENT / 100
    )
    print(f"{'PASS' if passed else 'FAIL'}: limit {LIMIT_PERCENT:g} %")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
