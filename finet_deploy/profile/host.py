"""Profiled visits on this machine, by the native runner."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Record, VisitRequest
from finet_deploy.devices.host import collect_records
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded
from finet_deploy.runner.folder import runner_command, runner_folder
from finet_deploy.runner.host import NativeHostRunner
from finet_deploy.runner.targets import host_target

__all__ = ["HostProfiler"]

MAX_BYTES = 256 << 20
ROOFLINE_TIMEOUT_SECONDS = 120.0


class HostProfiler(NativeHostRunner):
    """This machine. FinetDeployError when there is no native runner for it."""

    def __init__(self) -> None:
        super().__init__()
        self._run_sh = runner_command(runner_folder(host_target()))

    def profile_visit(self, request: VisitRequest) -> tuple[list[Record], bytes]:
        """The visit's records, and what the runner wrote about its operators (nothing when the visit failed)."""
        with tempfile.TemporaryDirectory(prefix="finet-deploy-profile-") as name:
            folder = Path(name)
            (folder / "request.json").write_bytes(msgspec.json.encode(request))
            status, timed_out = self._run(
                folder, request.settings.visit_timeout_seconds, ("--profile", str(folder / "profile.json"))
            )
            records = collect_records(folder, request, status, timed_out)
            written = folder / "profile.json"
            return records, read_bounded(written, MAX_BYTES) if written.is_file() else b""

    def core_best(self, threads: int) -> bytes:
        """The runner's measurement of what the core can do."""
        with tempfile.TemporaryDirectory(prefix="finet-deploy-roofline-") as name:
            path = Path(name) / "roofline.json"
            command = [*self._run_sh, "--roofline", str(path), str(threads)]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ROOFLINE_TIMEOUT_SECONDS
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                do = "build the runner again"
                raise FinetDeployError(
                    f"the runner does not run: {error}", where=command[0], do=do
                ) from error
            if done.returncode != 0:
                words = done.stderr.decode("utf-8", "replace").strip()[-300:]
                raise FinetDeployError(f"the core was not measured: {words}", do="build the runner again")
            return read_bounded(path, MAX_BYTES)
