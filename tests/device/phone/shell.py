"""The shell services: commands under the phone's own shell, as AOSP's `daemon/shell_service.cpp` starts them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.device.phone.faults import Fault
from tests.device.phone.streams import Stream, StreamClosed

if TYPE_CHECKING:
    from tests.device.phone.daemon import Daemon

__all__ = ["CLOSE_STDIN", "EXIT", "STDERR", "STDIN", "STDOUT", "WINDOW", "ShellKind", "run_shell"]

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN, WINDOW = range(6)  # ids of the shell protocol, v2
PACKET = struct.Struct("<BI")  # id, length
CHUNK = 64 << 10
SHELL = "/bin/sh"


@dataclass(frozen=True)
class ShellKind:
    """tty: a terminal of its own. protocol: v2, with exit status. terminal: TERM, None to leave it out.

    Without the protocol there is always a PTY, a raw one for a command: it hangs up the child when the host goes.
    """

    tty: bool
    protocol: bool
    terminal: str | None


@dataclass
class Child:
    """A running command, and the phone's ends of its streams (non-blocking descriptors)."""

    process: subprocess.Popen[bytes]
    output: int
    errors: int | None
    pidfd: int

    async def wait(self) -> int:
        """The exit byte: the status, or 0x80 | signal."""
        await ready(self.pidfd, write=False)
        status = self.process.wait()
        return 0x80 | -status if status < 0 else status & 0xFF


async def ready(fd: int, *, write: bool) -> None:
    """Until `fd` can be read or written."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not done.done():
            done.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await done
    finally:
        remove(fd)


async def read_some(fd: int) -> bytes:
    """What the child wrote; b"" at the end (a PTY says EIO then)."""
    while True:
        try:
            return os.read(fd, CHUNK)
        except BlockingIOError:
            await ready(fd, write=False)
        except OSError:
            return b""


async def write_all(fd: int, data: bytes) -> None:
    """Write to the child's input; a child that closed it loses the rest."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await ready(fd, write=True)
        except OSError:
            return


def environment(phone: Daemon, terminal: str | None) -> dict[str, str]:
    """What adbd sets, over what init gave it."""
    own = {
        "HOME": "/",
        "HOSTNAME": "android",
        "LOGNAME": "shell",
        "SHELL": "/system/bin/sh",
        "TMPDIR": "/data/local/tmp",
        "USER": "shell",
    }
    return {**phone.options.environment, **own, **({} if terminal is None else {"TERM": terminal})}


def spawn(phone: Daemon, kind: ShellKind, command: str) -> Child:
    """Start `command` (the login shell when it is empty)."""
    errors: int | None = None
    ours: list[int] = []
    theirs: list[int] = []
    if kind.tty or not kind.protocol:
        master, slave = os.openpty()
        if not kind.tty:
            tty.setraw(slave, termios.TCSADRAIN)
        output, ends = master, (slave, slave, slave)
        ours, theirs = [master], [slave]
    else:
        pairs = [[end.detach() for end in socket.socketpair()] for _ in range(2)]
        (output, inner), (errors, inner_errors) = pairs
        ends = (inner, inner, inner_errors)
        ours, theirs = [output, errors], [inner, inner_errors]

    def in_child() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    try:
        process = subprocess.Popen(
            [SHELL, "-c", os.fsencode(command)] if command else ["-" + SHELL],
            executable=SHELL,
            stdin=ends[0],
            stdout=ends[1],
            stderr=ends[2],
            env=environment(phone, kind.terminal),
            cwd="/",
            start_new_session=True,
            preexec_fn=in_child if kind.tty or not kind.protocol else None,
        )
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in ours:
        os.set_blocking(fd, False)
    return Child(process, output, errors, os.pidfd_open(process.pid))


async def run_shell(
    phone: Daemon, stream: Stream, faults: list[Fault], kind: ShellKind, command: str
) -> None:
    """Serve one shell stream until its command ends or the host closes it."""
    if any(fault.kind == "garbage" for fault in faults):
        while True:
            await stream.write(os.urandom(CHUNK))
    child = spawn(phone, kind, command)
    talk = talk_protocol if kind.protocol else talk_plain
    job = asyncio.ensure_future(talk(stream, child, kind, Filter(faults)))
    closing = asyncio.ensure_future(stream.closed.wait())
    try:
        await asyncio.wait({job, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise StreamClosed
        job.result()
    finally:
        closing.cancel()
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError, StreamClosed):
            await job
        end_child(phone, child, kind)


def end_child(phone: Daemon, child: Child, kind: ShellKind) -> None:
    """SIGHUP for a command that outlives its stream (the closed PTY does it without the protocol), then reap."""
    if kind.protocol and child.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.process.pid, signal.SIGHUP)
    os.close(child.output)
    if child.errors is not None:
        os.close(child.errors)

    async def reap() -> None:
        await child.wait()
        os.close(child.pidfd)

    phone.start(reap())


class Filter:
    """What the faults make of a command's standard output."""

    def __init__(self, faults: list[Fault]) -> None:
        self.kinds = {fault.kind for fault in faults}
        self.held = b""

    def __call__(self, data: bytes) -> bytes:
        """`data` as it goes out; b"" data is the end. A lie holds back an unfinished line."""
        if "silent" in self.kinds:
            return b""
        if "noise" in self.kinds:
            return os.urandom(len(data))
        if "lie" not in self.kinds:
            return data
        whole, newline, rest = (self.held + data).rpartition(b"\n")
        self.held = rest if data else b""
        text = whole + newline + (b"" if data else rest)
        return re.sub(rb"\b[0-9a-f]{64}\b", lambda found: found[0][::-1], text)

    @property
    def endless(self) -> bool:
        return "endless" in self.kinds


async def pump(fd: int, send: Callable, keep: Filter | None) -> None:
    """Send what the child writes, to its end."""
    while data := await read_some(fd):
        if kept := keep(data) if keep else data:
            await send(kept)
    if keep and (rest := keep(b"")):
        await send(rest)
    while keep and keep.endless:
        await send(b"y\n" * (CHUNK // 2))


async def talk_plain(stream: Stream, child: Child, kind: ShellKind, keep: Filter) -> None:
    """One raw stream: what the host sends is input, what the child prints is output."""

    async def feed() -> None:
        while True:
            await write_all(child.output, await stream.read())

    await together(feed(), pump(child.output, stream.write, keep))


async def talk_protocol(stream: Stream, child: Child, kind: ShellKind, keep: Filter) -> None:
    """The shell protocol: both outputs apart, the exit byte last."""

    async def send_output(data: bytes) -> None:
        await stream.write(PACKET.pack(STDOUT, len(data)) + data)

    async def send_errors(data: bytes) -> None:
        await stream.write(PACKET.pack(STDERR, len(data)) + data)

    pumps = [pump(child.output, send_output, keep)]
    if child.errors is not None:
        pumps.append(pump(child.errors, send_errors, None))
    await together(feed_protocol(stream, child, kind), asyncio.gather(*pumps))
    await stream.write(PACKET.pack(EXIT, 1) + bytes([await child.wait()]))


async def together(feeding, pumping) -> None:  # type: ignore[no-untyped-def]
    """Feed the child for as long as it prints."""
    feeder = asyncio.ensure_future(feeding)
    try:
        await pumping
    finally:
        feeder.cancel()
        with contextlib.suppress(asyncio.CancelledError, StreamClosed):
            await feeder


async def feed_protocol(stream: Stream, child: Child, kind: ShellKind) -> None:
    """Input packets of the host, which may be split over ADB packets anywhere."""
    held = b""
    while True:
        held += await stream.read()
        while len(held) >= PACKET.size:
            code, length = PACKET.unpack_from(held)
            if len(held) < PACKET.size + length:
                break
            data, held = held[PACKET.size : PACKET.size + length], held[PACKET.size + length :]
            if code == STDIN:
                await write_all(child.output, data)
            elif code == CLOSE_STDIN and not kind.tty:
                with socket.socket(fileno=os.dup(child.output)) as end, contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_WR)
            elif code == WINDOW and kind.tty and (found := re.match(rb"(\d+)x(\d+),(\d+)x(\d+)", data)):
                size = struct.pack("<4H", *(min(int(number), 0xFFFF) for number in found.groups()))
                with contextlib.suppress(OSError):
                    fcntl.ioctl(child.output, termios.TIOCSWINSZ, size)
