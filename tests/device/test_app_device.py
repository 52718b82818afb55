"""`--runner app`: the whole path on the simulated phone, where the app's own code runs on this machine's Java."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import struct
import threading
import time

import msgspec
import pytest

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import Invalid, Start
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb import open_connection
from finet_deploy.devices.adb.errors import PhoneError, PhoneGone
from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.app.pages import runtime_alignments
from finet_deploy.devices.phone_log import PhoneVisit, read_lines
from finet_deploy.devices.push import sync
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner import runner_folder
from finet_deploy.runtimes import android
from finet_deploy.runtimes.android import known_runtimes
from tests.cli import FAILED, error_line, run_cli
from tests.device.app_setup import (
    COOL,
    HASTE,
    LONG,
    apk_in,
    app_device,
    app_phone,
    app_requests,
    why_no_app,
)
from tests.device.phone import Fault
from tests.device.phone.app import make_apk
from tests.device.runner_native import ONCE, export_tiny

pytestmark = pytest.mark.skipif(why_no_app() is not None, reason=str(why_no_app()))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("app-phone") / "tiny", formats=("onnx",))


@pytest.fixture
def phone(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with app_phone() as phone:
        yield phone


@pytest.fixture
def ready(phone, bundle, tmp_path):
    """A prepared device, one visit of it, its phone, and what was said."""
    said: list[str] = []
    (tmp_path / "run").mkdir()
    rows, request = app_requests(bundle, tmp_path / "run")
    with app_device(phone, apk_in(tmp_path), said) as device:
        device.prepare(rows, tmp_path / "run")
        assert device.equivalence[rows[0].id].passed, device.equivalence
        yield device, request, phone, said


def problem(records, request):
    return visit_problem(VisitResult(records[0].visit, tuple(records)), request.row)


def left_over(phone) -> list[str]:
    """What visits left on the phone: processes, and files but those of the bundle."""
    files = [path.name for path in phone.app.files.rglob("*") if path.is_file()]
    return phone.processes() + [name for name in files if not name.endswith((".onnx", ".safetensors"))]


def once_it_runs(phone, strike) -> None:
    """Do `strike` as soon as the app writes records, beside the test."""

    def wait() -> None:
        while not list(phone.app.files.rglob("*.unfinished")):
            time.sleep(0.05)
        strike()

    threading.Thread(target=wait, daemon=True).start()


class TestWholePath:
    def test_a_benchmark_runs_in_the_app_and_its_records_say_so(self, phone, bundle, tmp_path):
        settings = msgspec.structs.replace(ONCE, rounds=2, aa_row=True)
        with app_device(phone, apk_in(tmp_path)) as device:
            run = run_bench(
                [BenchRow(bundle)],
                device=device,
                out=tmp_path / "run",
                preset=settings,
                runtimes=["onnxruntime"],
                threads=1,
            )
            proofs = list(device.equivalence.values())
        assert all(proof.passed and len(proof.errors) == 3 for proof in proofs), proofs
        assert run.job.runner == "app"
        assert not run.missing and len(run.visits) == 4
        rows = {row.id: row for row in run.job.rows}
        for index, result in run.visits.items():
            assert visit_problem(result, rows[run.job.visits[index].row]) is None
            assert " app on " in result.find(Start).runner
            assert result.find(Start).state.temperatures_celsius.value, "what only the phone's services tell"
        assert left_over(phone) == []
        starts = [line.split()[1] for line in phone.app.starts() if " jobs/" in line]
        assert len(starts) == len(set(starts)) == 5, (
            "one proof for rows of one file, and each visit by itself"
        )

    def test_the_cores_that_it_ran_on_are_noted_and_that_it_is_not_pinned(self, ready, tmp_path):
        device, request, *_ = ready
        device.run_visit(request)
        (visit,) = [line for line in read_lines(tmp_path / "run") if isinstance(line, PhoneVisit)]
        assert visit.pin.mask.value is None
        assert "cannot be pinned" in visit.pin.mask.reason
        assert visit.allowed_cores and not visit.contaminated

    def test_nothing_is_installed_or_sent_twice(self, phone, bundle, tmp_path):
        (tmp_path / "run").mkdir()
        rows, _ = app_requests(bundle, tmp_path / "run")
        sent, apk = [], apk_in(tmp_path)
        for _ in range(2):
            with app_device(phone, apk) as device:
                device.prepare(rows, tmp_path / "run")
            sent.append(sum(".incoming" in name for name in phone.state()["transfers"]))
        assert sent == [3, 3]  # the APK, the artifact and the golden file
        assert phone.app.installations() == 1
        assert phone.app.permissions() == []  # Android 12 asks for none

    def test_a_damaged_file_in_the_apps_folder_is_sent_again(self, ready, tmp_path):
        device, request, phone, _ = ready
        for path in (phone.app.files / "files").iterdir():
            path.write_bytes(path.read_bytes()[:-1])
        device.prepare([request.row], tmp_path / "run")
        assert device.equivalence[request.row.id].passed

    def test_a_copy_into_the_apps_folder_that_differs_is_named_and_does_not_stay(
        self, phone, bundle, tmp_path, monkeypatch
    ):
        """Our folder got the right bytes, and what came out of it is another file."""
        (tmp_path / "run").mkdir()
        rows, _ = app_requests(bundle, tmp_path / "run")

        def sync_and_damage(connection, folder, files, **options):
            sent = sync(connection, folder, files, **options)
            for path in (phone.path(folder) / "files").iterdir():
                path.write_bytes(path.read_bytes()[:-1] + b"?")
            return sent

        monkeypatch.setattr("finet_deploy.devices.app.files.sync", sync_and_damage)
        with (
            app_device(phone, apk_in(tmp_path)) as device,
            pytest.raises(
                PhoneError, match="into the app's folder: the copy differs.*check the phone's storage"
            ),
        ):
            device.prepare(rows, tmp_path / "run")
        assert [path for path in phone.app.files.rglob("*") if path.is_file()] == []
        monkeypatch.undo()
        with app_device(phone, apk_in(tmp_path)) as device:
            device.prepare(rows, tmp_path / "run")
            assert device.equivalence[rows[0].id].passed

    def test_clean_leaves_nothing_of_ours(self, ready):
        device, _, phone, _ = ready
        device.clean()
        device.close()
        assert not phone.path("/data/local/tmp/finet-deploy").exists()
        assert not phone.app.files.exists()
        assert device.runner == "app"


class TestClean:
    def test_the_devices_command_takes_the_app_away_too_and_says_so(self, phone, bundle, tmp_path, capsys):
        (tmp_path / "run").mkdir()
        rows, _ = app_requests(bundle, tmp_path / "run")
        with app_device(phone, apk_in(tmp_path)) as device:
            device.prepare(rows, tmp_path / "run")
        serial = f"tcp:{phone.address}"
        phone.app.fail_uninstall("DELETE_FAILED_DEVICE_POLICY_MANAGER")
        line = error_line(capsys, FAILED, "devices", serial, "--clean")
        assert "while removing the app" in line and "DELETE_FAILED_DEVICE_POLICY_MANAGER" in line
        assert "uninstall it on the phone" in line
        phone.app.fail_uninstall(None)
        status, out, _ = run_cli(capsys, "devices", serial, "--clean")
        assert status == 0
        assert "removed /data/local/tmp/finet-deploy, and the app org.finetdeploy.app with its folder" in out
        assert not phone.app.files.parent.exists() and not phone.path("/data/local/tmp/finet-deploy").exists()
        status, out, _ = run_cli(capsys, "devices", serial, "--clean", "--json")
        assert (status, json.loads(out)["app_removed"]) == (0, False)

    @pytest.mark.parametrize("when", ["pm path", "pm uninstall"])
    def test_a_link_that_drops_meanwhile_is_ridden_out(self, phone, bundle, tmp_path, when):
        said: list[str] = []
        with app_device(phone, apk_in(tmp_path), said) as device:
            device._app.ensure()
            phone.set_fault(Fault("cut", when=when))
            device.clean()
        assert phone.state()["armed"] == ["cut"], "the fault struck"
        assert not phone.app.files.exists()
        assert sum("removed the app" in text for text in said) == 1


class TestRuntimes:
    def test_those_whose_libraries_do_not_fit_the_phones_pages_are_left_out_by_name(self, phone, tmp_path):
        libraries = {
            f"lib/{abi}/{name}": elf(alignment)
            for abi in ("arm64-v8a", "x86_64")
            for name, alignment in (("libpytorch_jni_lite.so", 4096), ("libonnxruntime.so", 16384))
        }
        apk = apk_in(tmp_path, libraries=libraries)
        assert runtime_alignments(apk.path) == {"torch_mobile": 4096, "onnxruntime": 16384}
        with app_device(phone, apk) as device:
            assert device.runtimes == ("executorch", "onnxruntime", "torch_mobile")
        phone.app.set_pages(16384)
        said: list[str] = []
        with app_device(phone, apk, said) as device:
            assert device.runtimes == device.runtimes == ("executorch", "onnxruntime")
        (told,) = said
        assert "torch_mobile is left out" in told and "16384 bytes" in told and "aligned to 4096" in told

    @pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01" + bytes(100), bytes(100)])
    def test_what_is_no_library_says_nothing(self, tmp_path, data):
        apk = make_apk(tmp_path / "app.apk", libraries={"lib/arm64-v8a/libonnxruntime.so": data})
        assert runtime_alignments(apk) == {}

    def test_a_file_that_the_app_cannot_load_is_not_sent_and_its_visits_say_why(
        self, phone, tmp_path, monkeypatch
    ):
        bundle = export_tiny(tmp_path / "tiny", formats=("onnx", "ptl"))
        known = known_runtimes()
        older = {**known, "ptl": msgspec.structs.replace(known["ptl"], bytecode=(4, 7))}
        monkeypatch.setattr(android, "known_runtimes", lambda: older)
        run, said = tmp_path / "run", []
        with app_device(phone, apk_in(tmp_path), said) as device:
            result = run_bench([BenchRow(bundle)], device=device, out=run, preset=ONCE, threads=1)
        rows = {row.id: row for row in result.job.rows}
        reasons = {}
        for index, visit in result.visits.items():
            row = rows[result.job.visits[index].row]
            reasons[row.artifact.runtime] = visit_problem(visit, row)
        assert reasons["onnxruntime"] is None
        assert "the app cannot load it: bytecode version 8; pytorch_android_lite" in reasons["torch_mobile"]
        assert any("tiny (ptl) is not measured: the app cannot load it" in text for text in said)
        assert not list(phone.app.files.rglob("*.ptl"))
        with (
            app_device(phone, apk_in(tmp_path)) as device,
            pytest.raises(FinetDeployError, match="bytecode version 8.*choose other runtimes"),
        ):
            run_bench(
                [BenchRow(bundle)],
                device=device,
                out=tmp_path / "only",
                preset=ONCE,
                threads=1,
                runtimes=["torch_mobile"],
            )


def elf(alignment: int) -> bytes:
    """The head of a 64-bit library with one segment to load."""
    header = b"\x7fELF\x02\x01" + bytes(26) + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 1)
    return header.ljust(64, b"\0") + struct.pack("<I44xQ", 1, alignment)


class TestSideBySide:
    def test_app_and_native_runner_of_one_phone_share_a_table_with_their_difference(
        self, phone, bundle, tmp_path, capsys
    ):
        try:
            runner_folder("aarch64")
        except FinetDeployError as error:
            pytest.skip(str(error))
        settings = msgspec.structs.replace(ONCE, rounds=2)
        connection = open_connection(f"tcp:{phone.address}")
        devices = {
            "native": AndroidDevice(connection, patience=HASTE, rest=COOL),
            "app": app_device(phone, apk_in(tmp_path)),
        }
        for name, device in devices.items():
            with device:
                run_bench(
                    [BenchRow(bundle)],
                    device=device,
                    out=tmp_path / name,
                    preset=settings,
                    threads=1,
                    runtimes=["onnxruntime"],
                )
        status, out, _ = run_cli(capsys, "report", tmp_path / "native", tmp_path / "app")
        assert status == 0
        table = out.split("\n## ")[1]
        assert table.startswith("ONNX Runtime: EMULATED devices, not speeds")
        head, _, row = [line for line in table.splitlines() if line.startswith("|")]
        device = f"tcp:{phone.address}".replace("://", "")
        columns = [cell.strip() for cell in head.strip("|").split("|")]
        assert columns == [
            "network",
            f"{device}, native, 1 thread, test",
            f"{device}, app, 1 thread, test",
            f"{device}, app, 1 thread, test: app / native",
        ]
        figures = [cell.strip() for cell in row.strip("|").split("|")]
        native, app, ratio = (
            [float(number) for number in re.findall(r"[\d.]+", cell)] for cell in figures[1:]
        )
        assert len(native) == len(app) == len(ratio) == 3, "each with its interval"
        assert ratio[0] == pytest.approx(app[0] / native[0], rel=0.05)
        assert ratio[1] <= ratio[0] <= ratio[2]


class TestLink:
    @pytest.mark.parametrize("when", ["pm path", "am start", "pm install", "records[.]jsonl", "^recv:"])
    def test_a_link_that_drops_is_ridden_out(self, phone, bundle, tmp_path, when):
        (tmp_path / "run").mkdir()
        rows, request = app_requests(bundle, tmp_path / "run")
        phone.set_fault(Fault("cut", when=when))
        with app_device(phone, apk_in(tmp_path)) as device:
            device.prepare(rows, tmp_path / "run")
            assert problem(device.run_visit(request), request) is None
        assert phone.state()["armed"] == ["cut"], "the fault struck"
        assert left_over(phone) == []

    def test_a_phone_that_restarts_is_named_and_the_next_visit_counts(self, ready):
        device, request, phone, _ = ready
        once_it_runs(phone, lambda: phone.reboot(0.5))
        records = device.run_visit(request)
        assert isinstance(records[-1], Invalid)
        assert "started anew" in records[-1].reason
        assert problem(device.run_visit(request), request) is None

    def test_a_phone_that_stays_away_ends_the_run_with_what_to_do(self, phone, bundle, tmp_path, monkeypatch):
        monkeypatch.setattr("finet_deploy.devices.remote_job.GRACE_SECONDS", 1.0)
        patience, said = dataclasses.replace(HASTE, away_seconds=1.0), []
        rows, request = app_requests(bundle, tmp_path)
        brief = msgspec.structs.replace(LONG, visit_timeout_seconds=1.0)
        with app_device(phone, apk_in(tmp_path), said, patience=patience) as device:
            device.prepare(rows, tmp_path)
            once_it_runs(phone, lambda: phone.strike("unplug"))
            with pytest.raises(PhoneGone, match="round 1 of"):
                device.run_visit(msgspec.structs.replace(request, settings=brief))
        assert any("--resume" in text for text in said)
        phone.clear_faults()

    def test_ctrl_c_leaves_nothing_running(self, ready):
        device, request, phone, _ = ready
        once_it_runs(phone, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            device.run_visit(
                msgspec.structs.replace(
                    request,
                    settings=msgspec.structs.replace(LONG, timed_min_seconds=30.0, timed_max_seconds=30.0),
                )
            )
        deadline = time.monotonic() + 10
        while left_over(phone) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left_over(phone) == []
