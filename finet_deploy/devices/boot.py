"""One boot of a phone, told from the next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from finet_deploy.devices.sections import Section

__all__ = ["BOOT_COMMANDS", "BootMark", "boot_mark", "booted_since"]

UPTIME_SLACK_SECONDS = 10.0
BOOT_COMMANDS = {
    "boot_id": "cat /proc/sys/kernel/random/boot_id",
    "uptime": "cat /proc/uptime",
}


@dataclass(frozen=True)
class BootMark:
    """What tells one boot of a phone from the next. Either may be unreadable."""

    boot_id: str | None = None
    uptime: float | None = None


def boot_mark(answers: Mapping[str, Section]) -> BootMark:
    """The mark in the answers to `BOOT_COMMANDS`."""
    boot_id = re.fullmatch(rb"([0-9a-f-]{36})\s*", answers["boot_id"].stdout.strip())
    uptime = re.match(rb"\s*(\d{1,12}(?:\.\d{1,9})?)\s", answers["uptime"].stdout + b"\n")
    return BootMark(boot_id[1].decode() if boot_id else None, float(uptime[1]) if uptime else None)


def booted_since(then: BootMark, now: BootMark, elapsed: float) -> bool:
    """Whether the phone was started anew between two marks that lie `elapsed` seconds apart by our clock.

    The kernel's boot id decides where both marks have it; otherwise an uptime that lags behind. Without either: no.
    """
    if then.boot_id and now.boot_id:
        return then.boot_id != now.boot_id
    if then.uptime is None or now.uptime is None:
        return False
    return now.uptime < then.uptime + elapsed - UPTIME_SLACK_SECONDS
