"""The process of one visit: `python -m finet_deploy.devices.worker REQUEST.json RECORDS.jsonl`.

Opens the artifact, warms up, times, checks the output, and writes the records. It imports no more than the runtime
that it measures. Exit status 0: the records end with `end`; 1: they end with `invalid`.
"""

from __future__ import annotations

import array
import ctypes
import datetime
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from finet_deploy import __version__
from finet_deploy.bench.golden import GoldenFile
from finet_deploy.bench.protocol import (
    UNFINISHED,
    End,
    First,
    Invalid,
    Load,
    Record,
    Samples,
    Start,
    VisitRequest,
    Warmup,
    encode_record,
)
from finet_deploy.devices.probes import affinity_cpus, host_state, os_threads, peak_rss_mib
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded, sha256_file
from finet_deploy.runtimes import Session, import_runtime, open_session
from finet_deploy.verify.compare import compare

__all__ = ["main", "output_errors", "timing_loop"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h

MAX_REQUEST_BYTES = 1 << 20
BATCH = 1000
StoppedBy = Literal["minimum", "max_seconds", "max_runs"]


def timing_loop(
    call: Callable[[], Any], *, min_runs: int, min_seconds: float, max_seconds: float, max_runs: int
) -> tuple[array.array[int], StoppedBy]:
    """Latencies in ns of repeated `call()`, until there are min_runs AND min_seconds, or a cap is met.

    Storage exists before the first run; between the two clock readings stands the call alone. The garbage collector
    is the caller's to switch off.
    """
    clock = time.perf_counter_ns
    latencies = array.array("q", bytes(8 * max_runs))
    count = 0
    begin = clock()
    enough, limit = begin + int(min_seconds * 1e9), begin + int(max_seconds * 1e9)
    while count < max_runs:
        before = clock()
        call()
        after = clock()
        latencies[count] = after - before
        count += 1
        if after >= enough and count >= min_runs:
            return latencies[:count], "minimum"
        if after >= limit:
            return latencies[:count], "max_seconds"
    return latencies, "max_runs"


class _Visit:
    """One visit, phase by phase. `write` takes each record as soon as its phase is over."""

    def __init__(self, request: VisitRequest, write: Callable[[Record], None]) -> None:
        self.request, self.write = request, write
        self.index, self.row, self.settings = request.visit.index, request.row, request.settings
        self.phase = "start"

    def run(self) -> None:
        """All phases. Raises what the runtime or the files raise; `phase` tells where."""
        self.write(
            Start(
                visit=self.index,
                started_utc=_utc(),
                pid=os.getpid(),
                runner=f"finet-deploy {__version__} python {sys.version.split()[0]}",
                affinity_cpus=affinity_cpus(),
                artifact_sha256=sha256_file(self.request.artifact_path),
                state=host_state(),
            )
        )
        self.phase = "load"
        session = self._load()
        golden = GoldenFile(self.request.golden_path)
        gc.collect()
        gc.disable()  # from here on to the end of the process: a collection would land in somebody's latency
        self.phase = "first"
        call = session.bind(golden.input(self.row.golden.timed_input))
        first_ms = _milliseconds(call)
        self.write(First(visit=self.index, first_ms=first_ms))
        self.phase = "warmup"
        self._warm_up(call)
        self.phase = "timing"
        latencies, stopped = self._time(call)
        self.phase = "check"
        total_ms = sum(latencies) / 1e6
        errors = output_errors(session.run, golden, self.row.golden.output_limits)
        self.write(
            End(
                visit=self.index,
                ended_utc=_utc(),
                runs=len(latencies),
                total_ms=total_ms,
                stopped_by=stopped,
                peak_rss_mib=peak_rss_mib(),
                os_threads=os_threads(),
                output_errors=errors,
                state=host_state(),
            )
        )

    def _load(self) -> Session:
        path, artifact = Path(self.request.artifact_path), self.row.artifact
        before = time.perf_counter_ns()
        import_runtime(artifact.format)
        imported = time.perf_counter_ns()
        session = open_session(path, artifact.format, threads=self.row.threads)
        opened = time.perf_counter_ns()
        self.write(
            Load(
                visit=self.index,
                runtime=session.runtime,
                runtime_version=str(session.version),
                threads=session.threads,
                import_ms=(imported - before) / 1e6,
                load_ms=(opened - imported) / 1e6,
            )
        )
        return session

    def _warm_up(self, call: Callable[[], Any]) -> None:
        settings = self.settings
        latencies, _ = timing_loop(
            call,
            min_runs=settings.warmup_min_runs,
            min_seconds=settings.warmup_min_seconds,
            max_seconds=settings.warmup_max_seconds,
            max_runs=settings.timed_max_runs,
        )
        self.write(Warmup(visit=self.index, runs=len(latencies), total_ms=sum(latencies) / 1e6))

    def _time(self, call: Callable[[], Any]) -> tuple[array.array[int], StoppedBy]:
        settings = self.settings
        latencies, stopped = timing_loop(
            call,
            min_runs=settings.timed_min_runs,
            min_seconds=settings.timed_min_seconds,
            max_seconds=settings.timed_max_seconds,
            max_runs=settings.timed_max_runs,
        )
        for first in range(0, len(latencies), BATCH):
            batch = tuple(latencies[first : first + BATCH])
            self.write(Samples(visit=self.index, latencies_ns=batch))
        return latencies, stopped


def output_errors(
    run: Callable[[NDArray[np.float32]], NDArray[np.floating]], golden: GoldenFile, names: Iterable[str]
) -> dict[str, float | None]:
    """Run golden inputs and compare with the golden outputs, by the comparator of the certificate.

    Norm-relative error by input; `None` where the outputs cannot be compared (another shape, NaN).
    """
    errors: dict[str, float | None] = {}
    for name in names:
        comparison = compare({name: golden.output(name)}, {name: run(golden.input(name))})
        errors[name] = comparison.max_error if comparison.comparable else None
    return errors


def main(arguments: list[str]) -> int:
    """Run one visit; the records appear under their name only when they are complete."""
    request_path, records_path = Path(arguments[0]), Path(arguments[1])
    _die_with_parent()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    request = msgspec.json.decode(read_bounded(request_path, MAX_REQUEST_BYTES), type=VisitRequest)
    unfinished = records_path.with_name(records_path.name + UNFINISHED)
    status = 0
    with unfinished.open("wb") as stream:

        def write(record: Record) -> None:
            stream.write(encode_record(record))
            stream.flush()  # what was reached is still told when the process dies in the next phase

        visit = _Visit(request, write)
        try:
            visit.run()
        except Exception as error:  # noqa: BLE001  (whatever a runtime raises is the visit's result)
            text = str(error) if isinstance(error, FinetDeployError) else f"{type(error).__name__}: {error}"
            write(Invalid(visit=visit.index, reason=" ".join(text.split())[:2000], phase=visit.phase))
            status = 1
    os.replace(unfinished, records_path)
    return status


def _die_with_parent() -> None:
    """A visit whose bench was killed must not go on and disturb the next one.

    Linux only; elsewhere the visit ends by itself.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _milliseconds(call: Callable[[], Any]) -> float:
    before = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before) / 1e6


def _utc() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
