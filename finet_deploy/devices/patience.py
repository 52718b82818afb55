"""How long a phone is waited for. Transport errors are tried again, a bounded number of times; nothing else is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from finet_deploy.devices.adb.errors import (
    PhoneError,
    PhoneGone,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
)

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["TRANSPORT", "Patience", "best_effort", "persist", "phase"]

T = TypeVar("T")
TRANSPORT = (PhoneGone, PhoneTimeout, PhoneProtocolError)


@dataclass(frozen=True)
class Patience:
    """attempts: of each step, the first included. pause_seconds: before the second attempt, doubled before each other.

    away_seconds: how long a phone may be out of reach while its job runs. boot_seconds: for Android to come up.
    poll_seconds, poll_max_seconds: first and longest pause between two looks at a running job.
    """

    attempts: int = 3
    pause_seconds: float = 1.0
    away_seconds: float = 120.0
    boot_seconds: float = 180.0
    poll_seconds: float = 1.0
    poll_max_seconds: float = 5.0


def persist(connection: Connection, action: Callable[[], T], patience: Patience, doing: str) -> T:
    """`action()`; after a transport error over a new link again. The last error is raised, naming what was being done.

    Only for what may be done twice.
    """
    for attempt in range(1, patience.attempts + 1):
        try:
            with phase(doing):
                if attempt > 1:
                    connection.reconnect()
                return action()
        except TRANSPORT as error:
            # A phone that says nothing costs its whole time limit with each attempt: it gets a second one only.
            if attempt >= (
                min(2, patience.attempts) if isinstance(error, PhoneTimeout) else patience.attempts
            ):
                raise
            time.sleep(patience.pause_seconds * 2 ** (attempt - 1))
        except PhoneRefused as error:
            # The adb server's word for a service that the phone does not have, and for a link lost at that moment.
            if error.reason != "closed" or attempt >= patience.attempts:
                raise
            time.sleep(patience.pause_seconds * 2 ** (attempt - 1))
    raise ValueError(f"{patience.attempts} attempts")


@contextlib.contextmanager
def phase(doing: str) -> Iterator[None]:
    """A phone's error that comes out of here begins with what was being done."""
    try:
        yield
    except PhoneError as error:
        if not getattr(error, "phase", None):
            error.phase = doing  # type: ignore[attr-defined]
            error.message = f"while {doing}: {error.message}"
            error.args = (f"while {doing}: {error}",)
        raise


@contextlib.contextmanager
def best_effort(note: Callable[[str], None], doing: str) -> Iterator[None]:
    """For tidying up when something else went wrong already: what fails here is said, not raised."""
    try:
        yield
    except PhoneError as error:
        note(f"could not finish {doing}: {error}")
