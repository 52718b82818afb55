"""Signing: a debug key made here once, or a release key that the environment names."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.app.java import MIN_SDK
from finet_deploy.app.tools import require, run
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_bytes, explain_os_error, read_bounded
from finet_deploy.runner.folder import cache_folder

__all__ = ["Key", "debug_key", "release_key", "sign"]

KEYSTORE, PASSWORD = "FINET_APK_KEYSTORE", "FINET_APK_KEYSTORE_PASSWORD"
ALIAS, KEY_PASSWORD = "FINET_APK_KEY_ALIAS", "FINET_APK_KEY_PASSWORD"
VALIDITY_DAYS = 10000
MAX_PASSWORD_BYTES = 1024


@dataclass(frozen=True)
class Key:
    """A key in a keystore. kind: `debug` or `release`. Passwords never leave by a command line, a log or a repr."""

    kind: str
    keystore: Path
    alias: str
    passwords: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Key({self.kind}, {self.keystore}, {self.alias})"


def release_key() -> Key | None:
    """The key that the environment names, if it does. UsageError when it names only a part of one."""
    given = {name: os.environ.get(name, "") for name in (KEYSTORE, PASSWORD, ALIAS)}
    if not any(given.values()):
        return None
    absent = [name for name, value in given.items() if not value]
    if absent:
        raise UsageError(
            f"{', '.join(absent)} not set", do=f"set {KEYSTORE}, {PASSWORD} and {ALIAS}, or none"
        )
    keystore = Path(given[KEYSTORE])
    if not keystore.is_file():
        raise UsageError("no such keystore", where=str(keystore), do=f"check {KEYSTORE}")
    password = given[PASSWORD]
    return Key(
        "release",
        keystore,
        given[ALIAS],
        {"FINET_STORE": password, "FINET_KEY": os.environ.get(KEY_PASSWORD) or password},
    )


def debug_key() -> Key:
    """The key of this user's debug builds: made on first use, readable by nobody else."""
    folder = cache_folder() / "app" / "debug-key"
    keystore, password_file = folder / "debug.keystore", folder / "password"
    if not keystore.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise explain_os_error(error, "keep a key", folder) from error
        _make(keystore, password_file)
    password = read_bounded(password_file, MAX_PASSWORD_BYTES).decode("ascii", "replace").strip()
    return Key("debug", keystore, "debug", {"FINET_STORE": password, "FINET_KEY": password})


def _make(keystore: Path, password_file: Path) -> None:
    password = secrets.token_urlsafe(24)
    part = keystore.with_suffix(".part")
    part.unlink(missing_ok=True)
    command: list[str | Path] = [require("keytool"), "-genkeypair", "-keystore", part, "-storetype", "PKCS12"]
    command += ["-storepass:env", "FINET_STORE", "-alias", "debug", "-keyalg", "RSA", "-keysize", "3072"]
    command += ["-sigalg", "SHA256withRSA", "-validity", str(VALIDITY_DAYS)]
    command += ["-dname", "CN=finet-deploy debug"]
    run(command, "make a debug key", env={"FINET_STORE": password})
    part.chmod(0o600)
    atomic_write_bytes(password_file, password.encode())
    password_file.chmod(0o600)
    os.replace(part, keystore)


def sign(unsigned: Path, out: Path, key: Key) -> None:
    """Sign with the schemes of Android 8 and newer (v2, v3). FinetDeployError with apksigner's words."""
    command: list[str | Path] = [
        require("apksigner"),
        "sign",
        "--ks",
        key.keystore,
        "--ks-key-alias",
        key.alias,
    ]
    command += [
        "--ks-pass",
        "env:FINET_STORE",
        "--key-pass",
        "env:FINET_KEY",
        "--min-sdk-version",
        str(MIN_SDK),
    ]
    command += [
        "--v1-signing-enabled",
        "false",
        "--v2-signing-enabled",
        "true",
        "--v3-signing-enabled",
        "true",
    ]
    command += ["--v4-signing-enabled", "false", "--out", out, unsigned]
    run(command, "sign the APK", do="check the keystore and its passwords", env=key.passwords)
    if not out.is_file():
        raise FinetDeployError("apksigner left no APK", do="build again with --force")
