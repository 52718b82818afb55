"""Profiled visits on a phone, by the native runner over adb."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from finet_deploy.bench.protocol import End, Record, VisitRequest
from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.patience import persist
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded

__all__ = ["PhoneProfiler"]

MAX_BYTES = 64 << 20
ROOFLINE = "roofline.json"
ROOFLINE_TIMEOUT_SECONDS = 120.0


class PhoneProfiler(AndroidDevice):
    """A phone, as `bench` uses it: locked, proved, at rest before each visit, pinned to its big cores."""

    def profile_visit(self, request: VisitRequest) -> tuple[list[Record], bytes]:
        """The visit's records, and what the runner wrote about its operators (nothing when the visit failed)."""
        if self._visits is None:
            raise ValueError("prepare the device first")
        plain = self._visits
        with tempfile.TemporaryDirectory(prefix="finet-deploy-profile-") as name:
            written = Path(name) / "profile.json"
            self._visits = dataclasses.replace(plain, profile=written)
            try:
                records = self.run_visit(request)
            finally:
                self._visits = plain
            whole = isinstance(records[-1], End) and written.is_file()
            return records, read_bounded(written, MAX_BYTES) if whole else b""

    def core_best(self, threads: int) -> bytes:
        """The runner's measurement of what the cores can do that a visit is pinned to."""
        if self._visits is None:
            raise ValueError("prepare the device first")
        mask = self._pin(threads).mask.value
        path = f"{self._folder}/{ROOFLINE}"
        words = [*(["taskset", mask] if mask is not None else []), "sh", f"{self._visits.runner}/run.sh"]
        command = quote(*words, "--roofline", path, str(threads))

        def ask() -> bytes:
            result = self._connection.shell(
                f"{command} && cat {quote(path)} && rm {quote(path)}", timeout=ROOFLINE_TIMEOUT_SECONDS
            )
            if result.status != 0:
                said = (result.stderr or result.stdout).decode("utf-8", "replace").split()
                found = f"the core was not measured: {' '.join(said)[:300]}"
                raise FinetDeployError(found, where=self._connection.name, do="profile again")
            return result.stdout

        return persist(self._connection, ask, self._patience, "measuring the core")
