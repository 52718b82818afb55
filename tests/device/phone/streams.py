"""One ADB stream inside the phone: one packet in flight each way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.device.phone.packets import CLSE, OKAY, WRTE

if TYPE_CHECKING:
    from tests.device.phone.session import Session

__all__ = ["Stream", "StreamClosed"]


class StreamClosed(Exception):
    """The host closed the stream, or the connection is gone."""


class Stream:
    """What a service reads from and writes to. `service` is the text that the host opened."""

    def __init__(self, session: Session, local: int, remote: int, service: str) -> None:
        self.session, self.local, self.remote, self.service = session, local, remote, service
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.unacknowledged = 0  # the host's packets that got no OKAY yet: more than one breaks the protocol
        self.early = False  # the host's last packet came before the OKAY of the one before it
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.writing = asyncio.Lock()  # stdout and stderr of one shell share the stream
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        """The next packet's data, acknowledged when it is taken. Raises `StreamClosed`."""
        getter = asyncio.ensure_future(self.incoming.get())
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({getter, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not getter.done():
                raise StreamClosed
            data = getter.result()
        finally:
            closing.cancel()
            getter.cancel()
        self.unacknowledged -= 1
        if not self.closed.is_set():
            await self.session.send(OKAY, self.local, self.remote)
        return data

    async def write(self, data: bytes) -> None:
        """Send data, each packet after the OKAY of the one before. Raises `StreamClosed`."""
        step = self.session.max_payload
        async with self.writing:
            for start in range(0, len(data), step):
                await self.wait_for_room()
                self.may_send.clear()
                await self.session.send(WRTE, self.local, self.remote, data[start : start + step])

    async def wait_for_room(self) -> None:
        """Until the host acknowledged the last packet. Raises `StreamClosed`."""
        waiter = asyncio.ensure_future(self.may_send.wait())
        closing = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({waiter, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            closing.cancel()
        if self.closed.is_set():
            raise StreamClosed

    async def close(self) -> None:
        """The phone is done: say so, without waiting for the last OKAY, as adbd does."""
        if not self.closed.is_set():
            self.closed.set()
            self.session.streams.pop(self.local, None)
            await self.session.send(CLSE, self.local, self.remote)

    def host_closed(self) -> None:
        """The host's CLSE, or the end of the connection."""
        self.closed.set()
        self.session.streams.pop(self.local, None)
