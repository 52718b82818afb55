"""A detached job is told finished, killed, rebooted or late, whatever happens to the link."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from threading import Timer

import pytest

from finet_deploy.devices.adb.errors import PhoneError, PhoneGone
from finet_deploy.devices.remote_job import RemoteJob, Verdict, end_leftovers
from tests.device.android_setup import HASTE
from tests.device.local_connection import LocalConnection

FOLDER = "/data/local/tmp/finet-deploy"


@pytest.fixture
def phone(tmp_path):
    return LocalConnection(tmp_path / "phone")


def start(phone, command, deadline=60.0, patience=HASTE):
    job = RemoteJob(phone, FOLDER, deadline_seconds=deadline, patience=patience)
    job.start(command, {"input": b"given"})
    return job


def number(phone, job, name="pid"):
    """A process number of the job, once it is there."""
    path = phone.local(f"{job.folder}/{name}")
    limit = time.monotonic() + 20
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    return int(path.read_text())


def processes(job):
    """The processes of this machine that carry the job's name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if job.id.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def group(pid):
    """The processes of this session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def gone(pid):
    """Whether the session of `pid` ends within a moment."""
    limit = time.monotonic() + 20
    while group(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not group(pid)


def test_a_finished_job_has_its_status_and_leaves_nothing_running(phone, monkeypatch):
    monkeypatch.setattr("finet_deploy.devices.job_script.WATCHDOG_STEP_SECONDS", 3600)
    job = start(phone, "cat input; sleep 0.2; exit 7", deadline=3600.0)
    pid = number(phone, job)
    assert job.wait() == Verdict("finished", 7)
    assert job.log_tail() == "given"
    assert gone(pid)


def test_a_job_that_ends_before_the_first_look(phone):
    job = start(phone, "true")
    assert job.wait(expected_seconds=0.5) == Verdict("finished", 0)


def test_a_pulled_cable_costs_nothing(phone):
    job = start(phone, "sleep 1; echo done; exit 3")
    phone.fault("process", phone.gone, times=2)
    phone.fault("reconnect", phone.gone)
    phone.fault("process", phone.silent)
    assert job.wait() == Verdict("finished", 3)
    assert phone.reconnects >= 4


def test_each_look_has_a_link_of_its_own(phone, monkeypatch):
    job = start(phone, "sleep 0.5")
    events = []
    for name in ("reconnect", "shell"):
        monkeypatch.setattr(phone, name, recorded(events, name, getattr(phone, name)))
    job.wait()
    *looks, last = "".join(events).split("reconnect")[1:]
    assert len(looks) >= 1 and set(looks) == {"shell"}
    assert last in (
        "shell",
        "shell" * 2,
    )  # a job that ended within a look is looked at again, over the same link


def recorded(events, name, function):
    """`function`, with its name noted at each call."""

    def call(*arguments, **options):
        events.append(name)
        return function(*arguments, **options)

    return call


def test_a_phone_that_stays_away_is_given_up(phone):
    from finet_deploy.devices.patience import Patience

    job = start(
        phone, "sleep 30", patience=Patience(away_seconds=0.3, poll_seconds=0.05, poll_max_seconds=0.1)
    )
    job._deadline = -20.0
    phone.away = True
    with pytest.raises(PhoneGone, match="while waiting for a job"):
        job.wait()
    phone.away = False
    job.stop()
    assert not processes(job)


def test_everything_killed_is_killed(phone):
    job = start(phone, "exec sleep 60")
    os.killpg(number(phone, job), signal.SIGKILL)
    assert job.wait() == Verdict("killed")


def test_only_the_runner_killed_is_a_status_of_137(phone):
    job = start(phone, "exec sleep 60")
    os.kill(number(phone, job, "runner"), signal.SIGKILL)
    assert job.wait() == Verdict("finished", 137)


def test_a_job_that_never_began_is_killed(phone, monkeypatch):
    monkeypatch.setattr("finet_deploy.devices.remote_job.START_SECONDS", 0.5)
    phone.write("bin/setsid", "#!/bin/sh\nexit 1\n")
    (phone.root / "bin/setsid").chmod(0o755)
    assert start(phone, "true").wait() == Verdict("killed")


def test_a_reboot_is_told_from_a_kill(phone):
    job = start(phone, "exec sleep 60")
    os.killpg(number(phone, job), signal.SIGKILL)
    phone.boot("0b0b0b0b-0000-4000-8000-000000000002", uptime=12.0)
    assert job.wait() == Verdict("rebooted")


def test_a_reboot_after_the_end_loses_nothing(phone):
    job = start(phone, "exit 0")
    time.sleep(0.5)
    phone.boot("0b0b0b0b-0000-4000-8000-000000000002", uptime=12.0)
    assert job.wait() == Verdict("finished", 0)


def test_a_result_written_between_two_looks_is_found(phone):
    job = start(phone, "exec sleep 60")
    pid = number(phone, job)
    os.killpg(pid, signal.SIGKILL)
    assert gone(pid)
    looks = []

    def finish(text):
        looks.append(text)
        if len(looks) == 2:  # the look that sees no process is followed by another one
            phone.local(f"{job.folder}/rc").write_text("0\n")

    phone.fault("begin process", finish, times=2)
    assert job.wait() == Verdict("finished", 0)
    assert len(looks) == 2


def test_the_phone_ends_a_late_job_by_itself(phone):
    job = start(phone, "exec sleep 60", deadline=1.0)
    pid = number(phone, job)
    assert gone(pid)
    assert job.wait() == Verdict("timeout", 137)


def test_a_late_job_without_its_watchdog_is_ended_from_here(phone, monkeypatch):
    monkeypatch.setattr("finet_deploy.devices.remote_job.GRACE_SECONDS", 0.2)
    job = start(phone, "exec sleep 60", deadline=60.0)
    pid = number(phone, job)
    job._deadline = 0.1
    assert job.wait() == Verdict("timeout")
    assert gone(pid)


def test_starting_twice_starts_once(phone):
    job = RemoteJob(phone, FOLDER, deadline_seconds=60.0, patience=HASTE)

    def lost(text):
        phone.faults.clear()
        phone.shell(text)  # it arrives, and its answer does not
        phone.gone()

    phone.fault("mkdir started", lost)
    job.start("echo once >> ../count; sleep 0.3", {})
    assert job.wait() == Verdict("finished", 0)
    assert phone.local(f"{FOLDER}/jobs/count").read_text() == "once\n"


def test_leftovers_are_ended_and_removed(phone):
    job = start(phone, "sleep 60 & exec sleep 60")
    pid = number(phone, job)
    number(phone, job, "runner")
    limit = time.monotonic() + 20  # not in the middle of an exec, when no command line can be read
    while not processes(job) and time.monotonic() < limit:
        time.sleep(0.02)
    assert end_leftovers(phone, FOLDER, patience=HASTE) == 1
    assert gone(pid)
    assert phone.list(f"{FOLDER}/jobs") == {}
    assert end_leftovers(phone, FOLDER, patience=HASTE) == 0


@pytest.mark.parametrize("end", ["stop", "remove", "leftovers"])
def test_a_job_that_is_ended_before_it_begins_never_runs(phone, end):
    """Between the answer to its start and its first line there is time: what it takes to start a program."""
    setsid = shutil.which("setsid")
    phone.write(
        "bin/setsid", f'#!/bin/sh\nuntil [ -e {phone.root}/late ]; do sleep 0.05; done; exec {setsid} "$@"\n'
    )
    (phone.root / "bin/setsid").chmod(0o755)
    job = start(phone, f"touch {phone.root}/ran; sleep 60")
    if end == "stop":
        job.stop()
    elif end == "remove":
        job.remove()
    else:
        assert end_leftovers(phone, FOLDER, patience=HASTE) == 0
    phone.write("late", "")
    limit = time.monotonic() + 20
    while processes(job) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not processes(job)
    assert not (phone.root / "ran").exists()
    job.remove()
    assert phone.list(f"{FOLDER}/jobs") == {}


def test_a_process_in_the_middle_of_an_exec_is_not_missed(phone):
    job = start(phone, "exec sleep 60")
    pid = number(phone, job)
    number(phone, job, "runner")
    real, blind = phone.shell, []

    def no_command_line_yet(command, **options):
        if "/cmdline" in command and len(blind) < 2:
            blind.append(command)
            command = re.sub(r"/proc/\d+/cmdline", "/dev/null", command)
        return real(command, **options)

    phone.shell = no_command_line_yet
    assert end_leftovers(phone, FOLDER, patience=HASTE) == 1
    assert len(blind) == 2
    assert gone(pid)


def test_a_process_that_takes_its_time_to_die_is_waited_for(phone):
    job = start(phone, "exec sleep 60")
    pid = number(phone, job)
    real, kills = phone.shell, []

    def slow(command, **options):
        if "kill -9" in command:
            kills.append(command)
            Timer(0.5, real, (command,), options).start()
            command = "true"
        return real(command, **options)

    phone.shell = slow
    job.stop()
    assert len(kills) == 1
    assert not processes(job)
    assert gone(pid)


@pytest.mark.parametrize("file", ["input", "job.sh"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_job_s_files_that_arrive_damaged_are_sent_again_and_never_used(phone, file, times):
    real, left = phone.push, [times]

    def damaged(local, remote, **options):
        real(local, remote, **options)
        if remote.endswith(file) and left[0]:
            left[0] -= 1
            path = phone.local(remote)
            path.write_bytes(path.read_bytes()[:-1] + b"#")

    phone.push = damaged
    if times == 1:
        job = start(phone, "cat input")
        assert job.wait() == Verdict("finished", 0)
        assert job.log_tail() == "given"
    else:
        with pytest.raises(PhoneError, match="while starting a job: its files arrived damaged, twice"):
            start(phone, "touch ../ran")
        assert not phone.local(f"{FOLDER}/jobs/ran").exists()


def test_a_full_phone_can_still_tell_the_exit_status(phone):
    """The result's room is taken at the start: no file needs more space at the end."""
    job = start(phone, "until [ -e go ]; do sleep 0.05; done; exit 3")
    pid = number(phone, job)
    rc = phone.local(f"{job.folder}/rc.tmp")
    while not rc.exists() or not rc.stat().st_size:
        time.sleep(0.02)
    inode = rc.stat().st_ino
    phone.local(f"{job.folder}/go").write_text("")
    assert job.wait() == Verdict("finished", 3)
    assert phone.local(f"{job.folder}/rc").stat().st_ino == inode
    assert gone(pid)


def test_a_process_that_only_has_the_number_is_spared(phone):
    job = start(phone, "true")
    job.wait()
    import subprocess

    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        phone.local(f"{job.folder}/pid").write_text(f"{stranger.pid}\n")
        phone.local(f"{job.folder}/runner").write_text("1\n")
        assert end_leftovers(phone, FOLDER, patience=HASTE) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_endless_output_does_not_fill_the_phone(phone, monkeypatch):
    monkeypatch.setattr("finet_deploy.devices.job_script.MAX_FILE_BLOCKS", 64)
    job = start(phone, "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", deadline=20.0)
    verdict = job.wait()
    assert verdict.status not in (0, None)
    assert phone.local(f"{job.folder}/log").stat().st_size <= 64 * 512
    assert len(job.log_tail(100)) == 100


def test_a_full_phone_says_why_nothing_starts(phone):
    from finet_deploy.devices.adb.errors import refusal

    def full(text):
        raise refusal(phone.name, "push", "No space left on device")

    phone.fault("push .*job.sh", full)
    with pytest.raises(PhoneError, match="while sending a job: .*No space"):
        start(phone, "true")
