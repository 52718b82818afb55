"""A phone that is measured with the Android app instead of the native runner."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.bench.protocol import Reading, Row
from finet_deploy.devices.affinity import big_cores
from finet_deploy.devices.android import AndroidDevice
from finet_deploy.devices.app.apk import Apk
from finet_deploy.devices.app.files import bring_to_app
from finet_deploy.devices.app.install import AppOnPhone
from finet_deploy.devices.app.visits import AppVisits, discard_app_jobs
from finet_deploy.devices.phone_files import row_files
from finet_deploy.devices.phone_visit import Pin, VisitRunner
from finet_deploy.devices.rest import Watch

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["AppDevice"]

UNPINNED = "an app's threads cannot be pinned from outside"


class AppDevice(AndroidDevice):
    """A phone behind a `Connection`, whose visits the app makes: with the libraries that apps ship, and as the phone
    treats apps. See `AndroidDevice`; apk: the app to be installed.
    """

    def __init__(self, connection: Connection, *, apk: Apk, **options: Any) -> None:
        super().__init__(connection, **options)
        self._apk = apk

    @property
    def runner(self) -> str:
        """The app."""
        return "app"

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Those that are in the APK."""
        return self._apk.runtimes

    @functools.cached_property
    def _app(self) -> AppOnPhone:
        return AppOnPhone(
            self._connection,
            self._apk,
            self._folder,
            sdk=self.facts.sdk.value,
            patience=self._patience,
            note=self._note,
            progress=self._progress,
        )

    def _end_leftovers(self) -> None:
        super()._end_leftovers()
        self._app.force_stop()
        discard_app_jobs(self._connection, self._patience)

    def _bring(self, rows: Sequence[Row], folder: Path, *, also: str) -> VisitRunner:
        self._app.ensure()
        files = [file for row in rows for file in row_files(row, folder)]
        sent = bring_to_app(
            self._connection,
            self._folder,
            files,
            patience=self._patience,
            progress=self._progress,
            note=self._note,
        )
        self._note(f"{self._connection.name}: {sent} of {len({file.path for file in files})} files sent")
        return AppVisits(
            self._connection,
            self._folder,
            "",
            self._patience,
            self._note,
            also=also,
            app=self._app,
            put_right=self._put_right,
        )

    def _put_right(self) -> None:
        """The app as it was, on a phone that is at rest again."""
        self._app.ensure()
        _, rest = self._gate.wait(self._awake_state, new_round=False)
        rest.check(self._connection.name)

    def _pin(self, threads: int) -> Pin:
        return Pin(cores=(), mask=Reading(reason=UNPINNED if self._pinned else "not asked for"))

    def _watch(self, pinned: Pin, threads: int) -> Watch:
        """The cores on which it runs most likely: a phone that throttles caps them."""
        return Watch(big_cores(self._cores)[0] if self.facts.cores.value else ())

    def clean(self) -> None:
        """Remove the app and everything else of ours from the phone."""
        super().clean()
        self._app.uninstall()
