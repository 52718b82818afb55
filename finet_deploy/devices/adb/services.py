"""A `Connection` over anything that opens a phone's services as byte streams: written once, for both ways there."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from finet_deploy.devices.adb import shell as shells
from finet_deploy.devices.adb.connection import RemoteStat, ShellResult
from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.adb.stream import ByteStream, Clocks
from finet_deploy.devices.adb.sync import SyncSession
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import explain_os_error

__all__ = ["IDLE_SECONDS", "StreamConnection"]

# The adb server buffers about 1 MB beside the sockets' buffers: on a slow link the last answer to a push comes late.
IDLE_SECONDS = 30.0
_TOTAL_SECONDS = 120.0  # of a file operation, and in addition:
_SLOWEST = 50_000  # bytes per second: no usable link is slower, and no phone may trickle for ever
# Bytes of a service's name. adb gives phones before Android 7 packets of 4 KiB, and ends when one is not enough.
_MAX_SERVICE, _MAX_OLD_SERVICE = 32 * 1024, 4000


class StreamConnection(ABC):
    """Implements `Connection`. A subclass opens services, says the features, reconnects and closes.

    idle: seconds without a byte after which a file operation is given up.
    """

    def __init__(self, name: str, *, idle: float = IDLE_SECONDS) -> None:
        self.name, self.idle = name, idle

    @abstractmethod
    def features(self) -> frozenset[str]: ...

    @abstractmethod
    def reconnect(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _open_service(self, service: bytes, clocks: Clocks) -> ByteStream:
        """Raises `PhoneRefused` when the phone has no such service, and the other `PhoneError`s."""

    def shell(
        self, command: str, *, timeout: float = 30.0, idle: float | None = None, max_bytes: int = 16 << 20
    ) -> ShellResult:
        line = _encode(command, "command")
        clocks = Clocks(self.name, f"running `{visible(command, 60)}`", timeout, idle)
        if "shell_v2" in self.features():
            with self._service(shells.v2_service(line), clocks) as stream:
                return shells.run_v2(stream, clocks, max_bytes)
        service, mark = shells.plain_service(line)
        with self._service(service, clocks) as stream:
            return shells.read_plain(stream, clocks, mark, max_bytes)

    def push(
        self, local: Path, remote: str, *, mode: int = 0o644, progress: Callable[[int], None] | None = None
    ) -> None:
        path = _encode(remote, "path")
        try:
            source = local.open("rb")
            size = os.fstat(source.fileno()).st_size
        except OSError as error:
            raise explain_os_error(error, "read", local) from error
        with source, self._sync(f"pushing {visible(local.name, 80)}", size) as session:
            session.send(source, local, path, mode, progress)

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        path = _encode(remote, "path")
        with (
            _whole_file(local) as target,
            self._sync(f"pulling {visible(remote, 80)}", max_bytes) as session,
        ):
            session.receive(path, target, local, max_bytes, progress)

    def stat(self, remote: str) -> RemoteStat | None:
        path = _encode(remote, "path")
        with self._sync(f"looking at {visible(remote, 80)}", 0) as session:
            return session.stat(path)

    def list(self, remote: str) -> dict[str, RemoteStat]:
        path = _encode(remote, "path")
        with self._sync(f"listing {visible(remote, 80)}", 0) as session:
            return session.list(path)

    @contextlib.contextmanager
    def _sync(self, doing: str, size: int) -> Iterator[SyncSession]:
        features = self.features()
        clocks = Clocks(self.name, doing, _TOTAL_SECONDS + size / _SLOWEST, self.idle)
        with self._service(b"sync:", clocks) as stream:
            yield SyncSession(stream, clocks, features)

    @contextlib.contextmanager
    def _service(self, service: bytes, clocks: Clocks) -> Iterator[ByteStream]:
        if len(service) > self._max_service():
            raise UsageError(
                f"a command of {len(service)} bytes is too long for adb",
                where=visible(self.name),
                do="push it as a script and run that",
            )
        stream = self._open_service(service, clocks)
        try:
            yield stream
        finally:
            stream.close()

    def _max_service(self) -> int:
        return _MAX_SERVICE if "shell_v2" in self.features() else _MAX_OLD_SERVICE


def _encode(text: str, what: str) -> bytes:
    """The bytes for the wire; `UsageError` for what no phone could take."""
    if not text or "\0" in text:
        raise UsageError(f"{what} {text!r} is empty or holds a NUL byte", do=f"give another {what}")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} {visible(text)!r} is no text", do=f"give another {what}") from error


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """Written to `path` + ".part", renamed when the block ends well, gone otherwise."""
    part = path.with_name(path.name + ".part")
    try:
        target = part.open("wb")
    except OSError as error:
        raise explain_os_error(error, "write", part) from error
    try:
        with target:
            yield target
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and not isinstance(error, FinetDeployError):
            raise explain_os_error(error, "write", path) from error
        raise
