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
from finet_deploy.devices.app.pages import page_bytes, runtime_alignments
from finet_deploy.devices.app.remove import remove_app
from finet_deploy.devices.app.visits import AppVisits, discard_app_jobs
from finet_deploy.devices.equivalence import Equivalence
from finet_deploy.devices.phone_files import row_files
from finet_deploy.devices.phone_visit import Pin, VisitRunner
from finet_deploy.devices.rest import Watch
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import resolve_inside
from finet_deploy.runtimes.android import unloadable_file

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["AppDevice"]

LEAVE_OUT = "export again, or choose other runtimes with --runtimes"
UNPINNED = "an app's threads cannot be pinned from outside"


class AppDevice(AndroidDevice):
    """A phone behind a `Connection`, whose visits the app makes: with the libraries that apps ship, and as the phone
    treats apps. See `AndroidDevice`; apk: the app to be installed.
    """

    def __init__(self, connection: Connection, *, apk: Apk, **options: Any) -> None:
        super().__init__(connection, **options)
        self._apk = apk
        self._refused: dict[str, str] = {}  # SHA-256 of a file -> why the app cannot load it

    @property
    def runner(self) -> str:
        """The app."""
        return "app"

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Those that are in the APK and load on the phone's memory pages."""
        return self._runtimes

    @functools.cached_property
    def _runtimes(self) -> tuple[str, ...]:
        pages = page_bytes(self._connection, self._patience)
        aligned = runtime_alignments(self._apk.path) if pages is not None else {}
        lost = [name for name in self._apk.runtimes if name in aligned and aligned[name] < (pages or 0)]
        for name in lost:
            self._note(
                f"{self._connection.name}: {name} is left out: the phone has memory pages of {pages} bytes, and the "
                f"app's library for it is aligned to {aligned[name]}"
            )
        return tuple(name for name in self._apk.runtimes if name not in lost)

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

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """See `AndroidDevice.prepare`. A file that the app cannot load is not sent; its visits are invalid."""
        self._refused = {
            row.artifact.sha256: found for row in rows if (found := _problem(row, folder)) is not None
        }
        if self._refused and len({row.artifact.sha256 for row in rows}) == len(self._refused):
            what = "; ".join(dict.fromkeys(self._refused.values()))
            raise FinetDeployError(what, where=self._connection.name, do=LEAVE_OUT)
        for row in rows:
            if row.artifact.sha256 in self._refused and row.aa_of is None:
                self._note(
                    f"{row.label} ({row.artifact.format}) is not measured: {self._refused[row.artifact.sha256]}"
                )
        super().prepare(rows, folder)

    def _prove_row(self, visits: VisitRunner, row: Row, folder: Path) -> Equivalence:
        problem = self._refused.get(row.artifact.sha256)
        if problem is None:
            return super()._prove_row(visits, row, folder)
        return Equivalence(
            artifact_sha256=row.artifact.sha256,
            errors={},
            limits=dict(row.golden.output_limits),
            top1_agreement=None,
            passed=False,
            problem=problem,
        )

    def _bring(self, rows: Sequence[Row], folder: Path, *, also: str) -> VisitRunner:
        self._app.ensure()
        sent_rows = [row for row in rows if row.artifact.sha256 not in self._refused]
        files = [file for row in sent_rows for file in row_files(row, folder)]
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
        _, rest = self._gate.wait(self._hold.awake_state, new_round=False)
        rest.check(self._connection.name)

    def core_kinds(self) -> dict[str, tuple[int, ...]]:
        """None to choose from: an app cannot be pinned."""
        return {}

    def _pin(self, threads: int, kind: str | None = None) -> Pin:
        return Pin(cores=(), mask=Reading(reason=UNPINNED if self._pinned else "not asked for"))

    def _watch(self, pinned: Pin, threads: int) -> Watch:
        """The cores on which it runs most likely: a phone that throttles caps them."""
        return Watch(big_cores(self._cores)[0] if self.facts.cores.value else ())

    def clean(self) -> None:
        """Remove the app and everything else of ours from the phone."""
        super().clean()
        remove_app(self._connection, patience=self._patience, note=self._note)


def _problem(row: Row, folder: Path) -> str | None:
    """Why the app cannot load the row's file, or None. folder: of the run."""
    path = resolve_inside(folder.resolve() / row.bundle, row.artifact.file)
    problems = unloadable_file(path, row.artifact.format)
    return f"the app cannot load it: {'; '.join(problems[:3])}" if problems else None
