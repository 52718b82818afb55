"""One benchmark a phone at a time, and no lock outlives its owner for long."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec
import pytest

from finet_deploy.devices.adb.errors import PhoneRefused
from finet_deploy.devices.lock import PhoneBusy, PhoneLock, host_lock
from finet_deploy.errors import FinetDeployError
from tests.device.android_setup import HASTE
from tests.device.local_connection import ROOT, LocalConnection

FOLDER = "/data/local/tmp/finet-deploy"
# A folder in which the owner's name has no room.
MKDIR = '#!/bin/sh\n/bin/mkdir "$@" && case "$*" in */lock) /bin/mkdir "$1/owner" ;; esac\n'
OWNER = f"{FOLDER}/lock/owner"


@pytest.fixture(autouse=True)
def locks_of_this_test(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def phone(tmp_path):
    return LocalConnection(tmp_path / "phone")


def lock(phone):
    return PhoneLock(phone, FOLDER, patience=HASTE)


def rewrite(phone, **changes):
    """Another owner in the phone's lock."""
    path = phone.local(OWNER)
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **changes}))


def test_a_second_process_here_is_refused_naming_the_first(tmp_path):
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from finet_deploy.devices.lock import host_lock\n"
        "with host_lock('a b\\n$(c)'):\n    print('locked', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(PhoneBusy, match=f"process {other.pid} on this computer"), host_lock("a b\n$(c)"):
            pass
        with host_lock("another phone"):
            pass
        other.stdin.close()
        other.wait()
    with host_lock("a b\n$(c)"):
        pass


def test_a_lock_folder_of_somebody_else_is_not_used(tmp_path):
    (tmp_path / f"finet-deploy-{os.getuid()}").symlink_to("/")
    with pytest.raises(FinetDeployError, match="another user"), host_lock("x"):
        pass


def test_a_second_computer_is_refused(phone):
    first = lock(phone)
    first.acquire(pytest.fail)
    rewrite(phone, host="elsewhere \x1b[31m", pid=77)
    with pytest.raises(
        PhoneBusy, match=r"process 77 on elsewhere \?\[31m is using the phone, last sign of life \d s ago"
    ):
        lock(phone).acquire(pytest.fail)


def test_two_of_this_process_exclude_each_other(phone):
    first = lock(phone)
    first.acquire(pytest.fail)
    with pytest.raises(PhoneBusy):
        lock(phone).acquire(pytest.fail)
    first.release(pytest.fail)
    lock(phone).acquire(pytest.fail)


def test_an_owner_of_this_computer_that_has_ended_loses_it(phone):
    lock(phone).acquire(pytest.fail)
    rewrite(phone, pid=2**22 + 5)
    said = []
    lock(phone).acquire(said.append)
    assert "has ended" in said[0]


def test_a_process_number_that_recurs_is_not_the_owner(phone):
    lock(phone).acquire(pytest.fail)
    rewrite(phone, started="1")
    said = []
    lock(phone).acquire(said.append)
    assert len(said) == 1


@pytest.mark.parametrize("content", [b"\xff\xfe garbage", b'{"token": 1}', b"", b"[" * 5000])
def test_an_unreadable_owner_holds_it_until_it_was_silent_for_long(phone, content):
    lock(phone).acquire(pytest.fail)
    path = phone.local(OWNER)
    path.write_bytes(content)
    with pytest.raises(PhoneBusy, match="another program"):
        lock(phone).acquire(pytest.fail)
    os.utime(path, (time.time() - 7200,) * 2)
    said = []
    lock(phone).acquire(said.append)
    assert "no sign of life" in said[0]


def test_a_sign_of_life_keeps_it(phone):
    first = lock(phone)
    first.acquire(pytest.fail)
    rewrite(phone, host="elsewhere")
    path = phone.local(OWNER)
    os.utime(path, (time.time() - 7200,) * 2)
    first.refresh()
    assert path.stat().st_mtime > time.time() - 3600
    os.utime(path, (time.time() - 1200,) * 2)  # a job may run so long without a word
    with pytest.raises(PhoneBusy):
        lock(phone).acquire(pytest.fail)


def test_a_lock_that_was_taken_over_is_noticed_and_not_removed(phone):
    first = lock(phone)
    first.acquire(pytest.fail)
    rewrite(phone, token="other", host="elsewhere")
    with pytest.raises(PhoneBusy, match="taken over"):
        first.refresh()
    first.release(pytest.fail)
    assert phone.local(OWNER).exists()


def test_the_answer_that_was_lost_does_not_lock_us_out(phone):
    def lost(text):
        phone.faults.clear()
        phone.shell(text)
        phone.gone()

    phone.fault("mkdir .*lock", lost)
    lock(phone).acquire(pytest.fail)


def test_a_lock_that_cannot_hold_a_name_is_not_left_to_lock_everybody_out(phone):
    phone.fault("mkdir .*lock", lambda text: phone.write("bin/mkdir", MKDIR))
    with pytest.raises(PhoneRefused, match="while locking the phone: its lock cannot be made"):
        (phone.root / "bin/mkdir").touch(mode=0o755)
        lock(phone).acquire(pytest.fail)
    assert "lock" not in phone.list(FOLDER)
    (phone.root / "bin/mkdir").unlink()
    lock(phone).acquire(pytest.fail)


def test_a_folder_that_cannot_be_made_is_the_phones_refusal(phone):
    phone.local("/data/local/tmp/finet-deploy").write_text("a file")
    with pytest.raises(PhoneRefused, match="while locking the phone: its lock cannot be made"):
        lock(phone).acquire(pytest.fail)


def test_giving_it_back_never_fails(phone):
    first = lock(phone)
    first.acquire(pytest.fail)
    phone.away = True
    said = []
    first.release(said.append)
    assert "giving the phone back" in said[0]
