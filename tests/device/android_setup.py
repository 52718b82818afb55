"""Shared by the tests of the phone as a device: a bundle, a job, and a phone that plays along quickly."""

from __future__ import annotations

from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Job, Row, Visit, VisitRequest
from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.patience import Patience
from finet_deploy.devices.rest import RestRule
from tests import bench_fakes
from tests.bench_fakes import SETTINGS, make_job
from tests.device.local_connection import LocalConnection, local_runner

QUICK = msgspec.structs.replace(SETTINGS, rounds=2, visit_timeout_seconds=60.0)
HASTE = Patience(
    pause_seconds=0.01, away_seconds=5.0, boot_seconds=2.0, poll_seconds=0.1, poll_max_seconds=0.3
)
COOL = RestRule(deadline_seconds=0.3, poll_seconds=0.05)
NAME = 'it\'s a "bundle" $(touch hacked)\n*'


def make_rows(folder: Path) -> list[Row]:
    """Two rows of one file in a bundle with a hostile name, beside the run folder `folder / "run"`."""
    return bench_fakes.make_rows(folder, NAME)


def make_phone(folder: Path, **options) -> tuple[AndroidDevice, LocalConnection]:
    """A device over a pretended phone in `folder / "phone"`; its fault file is `fault` there."""
    connection = LocalConnection(folder / "phone")
    connection.environment["FAULT_FILE"] = str(connection.root / "fault")
    runner = folder / "runner"
    if not runner.exists():
        local_runner(runner)
    options = {"patience": HASTE, "rest": COOL, "note": connection.said.append, **options}
    return AndroidDevice(connection, runner=lambda target: runner, **options), connection


def job_of(device: AndroidDevice, rows: list[Row], settings=QUICK) -> Job:
    return make_job(rows, settings, device=device.info())


def request_of(row: Row, *, index: int = 0, round: int = 0, timeout: float = 60.0) -> VisitRequest:
    """One visit of `row`; the paths are the device's to fill in."""
    settings = msgspec.structs.replace(QUICK, visit_timeout_seconds=timeout)
    visit = Visit(index=index, round=round, position=0, row=row.id)
    return VisitRequest(settings=settings, visit=visit, row=row, artifact_path="", golden_path="")
