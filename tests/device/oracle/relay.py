"""Inside the oracle's namespaces: AOSP's adbd, and the relay through which this machine reaches it.

adbd binds every address, so it has a private network; the relay's listening socket was made outside and handed in.
Faults of the link happen in the relay, as they would on a cable; adbd itself is left as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable
from typing import Any

from tests.device.phone.control import kill_matching, processes, serve_control
from tests.device.phone.faults import LINK, Fault, FaultBook
from tests.device.phone.link import Cut, FaultyPipe
from tests.device.phone.options import Options
from tests.device.phone.personality import Personality
from tests.device.phone.stage import run_stage

__all__ = ["Relay", "serve"]

ADBD, ADBD_PORT = "/usr/sbin/adbd", 15555
BLOCK = 256 << 10
START_S, TICK_S = 20.0, 0.1
CABLE = {"cut", "stall", "rate", "kill", "reboot", "overheat"}


class Relay:
    """Copies bytes between a host and adbd, with faults."""

    def __init__(self, options: Options, personality: Personality, listener: socket.socket) -> None:
        self.options, self.personality, self.listener = options, personality, listener
        self.port = listener.getsockname()[1]
        self.faults = FaultBook()
        self.pipes: dict[FaultyPipe, list[asyncio.StreamWriter]] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        self.connections = 0
        self.down = False
        self.adbd: asyncio.subprocess.Process | None = None

    def start(self, job: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def start_adbd(self) -> None:
        """Until it answers. The log is the sandbox's."""
        environment = {**self.options.environment, "ADBD_PORT": str(ADBD_PORT)}
        self.adbd = await asyncio.create_subprocess_exec(
            ADBD, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=sys.stderr, umask=0o22
        )
        for _ in range(int(START_S / 0.02)):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", ADBD_PORT)
                writer.close()
                return
            if self.adbd.returncode is not None:
                raise RuntimeError(f"adbd ended: {self.adbd.returncode}")
            await asyncio.sleep(0.02)
        raise RuntimeError(f"adbd does not listen after {START_S:.0f} s")

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.down:
            writer.transport.abort()
            return
        pipe = FaultyPipe(self.fired)
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", ADBD_PORT, limit=BLOCK)
        except OSError:
            writer.transport.abort()
            return
        writers = [writer, inner_writer]
        self.pipes[pipe] = writers
        for end in writers:
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for fault in self.faults.take(None):
            pipe.arm(fault)
        copies = [
            asyncio.ensure_future(self.copy(reader, inner_writer, pipe, "in")),
            asyncio.ensure_future(self.copy(inner_reader, writer, pipe, "out")),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            self.end(pipe)

    async def copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pipe: FaultyPipe, way: str
    ) -> None:
        with contextlib.suppress(Cut, ConnectionError):
            while data := await reader.read(BLOCK):
                while data:
                    step = await pipe.allow(len(data), way)
                    writer.write(data[:step])
                    await writer.drain()
                    await pipe.passed(step, way)
                    data = data[step:]

    def end(self, pipe: FaultyPipe) -> None:
        for writer in self.pipes.pop(pipe, []):
            writer.transport.abort()
        pipe.close()

    async def fired(self, fault: Fault) -> None:
        if fault.kind == "cut":
            for pipe in [pipe for pipe in self.pipes if pipe.cut]:
                for writer in self.pipes[pipe]:
                    writer.transport.abort()
        else:
            self.do(fault)

    def do(self, fault: Fault) -> None:
        if fault.kind == "kill":
            kill_matching(fault.target or "")
        elif fault.kind == "overheat":
            self.personality.overheat(fault.value or 85.0)
        elif fault.kind == "reboot":
            self.start(self.reboot(1.0 if fault.value is None else fault.value))

    async def reboot(self, down_s: float) -> None:
        """adbd and everything that it started dies; connections are closed at once until adbd is back."""
        self.down = True
        for pipe in list(self.pipes):
            self.end(pipe)
        kill_matching("")
        if self.adbd is not None:
            await self.adbd.wait()
        self.personality.reboot()
        await asyncio.sleep(down_s)
        await self.start_adbd()
        self.down = False
        await asyncio.sleep(self.options.boot_s)
        self.personality.set_property("sys.boot_completed", "1")

    def user_processes(self) -> list[str]:
        return [words for words in processes().values() if not words.startswith(ADBD)]

    async def clock(self) -> None:
        while True:
            self.personality.busy = bool(self.user_processes())
            self.personality.tick()
            await asyncio.sleep(TICK_S)

    async def obey(self, order: str, values: dict[str, Any]) -> Any:
        if order == "fault":
            fault = Fault(**values)
            if fault.kind not in CABLE or fault.when is not None:
                raise ValueError(
                    f"the real adbd has faults of the cable only: {', '.join(sorted(CABLE))}, no `when`"
                )
            self.faults.add(fault)
        elif order == "strike":
            fault = Fault(**values)
            if fault.kind in LINK:
                for pipe in list(self.pipes):
                    pipe.arm(fault)
            else:
                self.do(fault)
        elif order == "clear":
            self.faults.clear()
            for pipe in list(self.pipes):
                pipe.release()
        elif order == "state":
            return {
                "connections": self.connections,
                "armed": self.faults.armed,
                "processes": self.user_processes(),
            }
        elif order == "processes":
            return self.user_processes()
        else:
            raise ValueError(f"no order {order!r}")
        return None


async def serve(options: Options, personality: Personality, listener: socket.socket) -> None:
    """adbd and its relay, until the test is gone."""
    relay = Relay(options, personality, listener)
    await relay.start_adbd()
    await asyncio.start_server(relay.accept, sock=listener, limit=BLOCK)
    relay.start(relay.clock())
    await serve_control(options.control_fd, relay.port, relay.obey)


if __name__ == "__main__":
    run_stage(serve, private_network=True)
