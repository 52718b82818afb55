"""`--runner app`: the whole path on the simulated phone, where the app's own code runs on this machine's Java."""

from __future__ import annotations

import os
import signal
import threading
import time

import msgspec
import pytest

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import Invalid, Start
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb.errors import PhoneGone
from finet_deploy.devices.phone_log import PhoneVisit, read_lines
from tests.device.app_setup import LONG, apk_in, app_device, app_phone, app_requests, why_no_app
from tests.device.phone import Fault
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

    def test_clean_leaves_nothing_of_ours(self, ready):
        device, _, phone, _ = ready
        device.clean()
        device.close()
        assert not phone.path("/data/local/tmp/finet-deploy").exists()
        assert not phone.app.files.exists()
        assert device.runner == "app"


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

    def test_a_phone_that_stays_away_ends_the_run_with_what_to_do(self, ready):
        device, request, phone, said = ready
        once_it_runs(phone, lambda: phone.strike("unplug"))
        with pytest.raises(PhoneGone, match="round 1 of"):
            device.run_visit(
                msgspec.structs.replace(
                    request, settings=msgspec.structs.replace(LONG, visit_timeout_seconds=1.0)
                )
            )
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
