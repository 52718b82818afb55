"""A phone that is held: nobody else measures on it, and it is waited for while it starts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.errors import PhoneError, PhoneGone, PhoneUnauthorized
from finet_deploy.devices.lock import PhoneLock, host_lock
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.phone_state import PhoneState, read_state, unread_state

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["PhoneHold"]

JUST_BOOTED_SECONDS = 300.0


class PhoneHold:
    """The phone behind `connection`, from `acquire` to `release` ours alone, here and there. folder: ours on it."""

    def __init__(self, connection: Connection, folder: str, patience: Patience) -> None:
        self._connection, self._folder, self._patience = connection, folder, patience
        self._locks = contextlib.ExitStack()
        self._lock: PhoneLock | None = None

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._lock is not None

    def acquire(self, note: Callable[[str], None]) -> PhoneLock:
        """Lock it, unless it is. `PhoneBusy` when somebody else is using it."""
        if self._lock is None:
            self._locks.enter_context(host_lock(self._connection.name))
            lock = PhoneLock(self._connection, self._folder, patience=self._patience)
            lock.acquire(note)
            self._locks.callback(lock.release, note)
            self._lock = lock
        return self._lock

    def release(self) -> None:
        """Give it back."""
        self._locks.close()
        self._lock = None

    def state(self) -> PhoneState:
        """What it is doing. A phone that is there but does not answer this has a state of reasons."""
        try:
            return persist(
                self._connection, lambda: read_state(self._connection), self._patience, "reading the state"
            )
        except (PhoneGone, PhoneUnauthorized):
            raise
        except PhoneError as error:
            return unread_state(error.message)

    def awake_state(self) -> PhoneState:
        """The state, once Android is up: after a start anew the shell answers before the system is ready."""
        limit = time.monotonic() + self._patience.boot_seconds
        while True:
            if self._lock is not None:
                self._lock.refresh()
            state = self.state()
            uptime = state.uptime_seconds.value
            booting = (
                state.boot_completed.value is False and uptime is not None and uptime < JUST_BOOTED_SECONDS
            )
            if not booting or time.monotonic() > limit:
                return state
            time.sleep(self._patience.poll_max_seconds)
