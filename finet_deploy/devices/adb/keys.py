"""This computer's adb key: the one that adb itself uses, `~/.android/adbkey`, or a new one there with mode 0600."""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import os
import socket
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, read_bounded

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicNumbers
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["AdbKey", "encode_public_key", "load_or_create_key"]

_BITS = 2048
_MAX_KEY_BYTES = 64 * 1024


class AdbKey:
    """A signer with the two methods that adb-shell calls."""

    def __init__(self, private: RSAPrivateKey) -> None:
        self._private = private

    def Sign(self, token: bytes) -> bytes:
        """The signature of a phone's 20-byte token: PKCS#1 v1.5 with the token in the place of a SHA-1 digest.

        Raises `ValueError` for a token of another length.
        """
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding, utils

        return self._private.sign(bytes(token), padding.PKCS1v15(), utils.Prehashed(hashes.SHA1()))

    def GetPublicKey(self) -> bytes:
        """What the phone shows and stores: the key in Android's own form, base64, and user@host."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError, ImportError):  # no such user in a container
            user = "unknown"
        name = f"{user}@{socket.gethostname() or 'unknown'}"
        return (
            base64.b64encode(encode_public_key(self._private.public_key().public_numbers()))
            + b" "
            + name.encode()
        )


def encode_public_key(numbers: RSAPublicNumbers) -> bytes:
    """Android's `RSAPublicKey`, 524 bytes: word count, -1/n mod 2^32, n, 2^4096 mod n, e; all little-endian."""
    size, modulus = _BITS // 8, numbers.n
    n0inv = (-pow(modulus, -1, 1 << 32)) % (1 << 32)
    rr = pow(1 << _BITS, 2, modulus)
    return struct.pack(
        f"<II{size}s{size}sI",
        size // 4,
        n0inv,
        modulus.to_bytes(size, "little"),
        rr.to_bytes(size, "little"),
        numbers.e,
    )


def load_or_create_key(path: Path | None = None) -> AdbKey:
    """The key at `path` (default `~/.android/adbkey`), made when it is not there. Raises `FinetDeployError`."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    if path is None:
        try:
            path = Path.home() / ".android" / "adbkey"
        except RuntimeError as error:
            raise FinetDeployError("no home folder for adb's key", do="set HOME") from error
    if not path.exists():
        _create(path, rsa.generate_private_key(public_exponent=65537, key_size=_BITS))
    return AdbKey(_load(path))


@functools.lru_cache(maxsize=4)
def _parse(pem: bytes) -> PrivateKeyTypes:
    """Kept, as its check takes 40 ms, and a phone that went away is connected to again and again."""
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(pem, password=None)


def _load(path: Path) -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        private = _parse(read_bounded(path, _MAX_KEY_BYTES))
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise _unusable(path) from error
    if not isinstance(private, rsa.RSAPrivateKey) or private.key_size != _BITS:
        raise _unusable(path)
    return private


def _unusable(path: Path) -> FinetDeployError:
    return FinetDeployError(
        f"not an RSA key of {_BITS} bits without password, as adb makes it",
        where=str(path),
        do="move it away: a new one is made then, and every phone asks once more",
    )


def _create(path: Path, private: RSAPrivateKey) -> None:
    """Write key and public key. When another process is faster, its key stands."""
    from cryptography.hazmat.primitives import serialization

    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".adbkey.", dir=path.parent)  # mode 0600 from the start
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(pem)
            try:
                os.link(temporary, path)  # unlike a rename it never replaces a key that came meanwhile
            except FileExistsError:
                return
            except OSError:  # a file system without links
                if not path.exists():
                    os.rename(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        path.with_name(path.name + ".pub").write_bytes(AdbKey(private).GetPublicKey() + b"\n")
    except OSError as error:
        raise explain_os_error(error, "write adb's key", path) from error
