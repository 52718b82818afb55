"""What a phone's activity manager answers instead of starting the app's service, and what to do about it.

Words of AOSP's `ActivityManagerShellCommand`; none was recorded by us on a phone.
"""

from __future__ import annotations

import re

from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.app.fate import Cause

__all__ = ["is_refusal", "refused_start"]

# The end of what `am` printed -> what it means, what to do, and whether it may go well once the app is put right.
STARTS: tuple[tuple[str, str, bool], ...] = (
    (
        "no service started",
        "the phone does not find the app's service: the app is disabled, or being updated",
        True,
    ),
    ("Requires permission", "adb's shell lacks the permission to start the app's service", False),
    (
        "app is in background",
        "the phone lets nothing start in the background; unlock it, keep its screen on, and measure again",
        False,
    ),
    (
        "not allowed",
        "the phone lets nothing start while it is locked; unlock it, keep its screen on, and measure again",
        False,
    ),
    ("SecurityException", "the phone's policy does not let adb's shell start the app's service", False),
)


def is_refusal(answer: str) -> bool:
    """Whether `am` says that it started nothing. Its exit status does not tell on every version."""
    return re.search(r"^(Error|Exception)|SecurityException", answer, re.MULTILINE) is not None


def refused_start(answer: str) -> Cause:
    """What `am start-foreground-service` said instead of starting."""
    said = visible(" ".join(line for line in answer.splitlines() if not line.startswith("Starting service")))
    for sign, meaning, again in STARTS:
        if sign in said:
            return Cause(f"{meaning} (am says: {said})", again=again)
    return Cause(f"the phone did not start the app's service (am says: {said})")
