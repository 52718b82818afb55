"""The device against the simulated phone: its protocol, its shell (mksh and toybox), its processes, its faults.

The runner here is a shell script that hands out prepared records: what is tested is the way there and back. The native
runner, executed as aarch64 code, has tests of its own.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from finet_deploy.bench.protocol import Invalid, encode_record
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb import open_connection
from finet_deploy.devices.adb.errors import PhoneError, PhoneGone, PhoneNoSpace
from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.patience import Patience
from finet_deploy.devices.rest import PhoneHot
from tests.bench_fakes import make_records
from tests.device.android_setup import COOL, make_rows, request_of
from tests.device.oracle.fixture import Oracle
from tests.device.phone import Phone, why_not
from tests.device.test_adb_client_script import Client, client_command

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

FOLDER = "/data/local/tmp/finet-deploy"
QUICK = Patience(
    attempts=3,
    pause_seconds=0.2,
    away_seconds=15.0,
    boot_seconds=10.0,
    poll_seconds=0.2,
    poll_max_seconds=0.5,
)
RUN = """#!/system/bin/sh
here=${0%/*}
if [ "$3" = --outputs ]; then cp "$here/outputs" "$4"; cp "$here/outputs.json" "$4.json"
else sleep "$(cat "$here/seconds")"; fi
cp "$here/records.jsonl" "$2.unfinished" && mv "$2.unfinished" "$2"
"""


def shell_runner(folder: Path, rows, bundle: Path) -> Path:
    """A runner in shell, with its records and outputs beside it."""
    folder.mkdir()
    (folder / "run.sh").write_text(RUN)
    (folder / "seconds").write_text("2")
    request = request_of(rows[0])
    records = make_records(request.visit, rows[0], [1_000_000] * 5)
    (folder / "records.jsonl").write_bytes(b"".join(map(encode_record, records)))
    data, index = b"", []
    for key, value in sorted(load_file(bundle / "golden.safetensors").items()):
        if key.startswith("output."):
            raw = value.astype(np.float32).tobytes()
            entry = {
                "name": key.removeprefix("output."),
                "shape": value.shape,
                "offset": len(data),
                "bytes": len(raw),
            }
            index.append(entry)
            data += raw
    (folder / "outputs").write_bytes(data)
    whole = {"schema_version": 1, "dtype": "float32", "byte_order": "little", "outputs": index}
    (folder / "outputs.json").write_text(json.dumps(whole))
    return folder


@pytest.fixture(params=["direct"])
def setting(request, tmp_path, monkeypatch):
    """Rows, the run folder, a function that makes a device for a phone, and what was said.

    `direct`: over adb-shell; `server`: through an adb server of Google's, which is the fetched one.
    """
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = make_rows(tmp_path)
    (tmp_path / "run").mkdir()
    runner = shell_runner(tmp_path / "runner", rows, tmp_path / "run" / rows[0].bundle)
    said: list[str] = []

    client = Client(client_command("fetched"), tmp_path) if request.param == "server" else None
    if client is not None:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", client.environment["ANDROID_ADB_SERVER_PORT"])

    def device(phone, **options):
        if client is not None:
            client.connect(phone)
        spec = phone.address if client is not None else f"tcp:{phone.address}"
        connection = open_connection(spec, timeout=5.0)
        fields = {"patience": QUICK, "rest": COOL, "note": said.append, **options}
        return AndroidDevice(connection, runner=lambda target: runner, **fields)

    yield rows, tmp_path / "run", device, said
    if client is not None:
        client.close()


both_ways = pytest.mark.parametrize("setting", ["direct", "server"], indirect=True)


def problem(records, row):
    return visit_problem(VisitResult(records[0].visit, tuple(records)), row)


@both_ways
@pytest.mark.parametrize("features", [None, "cmd,stat_v2,ls_v2"], ids=["shell_v2", "shell_v1"])
def test_the_whole_path(setting, features):
    rows, run, device, _ = setting
    options = {} if features is None else {"features": features}
    with Phone("kirin980", **options) as phone:
        with device(phone) as android:
            assert "kirin980" in android.info().cpu_model.value.lower().replace(" ", "")
            assert android.default_threads() == 4
            android.prepare(rows, run)
            records = android.run_visit(request_of(rows[0]))
            assert problem(records, rows[0]) is None
            assert android.visits[0].before.thermal_status.value == 0
            assert android.visits[0].before.battery_percent.value is not None
            assert android.visits[0].rest.at_rest
            sent = phone.state()["transfers"]
        with device(phone) as android:
            android.prepare(rows, run)
            android.clean()
        assert "finet-deploy" not in [path.name for path in phone.path("/data/local/tmp").iterdir()]
        assert not phone.processes()
        assert sent


@both_ways
def test_the_whole_path_over_the_real_adbd(setting):
    rows, run, device, _ = setting
    with Oracle("snapdragon855", mss=1448) as phone, device(phone, emulated=True) as android:
        assert android.info().emulated
        android.prepare(rows, run)
        assert problem(android.run_visit(request_of(rows[0])), rows[0]) is None
        android.clean()
        assert android.visits[0].before.thermal_status.value == 0


def nothing_runs(phone):
    """Within the time of one step of the watchdog: its sleep has no name of ours."""
    limit = time.monotonic() + 20
    while phone.processes() and time.monotonic() < limit:
        time.sleep(0.2)
    return not phone.processes()


STRIKES = {
    "cut while the job is looked at": ("cut", {"when": "begin rc", "after_bytes": 0}),
    "cut again and again": ("cut", {"when": "begin rc", "after_bytes": 0, "times": 3}),
    "cut while the job is sent": ("cut", {"when": "^send:.*job.sh", "after_bytes": 100}),
    "cut while results are pulled": (
        "cut",
        {"when": "^recv:.*records", "after_bytes": 100, "direction": "out"},
    ),
    "cut while telemetry is read": ("cut", {"when": "begin battery", "after_bytes": 0}),
}


@both_ways
@pytest.mark.parametrize("strike", STRIKES.values(), ids=STRIKES)
def test_a_cut_link_costs_nothing(setting, strike):
    rows, run, device, _ = setting
    with Phone("snapdragon710") as phone, device(phone) as android:
        android.prepare(rows, run)
        kind, values = strike
        phone.set_fault(kind, **values)
        assert problem(android.run_visit(request_of(rows[0])), rows[0]) is None
        assert phone.state()["armed"].count(kind) == values.get("times", 1)


def test_a_silent_link_is_made_anew(setting):
    rows, run, device, _ = setting
    with Phone("snapdragon710") as phone, device(phone) as android:
        android.prepare(rows, run)
        phone.set_fault("stall", when="begin rc", after_bytes=0)
        assert problem(android.run_visit(request_of(rows[0])), rows[0]) is None
        assert phone.state()["armed"] == ["stall"]


FATES = {
    "the runner killed for memory": ("kill", {"target": "request.json"}, "killed"),
    "everything killed": ("kill", {"target": "job-"}, "was killed on the phone"),
    "a reboot": ("reboot", {"value": 2.0}, "started anew"),
}


@both_ways
@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_what_happened_to_a_lost_visit_is_told_and_the_next_one_runs(setting, fate):
    rows, run, device, _ = setting
    kind, values, reason = fate
    with Phone("snapdragon855") as phone, device(phone) as android:
        android.prepare(rows, run)
        (seconds,) = phone.path(FOLDER).glob("runner-*/seconds")
        seconds.write_text("12")  # it must still run when it is struck, also on a busy machine
        phone.set_fault(kind, when="begin rc", after_s=0.0, **values)
        records = android.run_visit(request_of(rows[0]))
        seconds.write_text("2")
        assert isinstance(records[-1], Invalid)
        assert reason in records[-1].reason
        assert problem(android.run_visit(request_of(rows[0])), rows[0]) is None
        assert nothing_runs(phone)


def test_a_full_phone_is_said_and_nothing_half_is_left(setting):
    rows, run, device, _ = setting
    with Phone("tensorg3") as phone:
        phone.set_fault("no_space", when="^send:.*incoming", after_bytes=1, times=None)
        with device(phone) as android, pytest.raises(PhoneNoSpace, match=r"while pushing .*No space left"):
            android.prepare(rows, run)
        assert not list(phone.path(f"{FOLDER}/.incoming").iterdir())


@pytest.mark.parametrize("kind", ["lie", "corrupt"])
def test_a_copy_that_differs_is_never_used(setting, kind):
    rows, run, device, _ = setting
    when = "sha256sum" if kind == "lie" else "^send:.*incoming"
    with Phone("kirin980") as phone:
        phone.set_fault(kind, when=when, times=None, after_bytes=None if kind == "lie" else 1)
        with (
            device(phone) as android,
            pytest.raises(PhoneError, match=r"the copy on the phone has SHA-256 .*twice"),
        ):
            android.prepare(rows, run)
        assert not any(path.is_file() for path in phone.path(f"{FOLDER}").glob("[fr]*/**/*"))


def test_a_hot_phone_is_not_measured(setting):
    rows, run, device, _ = setting
    with Phone("snapdragon8gen3") as phone, device(phone) as android:
        android.prepare(rows, run)
        phone.set_fault("overheat")
        with pytest.raises(PhoneHot, match="did not come to rest"):
            android.run_visit(request_of(rows[0]))


def test_a_visit_that_overheats_is_done_again(setting):
    rows, run, device, said = setting
    with Phone("snapdragon8gen3") as phone, device(phone) as android:
        android.prepare(rows, run)
        phone.set_fault("overheat", when="begin rc")
        with pytest.raises(PhoneHot, match="did not come to rest"):
            android.run_visit(request_of(rows[0]))
        assert android.visits[0].contaminated
        assert any("done again" in text for text in said)


@pytest.mark.parametrize("kind", ["garbage", "endless", "noise"])
def test_garbage_from_the_phone_ends_in_time_with_a_message(setting, kind):
    device = setting[2]
    with Phone("snapdragon855") as phone:
        phone.set_fault(kind, when="begin properties", times=None)
        started = time.monotonic()
        with device(phone) as android, pytest.raises(PhoneError, match="while probing the phone"):
            android.info()
        assert time.monotonic() - started < 120


def test_a_phone_that_reboots_and_stays_away_is_gone(setting):
    rows, run, device, _ = setting
    with Phone("kirin980") as phone, device(phone) as android:
        android.prepare(rows, run)
        phone.set_fault("reboot", when="begin battery", value=300.0)
        with pytest.raises(PhoneGone, match="while reading the state"):
            android.run_visit(request_of(rows[0]))
