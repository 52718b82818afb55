"""Bytes between host and phone, with the faults of a cable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.device.phone.faults import FIRING, Armed, Fault

__all__ = ["Cut", "FaultyPipe"]

SLICE = 16 << 10  # bytes at once on a slow link: small against any rate that is worth a test


class Cut(Exception):
    """The fault that drops the connection."""


class FaultyPipe:
    """Counts one connection's bytes both ways and does what its armed faults ask for.

    The simulator reads packets through it; the relay in front of the real adbd copies bytes through it.
    """

    def __init__(self, on_fire: Callable[[Fault], Awaitable[None]]) -> None:
        self.on_fire = on_fire
        self.armed: list[Armed] = []
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.cut = False
        self.tasks: set[asyncio.Task[None]] = set()

    def arm(self, fault: Fault) -> None:
        """Put a fault to work on this connection: it fires at its time, at its byte, or now."""
        self.armed.append(Armed(fault))
        if (fault.kind in FIRING and fault.after_s is not None) or (
            fault.kind in FIRING and not fault.after_bytes
        ):
            self.start(self.fire_later(fault))

    def start(self, job: Awaitable[None]) -> None:
        task = asyncio.ensure_future(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def fire_later(self, fault: Fault) -> None:
        await asyncio.sleep(fault.after_s or 0)
        await self.fire(fault)

    async def fire(self, fault: Fault) -> None:
        if fault.kind == "stall":
            self.flowing.clear()
            if fault.value is not None:
                await asyncio.sleep(fault.value)
                self.flowing.set()
        elif fault.kind == "cut":
            self.cut = True
            self.flowing.set()
            await self.on_fire(fault)
        else:
            await self.on_fire(fault)

    def rate(self) -> float | None:
        """Bytes a second, or None for as fast as it goes."""
        rates = [armed.fault.value for armed in self.armed if armed.fault.kind == "rate"]
        return min((rate for rate in rates if rate), default=None)

    def has(self, kind: str) -> bool:
        return any(armed.fault.kind == kind for armed in self.armed)

    async def allow(self, wanted: int, direction: str) -> int:
        """How many of the `wanted` bytes may pass now (at least 1). Waits while stalled; raises `Cut`."""
        await self.flowing.wait()
        if self.cut:
            raise Cut
        for armed in self.armed:
            if armed.counts(direction):
                wanted = min(wanted, armed.left or wanted)
        return min(wanted, SLICE) if self.rate() else wanted

    async def passed(self, count: int, direction: str) -> None:
        """`count` bytes went by: fires what waited for them."""
        rate = self.rate()
        if rate:
            await asyncio.sleep(count / rate)
        for armed in list(self.armed):
            if armed.counts(direction) and armed.left is not None:
                armed.left -= count
                if armed.left <= 0 and armed.fault.kind in FIRING:
                    if armed.fault.kind == "stall":
                        self.flowing.clear()
                        self.start(self.fire(armed.fault))
                    else:
                        await self.fire(armed.fault)

    def release(self) -> None:
        """Forget the faults; what was stalled goes on."""
        self.armed.clear()
        self.flowing.set()

    def close(self) -> None:
        """The connection is over."""
        self.release()
        for task in list(self.tasks):
            task.cancel()
