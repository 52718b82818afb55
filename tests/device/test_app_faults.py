"""What goes wrong with an app on a phone, each thing on the simulated one: named, with what to do, and never a hang.

| what befalls it | what becomes of it | test |
|---|---|---|
| crash, in Java or native | named in the phone's words | test_it_is_named_once_and_the_next_visit_counts |
| crash before the first record | the same | test_a_crash_before_the_first_record_is_named_too |
| death before it is seen | not waited for | test_a_process_that_died_before_it_was_seen_is_not_waited_for |
| ANR | named; ended at the limit where it stays | test_an_app_that_hangs_is_ended_at_the_visits_limit |
| ANR, kill for memory, before Android 11 | named from the log | test_phones_before_android_11_tell_it_in_their_log |
| kill for memory | named; a proof is tried again | test_a_proof_that_the_phone_took_is_tried_once_more |
| locked, when started | named | test_a_start_that_the_phone_refuses_is_named |
| locked, since it was started | ends the run | test_a_phone_that_was_not_unlocked_since_it_started_is_named |
| permission revoked | done again | test_what_can_be_put_right_is_put_right_and_the_visit_counts |
| permission not granted | said | test_a_permission_that_cannot_be_granted_is_said_and_does_not_stop_it |
| updated half-way | installed and done again | test_what_can_be_put_right_is_put_right_and_the_visit_counts |
| updated again and again | named, not measured | test_an_app_that_is_updated_again_and_again_is_not_measured |
| updated between visits | installed again | test_an_app_that_was_updated_between_two_visits_is_not_measured |
| disabled, or its service not found | asked again | test_a_service_that_is_not_found_for_a_moment_is_asked_again |
| install: storage, policy | explained | test_what_the_package_manager_refuses_is_explained |
| install: signature, version, ABI | explained | test_another_signature_version_or_abi_are_told_apart |
| install: nobody confirms | named | test_a_confirmation_that_nobody_gives_is_named |
"""

from __future__ import annotations

import re
import time

import msgspec
import pytest

from finet_deploy.bench.protocol import Invalid
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb.errors import PhoneError, PhoneNoSpace
from finet_deploy.devices.app.install import AppLocked
from finet_deploy.devices.app.pm_answers import AppRefused
from finet_deploy.devices.phone_log import PhoneVisit, read_lines
from tests.device.app_setup import LONG, apk_in, app_device, app_phone, app_requests, why_no_app
from tests.device.runner_native import ONCE, export_tiny

pytestmark = pytest.mark.skipif(why_no_app() is not None, reason=str(why_no_app()))

BACKGROUND = "Error: app is in background uid null\n"
LOCKED = "Exception occurred while executing 'start-foreground-service':\njava.lang.SecurityException: not allowed\n"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("app-faults") / "tiny", formats=("onnx",))


@pytest.fixture
def setting(bundle, tmp_path, monkeypatch):
    """Rows and one visit of a run folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "run").mkdir()
    return app_requests(bundle, tmp_path / "run")


@pytest.fixture
def phone(setting):
    with app_phone() as phone:
        yield phone


@pytest.fixture(scope="module")
def shared(bundle, tmp_path_factory):
    """What `ready` gives, prepared once."""
    folder, said = tmp_path_factory.mktemp("shared"), []
    rows, request = app_requests(bundle, folder)
    with app_phone() as phone, app_device(phone, apk_in(folder), said) as device:
        device.prepare(rows, folder)
        assert device.equivalence[rows[0].id].passed, device.equivalence
        yield device, request, phone, said


@pytest.fixture
def ready(shared):
    """A prepared device, one visit of it, its phone, and what was said. For tests that leave the app as it is."""
    device, request, phone, said = shared
    phone.app.forget()
    said.clear()
    yield device, request, phone, said
    phone.app.forget()


@pytest.fixture
def alone(phone, setting, tmp_path):
    """The same with a phone for this test only."""
    rows, request = setting
    said: list[str] = []
    with app_device(phone, apk_in(tmp_path), said) as device:
        device.prepare(rows, tmp_path / "run")
        assert device.equivalence[rows[0].id].passed, device.equivalence
        yield device, request, phone, said


def another(device, request):
    """Why another visit, as short as can be, does not count; None when it does."""
    short = msgspec.structs.replace(request, settings=ONCE)
    return problem(device.run_visit(short), short)


def problem(records, request):
    return visit_problem(VisitResult(records[0].visit, tuple(records)), request.row)


def timed_starts(phone) -> int:
    """Visits that the app was asked for, the proof left out."""
    return sum(len(line.split()) == 2 for line in phone.app.starts())


class TestInstallation:
    @pytest.mark.parametrize(
        ("answer", "kind", "what", "do"),
        [
            ("full", PhoneNoSpace, "storage is full", "free some space"),
            (
                "INSTALL_FAILED_INSUFFICIENT_STORAGE: Failed to override installation location",
                PhoneNoSpace,
                "storage is full",
                "free some space",
            ),
            (
                "INSTALL_FAILED_USER_RESTRICTED: Install canceled by user",
                AppRefused,
                "forbids installing over USB",
                "Install via USB",
            ),
            ("INSTALL_FAILED_ABORTED: User rejected permissions", AppRefused, "not confirmed", "confirm"),
            ("INSTALL_FAILED_VERIFICATION_FAILURE", AppRefused, "verifier", "Verify apps over USB"),
            (
                "INSTALL_PARSE_FAILED_NO_CERTIFICATES: Failed collecting certificates",
                AppRefused,
                "cannot read the APK or its signature",
                "finet-deploy app build --force",
            ),
            (
                "INSTALL_FAILED_SOMETHING_NEW: x",
                AppRefused,
                "INSTALL_FAILED_SOMETHING_NEW",
                "read the phone's",
            ),
        ],
    )
    def test_what_the_package_manager_refuses_is_explained(
        self, phone, setting, tmp_path, answer, kind, what, do
    ):
        phone.app.fail_install(answer)
        with app_device(phone, apk_in(tmp_path)) as device, pytest.raises(PhoneError) as raised:
            device.prepare(setting[0], tmp_path / "run")
        assert isinstance(raised.value, kind)
        assert "installing the app" in str(raised.value)
        assert what in str(raised.value) and do in str(raised.value)
        assert not phone.path("/data/local/tmp/finet-deploy/app.apk").exists()

    def test_another_signature_version_or_abi_are_told_apart(self, phone, setting, tmp_path):
        def prepare(**values):
            with app_device(phone, apk_in(tmp_path, **values)) as device:
                device.prepare(setting[0], tmp_path / "run")

        with pytest.raises(AppRefused, match="no libraries for this phone's processor.*arm64-v8a"):
            prepare(abis="riscv64")
        prepare(version=2)
        prepare(version=3)
        assert phone.app.installations() == 2, "a newer version is installed over the old one"
        with pytest.raises(AppRefused, match="newer version.*adb uninstall org.finetdeploy.app"):
            prepare(version=1)
        with pytest.raises(AppRefused, match="another signature.*adb uninstall org.finetdeploy.app"):
            prepare(version=3, cert="other")
        prepare(version=3, salt="other bytes of the same version")
        assert phone.app.installations() == 3

    def test_a_phone_that_was_not_unlocked_since_it_started_is_named(self, phone, setting, tmp_path):
        phone.app.lock()
        with app_device(phone, apk_in(tmp_path)) as device:
            with pytest.raises(AppLocked, match="not unlocked since it started.*unlock the phone once"):
                device.prepare(setting[0], tmp_path / "run")
            phone.app.lock(False)
            device.prepare(setting[0], tmp_path / "run")
            assert device.equivalence[setting[0][0].id].passed

    def test_a_permission_that_cannot_be_granted_is_said_and_does_not_stop_it(self, setting, tmp_path):
        said: list[str] = []
        with app_phone("snapdragon8gen3") as phone:
            phone.app.fail_grant("java.lang.SecurityException: grantRuntimePermission: not allowed")
            with app_device(phone, apk_in(tmp_path), said) as device:
                device.prepare(setting[0], tmp_path / "run")
                phone.app.fail_grant(None)
                device.prepare(setting[0], tmp_path / "run")
            assert phone.app.permissions() == ["android.permission.POST_NOTIFICATIONS"]
        assert sum("POST_NOTIFICATIONS was not granted" in text for text in said) == 1

    def test_a_confirmation_that_nobody_gives_is_named(self, phone, setting, tmp_path, monkeypatch):
        monkeypatch.setattr("finet_deploy.devices.app.install.INSTALL_SECONDS", 2.0)
        phone.set_fault("stall", when="pm install")
        with (
            app_device(phone, apk_in(tmp_path)) as device,
            pytest.raises(AppRefused, match="waiting for somebody to confirm.*unlock the phone, confirm"),
        ):
            device.prepare(setting[0], tmp_path / "run")


class TestEnds:
    """The app's process ends, or does nothing, while it is timed."""

    @pytest.mark.parametrize(
        ("kind", "text", "reason"),
        [
            ("crash", "java.lang.IllegalStateException: no such tensor", "crashed: java.lang.IllegalState"),
            (
                "crash",
                "java.lang.OutOfMemoryError: Failed to allocate 9 bytes",
                "ran out of memory.*smaller network",
            ),
            ("native", "", "crashed: native crash, signal 11 .SIGSEGV."),
            ("anr", "executing service org.finetdeploy.app/.VisitService", "ANR.*executing service"),
            ("memory", "", "killed the app for memory; close other apps"),
            ("user", "", "somebody closed the app"),
            ("gone", "", "ended without a result, and the phone does not say why"),
            (
                "crash",
                "android.app.ForegroundServiceStartNotAllowedException: Service.startForeground() not allowed",
                "while it is locked.*unlock the phone",
            ),
        ],
    )
    def test_it_is_named_once_and_the_next_visit_counts(self, ready, kind, text, reason):
        device, request, phone, _ = ready
        phone.app.set_fate(kind, text)
        records = device.run_visit(request)
        assert phone.app.struck() == [kind]
        assert isinstance(records[-1], Invalid)
        assert re.search(reason, records[-1].reason), records[-1].reason
        assert records[-1].phase == "timing"
        assert timed_starts(phone) == 1, "it is not tried again"
        assert phone.processes() == []
        assert another(device, request) is None

    def test_a_crash_before_the_first_record_is_named_too(self, ready):
        device, request, phone, _ = ready
        phone.app.set_fate("crash", "java.lang.UnsatisfiedLinkError: dlopen failed", at=0)
        (record,) = device.run_visit(request)
        assert "crashed: java.lang.UnsatisfiedLinkError: dlopen failed" in record.reason
        assert record.phase == "start"

    @pytest.mark.parametrize("records", ["", '{"type":"start"}'])
    def test_a_process_that_died_before_it_was_seen_is_not_waited_for(self, ready, records):
        """The activity manager's log tells, or records that nobody goes on with. Otherwise: "no process came up"."""
        device, request, phone, _ = ready
        phone.app.set_fate("stillborn", records)
        found = device.run_visit(request)
        assert phone.app.struck() == ["stillborn"]
        assert "ended without a result, and the phone does not say why" in found[-1].reason
        assert another(device, request) is None

    @pytest.mark.parametrize(("kind", "installed"), [("permission", 1), ("updated", 2)])
    def test_what_can_be_put_right_is_put_right_and_the_visit_counts(self, alone, tmp_path, kind, installed):
        device, request, phone, said = alone
        phone.app.set_fate(kind)
        assert problem(device.run_visit(request), request) is None
        assert phone.app.struck() == [kind]
        assert phone.app.installations() == installed
        assert timed_starts(phone) == 2
        words = {"permission": "a permission of the app was changed", "updated": "the app was updated"}
        assert any(words[kind] in text for text in said)
        (visit,) = [line for line in read_lines(tmp_path / "run") if isinstance(line, PhoneVisit)]
        assert len(visit.repeated_because) == 1 and words[kind] in visit.repeated_because[0]

    def test_an_app_that_is_updated_again_and_again_is_not_measured(self, alone):
        device, request, phone, _ = alone
        phone.app.set_fate("updated", times=5)
        records = device.run_visit(request)
        assert "was updated while it ran" in records[-1].reason
        assert len(phone.app.struck()) == 2

    def test_an_app_that_was_updated_between_two_visits_is_not_measured(self, alone):
        device, request, phone, said = alone
        phone.app.update()
        assert problem(device.run_visit(request), request) is None
        assert phone.app.installations() == 2
        assert any("it was updated" in text for text in said)

    @pytest.mark.parametrize(("kind", "told"), [("hang", ""), ("anr_dialog", "stopped responding .ANR.")])
    def test_an_app_that_hangs_is_ended_at_the_visits_limit(self, ready, kind, told):
        device, request, phone, _ = ready
        phone.app.set_fate(kind, "executing service")
        settings = msgspec.structs.replace(LONG, visit_timeout_seconds=15.0)
        begun = time.monotonic()
        records = device.run_visit(msgspec.structs.replace(request, settings=settings))
        assert re.search(f"no result within 15 s.*{told}", records[-1].reason)
        assert time.monotonic() - begun < 60
        assert phone.processes() == []
        assert another(device, request) is None

    def test_a_proof_that_the_phone_took_is_tried_once_more(self, phone, setting, tmp_path):
        phone.app.set_fate("memory", at=0, visits="proof")
        with app_device(phone, apk_in(tmp_path)) as device:
            device.prepare(setting[0], tmp_path / "run")
            assert device.equivalence[setting[0][0].id].passed
        assert phone.app.struck() == ["memory"]

    @pytest.mark.parametrize(
        ("kind", "text", "reason"),
        [("anr", "executing service", "ANR"), ("memory", "", "the phone ended the app: low memory")],
    )
    def test_phones_before_android_11_tell_it_in_their_log(self, setting, tmp_path, kind, text, reason):
        rows, request = setting
        with app_phone("snapdragon710") as phone, app_device(phone, apk_in(tmp_path)) as device:
            device.prepare(rows, tmp_path / "run")
            phone.app.set_fate(kind, text)
            records = device.run_visit(request)
        assert reason in records[-1].reason


class TestStart:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (BACKGROUND, "lets nothing start in the background; unlock it"),
            (LOCKED, "lets nothing start while it is locked; unlock it"),
            (
                "Error: Requires permission android.permission.DUMP\n",
                "lacks the permission to start.*android.permission.DUMP",
            ),
            ("Error: Bad things\n", "did not start the app's service .am says: Error: Bad things"),
        ],
    )
    def test_a_start_that_the_phone_refuses_is_named(self, ready, answer, reason):
        device, request, phone, _ = ready
        phone.app.fail_start(answer)
        records = device.run_visit(request)
        assert isinstance(records[-1], Invalid)
        assert re.search(reason, records[-1].reason), records[-1].reason
        phone.app.fail_start(None)
        assert another(device, request) is None

    def test_a_first_start_that_the_phone_refuses_ends_the_run_with_what_to_do(
        self, phone, setting, tmp_path
    ):
        phone.app.fail_start(BACKGROUND)
        with (
            app_device(phone, apk_in(tmp_path)) as device,
            pytest.raises(AppRefused, match="to make its folder: the phone lets nothing start.*unlock it"),
        ):
            device.prepare(setting[0], tmp_path / "run")

    def test_a_request_that_the_app_does_not_take_is_told_in_its_words(self, ready):
        device, request, *_ = ready
        row = msgspec.structs.replace(request.row, threads=0)
        device.equivalence[row.id] = device.equivalence[request.row.id]
        (record,) = device.run_visit(msgspec.structs.replace(request, row=row))
        assert "the app does not take the request" in record.reason
        assert "threads" in record.reason
        assert record.phase == "start"

    def test_a_service_that_is_not_found_for_a_moment_is_asked_again(self, ready):
        device, request, phone, said = ready
        phone.app.fail_start("Error: Not found; no service started.\n")
        records = device.run_visit(request)
        assert "does not find the app's service" in records[-1].reason
        assert any("done again" in text for text in said)


def test_every_failure_of_the_table_above_has_its_test():
    classes = (TestInstallation, TestEnds, TestStart)
    there = {name for kind in classes for name in vars(kind) if name.startswith("test_")}
    rows = [line.split("|")[1:4] for line in str(__doc__).splitlines() if line.startswith("| ")][1:]
    named = {test.strip() for *_, test in rows}
    assert len(rows) == 17 and named <= there
    assert there - named == {
        "test_a_first_start_that_the_phone_refuses_ends_the_run_with_what_to_do",
        "test_a_request_that_the_app_does_not_take_is_told_in_its_words",
    }
