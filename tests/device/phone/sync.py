"""The sync service: stat, list, push and pull, as AOSP's `daemon/file_sync_service.cpp` answers them."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.device.phone.faults import Fault
from tests.device.phone.streams import Stream
from tests.device.phone.sync_files import (
    DATA_MAX,
    STAT_V2,
    FaultyFile,
    SyncFailed,
    create,
    failed,
    full_stat,
    may_unlink,
    names_in,
    read_block,
)

if TYPE_CHECKING:
    from tests.device.phone.daemon import Daemon

__all__ = ["serve_sync"]

HEAD = struct.Struct("<4sI")
STAT_V1 = struct.Struct("<4sIII")  # id, mode, size, mtime
PATH_MAX = 1024
DRY_RUN = 0x80000000


class Reader:
    """Exact reads from a stream whose packets are cut anywhere."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.held = stream, bytearray()

    async def exactly(self, count: int) -> bytes:
        while len(self.held) < count:
            self.held += await self.stream.read()
        data = bytes(self.held[:count])
        del self.held[:count]
        return data


@dataclass
class Sync:
    """One sync stream. `faults`: those of `sync:`; those of `send:PATH` and `recv:PATH` are taken on the way."""

    phone: Daemon
    stream: Stream
    faults: list[Fault]

    def __post_init__(self) -> None:
        self.reader = Reader(self.stream)

    async def run(self) -> None:
        """Commands until QUIT or a failure."""
        commands = {
            b"STAT": self.stat_v1,
            b"STA2": self.stat_v2,
            b"LST2": self.lstat_v2,
            b"LIST": self.list_v1,
            b"LIS2": self.list_v2,
            b"SEND": self.send_v1,
            b"SND2": self.send_v2,
            b"RECV": self.recv_v1,
            b"RCV2": self.recv_v2,
        }
        try:
            while True:
                code, length = HEAD.unpack(await self.reader.exactly(HEAD.size))
                if length > PATH_MAX:
                    raise SyncFailed("path too long")
                path = (await self.reader.exactly(length)).split(b"\0")[0]
                if code == b"QUIT":
                    return
                if code not in commands:
                    raise SyncFailed(f"unknown command {int.from_bytes(code, 'little'):08x}")
                await commands[code](path)
        except SyncFailed as failure:
            await self.fail(str(failure))

    async def fail(self, reason: str) -> None:
        """FAIL goes out in two packets, as two writes of adbd often do."""
        text = reason.encode()
        await self.stream.write(HEAD.pack(b"FAIL", len(text)))
        await self.stream.write(text)

    def take(self, what: str, path: bytes) -> list[Fault]:
        """The faults that this file's transfer arms."""
        name = f"{what}:{os.fsdecode(path)}"
        self.phone.transfers.append(name)
        return self.faults + self.stream.session.arm(name)

    # stat and list

    async def stat_v1(self, path: bytes) -> None:
        mode = size = mtime = 0
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            mode, size, mtime = found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime) & 0xFFFFFFFF
        await self.stream.write(STAT_V1.pack(b"STAT", mode, size, mtime))

    async def stat_v2(self, path: bytes) -> None:
        await self.stream.write(full_stat(b"STA2", path, follow=True))

    async def lstat_v2(self, path: bytes) -> None:
        await self.stream.write(full_stat(b"LST2", path, follow=False))

    async def list_v1(self, path: bytes) -> None:
        for name in names_in(path):
            with contextlib.suppress(OSError):
                found = os.lstat(path + b"/" + name)
                numbers = (
                    found.st_mode,
                    found.st_size & 0xFFFFFFFF,
                    int(found.st_mtime) & 0xFFFFFFFF,
                    len(name),
                )
                await self.stream.write(struct.pack("<4sIIII", b"DENT", *numbers) + name)
        await self.stream.write(struct.pack("<4sIIII", b"DONE", 0, 0, 0, 0))

    async def list_v2(self, path: bytes) -> None:
        for name in names_in(path):
            head = full_stat(b"DNT2", path + b"/" + name, follow=False)
            await self.stream.write(head + struct.pack("<I", len(name)) + name)
        await self.stream.write(b"DONE" + bytes(STAT_V2.size - 4) + struct.pack("<I", 0))

    # pull

    async def recv_v1(self, path: bytes) -> None:
        kinds = {fault.kind for fault in self.take("recv", path)}
        while "garbage" in kinds:
            await self.stream.write(os.urandom(DATA_MAX))
        while "endless" in kinds:
            await self.stream.write(HEAD.pack(b"DATA", DATA_MAX) + bytes(DATA_MAX))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise failed("open failed", error) from error
        try:
            while data := read_block(fd):
                await self.stream.write(HEAD.pack(b"DATA", len(data)) + data)
        finally:
            os.close(fd)
        await self.stream.write(HEAD.pack(b"DONE", 0))

    async def recv_v2(self, path: bytes) -> None:
        _, flags = HEAD.unpack(await self.reader.exactly(HEAD.size))
        if flags:
            raise SyncFailed(f"unknown flags: {flags:d}")
        await self.recv_v1(path)

    # push

    async def send_v1(self, spec: bytes) -> None:
        path, comma, mode = spec.rpartition(b",")
        if not comma:
            raise SyncFailed("missing , in ID_SEND_V1")
        await self.push(path, int(mode) if mode.isdigit() else 0, dry_run=False)

    async def send_v2(self, path: bytes) -> None:
        _, mode, flags = struct.unpack("<4sII", await self.reader.exactly(12))
        if flags & ~DRY_RUN:
            raise SyncFailed(f"unknown flags: {flags:d}")
        await self.push(path, mode, dry_run=bool(flags & DRY_RUN))

    async def push(self, path: bytes, mode: int, *, dry_run: bool) -> None:
        """SEND: a new file (or link) in the place of an old one; a half file is removed."""
        faults = self.take("send", path)
        if dry_run:
            path = b"/dev/null"
        replace = may_unlink(path)
        if replace:
            with contextlib.suppress(OSError):
                os.unlink(path)
        finished = False
        try:
            if stat.S_ISLNK(mode):
                await self.push_link(path)
            else:
                await self.push_file(path, mode & 0o777, faults)
            finished = True
        except SyncFailed as failure:
            await self.fail(str(failure))
            await self.drain()
            raise Drained from failure
        finally:
            if not finished and replace:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    async def push_link(self, path: bytes) -> None:
        target = b""
        while True:
            code, number = HEAD.unpack(await self.reader.exactly(HEAD.size))
            if code == b"DONE":
                break
            if code != b"DATA" or number > DATA_MAX:
                raise SyncFailed("invalid data message")
            target += await self.reader.exactly(number)
        try:
            os.symlink(target.rstrip(b"\0"), path)
        except OSError as error:
            raise failed("symlink failed", error) from error
        await self.stream.write(HEAD.pack(b"OKAY", 0))

    async def push_file(self, path: bytes, mode: int, faults: list[Fault]) -> None:
        mode |= (mode >> 3) & 0o070
        mode |= (mode >> 3) & 0o007
        fd = create(path, mode)
        writer = FaultyFile(fd, faults)
        try:
            while True:
                code, number = HEAD.unpack(await self.reader.exactly(HEAD.size))
                if code == b"DONE":
                    break
                if code != b"DATA":
                    raise SyncFailed("invalid data message")
                if (
                    number > DATA_MAX
                ):  # adbd of Android 14 takes it, older ones fail with "oversize data message"
                    self.phone.violation(f"{number} bytes in one DATA, phones take {DATA_MAX}")
                data = await self.reader.exactly(number)
                try:
                    writer.write(data)
                except OSError as error:
                    raise failed("write failed", error) from error
        finally:
            os.close(fd)
        await self.stream.write(HEAD.pack(b"OKAY", 0))
        with contextlib.suppress(OSError):
            os.utime(path, (number, number), follow_symlinks=False)

    async def drain(self) -> None:
        """Old hosts lose the reason when the phone closes while they send: read on to DONE."""
        while True:
            code, number = HEAD.unpack(await self.reader.exactly(HEAD.size))
            if code != b"DATA" or number > DATA_MAX:
                return
            await self.reader.exactly(number)


class Drained(Exception):
    """A failed push whose FAIL went out already."""


async def serve_sync(phone: Daemon, stream: Stream, faults: list[Fault]) -> None:
    """The `sync:` service until the host quits or something fails."""
    with contextlib.suppress(Drained):
        await Sync(phone, stream, faults).run()
