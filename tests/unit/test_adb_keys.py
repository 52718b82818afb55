"""The computer's key: made once, kept secret, in Android's form, and never replaced."""

from __future__ import annotations

import base64
import stat
import struct
from pathlib import Path

import pytest

from finet_deploy.errors import FinetDeployError

pytest.importorskip("cryptography", reason="comes with adb-shell")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from finet_deploy.devices.adb import keys

# The DER of SHA-1's DigestInfo, which PKCS#1 v1.5 puts before the digest.
SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")


def android_numbers(public: bytes) -> tuple[int, int]:
    """(n, e) of a public key in Android's form, every field checked."""
    blob = base64.b64decode(public.partition(b" ")[0])
    words, n0inv, modulus, rr, exponent = struct.unpack("<II256s256sI", blob)
    n = int.from_bytes(modulus, "little")
    assert words == 64 and (n * n0inv + 1) % (1 << 32) == 0
    assert int.from_bytes(rr, "little") == (1 << 4096) % n
    return n, exponent


def verify(public: bytes, token: bytes, signature: bytes) -> bool:
    """As a phone does it, by arithmetic alone."""
    n, e = android_numbers(public)
    padded = pow(int.from_bytes(signature, "big"), e, n).to_bytes(256, "big")
    digest = SHA1_PREFIX + token
    return padded == b"\0\1" + b"\xff" * (256 - 3 - len(digest)) + b"\0" + digest


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_secret_and_signs_as_a_phone_expects(tmp_path):
    path = tmp_path / "home" / ".android" / "adbkey"
    key = keys.load_or_create_key(path)
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    token = bytes(range(20))
    assert verify(key.GetPublicKey(), token, key.Sign(token))
    assert not verify(key.GetPublicKey(), token[::-1], key.Sign(token))
    assert path.with_name("adbkey.pub").read_bytes().strip() == key.GetPublicKey()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["adbkey", "adbkey.pub"]


def test_the_users_key_is_used_and_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    first = keys.load_or_create_key()
    before = (tmp_path / ".android" / "adbkey").read_bytes()
    (tmp_path / ".android" / "adbkey.pub").unlink()  # adb does without it, so do we
    second = keys.load_or_create_key()
    assert second.GetPublicKey() == first.GetPublicKey()
    assert (tmp_path / ".android" / "adbkey").read_bytes() == before


def test_a_key_that_another_process_made_meanwhile_stands(tmp_path, monkeypatch):
    path = tmp_path / "adbkey"
    theirs = keys.load_or_create_key(tmp_path / "theirs").GetPublicKey()

    def generate(**numbers):
        (tmp_path / "theirs").rename(path)
        return made(**numbers)

    made = rsa.generate_private_key
    monkeypatch.setattr(rsa, "generate_private_key", generate)
    assert keys.load_or_create_key(path).GetPublicKey() == theirs
    assert not list(tmp_path.glob(".adbkey*"))


@pytest.mark.parametrize("kind", ["junk", "empty", "huge", "ec", "1024", "password", "folder"])
def test_a_file_that_is_no_adb_key_is_a_readable_error_and_stays(tmp_path, kind):
    path = tmp_path / "adbkey"
    private = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 1024)
    )
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if kind == "password":
        private, protection = (
            rsa.generate_private_key(65537, 2048),
            serialization.BestAvailableEncryption(b"x"),
        )
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    content = {"junk": b"\0junk", "empty": b"", "huge": bytes(1 << 20)}.get(kind, pem)
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(FinetDeployError, match="adbkey"):
        keys.load_or_create_key(path)
    assert kind == "folder" or path.read_bytes() == content


def test_a_home_that_cannot_be_written_is_a_readable_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FinetDeployError, match="write adb's key"):
        keys.load_or_create_key(tmp_path / "file" / ".android" / "adbkey")
