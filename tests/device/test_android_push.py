"""Files get onto a phone whole or not at all, and only once."""

from __future__ import annotations

import hashlib

import pytest

from finet_deploy.devices.adb.errors import PhoneError, PhoneGone, PhoneNoSpace, PhoneRefused, refusal
from finet_deploy.devices.push import remote_file, remove_folder, sync
from finet_deploy.errors import FinetDeployError
from tests.device.android_setup import HASTE
from tests.device.local_connection import LocalConnection

FOLDER = "/data/local/tmp/finet-deploy"
HOSTILE = "a 'b' \"c\" $(touch hacked) `d`;\n&\udcff*"


@pytest.fixture
def phone(tmp_path):
    return LocalConnection(tmp_path / "phone")


def make(tmp_path, name, content=b"content", path=None):
    local = tmp_path / name
    local.write_bytes(content)
    return remote_file(local, path or f"files/{name}", mode=0o755)


def push(phone, *files, **options):
    return sync(phone, FOLDER, files, patience=HASTE, **options)


def leftovers(phone):
    return list(phone.local(f"{FOLDER}/.incoming").iterdir())


def test_what_is_there_is_not_sent_again_and_what_changed_is(tmp_path, phone):
    one, two = make(tmp_path, "one"), make(tmp_path, "two")
    assert push(phone, one, two) == 2
    assert push(phone, one, two) == 0
    changed = make(tmp_path, "two", b"changed")
    assert push(phone, one, changed) == 1
    assert phone.local(f"{FOLDER}/files/two").read_bytes() == b"changed"
    assert phone.local(f"{FOLDER}/files/one").stat().st_mode & 0o777 == 0o755
    assert not leftovers(phone)


def test_a_file_that_was_damaged_on_the_phone_is_sent_again(tmp_path, phone):
    one = make(tmp_path, "one")
    push(phone, one)
    phone.local(f"{FOLDER}/files/one").write_bytes(b"c0ntent")
    assert push(phone, one) == 1
    assert phone.local(f"{FOLDER}/files/one").read_bytes() == b"content"


def test_names_are_data(tmp_path, phone):
    file = make(tmp_path, HOSTILE, path=f"x/{HOSTILE}")
    assert push(phone, file) == 1
    assert push(phone, file) == 0
    assert phone.local(f"{FOLDER}/x/{HOSTILE}").read_bytes() == b"content"
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a\0b"])
def test_no_path_leaves_the_folder(tmp_path, path):
    (tmp_path / "one").write_bytes(b"")
    with pytest.raises(FinetDeployError, match="leaves"):
        remote_file(tmp_path / "one", path)


def test_many_files_and_empty_ones(tmp_path, phone):
    files = [make(tmp_path, f"file{n}", b"" if n % 2 else b"%d" % n) for n in range(90)]
    assert push(phone, *files) == 90
    assert push(phone, *files) == 0


def test_a_cut_link_is_tried_again_over_a_new_one(tmp_path, phone):
    phone.fault("push .*incoming", phone.gone, times=2)
    assert push(phone, make(tmp_path, "one")) == 1
    assert phone.reconnects == 2


def test_a_link_that_stays_cut_is_given_up_naming_the_file(tmp_path, phone):
    phone.fault("push .*incoming", phone.gone, times=9)
    with pytest.raises(PhoneGone, match="while pushing one: the link was cut"):
        push(phone, make(tmp_path, "one"))
    assert not phone.local(f"{FOLDER}/files/one").exists()


def test_no_space_is_said_at_once_and_leaves_no_half_file(tmp_path, phone):
    def full(text):
        remote = text.removeprefix("push ")
        phone.local(remote).write_bytes(b"half")
        raise refusal(phone.name, "push", "write failed: No space left on device")

    phone.fault("push .*incoming", full)
    with pytest.raises(PhoneNoSpace, match="--clean"):
        push(phone, make(tmp_path, "one"))
    assert phone.reconnects == 0
    assert not leftovers(phone)


def test_a_copy_with_another_hash_is_sent_twice_and_then_refused(tmp_path, phone):
    phone.write("bin/sha256sum", f"#!/bin/sh\ncat >/dev/null; echo {'0' * 64}  -\n")
    (phone.root / "bin/sha256sum").chmod(0o755)
    with pytest.raises(PhoneError, match="SHA-256 0+…?, the file .*twice"):
        push(phone, make(tmp_path, "one"))
    assert sum("incoming" in name for name in phone.pushed) == 2
    assert not phone.local(f"{FOLDER}/files/one").exists()
    assert not leftovers(phone)


def test_a_turned_bit_is_mended(tmp_path, phone):
    one = make(tmp_path, "one")

    def turn(text):
        path = next(path for path in leftovers(phone) if path.name.startswith(one.sha256[:16]))
        path.write_bytes(b"c0ntent")

    placed = []
    phone.fault("mv -f", turn)
    phone.fault("^rm -f .*files/one", lambda text: placed.append(phone.local(f"{FOLDER}/files/one").exists()))
    assert push(phone, one) == 1
    found = phone.local(f"{FOLDER}/files/one").read_bytes()
    assert hashlib.sha256(found).hexdigest() == one.sha256
    assert placed == [False], "the wrong one never had the name"


def test_a_phone_without_sha256sum_is_told_so(tmp_path, phone):
    phone.environment["PATH"] = str(phone.root / "bin")
    for name in ("cat", "rm", "mkdir", "chmod", "mv"):
        (phone.root / "bin" / name).symlink_to(f"/bin/{name}")
    with pytest.raises(PhoneRefused, match="no sha256sum"):
        push(phone, make(tmp_path, "one"))


def test_progress_ends_at_the_size(tmp_path, phone):
    told = []
    push(phone, make(tmp_path, "one"), progress=lambda name, done, total: told.append((name, done, total)))
    assert told[-1] == ("one", 7, 7)


def test_only_a_folder_of_ours_can_be_removed(phone):
    for folder in ("/", "/data", "/data/local", "/data/local/tmp/../.."):
        with pytest.raises(ValueError, match="no folder of ours"):
            remove_folder(phone, folder, patience=HASTE)


def test_an_answer_that_was_lost_after_the_renaming_is_no_failure(tmp_path, phone):
    def lost(text):
        phone.faults.clear()
        phone.shell(text)
        phone.gone()

    phone.fault("mv -f", lost)
    assert push(phone, make(tmp_path, "one")) == 1
    assert sum("incoming" in name for name in phone.pushed) == 1
