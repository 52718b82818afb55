"""Files on a phone: the `sync:` service. Requests and answers are a four-letter id and a u32 (little-endian)."""

from __future__ import annotations

import os
import stat as modes
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from finet_deploy.devices.adb.connection import RemoteStat
from finet_deploy.devices.adb.errors import PhoneError, PhoneProtocolError, refusal, visible
from finet_deploy.devices.adb.stream import ByteStream, Clocks, Reader
from finet_deploy.files import explain_os_error

__all__ = ["MAX_CHUNK", "SyncSession"]

MAX_CHUNK = 64 * 1024  # the protocol's limit for one DATA packet
_MAX_REASON = 16 * 1024
_MAX_NAME = 4096
_MAX_ENTRIES = 100_000
_STAT2 = struct.Struct("<IQQIIIIQqqq")  # errno, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime
_ABSENT = {2, 20}  # ENOENT, ENOTDIR: adb puts Linux's numbers on the wire


class SyncSession:
    """One `sync:` stream, for one operation."""

    def __init__(self, stream: ByteStream, clocks: Clocks, features: frozenset[str]) -> None:
        self._stream, self._clocks, self._features = stream, clocks, features
        self._reader = Reader(stream, clocks)
        self._phone = clocks.phone

    def stat(self, path: bytes) -> RemoteStat | None:
        """Follows links where the phone has `stat_v2`; without it the size is taken modulo 2^32."""
        if "stat_v2" in self._features:
            self._request(b"STA2", path)
            self._expect(b"STA2", self._reader.exactly(4))
            error, *fields = _STAT2.unpack(self._reader.exactly(_STAT2.size))
            if error in _ABSENT:
                return None
            if error:
                raise refusal(self._phone, f"cannot look at {visible(path)}", os.strerror(error))
            return RemoteStat(mode=fields[2], size=fields[6], mtime=fields[8])
        self._request(b"STAT", path)
        self._expect(b"STAT", self._reader.exactly(4))
        mode, size, mtime = struct.unpack("<III", self._reader.exactly(12))
        return RemoteStat(mode, size, mtime) if mode else None

    def list(self, path: bytes) -> dict[str, RemoteStat]:
        """Entries without `.` and `..`. The protocol does not tell a missing folder from an empty one."""
        new = "ls_v2" in self._features
        self._request(b"LIS2" if new else b"LIST", path)
        entries: dict[str, RemoteStat] = {}
        while (kind := self._reader.exactly(4)) != b"DONE":
            self._expect(b"DNT2" if new else b"DENT", kind)
            if new:
                _, *fields = _STAT2.unpack(self._reader.exactly(_STAT2.size))
                found = RemoteStat(mode=fields[2], size=fields[6], mtime=fields[8])
            else:
                found = RemoteStat(*struct.unpack("<III", self._reader.exactly(12)))
            name = self._name()
            if name not in (".", ".."):
                entries[name] = found
            if len(entries) > _MAX_ENTRIES:
                raise PhoneProtocolError(self._phone, f"more than {_MAX_ENTRIES} entries in {visible(path)}")
        return entries

    def _name(self) -> str:
        (length,) = struct.unpack("<I", self._reader.exactly(4))
        if not 0 < length <= _MAX_NAME:
            raise PhoneProtocolError(self._phone, f"a file name of {length} bytes")
        name = self._reader.exactly(length)
        if b"/" in name or b"\0" in name:
            raise PhoneProtocolError(self._phone, f"the file name {visible(name)!r} leaves its folder")
        return name.decode("utf-8", "surrogateescape")

    def send(
        self, source: BinaryIO, local: Path, path: bytes, mode: int, progress: Callable[[int], None] | None
    ) -> None:
        """Write `source` to `path`. A phone that refuses says so early: no byte more is sent then."""
        mtime = int(os.fstat(source.fileno()).st_mtime)
        header = path + b",%d" % (modes.S_IFREG | (mode & 0o777))
        going = self._write(_packet(b"SEND", len(header)) + header)
        chunks = max(1, self._stream.block // (MAX_CHUNK + 8))
        sent = 0
        while going:
            data = _read(source, local, chunks * MAX_CHUNK)
            if not data:
                break
            pieces = (data[start : start + MAX_CHUNK] for start in range(0, len(data), MAX_CHUNK))
            going = self._write(b"".join(_packet(b"DATA", len(piece)) + piece for piece in pieces))
            if going:
                sent += len(data)
                if progress is not None:
                    progress(sent)
        if going:
            self._write(_packet(b"DONE", min(max(mtime, 0), 0xFFFFFFFF)))
        self._answer(f"cannot write {visible(path)}", early=not going)

    def receive(
        self,
        path: bytes,
        target: BinaryIO,
        local: Path,
        max_bytes: int,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Read `path` into `target`."""
        self._request(b"RECV", path)
        got = 0
        while (kind := self._reader.exactly(4)) != b"DONE":
            if kind == b"FAIL":
                raise refusal(self._phone, f"cannot read {visible(path)}", self._reason())
            self._expect(b"DATA", kind)
            (length,) = struct.unpack("<I", self._reader.exactly(4))
            if length > MAX_CHUNK:
                raise PhoneProtocolError(self._phone, f"a data packet of {length} bytes")
            got += length
            if got > max_bytes:
                raise PhoneProtocolError(
                    self._phone, f"{visible(path)} is larger than the {max_bytes} bytes that were expected"
                )
            data = self._reader.exactly(length)
            try:
                target.write(data)
            except OSError as error:
                raise explain_os_error(error, "write", local) from error
            if progress is not None:
                progress(got)

    def _write(self, data: bytes) -> bool:
        return self._stream.write(data, self._clocks, unless_answered=True)

    def _request(self, kind: bytes, path: bytes) -> None:
        self._write(_packet(kind, len(path)) + path)  # when it could not be sent, reading the answer says why

    def _answer(self, what: str, *, early: bool) -> None:
        kind = self._reader.exactly(4)
        if kind == b"FAIL":
            raise refusal(self._phone, what, self._reason())
        self._expect(b"OKAY", kind)
        if early:
            raise PhoneProtocolError(self._phone, f"{what}: the phone said OKAY before it had the whole file")

    def _reason(self) -> bytes:
        """FAIL's text. A link that ends within it must not hide that the phone refused."""
        (length,) = struct.unpack("<I", self._reader.exactly(4))
        if length > _MAX_REASON:
            raise PhoneProtocolError(self._phone, f"a reason of {length} bytes")
        try:
            return self._reader.exactly(length)
        except PhoneError:
            return b"(its reason got lost with the link)"

    def _expect(self, wanted: bytes, kind: bytes) -> None:
        if kind == b"FAIL":
            raise refusal(self._phone, self._clocks.doing, self._reason())
        if kind != wanted:
            raise PhoneProtocolError(
                self._phone, f"answered {kind!r} instead of {wanted!r} while {self._clocks.doing}"
            )


def _packet(kind: bytes, number: int) -> bytes:
    return struct.pack("<4sI", kind, number)


def _read(source: BinaryIO, local: Path, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise explain_os_error(error, "read", local) from error
