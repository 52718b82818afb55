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

__all__ = ["Patience", "best_effort", "persist", "phase", "transient"]

T = TypeVar("T")
TRANSPORT = (PhoneGone, PhoneTimeout, PhoneProtocolError)


@dataclass(frozen=True)
class Patience:
    """attempts: of each step, the first included. pause_seconds: before the second attempt, doubled before each other.

    away_seconds: how long a phone may be out of reach when its job's own time is over. boot_seconds: for Android to
    come up.
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
        except PhoneError as error:
            # A phone that says nothing costs its whole time limit with each attempt: it gets a second one only.
            most = min(2, patience.attempts) if isinstance(error, PhoneTimeout) else patience.attempts
            if not transient(error) or attempt >= most:
                raise
            time.sleep(patience.pause_seconds * 2 ** (attempt - 1))
    raise ValueError(f"{patience.attempts} attempts")


def transient(error: PhoneError) -> bool:
    """Whether it is the link's fault, so that the same may go well over a new one.

    `closed` is the word for a service that the phone does not have, and for a link lost at that moment.
    """
    return isinstance(error, TRANSPORT) or (isinstance(error, PhoneRefused) and error.reason == "closed")


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
