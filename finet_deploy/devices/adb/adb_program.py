"""Where the adb server is, and starting one when there is an `adb` and none runs. A running one is never touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.devices.adb.errors import NoAdbServer, visible
from finet_deploy.errors import UsageError

__all__ = ["ServerAddress", "find_adb", "server_address", "start_server"]

_START_SECONDS = 20.0


@dataclass(frozen=True)
class ServerAddress:
    """TCP `host` and `port`, or the path of a Unix socket."""

    host: str = "127.0.0.1"
    port: int = 5037
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether `adb start-server` could start it."""
        return self.path is not None or self.host in ("127.0.0.1", "localhost", "::1")

    def connect(self, seconds: float) -> socket.socket:
        """A connected socket with TCP_NODELAY. Raises `OSError`."""
        if self.path is None:
            sock = socket.create_connection((self.host, self.port), timeout=seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(self.path)
        except BaseException:
            sock.close()
            raise
        return sock


def server_address(environment: Mapping[str, str] = os.environ) -> ServerAddress:
    """By adb's rules: ADB_SERVER_SOCKET, else ANDROID_ADB_SERVER_ADDRESS and ANDROID_ADB_SERVER_PORT, else local 5037.

    Raises `UsageError` for a value that cannot be used.
    """
    spec = environment.get("ADB_SERVER_SOCKET", "")
    if spec:
        return _parse_socket(spec)
    host = environment.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = environment.get("ANDROID_ADB_SERVER_PORT") or "5037"
    return ServerAddress(host, _port(port, "ANDROID_ADB_SERVER_PORT", port))


def _parse_socket(spec: str) -> ServerAddress:
    kind, _, rest = spec.partition(":")
    if kind == "tcp" and rest:
        host, _, port = rest.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        return ServerAddress(host or "127.0.0.1", _port(port, "ADB_SERVER_SOCKET", spec))
    if kind in ("localfilesystem", "local") and rest:
        return ServerAddress(path=rest)
    if kind == "localabstract" and rest:
        return ServerAddress(path="\0" + rest)
    raise UsageError(
        f"cannot use {visible(spec)!r}", where="ADB_SERVER_SOCKET", do="write tcp:HOST:PORT, or unset it"
    )


def _port(text: str, where: str, spec: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise UsageError(f"no port number in {visible(spec)!r}", where=where, do="write 1 to 65535, or unset it")


def find_adb(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The `adb` program: on PATH, else in the Android SDK that ANDROID_HOME or ANDROID_SDK_ROOT names."""
    found = shutil.which("adb", path=environment.get("PATH"))
    if found:
        return Path(found)
    for variable in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        for name in ("adb", "adb.exe"):
            program = Path(environment.get(variable, "")) / "platform-tools" / name
            if environment.get(variable) and os.access(program, os.X_OK):
                return program
    return None


def start_server(address: ServerAddress, where: str) -> Path:
    """Start an adb server at `address`; the program that did. Raises `NoAdbServer`.

    where: the phone's (or server's) name for the message.
    """
    silent = f"no adb server answers at {address}"
    if not address.is_local:
        raise NoAdbServer(where, silent, do="start one on that host with `adb -a nodaemon server start`")
    adb = find_adb()
    if adb is None:
        raise NoAdbServer(where, f"{silent}, and there is no adb on PATH or in ANDROID_HOME")
    # A file, not a pipe: the server that stays behind may hold its end open, and reading would never end.
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [str(adb), "start-server"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_START_SECONDS,
                start_new_session=True,
            )
            status: str | None = None if done.returncode == 0 else f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"not done after {_START_SECONDS:g} s"
        except OSError as error:
            status = error.strerror or str(error)
        with contextlib.suppress(OSError):
            output.seek(0)
        said = visible(output.read(4096))
    if status is not None:
        raise NoAdbServer(
            where,
            f"{silent}, and `{adb} start-server` failed: {status}" + (f": {said}" if said else ""),
            do="run `adb start-server` yourself and read what it says",
        )
    return adb
