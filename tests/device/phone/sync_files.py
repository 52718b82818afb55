"""What the sync service does to files."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct

from tests.device.phone.faults import Fault

__all__ = [
    "DATA_MAX",
    "STAT_V2",
    "FaultyFile",
    "SyncFailed",
    "create",
    "failed",
    "full_stat",
    "may_unlink",
    "names_in",
    "read_block",
]

STAT_V2 = struct.Struct(
    "<4sIQQIIIIQqqq"
)  # id, error, dev, ino, mode, nlink, uid, gid, size, atime, mtime, ctime
DATA_MAX = 64 << 10
NAME_MAX = 255
WIRE_ERRNO = {errno.EACCES: 13, errno.ENOENT: 2, errno.ENOTDIR: 20, errno.EPERM: 1, errno.ELOOP: 40}


class SyncFailed(Exception):
    """The reason goes to the host as FAIL; then the stream is closed."""


def failed(what: str, error: OSError) -> SyncFailed:
    return SyncFailed(f"{what}: {os.strerror(error.errno or 0)}")


class FaultyFile:
    """Writes a push's bytes, and fails or errs where a fault says so."""

    def __init__(self, fd: int, faults: list[Fault]) -> None:
        self.fd, self.written = fd, 0
        limits = [fault.after_bytes or 0 for fault in faults if fault.kind == "no_space"]
        self.room = min(limits, default=None)
        self.wrong = {fault.after_bytes or 0 for fault in faults if fault.kind == "corrupt"}

    def write(self, data: bytes) -> None:
        if self.room is not None and self.written + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        for place in self.wrong:
            if self.written <= place < self.written + len(data):
                changed = bytearray(data)
                changed[place - self.written] ^= 1
                data = bytes(changed)
        self.written += len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]


def full_stat(code: bytes, path: bytes, *, follow: bool) -> bytes:
    try:
        found = os.stat(path, follow_symlinks=follow)
    except OSError as error:
        number = WIRE_ERRNO.get(error.errno or 0, error.errno or 5)
        return STAT_V2.pack(code, number, *[0] * 10)
    return STAT_V2.pack(
        code,
        0,
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_size,
        int(found.st_atime),
        int(found.st_mtime),
        int(found.st_ctime),
    )


def names_in(path: bytes) -> list[bytes]:
    """Names in a folder with `.` and `..`; a folder that cannot be read has none."""
    try:
        return [b".", b"..", *(name for name in os.listdir(path) if len(name) <= NAME_MAX)]
    except OSError:
        return []


def read_block(fd: int) -> bytes:
    try:
        return os.read(fd, DATA_MAX)
    except OSError as error:
        raise failed("read failed", error) from error


def may_unlink(path: bytes) -> bool:
    """Regular files and links are replaced, everything else is written into."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def create(path: bytes, mode: int) -> int:
    """A new file, its missing parents too; an existing device or pipe is opened."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileNotFoundError:
            try:
                make_parents(os.path.dirname(path))
            except OSError as error:
                raise failed("secure_mkdirs failed", error) from error
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            fd = os.open(path, flags, mode)
    except OSError as error:
        raise failed("couldn't create file", error) from error
    with contextlib.suppress(OSError):
        os.fchmod(fd, mode)
    return fd


def make_parents(folder: bytes) -> None:
    """Every missing folder, with adbd's mode."""
    parts = folder.split(b"/")
    for end in range(1, len(parts) + 1):
        if place := b"/".join(parts[:end]):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o775)
