"""One connection of a host to the simulated phone: handshake, authentication, streams (as AOSP's `adb.cpp` does)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.device.phone.auth import (
    AUTH_RSAPUBLICKEY,
    AUTH_SIGNATURE,
    AUTH_TOKEN,
    parse_public_key,
    verify,
)
from tests.device.phone.faults import FIRING, LINK, Fault
from tests.device.phone.link import Cut, FaultyPipe
from tests.device.phone.packets import (
    AUTH,
    CLSE,
    CNXN,
    HEADER,
    MAX_PAYLOAD,
    OKAY,
    OPEN,
    SKIP_CHECKSUM,
    VERSION_MIN,
    WRTE,
    BadPacket,
    Packet,
    decode_header,
)
from tests.device.phone.services import Refused, find_service
from tests.device.phone.streams import Stream, StreamClosed

if TYPE_CHECKING:
    from tests.device.phone.daemon import Daemon

__all__ = ["Session"]


class Session:
    """Reads packets until the host goes, answers them, and runs each opened service as a task."""

    def __init__(self, phone: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.phone, self.reader, self.writer = phone, reader, writer
        self.pipe = FaultyPipe(self.fault_fired)
        self.version, self.max_payload = VERSION_MIN, phone.options.max_payload
        self.online = False
        self.token = b""
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.sending = asyncio.Lock()
        self.next_id = 1

    async def run(self) -> None:
        """Until the host goes or a fault ends it."""
        for fault in self.phone.faults.take(None, LINK | (FIRING - {"kill"})):
            self.pipe.arm(fault)
        try:
            while True:
                await self.handle(await self.receive())
        except (Cut, ConnectionError, asyncio.IncompleteReadError):
            pass
        except BadPacket as error:
            self.phone.violation(f"bad packet: {error}")
        finally:
            self.end()

    def end(self) -> None:
        """Close the socket and every stream; services see `StreamClosed` and clean up."""
        self.pipe.close()
        for stream in list(self.streams.values()):
            stream.host_closed()
        self.writer.transport.abort()

    async def fault_fired(self, fault: Fault) -> None:
        if fault.kind == "cut":
            self.writer.transport.abort()
        else:
            self.phone.do(fault)

    async def read_exactly(self, count: int) -> bytes:
        parts = []
        while count:
            step = await self.pipe.allow(count, "in")
            parts.append(await self.reader.readexactly(step))
            await self.pipe.passed(step, "in")
            count -= step
        return b"".join(parts)

    async def receive(self) -> Packet:
        packet, length = decode_header(await self.read_exactly(HEADER.size))
        if length > self.max_payload:
            self.phone.violation(f"{length} bytes of data, {self.max_payload} were agreed on")
        return replace(packet, data=await self.read_exactly(length))

    async def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        """Send one packet. An ended connection is noticed by the reader, not here."""
        raw = Packet(command, arg0, arg1, data).encode(
            version=self.version, bad_checksum=self.pipe.has("bad_checksum")
        )
        async with self.sending:
            with contextlib.suppress(ConnectionError, Cut):
                while raw:
                    step = await self.pipe.allow(len(raw), "out")
                    self.writer.write(raw[:step])
                    await self.writer.drain()
                    await self.pipe.passed(step, "out")
                    raw = raw[step:]

    async def handle(self, packet: Packet) -> None:
        if not packet.magic_is_right:
            self.phone.violation(f"wrong magic of {packet.name}")  # and, as adbd does, nothing more
        elif packet.command == CNXN:
            await self.connect(packet)
        elif packet.command == AUTH:
            await self.authenticate(packet)
        elif not self.online:
            self.phone.violation(f"{packet.name} before the connection was accepted")
        elif packet.command == OPEN:
            await self.open(packet)
        elif packet.command == OKAY:
            await self.acknowledged(packet)
        elif packet.command == WRTE:
            self.written(packet)
        elif packet.command == CLSE:
            await self.close_stream(packet)

    async def connect(self, packet: Packet) -> None:
        """CNXN: agree on version and packet size, then ask for a signature or say who the phone is."""
        self.phone.connections += 1
        self.version = min(packet.arg0, SKIP_CHECKSUM)
        self.max_payload = min(packet.arg1, self.phone.options.max_payload, MAX_PAYLOAD)
        for fault in self.phone.faults.take(None, {"offline", "hang_up", "babble"}):
            if fault.kind == "offline":
                await asyncio.Event().wait()
            if fault.kind == "babble":
                self.writer.write(os.urandom(4096))
                await self.writer.drain()
                return
            raise Cut
        for stream in list(self.streams.values()):
            stream.host_closed()
        if self.phone.options.auth == "none" and not self.phone.revoked:
            await self.accept()
        else:
            await self.send_token()

    async def send_token(self) -> None:
        self.token = os.urandom(20)
        await self.send(AUTH, AUTH_TOKEN, 0, self.token)

    async def accept(self) -> None:
        self.online = True
        await self.send(CNXN, SKIP_CHECKSUM, self.max_payload, self.phone.banner())

    async def authenticate(self, packet: Packet) -> None:
        if self.online or not self.token:
            return
        if packet.arg0 == AUTH_SIGNATURE:
            token, self.token = self.token, b""
            known = [] if self.phone.revoked else self.phone.keys
            if any(verify(key, token, packet.data) for key in known):
                await self.accept()
            else:
                await self.send_token()
        elif packet.arg0 == AUTH_RSAPUBLICKEY:
            await self.ask_the_user(packet.data)

    async def ask_the_user(self, text: bytes) -> None:
        """A key that the phone does not know. Policies: `prompt` accepts after a delay, `known` never answers,
        `reject` closes the connection."""
        try:
            key = parse_public_key(text)
        except ValueError as error:
            self.phone.violation(f"bad public key: {error}")
            raise Cut from error
        self.phone.offered_keys.append(text.rstrip(b"\0").decode("utf-8", "replace"))
        if self.phone.options.auth == "reject" or self.phone.revoked:
            raise Cut
        if self.phone.options.auth == "prompt":
            await asyncio.sleep(self.phone.options.prompt_s)
            self.phone.keys.append(key)
            await self.accept()

    async def open(self, packet: Packet) -> None:
        if packet.arg0 == 0:
            return
        service = packet.data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        self.phone.services.append(service)
        faults = self.arm(service)
        for fault in faults:
            if fault.kind == "delay":
                await asyncio.sleep(fault.value or 0)
        try:
            if packet.arg1 != 0 or any(fault.kind == "refuse" for fault in faults):
                raise Refused
            run = find_service(service)
        except Refused:
            await self.send(CLSE, 0, packet.arg0)
            return
        stream = Stream(self, self.next_id, packet.arg0, service)
        self.next_id += 1
        self.streams[stream.local] = stream
        await self.send(OKAY, stream.local, stream.remote)
        task = asyncio.ensure_future(self.serve(run(self.phone, stream, faults), stream))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def arm(self, service: str) -> list[Fault]:
        """The faults for a service; those of the link and of the phone are put to work."""
        faults = self.phone.faults.take(service)
        for fault in faults:
            if fault.kind in LINK | FIRING:
                self.pipe.arm(fault)
        return faults

    async def serve(self, job: object, stream: Stream) -> None:
        try:
            await job  # type: ignore[misc]
            await stream.close()
        except (StreamClosed, ConnectionError, Cut):
            pass
        except Exception as error:  # noqa: BLE001 - a fault of the simulator must fail the test, not hang it
            self.phone.violation(f"the simulator failed in {stream.service!r}: {error!r}")
            await stream.close()

    async def acknowledged(self, packet: Packet) -> None:
        stream = self.streams.get(packet.arg1)
        if stream is None:
            await self.send(CLSE, packet.arg1, packet.arg0)  # the late OKAY of a stream that is closed
        elif stream.remote == packet.arg0:
            if stream.early:
                self.phone.violation(f"WRTE before the OKAY of the one before, in {stream.service!r}")
            stream.early = False
            stream.may_send.set()

    def written(self, packet: Packet) -> None:
        stream = self.streams.get(packet.arg1)
        if stream is None or stream.remote != packet.arg0:
            return
        stream.unacknowledged += 1
        if stream.early:
            self.phone.violation(f"WRTE before the OKAY of the one before, in {stream.service!r}")
        # Google's adb server sends a last one early, and CLSE at once, when its client was killed in a push.
        stream.early = stream.unacknowledged > 1
        stream.incoming.put_nowait(packet.data)

    async def close_stream(self, packet: Packet) -> None:
        stream = self.streams.get(packet.arg1)
        if stream is not None and packet.arg0 in (0, stream.remote):
            stream.host_closed()
            await self.send(CLSE, stream.local, stream.remote)
