"""This machine as a device: each visit is a fresh process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

import finet_deploy
from finet_deploy.bench.protocol import (
    UNFINISHED,
    DeviceInfo,
    End,
    Invalid,
    Record,
    Resumed,
    Row,
    VisitRequest,
)
from finet_deploy.bench.records import VisitResult, decode_lines
from finet_deploy.devices.probes import host_info
from finet_deploy.errors import FinetDeployError

__all__ = ["HostDevice", "collect_records"]

WORKER = (sys.executable, "-m", "finet_deploy.devices.worker")
STDERR_TAIL_BYTES = 4000


class HostDevice:
    """Runs visits here. `command` is the runner; the paths of request and records are appended to it."""

    def __init__(self, *, command: Sequence[str] = WORKER) -> None:
        self._command = tuple(command)

    @property
    def runner(self) -> str:
        """Our own worker."""
        return "python"

    @property
    def runtimes(self) -> tuple[str, ...] | None:
        """All that are installed."""
        return None

    def info(self) -> DeviceInfo:
        """What this machine is."""
        return host_info()

    def default_threads(self) -> int:
        """One: nothing is known of what else this machine has to do."""
        return 1

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """Nothing to bring: the files are here, and the run has checked them."""

    def run_visit(self, request: VisitRequest) -> list[Record]:
        """One visit as a process in a session of its own, under a watchdog.

        A Ctrl-C on the terminal reaches this process only; it kills the runner before it goes on.
        """
        with tempfile.TemporaryDirectory(prefix="finet-deploy-visit-") as name:
            folder = Path(name)
            (folder / "request.json").write_bytes(msgspec.json.encode(request))
            status, timed_out = self._run(folder, request.settings.visit_timeout_seconds)
            return collect_records(folder, request, status, timed_out)

    def _run(self, folder: Path, timeout: float, extra: Sequence[str] = ()) -> tuple[int, bool]:
        command = [*self._command, str(folder / "request.json"), str(folder / "records.jsonl"), *extra]
        with (folder / "stderr.txt").open("wb") as stderr:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=folder,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                do = "check that the runner is installed"
                raise FinetDeployError(f"cannot start: {error.strerror}", where=command[0], do=do) from error
            try:
                return process.wait(timeout), False
            except subprocess.TimeoutExpired:
                return _kill(process), True
            finally:
                _kill(process)


def _environment() -> dict[str, str]:
    """The runner finds this very package, also when it runs from a source tree."""
    package = str(Path(finet_deploy.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _kill(process: subprocess.Popen[bytes]) -> int:
    """End the runner and whatever it started; nothing happens when it has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def collect_records(folder: Path, request: VisitRequest, status: int, timed_out: bool) -> list[Record]:
    """The runner's records; when it died, what it had reached and an `Invalid` with the reason."""
    index = request.visit.index
    problem = (
        f"no result within {request.settings.visit_timeout_seconds:g} s" if timed_out else _describe(status)
    )
    records: list[Record] = []
    try:
        records = _read(folder / "records.jsonl", index)
    except FinetDeployError as error:
        problem = str(error) if status == 0 else problem
    if not timed_out and records and isinstance(records[-1], End if status == 0 else Invalid):
        return records
    with contextlib.suppress(FinetDeployError):
        records = records or _read(folder / ("records.jsonl" + UNFINISHED), index)
    invalid = Invalid(
        visit=index,
        reason=problem,
        phase=VisitResult(index, tuple(records)).phase,
        exit_status=status if status >= 0 else None,
        signal=_signal_name(status),
        stderr_tail=_tail(folder / "stderr.txt"),
    )
    return [*(record for record in records if not isinstance(record, (End, Invalid))), invalid]


def _read(path: Path, index: int) -> list[Record]:
    try:
        with path.open("rb") as stream:
            records, _ = decode_lines(stream, "the runner's records")
    except OSError as error:
        raise FinetDeployError(
            "the runner left no records", do="see its last words in records.jsonl"
        ) from error
    if any(isinstance(record, Resumed) or record.visit != index for record in records):
        raise FinetDeployError("the runner's records are of another visit", do="check the runner")
    return records


def _describe(status: int) -> str:
    name = _signal_name(status)
    if status == 0:
        return "the runner ended without a result"
    return f"the runner was killed by {name}" if name else f"the runner ended with exit status {status}"


def _signal_name(status: int) -> str | None:
    if status >= 0:
        return None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(0, io.SEEK_END)
        stream.seek(max(0, stream.tell() - STDERR_TAIL_BYTES))
        return stream.read().decode("utf-8", "replace")
