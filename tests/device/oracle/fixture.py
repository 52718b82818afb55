"""AOSP's adbd as a context manager."""

from __future__ import annotations

from tests.device.phone.sandbox import Sandbox

__all__ = ["Oracle"]


class Oracle(Sandbox):
    """`with Oracle("snapdragon855", mss=1448) as oracle:` and then `oracle.port`, as with `Phone`.

    The protocol is adbd's own, so only faults of the cable can be had (cut, stall, rate, each from the connection's
    first byte), and kill, reboot, overheat. No authorization: Debian's build leaves it out.
    """

    module = "tests.device.oracle.relay"
    network = True
