"""A simulated phone: our own device side of ADB, which misbehaves on demand. See `tests/device/README.md`."""

from __future__ import annotations

from tests.device.phone.faults import KINDS, Fault, parse_fault
from tests.device.phone.fixture import Phone
from tests.device.phone.sandbox import why_not

__all__ = ["KINDS", "Fault", "Phone", "parse_fault", "why_not"]
