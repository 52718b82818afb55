"""Shared by the tests of the app on the simulated phone: a small bundle, its rows, and a device that waits little."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.app.standin import stand_in_folder
from finet_deploy.bench.plan import BenchRow, build_job, visit_request
from finet_deploy.bench.protocol import Row, Settings, VisitRequest
from finet_deploy.devices.adb import open_connection
from finet_deploy.devices.app.apk import Apk, find_apk
from finet_deploy.devices.app_device import AppDevice
from finet_deploy.devices.patience import Patience
from finet_deploy.devices.rest import RestRule
from finet_deploy.errors import FinetDeployError
from tests.bench_fakes import DEVICE, SETTINGS
from tests.device.phone import Phone, why_not
from tests.device.phone.app import make_apk

# A visit lasts so long that a fault strikes while it is timed.
LONG = msgspec.structs.replace(
    SETTINGS,
    rounds=2,
    aa_row=False,
    timed_min_seconds=1.5,
    timed_max_runs=10_000_000,
    visit_timeout_seconds=60.0,
)
HASTE = Patience(
    pause_seconds=0.05, away_seconds=10.0, boot_seconds=5.0, poll_seconds=0.2, poll_max_seconds=0.5
)
COOL = RestRule(deadline_seconds=1.0, poll_seconds=0.1)


def why_no_app() -> str | None:
    """Why the app cannot be run on a simulated phone here, or None."""
    if why_not() is not None:
        return why_not()
    if shutil.which("java") is None:
        return "needs Java"
    try:
        stand_in_folder()
    except FinetDeployError as error:
        return str(error)
    return None


def app_phone(profile: str = "snapdragon855", **options: Any) -> Phone:
    """A simulated phone that can run the app."""
    return Phone(profile, app=str(stand_in_folder()), **options)


def apk_in(folder: Path, **values: Any) -> Apk:
    """An APK that the simulator can read."""
    return find_apk(make_apk(folder / "app.apk", **values))


def app_device(phone: Phone, apk: Apk, said: list[str] | None = None, **options: Any) -> AppDevice:
    """The device, over a connection of its own. said: what it has to say."""
    values: dict[str, Any] = {
        "patience": HASTE,
        "rest": COOL,
        "note": (said if said is not None else []).append,
    }
    return AppDevice(open_connection(f"tcp:{phone.address}"), apk=apk, **{**values, **options})


def app_requests(
    bundle: Path, folder: Path, settings: Settings = LONG
) -> tuple[tuple[Row, ...], VisitRequest]:
    """The rows of a job for the run folder `folder`, and its first visit."""
    job = build_job(
        [BenchRow(bundle)],
        device=DEVICE,
        settings=settings,
        threads=1,
        runtimes=["onnxruntime"],
        folder=folder,
    )
    return job.rows, visit_request(job, job.visits[0], folder)
