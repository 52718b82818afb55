"""The simulated phone's daemon: listens, holds what is common to all connections, obeys the test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable
from typing import Any

from tests.device.phone.auth import parse_public_key
from tests.device.phone.control import kill_matching, processes, serve_control
from tests.device.phone.faults import LINK, Fault, FaultBook
from tests.device.phone.options import Options
from tests.device.phone.personality import Personality
from tests.device.phone.session import Session

__all__ = ["Daemon", "listen", "serve"]

TICK_S = 0.1
BANNER = ("ro.product.name", "ro.product.model", "ro.product.device")


def listen(port: int, mss: int | None) -> socket.socket:
    """A listening socket on loopback; accepted sockets have its segment size."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mss is not None:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
    end.bind(("127.0.0.1", port))
    end.listen(16)
    end.setblocking(False)
    return end


class Daemon:
    """One phone. Sessions come and go; keys, faults and the log of what hosts asked for stay."""

    def __init__(self, options: Options, personality: Personality, listener: socket.socket) -> None:
        self.options, self.personality, self.listener = options, personality, listener
        self.port = listener.getsockname()[1]
        self.keys = [parse_public_key(line.encode()) for line in options.keys]
        self.offered_keys: list[str] = []
        self.faults = FaultBook()
        self.services: list[str] = []
        self.transfers: list[str] = []
        self.connections = 0
        self.violations: list[str] = []
        self.sessions: set[Session] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.revoked = False
        self.absence: asyncio.Task[None] | None = None
        self.recalled = asyncio.Event()

    def start(self, job: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(job)
        self.tasks.add(task)
        task.add_done_callback(self.finished)
        return task

    def finished(self, task: asyncio.Task[None]) -> None:
        """A background job that fails is a fault of the simulator: the test must see it."""
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.violation(f"the simulator failed: {task.exception()!r}")

    def violation(self, text: str) -> None:
        """The host (or the simulator) broke the protocol: the test that sees it fails."""
        self.violations.append(text)
        print(f"violation: {text}", file=sys.stderr, flush=True)

    def banner(self) -> bytes:
        """The phone's part of CNXN."""
        words = [f"{name}={self.personality.profile.properties.get(name, '')};" for name in BANNER]
        return ("device::" + "".join(words) + f"features={self.options.features}").encode()

    def do(self, fault: Fault) -> None:
        """A fault of the phone itself."""
        if fault.kind == "kill":
            kill_matching(fault.target or "")
        elif fault.kind == "overheat":
            self.personality.overheat(fault.value or 85.0)
        elif fault.kind == "reboot":
            self.absence = self.start(self.reboot(1.0 if fault.value is None else fault.value))
        elif fault.kind == "unplug":
            self.absence = self.start(self.unplug(fault.value))
        elif fault.kind == "revoke":
            self.revoked = True
            self.end_sessions()

    def end_sessions(self) -> None:
        for session in list(self.sessions):
            session.end()

    async def unplug(self, away_s: float | None) -> None:
        """Out of reach for a time; what does not hang on a connection runs on."""
        self.recalled.clear()
        await self.close_port()
        self.end_sessions()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.recalled.wait(), away_s)
        await self.open_port()

    async def reboot(self, down_s: float) -> None:
        """Every process dies, the port is closed for a time; /data stays."""
        self.recalled.clear()
        await self.close_port()
        self.end_sessions()
        kill_matching("")
        self.personality.reboot()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.recalled.wait(), down_s)
        await self.open_port()
        await asyncio.sleep(self.options.boot_s)
        self.personality.set_property("sys.boot_completed", "1")

    async def clear(self) -> None:
        """No fault waits or works any more; a phone that is away is back when this returns."""
        self.faults.clear()
        self.revoked = False
        for session in list(self.sessions):
            session.pipe.release()
        if self.absence is not None:
            self.recalled.set()
            await self.absence
            self.absence = None

    async def open_port(self) -> None:
        if self.listener.fileno() < 0:
            self.listener = listen(self.port, self.options.mss)
        self.server = await asyncio.start_server(self.accept, sock=self.listener, limit=4 << 20)

    async def close_port(self) -> None:
        """Close the port to everyone: other processes inherited the socket, so closing it here is not enough."""
        if self.server is not None and self.listener.fileno() >= 0:
            with self.listener.dup() as same:
                self.server.close()
                self.listener.close()
                same.shutdown(socket.SHUT_RDWR)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = Session(self, reader, writer)
        self.sessions.add(session)
        try:
            await session.run()
        finally:
            self.sessions.discard(session)

    async def clock(self) -> None:
        while True:
            self.personality.busy = bool(processes())
            self.personality.tick()
            await asyncio.sleep(TICK_S)

    async def obey(self, order: str, values: dict[str, Any]) -> Any:
        """The test's orders."""
        if order == "fault":
            self.faults.add(Fault(**values))
        elif order == "strike":
            fault = Fault(**values)
            if fault.kind in LINK:
                for session in list(self.sessions):
                    session.pipe.arm(fault)
            else:
                self.do(fault)
                await asyncio.sleep(0)  # it has begun when the test goes on: the port is closed
        elif order == "clear":
            await self.clear()
        elif order == "state":
            return {
                "violations": self.violations,
                "services": self.services,
                "transfers": self.transfers,
                "connections": self.connections,
                "offered_keys": self.offered_keys,
                "armed": self.faults.armed,
                "processes": list(processes().values()),
            }
        elif order == "processes":
            return list(processes().values())
        elif order == "close_port":
            await self.close_port()
        elif order == "open_port":
            await self.open_port()
        else:
            raise ValueError(f"no order {order!r}")
        return None


async def serve(options: Options, personality: Personality, listener: socket.socket) -> None:
    """The daemon, until the test is gone."""
    daemon = Daemon(options, personality, listener)
    await daemon.open_port()
    daemon.start(daemon.clock())
    await serve_control(options.control_fd, daemon.port, daemon.obey)
