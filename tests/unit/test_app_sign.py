"""Keys: where they are taken from, and that their passwords stay out of command lines, messages and other users."""

from __future__ import annotations

import shutil
import stat

import pytest

import finet_deploy.app.sign as signing
from finet_deploy.app.sign import Key, debug_key, release_key, sign
from finet_deploy.errors import FinetDeployError, UsageError

SECRET = "a-very-secret-word"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    for name in (signing.KEYSTORE, signing.PASSWORD, signing.ALIAS, signing.KEY_PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return monkeypatch


def test_without_a_word_in_the_environment_there_is_no_release_key(environment):
    assert release_key() is None


def test_half_a_release_key_is_refused_and_says_what_is_missing(environment, tmp_path):
    environment.setenv(signing.PASSWORD, SECRET)
    with pytest.raises(UsageError, match="FINET_APK_KEYSTORE, FINET_APK_KEY_ALIAS not set") as caught:
        release_key()
    assert SECRET not in str(caught.value)
    environment.setenv(signing.KEYSTORE, str(tmp_path / "absent"))
    environment.setenv(signing.ALIAS, "mine")
    with pytest.raises(UsageError, match="no such keystore"):
        release_key()


def test_a_release_key_is_taken_and_does_not_show_its_passwords(environment, tmp_path):
    (tmp_path / "store").write_bytes(b"")
    environment.setenv(signing.KEYSTORE, str(tmp_path / "store"))
    environment.setenv(signing.PASSWORD, SECRET)
    environment.setenv(signing.ALIAS, "mine")
    key = release_key()
    assert (key.kind, key.alias) == ("release", "mine")
    assert set(key.passwords.values()) == {SECRET}
    assert SECRET not in repr(key) and SECRET not in str(key)


def test_passwords_go_through_the_environment_alone(environment, tmp_path):
    seen = []

    def record(command, what, *, do="", env=None):
        seen.append((list(map(str, command)), dict(env)))
        (tmp_path / "out.apk").write_bytes(b"")

    environment.setattr(signing, "run", record)
    environment.setattr(signing, "require", lambda name: name)
    key = Key("release", tmp_path / "store", "mine", {"FINET_STORE": SECRET, "FINET_KEY": SECRET})
    sign(tmp_path / "in.apk", tmp_path / "out.apk", key)
    command, given = seen[0]
    assert not any(SECRET in word for word in command)
    assert given["FINET_STORE"] == SECRET


def test_the_debug_key_is_made_once_and_is_the_users_alone(environment):
    if shutil.which("keytool") is None:
        pytest.skip("no keytool")
    first = debug_key()
    data = first.keystore.read_bytes()
    for path in (first.keystore, first.keystore.with_name("password")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.keystore.parent.stat().st_mode) == 0o700
    again = debug_key()
    assert again.keystore.read_bytes() == data and again.passwords == first.passwords
    assert len(first.passwords["FINET_STORE"]) >= 24


def test_a_key_whose_making_was_cut_off_is_made_again(environment):
    def cut_off(command, what, **others):
        command[command.index("-keystore") + 1].write_bytes(b"half a keystore")
        raise FinetDeployError("killed")

    environment.setattr(signing, "run", cut_off)
    environment.setattr(signing, "require", lambda name: name)
    for _ in range(2):
        with pytest.raises(FinetDeployError, match="killed"):
            debug_key()


def test_a_keystore_that_cannot_be_opened_is_told(environment, tmp_path):
    if shutil.which("apksigner") is None:
        pytest.skip("no apksigner")
    (tmp_path / "store").write_bytes(b"no keystore")
    (tmp_path / "in.apk").write_bytes(b"no apk")
    key = Key("release", tmp_path / "store", "mine", {"FINET_STORE": SECRET, "FINET_KEY": SECRET})
    with pytest.raises(FinetDeployError, match="cannot sign the APK") as caught:
        sign(tmp_path / "in.apk", tmp_path / "out.apk", key)
    assert SECRET not in str(caught.value)
