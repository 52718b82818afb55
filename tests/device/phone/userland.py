"""Where the fetched userland of the emulated phones is."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ADB", "SUITE", "rootfs"]

SUITE = "trixie"
VERSION = 1  # raised when what is unpacked changes
ADB = "usr/lib/android-sdk/platform-tools/adb"  # the client of the same source as the daemon


def rootfs() -> Path:
    """Where the unpacked packages are, or would be: `FINET_PHONE_ROOTFS` or the user's cache."""
    named = os.environ.get("FINET_PHONE_ROOTFS")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "finet-deploy-tests" / f"adbd-{SUITE}-{VERSION}"
