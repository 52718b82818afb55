"""Visits in the app: the same job on the phone as for the native runner, with the app doing the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from finet_deploy.bench.protocol import UNFINISHED, Invalid, VisitRequest
from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.app import visit_script
from finet_deploy.devices.app.am_answers import refused_start
from finet_deploy.devices.app.fate import FATE_COMMANDS, Cause, cause_of
from finet_deploy.devices.app.install import AppOnPhone
from finet_deploy.devices.app.names import APP_FILES
from finet_deploy.devices.patience import Patience, best_effort, persist
from finet_deploy.devices.phone_files import on_phone
from finet_deploy.devices.phone_visit import ONCE, RECORDS, Outcome, Pin, VisitRunner
from finet_deploy.devices.remote_job import RemoteJob, Verdict
from finet_deploy.devices.rest import Watch
from finet_deploy.devices.sections import ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["AppVisits", "discard_app_jobs"]

MARGIN_SECONDS = 10.0  # between the script's own limit and that of its job, for ending the app and tidying up
TRIES = 2


@dataclass(frozen=True)
class AppVisits(VisitRunner):
    """Runs visits in the app; `runner` is of no use to it. put_right: done before a visit is tried again."""

    app: AppOnPhone = field(kw_only=True)
    put_right: Callable[[], None] = field(kw_only=True)
    causes: list[Cause] = field(default_factory=list)

    def run(
        self, request: VisitRequest, pinned: Pin, watch: Watch, *, name: str, outputs: Path | None = None
    ) -> Outcome:
        """See `VisitRunner.run`. Once more when the app was updated or a permission was changed under it."""
        request = on_phone(request, APP_FILES)
        repeated: tuple[str, ...] = ()
        while True:
            self.causes.clear()
            outcome = super().run(request, pinned, watch, name=name, outputs=outputs)
            cause = self.causes[-1] if self.causes else Cause("")
            if not cause.again or len(repeated) + 1 == TRIES:
                taken = outcome.taken or (cause.taken and not cause.again)
                return Outcome(outcome.records, taken, repeated)
            self.note(f"{self.connection.name}: {name} is done again: {cause.reason}")
            repeated += (cause.reason,)
            self.put_right()

    def _command(self, job: RemoteJob, request: VisitRequest, pinned: Pin, outputs: bool) -> str:
        seconds = request.settings.visit_timeout_seconds - MARGIN_SECONDS
        return visit_script.visit_script(
            job.id, listing=self.app.listing, outputs=outputs, seconds=max(1.0, seconds)
        )

    def _questions(self, job: RemoteJob, watch: Watch) -> dict[str, str]:
        reached = f"wc -l < {quote(visit_script.app_job_folder(job.id))}/{RECORDS}{UNFINISHED}"
        pid = f"{quote(job.folder)}/{visit_script.PID_FILE}"
        return {"reached": reached, **watch.commands(lambda command: f"r=$(cat {pid}) && {command}")}

    def _stop(self, job: RemoteJob) -> None:
        job.stop(ONCE)
        self.app.force_stop(ONCE)
        discard_app_jobs(self.connection, ONCE)

    def _explained(self, job: RemoteJob, last: Invalid, verdict: Verdict, request: VisitRequest) -> Invalid:
        cause = self._cause(job, last, verdict, request)
        if verdict.kind != "finished":  # the script that would have ended the app is not there
            with best_effort(self.note, f"ending {job.name} on the phone"):
                self.app.force_stop()
                discard_app_jobs(self.connection, self.patience)
        if cause is None:
            return super()._explained(job, last, verdict, request)
        self.causes.append(cause)
        return msgspec.structs.replace(last, reason=cause.reason, exit_status=None, signal=None)

    def _cause(self, job: RemoteJob, last: Invalid, verdict: Verdict, request: VisitRequest) -> Cause | None:
        """Why the app did not do it; None when its own record says so."""
        if verdict.kind == "rebooted" or (verdict.kind == "finished" and verdict.status in (0, 1)):
            return None
        status = verdict.status if verdict.kind == "finished" else None
        if status == visit_script.REPLACED:
            return Cause("the app on the phone is another one than was installed: it was updated", again=True)
        if status == visit_script.REFUSED:
            return refused_start(job.log_tail())
        if status == visit_script.DECLINED:
            return Cause(f"the app does not take the request: {visible(_last_line(job.log_tail()))}")
        if status == visit_script.UNREADY:
            return Cause(f"the app's folder cannot be written: {visible(job.log_tail())}; unlock the phone")
        told = self._told(job)
        if status == visit_script.LATE or verdict.kind == "timeout":
            late = f"no result within {request.settings.visit_timeout_seconds:g} s"
            return Cause(
                f"{late}; {told.reason if told is not None else 'let the phone rest, and measure again'}"
            )
        if told is not None:
            return told
        if status == visit_script.ABSENT:
            return Cause(
                "the app's service was started, and no process of it came up within 15 s; restart the phone"
            )
        if status == visit_script.VANISHED:
            return Cause(
                "the app's process ended without a result, and the phone does not say why; measure again",
                taken=True,
            )
        return None

    def _told(self, job: RemoteJob) -> Cause | None:
        since = f"cat {quote(job.folder)}/{visit_script.SINCE_FILE}"
        answers = persist(
            self.connection,
            lambda: ask(self.connection, {"since": since, **FATE_COMMANDS}),
            self.patience,
            f"asking what became of {job.name}",
        )
        begun = answers.pop("since").stdout.decode("ascii", "replace").strip()[:19]
        return cause_of(answers, begun) if begun else None


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def discard_app_jobs(connection: Connection, patience: Patience) -> None:
    """Remove what visits left in the app's folder."""
    command = f"rm -rf {quote(APP_FILES + '/jobs')}"
    persist(
        connection,
        lambda: connection.shell(command),
        patience,
        "removing what visits left in the app's folder",
    )
