"""A phone as a benchmark's device: the whole path, over a pretended phone whose shell and processes are real."""

from __future__ import annotations

import dataclasses
import os
import signal
import time

import msgspec
import pytest

from finet_deploy.bench.protocol import DeviceInfo, End, Invalid, Samples, Start
from finet_deploy.bench.records import VisitResult, create_run, read_run
from finet_deploy.bench.run import resume_bench
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.adb.errors import PhoneError, PhoneGone, PhoneNoSpace, PhoneUnauthorized
from finet_deploy.devices.lock import PhoneBusy
from finet_deploy.devices.patience import Patience
from finet_deploy.errors import FinetDeployError
from tests.device.android_setup import HASTE, job_of, make_phone, make_rows, request_of
from tests.device.local_connection import BIG, CPUS, LocalConnection
from tests.device.test_android_jobs import gone

FOLDER = "/data/local/tmp/finet-deploy"


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "run").mkdir()
    return tmp_path, make_rows(tmp_path)


@pytest.fixture
def ready(setting):
    """A prepared device, its phone, and the rows."""
    folder, rows = setting
    device, phone = make_phone(folder)
    with device:
        device.prepare(rows, folder / "run")
        yield device, phone, rows


def problem(records, row):
    return visit_problem(VisitResult(records[0].visit, tuple(records)), row)


def test_a_visit_counts_and_carries_the_phones_state(ready):
    device, _, rows = ready
    records = device.run_visit(request_of(rows[0], index=3))
    assert problem(records, rows[0]) is None
    start, end = records[0], records[-1]
    assert isinstance(start, Start)
    assert isinstance(end, End)
    assert start.state.temperatures_celsius.value == {"cpu AP": 40.0, "skin SKIN": 30.0}
    assert end.state.battery_percent.value == 80.0
    assert start.affinity_cpus.value == (BIG,)
    visit = device.visits[0]
    assert visit.pin.mask.value == f"{1 << BIG:x}"
    assert set(visit.allowed_cores) <= {(BIG,)}
    assert visit.rest.at_rest


def test_a_row_that_is_bound_to_a_kind_runs_on_those_cores_and_the_others_where_they_ran(ready):
    device, _, rows = ready
    kinds = device.core_kinds()
    assert kinds == {"big": (BIG,), "little": tuple(cpu for cpu in CPUS if cpu != BIG)}
    device.bind({rows[1].id: "little"})
    for row, kind in ((rows[0], "big"), (rows[1], "little")):
        records = device.run_visit(request_of(row, index=3))
        assert problem(records, row) is None
        assert set(records[0].affinity_cpus.value) <= set(kinds[kind])


def test_the_phone_is_described_from_its_properties(ready):
    info = ready[0].info()
    assert isinstance(info, DeviceInfo)
    assert (info.name, info.kind, info.emulated) == ("local-1", "android", False)
    assert info.cpu_count == len(CPUS)
    assert "SM8150" in info.cpu_model.value
    assert info.operating_system.value == "Android 14"
    assert msgspec.json.decode(msgspec.json.encode(info), type=DeviceInfo) == info


def test_a_phone_that_says_it_is_emulated_is_marked(setting):
    folder, _ = setting
    device, phone = make_phone(folder)
    phone.properties({"ro.boot.qemu": "1", "ro.product.model": "x"})
    assert device.info().emulated


def test_threads_default_to_the_big_cores(ready):
    assert ready[0].default_threads() == 1  # one of the pretended phone's cores is big


def test_a_bench_runs_resumes_and_sends_nothing_twice(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    out = folder / "run2"
    with device:
        create_run(out, job_of(device, rows))
        phone.fault("mkdir started", lambda text: None, times=3)
        phone.fault("mkdir started", phone.gone, times=9)
        with pytest.raises(PhoneGone, match="while starting round \\d of"):
            resume_bench(out, device=device)
    done = len(read_run(out).visits)
    assert 0 < done < 4
    phone.faults.clear()
    sent = [name for name in phone.pushed if "incoming" in name]
    device, again = make_phone(folder)
    with device:
        run = resume_bench(out, device=device)
    assert not run.missing
    assert all(problem(list(result.records), rows[0]) is None for result in run.visits.values())
    assert len(sent) == 4
    assert not [name for name in again.pushed if "incoming" in name]


def test_hostile_names_stay_on_this_side(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    with device:
        device.prepare(rows, folder / "run")
        assert isinstance(device.run_visit(request_of(rows[0]))[-1], End)
    assert not list(folder.rglob("hacked"))
    names = [path.name for path in phone.local(f"{FOLDER}/files").iterdir()]
    assert sorted(names) == sorted(
        [f"{rows[0].artifact.sha256}.onnx", f"{rows[0].golden.sha256}.safetensors"]
    )


class TestEquivalence:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("golden-wrong", "norm-relative error 1.0e-03, limit 1.0e-05"),
            ("golden-short", "does not fit"),
            ("golden-segfault", "killed by SIGSEGV"),
            ("golden-garbage", "not a run record"),
            ("golden-exit", "exit status 7"),
        ],
    )
    def test_a_row_that_is_not_the_same_function_is_not_timed(self, setting, fault, reason):
        folder, rows = setting
        device, phone = make_phone(folder)
        phone.write("fault", fault)
        with device:
            device.prepare(rows, folder / "run")
            assert not device.equivalence[rows[0].id].passed
            commands = len(phone.commands)
            records = device.run_visit(request_of(rows[0]))
        assert [type(record) for record in records] == [Invalid]
        assert reason in records[0].reason
        assert len(phone.commands) - commands < 4, "nothing was run"

    @pytest.mark.parametrize(("fault", "tries"), [("golden-out_of_memory", 2), ("golden-segfault", 1)])
    def test_a_proof_that_the_phone_took_away_is_tried_once_more_and_a_crash_is_not(
        self, setting, fault, tries
    ):
        folder, rows = setting
        device, phone = make_phone(folder)
        phone.write("fault", fault)
        with device:
            device.prepare(rows, folder / "run")
            assert not device.equivalence[rows[0].id].passed
        assert sum("mkdir started" in command for command in phone.commands) == tries

    def test_a_proof_that_was_killed_once_is_a_proof(self, setting):
        folder, rows = setting
        device, phone = make_phone(folder)
        phone.write("fault", "golden-out_of_memory")
        phone.fault("mkdir started", lambda text: None)
        phone.fault("mkdir started", lambda text: phone.write("fault", "none"))
        with device:
            device.prepare(rows, folder / "run")
            assert device.equivalence[rows[0].id].passed

    def test_every_golden_input_is_judged_once_for_rows_of_one_file(self, ready):
        device, phone, rows = ready
        first, second = (device.equivalence[row.id] for row in rows)
        assert first is second
        assert first.passed
        assert first.top1_agreement == 1.0
        assert set(first.errors) == {"photo_0", "noise_0"}
        assert sum("mkdir started" in command for command in phone.commands) == 1


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "phase", "reason"),
        [
            ("out_of_memory", "timing", "killed by SIGKILL"),
            ("segfault", "timing", "killed by SIGSEGV"),
            ("raise", "timing", "first line second line"),
            ("silent", "start", "left no records"),
            ("garbage", "start", "not a run record"),
            ("noise", "start", "exit status 9"),
        ],
    )
    def test_a_runner_that_fails_is_a_result(self, ready, fault, phase, reason):
        device, phone, rows = ready
        phone.write("fault", fault)
        records = device.run_visit(request_of(rows[0]))
        assert isinstance(records[-1], Invalid)
        assert (records[-1].phase, reason in records[-1].reason) == (phase, True), records[-1]
        assert phone.list(f"{FOLDER}/jobs") == {}

    def test_a_runner_that_hangs_is_ended_in_time(self, ready):
        device, phone, rows = ready
        phone.write("fault", "hang")
        records = device.run_visit(request_of(rows[0], timeout=3.0))
        assert "no result within 3 s" in records[-1].reason
        assert not any(isinstance(record, (End, Samples)) for record in records)

    def test_a_runner_that_fails_on_a_full_phone_stops_the_run_and_one_that_does_not_goes_on(self, ready):
        device, phone, rows = ready
        for left, full in ((1000, True), (2000, False)):
            phone.write("bin/df", f"#!/bin/sh\necho Filesystem; echo '/dev/x y  9999 8 {left} 100% /data'\n")
            (phone.root / "bin/df").chmod(0o755)
            phone.write("fault", "exit")
            if full:
                told = r"while waiting for round 1 of net.*: it failed, and the phone's storage is full: 1000 KiB"
                with pytest.raises(PhoneNoSpace, match=told):
                    device.run_visit(request_of(rows[0]))
            else:
                assert isinstance(device.run_visit(request_of(rows[0]))[-1], Invalid)
            assert phone.list(f"{FOLDER}/jobs") == {}
        phone.write("bin/df", "#!/bin/sh\necho '/dev/x y  9999 8 0 100% /data'\n")
        phone.write("fault", "none")
        assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None, (
            "it is not asked after a success"
        )

    def test_an_error_says_how_to_go_on(self, ready):
        device, phone, rows = ready
        phone.away = True
        with pytest.raises(PhoneGone):
            device.run_visit(request_of(rows[0]))
        assert f"bench --device {phone.name} --resume " in phone.said[-1]

    def test_an_answer_that_is_not_whole_is_asked_for_again(self, ready):
        device, phone, rows = ready
        real, cut = phone.shell, []

        def partly(command, **options):
            result = real(command, **options)
            if "begin rc" in command and len(cut) < 1:
                cut.append(command)
                return dataclasses.replace(result, stdout=result.stdout[: len(result.stdout) // 2])
            return result

        phone.shell = partly
        assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None
        assert len(cut) == 1

    def test_the_last_words_are_kept(self, ready):
        device, phone, rows = ready
        phone.write("fault", "noise")
        records = device.run_visit(request_of(rows[0]))
        assert records[-1].stderr_tail.endswith("last words\n")
        assert len(records[-1].stderr_tail) <= 4000

    @pytest.mark.parametrize("rebooted", [False, True])
    def test_everything_killed_and_a_reboot_are_told_apart(self, ready, rebooted):
        device, phone, rows = ready
        phone.write("fault", "slow")

        def strike(text):
            pid = next(phone.local(f"{FOLDER}/jobs").glob("*/pid")).read_text()
            os.killpg(int(pid), signal.SIGKILL)
            if rebooted:
                phone.boot("0b0b0b0b-0000-4000-8000-000000000002", uptime=1000.0)

        phone.fault("begin process", lambda text: None)
        phone.fault("begin process", strike)
        records = device.run_visit(request_of(rows[0]))
        expected = "started anew" if rebooted else "was killed on the phone"
        assert expected in records[-1].reason
        phone.write("fault", "none")
        assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None

    def test_a_phone_that_just_booted_is_waited_for(self, ready):
        device, phone, rows = ready
        phone.boot("0b0b0b0b-0000-4000-8000-000000000002", uptime=20.0)
        phone.write("property.sys.boot_completed", "\n")
        phone.fault("begin boot", lambda text: None)
        phone.fault("begin boot", lambda text: phone.write("property.sys.boot_completed", "1\n"))
        assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None

    def test_a_cut_link_in_every_step_of_a_visit_costs_nothing(self, ready):
        device, phone, rows = ready
        for pattern in (
            "begin battery",
            "Cpus_allowed",
            "push .*request",
            "mkdir started",
            "begin rc",
            "^pull",
            "tail -c",
        ):
            phone.fault(pattern, phone.gone)
        assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None
        assert not phone.faults, "each of them struck"

    def test_a_phone_that_stays_away_ends_the_run_and_names_the_phase(self, setting, monkeypatch):
        monkeypatch.setattr("finet_deploy.devices.remote_job.GRACE_SECONDS", 0.5)
        folder, rows = setting
        device, phone = make_phone(folder, patience=Patience(2, 0.01, 0.2, 1.0, 0.1, 0.2))
        device.prepare(rows, folder / "run")

        def leave(text):
            phone.away = True
            phone.gone()

        phone.write("fault", "slow")
        phone.fault("begin rc", leave)
        started = time.monotonic()
        with pytest.raises(
            PhoneGone, match=r"while waiting for round 1 of net.*: .*\[local-1\]; check the cable"
        ):
            device.run_visit(msgspec.structs.replace(request_of(rows[0], timeout=0.5)))
        assert time.monotonic() - started < 40
        pid = int(next(phone.local(f"{FOLDER}/jobs").glob("*/pid")).read_text())
        assert gone(pid), "the phone ends it by itself"
        assert sum("out of reach; round 1 of net" in text for text in phone.said) == 1
        device.close()

    def test_ctrl_c_leaves_nothing_running(self, ready):
        device, phone, rows = ready
        phone.write("fault", "hang")
        seen = []

        def interrupt(text):
            folder = next(phone.local(f"{FOLDER}/jobs").iterdir())
            records, limit = folder / "records.jsonl.unfinished", time.monotonic() + 30
            while not (records.exists() and b"warmup" in records.read_bytes()) and time.monotonic() < limit:
                time.sleep(0.02)
            seen.append(int((folder / "pid").read_text()))
            raise KeyboardInterrupt

        phone.fault("begin rc", interrupt)
        with pytest.raises(KeyboardInterrupt):
            device.run_visit(request_of(rows[0]))
        assert gone(seen[0])
        assert phone.list(f"{FOLDER}/jobs") == {}, phone.said

    def test_a_refused_key_is_not_tried_again(self, setting):
        device, phone = make_phone(setting[0])

        def refuse(text):
            raise PhoneUnauthorized(phone.name, "the phone does not trust this computer")

        phone.fault(".", refuse)
        with device, pytest.raises(PhoneUnauthorized, match="while probing the phone"):
            device.info()
        assert phone.reconnects == 0

    def test_telemetry_that_does_not_answer_is_a_reason_and_no_end(self, ready):
        device, phone, rows = ready
        phone.fault("begin battery", phone.silent, times=HASTE.attempts)
        records = device.run_visit(request_of(rows[0]))
        assert problem(records, rows[0]) is None
        assert device.visits[0].rest.at_rest is None
        assert "no answer" in device.visits[0].before.battery_percent.reason

    def test_a_phone_without_taskset_runs_unpinned_and_says_so(self, setting):
        folder, rows = setting
        said = []
        device, phone = make_phone(folder, note=said.append)
        phone.write("bin/taskset", "#!/bin/sh\necho 'taskset: bad mask' >&2; exit 1\n")
        (phone.root / "bin/taskset").chmod(0o755)
        with device:
            device.prepare(rows, folder / "run")
            assert problem(device.run_visit(request_of(rows[0])), rows[0]) is None
        assert "bad mask" in device.visits[0].pin.mask.reason
        assert any("unpinned" in text for text in said)

    def test_two_at_once_are_refused(self, ready, setting):
        folder, rows = setting
        other, _ = make_phone(folder)
        with other, pytest.raises(PhoneBusy, match=f"process {os.getpid()} on this computer"):
            other.prepare(rows, folder / "run")

    def test_another_name_of_the_same_phone_is_refused_too(self, ready, setting):
        folder, rows = setting
        other, connection = make_phone(folder)
        connection.name = "tcp:127.0.0.1:5555"
        with other, pytest.raises(PhoneBusy, match="is using the phone"):
            other.prepare(rows, folder / "run")


def test_a_changed_file_is_refused_before_it_is_sent(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    (folder / "run" / rows[0].bundle / "model.onnx").write_bytes(b"other")
    with device, pytest.raises(FinetDeployError, match="not the one that the job names"):
        device.prepare(rows, folder / "run")
    assert not phone.pushed


def test_a_32_bit_phone_is_told_so(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    phone.properties({"ro.product.cpu.abi": "armeabi-v7a"})
    phone.write("bin/uname", "#!/bin/sh\necho armv8l\n")
    (phone.root / "bin/uname").chmod(0o755)
    with device, pytest.raises(PhoneError, match="no runner for this phone: ABI armeabi-v7a"):
        device.prepare(rows, folder / "run")


def test_clean_removes_everything_and_ends_what_runs(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    with device:
        device.prepare(rows, folder / "run")
    other = LocalConnection(phone.root)
    from finet_deploy.devices.android import AndroidDevice

    with AndroidDevice(other, patience=HASTE) as cleaning:
        cleaning.clean()
    assert phone.list("/data/local/tmp") == {}


def test_an_old_runner_makes_room_for_the_new_one(setting):
    folder, rows = setting
    device, phone = make_phone(folder)
    with device:
        device.prepare(rows, folder / "run")
    (folder / "runner" / "new").write_text("changed")
    device, phone = make_phone(folder)
    with device:
        device.prepare(rows, folder / "run")
    assert sum(name.startswith("runner-") for name in phone.list(FOLDER)) == 1
