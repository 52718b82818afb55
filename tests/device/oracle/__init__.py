"""AOSP's own adbd in a sandbox: what a phone says on the wire, from the source."""

from __future__ import annotations

from tests.device.oracle.fixture import Oracle

__all__ = ["Oracle"]
